"""`make fuzz-coverage`: time-boxed coverage-guided fuzzing of the front parsers. Needs atheris, and puts it beside the project.

atheris (Apache-2.0) is no dependency of anything here: it is installed into `.fuzz/site`, from the package index or from the
wheel that ATHERIS names. Each target is a file `coverage_NAME.py`; FUZZ_SECONDS is the time for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / ".fuzz" / "site"
SECONDS = "300"


def main(names: Sequence[str]) -> int:
    if not (SITE / "atheris").is_dir():
        wanted = os.environ.get("ATHERIS", "atheris==3.0.0")
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", SITE, wanted],
            check=True,
        )  # fmt: skip
    targets = [ROOT / f"tests/fuzz/coverage_{name}.py" for name in names] or sorted(Path(__file__).parent.glob("coverage_*.py"))
    failed = 0
    for target in targets:
        corpus = ROOT / ".fuzz" / target.stem
        print(f"{target.stem}: {os.environ.get('FUZZ_SECONDS', SECONDS)} s", flush=True)
        done = subprocess.run(
            [
                sys.executable, target, corpus, f"-max_total_time={os.environ.get('FUZZ_SECONDS', SECONDS)}",
                f"-artifact_prefix={ROOT / '.fuzz'}/{target.stem}-", "-print_final_stats=1", "-rss_limit_mb=4096",
            ],
            env={**os.environ, "PYTHONPATH": str(SITE)}, check=False,
        )  # fmt: skip
        failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
