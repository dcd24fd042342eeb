"""How late the loop is, told by the clock and until it is stopped."""

from __future__ import annotations

import asyncio

import pytest

from harness.clock import ManualClock
from interlock.lag import EVERY_S, LoopLag


async def test_it_tells_by_how_much_its_timer_came_too_late() -> None:
    clock, told, came = ManualClock(), [], asyncio.Event()

    def observe(seconds: float) -> None:
        told.append(seconds)
        came.set()

    lag = LoopLag(observe, clock=clock)
    lag.start()
    clock.advance(EVERY_S + 0.3)  # while the loop did something else
    await came.wait()
    assert told == [pytest.approx(0.3)]
    came.clear()
    await came.wait()  # again and again, and a clock that stands is no lateness
    assert told[1] == 0
    await lag.stop()
    assert lag._timer is not None and lag._timer.cancelled()
