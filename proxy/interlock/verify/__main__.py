"""`python -m interlock.verify BUNDLE… [--trust DIR] [--output json]`: exit 0 when everything holds, 8 when not."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from interlock.verify.bundle import to_json, verify_bundles
from interlock.verify.plain import lines

OK, USAGE, NOT_OK = 0, 2, 8
TRUST_VARIABLE = "INTERLOCK_TRUST"


def run(bundles: Sequence[Path], trust: Path | None, *, as_json: bool) -> int:
    """Verify, write the findings to stdout, return the exit code. Without `trust`, INTERLOCK_TRUST names it."""
    if trust is None and (named := os.environ.get(TRUST_VARIABLE)):
        trust = Path(named)
    reports = verify_bundles(bundles, trust)
    if as_json:
        sys.stdout.write(to_json(reports) + "\n")
    else:
        for report in reports:
            sys.stdout.write("\n".join(lines(report)) + "\n")
    return OK if all(report.ok for report in reports) else NOT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interlock verify", description="Check signed transcripts.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of a sealed session or journal")
    parser.add_argument("--trust", type=Path, metavar="DIR", help="folder with allowed_signers, obtained out of band")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    given = parser.parse_args(arguments)
    return run(given.bundles, given.trust, as_json=given.output == "json")


if __name__ == "__main__":
    sys.exit(main())
