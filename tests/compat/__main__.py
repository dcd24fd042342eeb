"""`python -m compat [CHECK …]`: run the checks both ways and print what differs.

Ends with 1 when a difference has no explanation in explained.toml, or a session under the shipped packs went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compat import checks, everyday
from compat.results import compare, explanations
from compat.sources import NotObtainableError
from compat.ways import HERE, Way, direct, through

EVERYDAY = "everyday"
"""Not compared: each client under the packs that ship."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make compat")
    parser.add_argument("checks", nargs="*", help="run these only: " + ", ".join((*checks.ALL, EVERYDAY)))
    parser.add_argument("--scratch", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")) / "interlock-compat")
    asked = parser.parse_args()
    unknown = [name for name in asked.checks if name not in (*checks.ALL, EVERYDAY)]
    if unknown:
        parser.error(f"no such check: {', '.join(unknown)}; there are {', '.join(checks.ALL)}")
    explained = explanations(HERE / "explained.toml")
    asked.scratch.mkdir(parents=True, exist_ok=True)
    nodes = asked.scratch / "nodes" / str(os.getpid())
    chosen = asked.checks or [*checks.ALL, EVERYDAY]
    compared = [name for name in chosen if name != EVERYDAY]
    apart = [name for name in compared if checks.ALL[name].logs_in_wrongly]
    left = 0
    for number, together in enumerate([[name for name in compared if name not in apart], *([name] for name in apart)]):
        if together:
            with direct() as straight, through(nodes / str(number)) as proxied:
                for name in together:
                    left += _checked(name, (straight, proxied), asked.scratch, explained.get(name, {}))
    wrong = everyday.sessions(asked.scratch, nodes / EVERYDAY) if EVERYDAY in chosen else 0
    print(f"{left} differences are not explained, {wrong} everyday sessions went wrong", flush=True)
    return 1 if left or wrong else 0


def _checked(name: str, ways: tuple[Way, Way], scratch: Path, explained: dict[str, str]) -> int:
    """Run one check both ways, side by side; return how many differences nobody has explained."""
    check = checks.ALL[name]
    started = time.monotonic()
    try:
        version = check.version(scratch)
        with ThreadPoolExecutor(2) as pool:
            left, right = pool.map(lambda way: check.outcomes(way, scratch), ways)
    except NotObtainableError as error:
        print(f"{name}: skipped, {error}", flush=True)
        return 0
    except (AssertionError, subprocess.TimeoutExpired) as error:
        print(f"{name}: did not run: {error}", flush=True)
        return 1
    found = compare(name, version, left, right, explained)
    kept = scratch / "results" / f"{name}.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"version": version, "direct": left, "through": right}, indent=1, sort_keys=True))
    print(f"{found.summary()} ({time.monotonic() - started:.0f} s)", flush=True)
    for difference in found.differences:
        print(difference.shown(), flush=True)
    return len(found.unexplained)


if __name__ == "__main__":
    sys.exit(main())
