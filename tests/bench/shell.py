"""How long a shell command waits for its classification, and how long the event loop is held meanwhile.

Every text is new, so nothing comes from the cache: real one-liners of the everyday corpus, each with both grammars. What
the loop is held is the CPU time of one turn of its own thread: another program on the machine does not count.
"""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from interlock.commands.analyzer import Analyzer
from interlock.commands.model import Command, Kind, ShellContext, Wire
from interlock.commands.pool import ShellPool

EVERYDAY = Path(__file__).parents[1] / "data" / "corpora" / "everyday_commands.jsonl"
HOSTILE = {
    "36 KB of nested if": b"if a; then " * 2400 + b"b; " + b"fi; " * 2400,
    "15 KB of nested if": b"if a; then " * 1000 + b"b; " + b"fi; " * 1000,
    "500 nested $(": b"echo " + b"$(" * 500 + b"x" + b")" * 500,
    "a line of 1 MB": b"echo " + b"A" * (1 << 20),
    "16 KB of words": b"echo " + b"x " * 8000,
    "16 KB of commands": b"ls;" * 5000,
}


@contextmanager
def turns() -> Iterator[list[float]]:
    """Collect the CPU seconds of every turn of the event loop."""
    found: list[float] = []
    original = events.Handle._run  # type: ignore[attr-defined]

    def timed(handle: Any) -> None:
        begun = time.thread_time()
        original(handle)
        found.append(time.thread_time() - begun)

    events.Handle._run = timed  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        events.Handle._run = original  # type: ignore[attr-defined]


async def measure() -> None:
    """Print the figures."""
    texts = [json.loads(line)["text"].encode() for line in EVERYDAY.read_text("utf-8").splitlines()]
    analyzer = Analyzer(ShellPool(2))
    await analyzer.start()
    try:
        took: list[float] = []
        with turns() as held:
            for text in texts:
                begun = time.perf_counter()
                await analyzer.classify(Command(Wire.SSH, Kind.EXEC, text, context=ShellContext("bash")))
                took.append((time.perf_counter() - begun) * 1000)
        print(
            f"classification of {len(took)} new shell commands, both grammars: p50 {median(took):.2f} ms, "
            f"p99 {quantiles(took, n=100)[98]:.2f} ms; a turn of the loop at most {max(held) * 1000:.2f} ms of CPU, "
            f"{sum(one > 0.001 for one in held)} of {len(held)} over 1 ms"
        )
        for name, text in HOSTILE.items():
            with turns() as held:
                begun = time.perf_counter()
                analysis = await analyzer.classify(Command(Wire.SSH, Kind.EXEC, text, context=ShellContext("bash")))
                spent = (time.perf_counter() - begun) * 1000
            hidden = analysis.opaque[0].reason if analysis.opaque else "known"
            reason = analysis.unreadable.reason.value if analysis.unreadable else hidden
            print(
                f"{name}: {reason} after {spent:.0f} ms; a turn of the loop at most {max(held, default=0) * 1000:.2f} ms of CPU"
            )
    finally:
        await analyzer.close()


if __name__ == "__main__":
    asyncio.run(measure())
