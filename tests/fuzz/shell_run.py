"""`python -m tests.fuzz.shell_run`: the long differential run of the shell analysis. Prints its seed and its counts.

Each worker has a seed of its own (the first one's and the next numbers). Stops at the first violations and shows them; the same
seed finds them again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proxy"), str(ROOT / "tests")]

from fuzz.shell_differential import Differential, Tally  # noqa: E402  after the path is set

SHOWN = 20


def work(seed: int, count: int, tallies: Any) -> None:
    """Judge `count` texts of one seed, and report after each batch."""
    differential = Differential(seed)
    try:
        done = 0
        while done < count:
            differential.tally = Tally()
            differential.batch(min(250, count - done))
            done += differential.tally.strings
            tallies.put(differential.tally)
        tallies.put(None)
    finally:
        differential.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="shell_run")
    parser.add_argument("--count", type=int, default=200_000, help="texts in all")
    parser.add_argument("--seed", type=int, default=None, help="of the first worker; fresh when not given")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(arguments)
    seed = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}, {asked.workers} workers", flush=True)
    context = get_context("spawn")
    tallies = context.Queue()
    share = -(-asked.count // asked.workers)
    workers = [context.Process(target=work, args=(seed + i, share, tallies), daemon=True) for i in range(asked.workers)]
    for worker in workers:
        worker.start()
    total, open_, begun, told = Tally(), len(workers), time.monotonic(), 0.0
    while open_ and len(total.violations) < SHOWN:
        tally = tallies.get()
        if tally is None:
            open_ -= 1
            continue
        total.add(tally)
        for violation in tally.violations:
            print(violation, flush=True)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"{total.strings / (told - begun):.0f}/s  {total}", flush=True)
    for worker in workers:
        worker.terminate()
    print(f"seed {seed}, {asked.workers} workers, {time.monotonic() - begun:.0f} s\n{total}")
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
