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
SHOWN_LINES = 40
LOOKS = 3
"""Runs on the sabotaged tree: what is broken may be a race that the test wins once. More than one is said: it is a weak test."""


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


@dataclass(frozen=True)
class Outcome:
    """How a test ended: its exit status, and the end of what it printed."""

    status: int
    printed: str

    @property
    def passed(self) -> bool:
        return self.status == 0


def clean_tree(into: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis", "node_modules"))
        elif source.exists():
            shutil.copy(source, into / name)
    return into


def run(tree: Path, *words: str, seconds: float = 300) -> Outcome:
    """Run Python in `tree`, whose package comes before the installed one. Compiled files are kept for the copies of the tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "proxy"), "DEMO_APPROVE": "auto"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(NEVER_ENDED, f"it had not ended after {seconds:.0f} s")
    return Outcome(done.returncode, "\n".join(done.stdout.splitlines()[-SHOWN_LINES:]))


def run_test(tree: Path, patch: Patch) -> Outcome:
    if patch.demo:
        return run(tree, "deploy/demo/demo.py")
    return run(tree, "-m", "pytest", "-x", "-p", "no:cacheprovider", patch.test)


def not_passing(clean: Path, patches: Sequence[Patch], pool: ThreadPoolExecutor) -> dict[tuple[str, bool], Outcome]:
    """Return which tests do not pass on the clean tree. Many run in one process; where one of them fails, each runs by itself."""
    tests = {(patch.test, patch.demo): patch for patch in patches}
    files: dict[str, list[str]] = {}
    for test in sorted({test for test, demo in tests if not demo}):
        files.setdefault(test.partition("::")[0], []).append(test)
    halves = [
        [test for file in half for test in file] for half in (list(files.values())[::2], list(files.values())[1::2]) if half
    ]
    together = pool.map(lambda half: run(clean, "-m", "pytest", "-p", "no:cacheprovider", *half, seconds=3600), halves)
    passing = {(test, False) for half, done in zip(halves, together, strict=True) if done.passed for test in half}
    alone = {test: run_test(clean, patch) for test, patch in tests.items() if test not in passing}
    return {test: done for test, done in alone.items() if not done.passed}


def judge(patch: Patch, clean: Path, before: Outcome | None) -> str | None:
    """Return what is wrong with a patch, or None when its test noticed it. `before`: how the test failed on the clean tree."""
    with tempfile.TemporaryDirectory(prefix="sabotage-") as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(clean, tree)
        target = tree / patch.file
        source = target.read_text()
        found = source.count(patch.old)
        if found != 1:
            return f"its line stands {found} times in {patch.file}, not once"
        if before is not None:
            return f"its test does not pass on the clean tree\n{before.printed}"
        target.write_text(source.replace(patch.old, patch.new))
        for look in range(1, LOOKS + 1):
            done = run_test(tree, patch)
            if done.status == PYTEST_FAILED:
                if look > 1:
                    print(f"weak  {patch.name}: its test noticed only at look {look}", flush=True)
                return None
            if done.status != 0:
                break
    return f"its test did not fail on the sabotaged tree (exit {done.status})\n{done.printed}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sabotage")
    parser.add_argument("names", nargs="*", help="only these patches")
    chosen = parser.parse_args(arguments).names
    patches = [Patch.read(p) for p in sorted(HERE.glob("*.toml")) if not chosen or p.stem in chosen]
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="sabotage-") as scratch, ThreadPoolExecutor(max_workers=2) as pool:
        clean = clean_tree(Path(scratch))
        failing = not_passing(clean, patches, pool)
        problems = pool.map(lambda patch: judge(patch, clean, failing.get((patch.test, patch.demo))), patches)
        for patch, problem in zip(patches, problems, strict=True):
            if problem:
                failed[patch.name] = problem
            print(f"{'FAIL' if problem else 'ok  '}  {patch.name}: {patch.why}", flush=True)
    for name, problem in failed.items():
        print(f"\n{name}: {problem}")
    print(f"{len(patches) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not patches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
