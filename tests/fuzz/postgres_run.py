"""`python -m tests.fuzz.postgres_run`: the long run against the Postgres front end. Prints its seed and its counts.

Whole sessions from both sides, and the codec function by function, in turn until the time is over. Stops at the first
violation and prints the seed that finds it again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random  # noqa: TID251  seeded
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import structlog

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proxy"), str(ROOT / "tests")]

from fuzz.postgres_codec import ATTEMPTS  # noqa: E402  after the path is set
from fuzz.postgres_streams import SIDES, run  # noqa: E402

SESSIONS_AT_ONCE = 50
ATTEMPTS_AT_ONCE = 500
TELL_EVERY = 60.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="postgres_run")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=None, help="fresh when not given")
    asked = parser.parse_args(arguments)
    first = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {first}", flush=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # broken streams are logged as such
    done: Counter[str] = Counter()
    seen: dict[str, Counter[str]] = {}
    began, told, seed = time.monotonic(), 0.0, first
    while (passed := time.monotonic() - began) < asked.seconds:
        try:
            _round(seed, done, seen)
        except Exception:
            traceback.print_exc()
            print(f"a violation: --seed {seed} finds it again at once", flush=True)
            return 1
        seed += ATTEMPTS_AT_ONCE
        if passed - told > TELL_EVERY:
            told = passed
            print(f"{passed:.0f} s: {sum(done.values()):,} executions", flush=True)
    print(f"{sum(done.values()):,} executions in {time.monotonic() - began:.0f} s from seed {first}, no violation")
    for name, count in done.items():
        ends = ", ".join(f"{end} {number:,}" for end, number in seen[name].most_common())
        print(f"  {name}: {count:,} ({ends})")
    return 0


def _round(seed: int, done: Counter[str], seen: dict[str, Counter[str]]) -> None:
    for side in SIDES:
        asyncio.run(run(side, range(seed, seed + SESSIONS_AT_ONCE), seen.setdefault(side.__name__, Counter())))
        done[side.__name__] += SESSIONS_AT_ONCE
    for name, attempt in ATTEMPTS.items():
        counts = seen.setdefault(name, Counter())
        for number in range(seed, seed + ATTEMPTS_AT_ONCE):
            try:
                attempt(random.Random(number), counts)
            except Exception as error:
                raise AssertionError(f"{name}, random.Random({number})") from error
        done[name] += ATTEMPTS_AT_ONCE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
