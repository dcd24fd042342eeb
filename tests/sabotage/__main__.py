"""`make sabotage`: apply each patch to a copy of the tree and demand that exactly its named test notices.

A patch is a TOML file beside this one:

    why  = "what is broken on purpose"
    file = "proxy/interlock/…"
    old  = "one line, as it stands exactly once in the file"
    new  = "the line that replaces it"
    test = "tests/…::test_name"        # or: demo = true

The named test must pass on the clean copy and fail (not error out, not be missing) on the patched one. A patch whose
`old` is not found exactly once is itself a failure: it no longer breaks anything.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
COPIED = ("proxy", "policies", "tests", "deploy", "docs", "pyproject.toml", "README.md", "Makefile", "CHANGELOG.md")
PYTEST_FAILED = 1
NEVER_ENDED = -1


@dataclass(frozen=True)
class Patch:
    name: str
    why: str
    file: str
    old: str
    new: str
    test: str
    demo: bool

    @classmethod
    def read(cls, path: Path) -> Patch:
        data = tomllib.loads(path.read_text())
        return cls(path.stem, data["why"], data["file"], data["old"], data["new"], data.get("test", ""), data.get("demo", False))


def clean_tree(into: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis", "node_modules"))
        elif source.exists():
            shutil.copy(source, into / name)
    return into


def run(tree: Path, *words: str, seconds: float = 300) -> int:
    """Run Python in `tree`, whose package comes before the installed one. Compiled files are kept for the copies of the tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "proxy"), "DEMO_APPROVE": "auto"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return NEVER_ENDED
    return done.returncode


def run_test(tree: Path, patch: Patch) -> int:
    if patch.demo:
        return run(tree, "deploy/demo/demo.py")
    return run(tree, "-m", "pytest", "-x", "-p", "no:cacheprovider", patch.test)


def passing_on(clean: Path, patches: Sequence[Patch], pool: ThreadPoolExecutor) -> set[tuple[str, bool]]:
    """Return which tests pass on the clean tree. Many run in one process; where one of them fails, each has its own."""
    tests = {(patch.test, patch.demo): patch for patch in patches}
    files: dict[str, list[str]] = {}
    for test in sorted({test for test, demo in tests if not demo}):
        files.setdefault(test.partition("::")[0], []).append(test)
    halves = [
        [test for file in half for test in file] for half in (list(files.values())[::2], list(files.values())[1::2]) if half
    ]
    together = pool.map(lambda half: run(clean, "-m", "pytest", "-p", "no:cacheprovider", *half, seconds=3600), halves)
    passing = {(test, False) for half, status in zip(halves, together, strict=True) if status == 0 for test in half}
    left = [patch for test, patch in tests.items() if test not in passing]
    statuses = pool.map(lambda patch: run_test(clean, patch), left)
    return passing | {(patch.test, patch.demo) for patch, status in zip(left, statuses, strict=True) if status == 0}


def judge(patch: Patch, clean: Path, *, passes: bool) -> str | None:
    """Return what is wrong with a patch, or None when its test noticed it. `passes`: the test does on the clean tree."""
    with tempfile.TemporaryDirectory(prefix="sabotage-") as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(clean, tree)
        target = tree / patch.file
        source = target.read_text()
        found = source.count(patch.old)
        if found != 1:
            return f"its line stands {found} times in {patch.file}, not once"
        if not passes:
            return "its test does not pass on the clean tree"
        target.write_text(source.replace(patch.old, patch.new))
        status = run_test(tree, patch)
        if status != PYTEST_FAILED:
            return (
                f"its test did not fail on the sabotaged tree ({'it never ended' if status == NEVER_ENDED else f'exit {status}'})"
            )
    return None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sabotage")
    parser.add_argument("names", nargs="*", help="only these patches")
    chosen = parser.parse_args(arguments).names
    patches = [Patch.read(p) for p in sorted(HERE.glob("*.toml")) if not chosen or p.stem in chosen]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="sabotage-") as scratch, ThreadPoolExecutor(max_workers=2) as pool:
        clean = clean_tree(Path(scratch))
        passing = passing_on(clean, patches, pool)
        problems = pool.map(lambda patch: judge(patch, clean, passes=(patch.test, patch.demo) in passing), patches)
        for patch, problem in zip(patches, problems, strict=True):
            failed += problem is not None
            print(f"{'FAIL' if problem else 'ok  '}  {patch.name}: {problem or patch.why}", flush=True)
    print(f"{len(patches) - failed} passed, {failed} failed")
    return 1 if failed or not patches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
