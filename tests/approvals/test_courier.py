"""The courier: in order for each key, many changes in one delivery, again when it failed, never for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from interlock.approvals.channels.courier import LATER, Courier, Patience
from interlock.errors import InterlockError, Reason, StoreError

QUICK = Patience(first=0.001, most=0.004, attempts=5)


class Town:
    """Where things are delivered to: it counts, and can be shut or slow."""

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.failing: list[InterlockError | Exception] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.under_way: list[str] = []
        self._changed = asyncio.Event()

    async def deliver(self, key: str) -> None:
        assert key not in self.under_way, "two deliveries of one key at once"
        self.under_way.append(key)
        self._changed.set()
        try:
            if key in self.gates:
                await self.gates[key].wait()
            if self.failing:
                raise self.failing.pop(0)
            self.delivered.append(key)
        finally:
            self.under_way.remove(key)
            self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(45):
            while not true():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def courier(town: Town, *, patience: Patience = QUICK) -> AsyncIterator[Courier]:
    made = Courier("test", town.deliver, lambda e: 0.0 if e.code is Reason.STORE_UNAVAILABLE else None, patience=patience)
    made.start()
    yield made
    await made.close()


async def test_many_changes_before_a_delivery_are_one_and_one_after_it() -> None:
    town = Town()
    town.gates["a"] = asyncio.Event()
    async with courier(town) as made:
        made.wanted("a")
        await town.until(lambda: town.under_way == ["a"])
        for _ in range(50):
            made.wanted("a")
        made.wanted("b")
        await town.until(lambda: town.delivered == ["b"])  # another key does not wait
        town.gates["a"].set()
        await town.until(lambda: town.delivered == ["b", "a", "a"])
        made.wanted("c")
        await town.until(lambda: "c" in town.delivered)
    assert town.delivered == ["b", "a", "a", "c"]


async def test_what_failed_in_passing_is_tried_again() -> None:
    town = Town()
    town.failing = [StoreError(), StoreError()]
    async with courier(town) as made:
        made.wanted("a")
        await town.until(lambda: town.delivered == ["a"])


async def test_what_can_never_work_is_tried_once_and_forgotten() -> None:
    town = Town()
    town.failing = [InterlockError()]
    async with courier(town) as made:
        made.wanted("a")
        await town.until(lambda: not town.failing)
        made.wanted("b")
        await town.until(lambda: town.delivered == ["b"])
        made.wanted("a")  # a later change is a new reason to try
        await town.until(lambda: town.delivered == ["b", "a"])


async def test_trying_again_is_bounded() -> None:
    town = Town()
    town.failing = [StoreError() for _ in range(QUICK.attempts)] + [StoreError("never reached")]
    async with courier(town) as made:
        made.wanted("a")
        await town.until(lambda: len(town.failing) == 1)
        town.failing.clear()
        made.wanted("b")
        await town.until(lambda: town.delivered == ["b"])


async def test_a_defect_in_one_delivery_does_not_stop_the_others() -> None:
    town = Town()
    town.failing = [ZeroDivisionError()] * 4
    async with courier(town) as made:
        for key in "abcd":  # as many as there are workers
            made.wanted(key)
        await town.until(lambda: not town.failing)
        made.wanted("e")
        await town.until(lambda: town.delivered == ["e"])


async def test_whoever_says_how_long_to_wait_is_not_asked_before() -> None:
    town = Town()
    town.failing = [StoreError()]
    made = Courier("test", town.deliver, lambda _: 3_600.0, patience=QUICK, workers=1)
    made.start()
    made.wanted("a")
    made.wanted("b")
    await town.until(lambda: town.delivered == ["b"])  # the one worker is past a, which rests
    assert made._resting["a"].when() - asyncio.get_running_loop().time() > 3_500
    made.wanted("a")  # a change meanwhile does not break the word either
    made.wanted("c")
    await town.until(lambda: town.delivered == ["b", "c"])
    await made.close()


async def test_what_somebody_waits_for_goes_before_what_is_only_looked_at_again() -> None:
    town = Town()
    made = Courier("test", town.deliver, lambda _: None, patience=QUICK, workers=1)
    for key in "abc":
        made.wanted(key, urgency=LATER)
    made.wanted("new")
    made.wanted("c")  # one of them became urgent
    made.wanted("b", urgency=LATER)
    made.start()
    await town.until(lambda: len(town.delivered) == 4)
    await made.close()
    assert town.delivered == ["new", "c", "a", "b"]


async def test_closing_lets_a_delivery_under_way_end_and_begins_no_other() -> None:
    town = Town()
    town.gates["a"] = asyncio.Event()
    made = Courier("test", town.deliver, lambda _: None, patience=QUICK, workers=1)
    made.start()
    made.wanted("a")
    made.wanted("b")
    await town.until(lambda: town.under_way == ["a"])
    closing = asyncio.ensure_future(made.close())
    await asyncio.sleep(0)
    assert not closing.done()
    town.gates["a"].set()
    await closing
    assert town.delivered == ["a"]
    made.wanted("b")
    made.start()
    await town.until(lambda: town.delivered == ["a", "b"])
    await made.close()


def test_pauses_grow_and_are_bounded() -> None:
    patience = Patience(first=1.0, most=60.0)
    assert [patience.pause(n) for n in (1, 2, 3, 7, 5_000)] == [1.0, 2.0, 4.0, 60.0, 60.0]
