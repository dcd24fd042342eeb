"""The turnstile: never more inside than it says, sources take turns, and no place is ever lost."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251  walks that repeat

import pytest

from interlock.errors import OverloadedError, Reason
from interlock.identity.turnstile import RETRY_AFTER_S, Turnstile


class Crowd:
    """People at a turnstile, who stay inside until they are let out."""

    def __init__(self, turnstile: Turnstile) -> None:
        self.turnstile = turnstile
        self.inside: list[str] = []
        self.entered: list[str] = []
        self.most = 0
        self._doors: dict[str, asyncio.Event] = {}

    async def visit(self, name: str, source: str) -> None:
        door = self._doors[name] = asyncio.Event()
        async with self.turnstile.turn(source):
            self.entered.append(name)
            self.inside.append(name)
            self.most = max(self.most, len(self.inside))
            try:
                await door.wait()
            finally:
                self.inside.remove(name)

    def comes(self, name: str, source: str = "") -> asyncio.Task[None]:
        return asyncio.ensure_future(self.visit(name, source or name[0]))

    def out(self, name: str) -> None:
        self._doors[name].set()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def empty(turnstile: Turnstile) -> bool:
    return (turnstile._inside, turnstile._waiting, len(turnstile._queues)) == (0, 0, 0)


async def test_sources_take_turns_and_each_keeps_its_order() -> None:
    crowd = Crowd(Turnstile(at_once=1))
    tasks = [crowd.comes(name) for name in ("x0", "a1", "a2", "a3", "a4", "b1", "b2", "c1")]
    await settled()
    for _ in tasks:
        assert len(crowd.inside) == 1
        crowd.out(crowd.inside[0])
        await settled()
    await asyncio.gather(*tasks)
    assert crowd.entered == ["x0", "a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert empty(crowd.turnstile)


async def test_whoever_finds_the_queue_full_hears_so_at_once() -> None:
    crowd = Crowd(Turnstile(at_once=2, waiting=3))
    tasks = [crowd.comes(f"a{n}") for n in range(5)]
    await settled()
    with pytest.raises(OverloadedError) as refused:
        await crowd.visit("late", "b")
    assert (refused.value.code, refused.value.retry_after) == (Reason.OVERLOADED, RETRY_AFTER_S)
    crowd.out("a0")
    await settled()
    tasks.append(crowd.comes("b0"))  # there is room in the queue again
    await settled()
    assert len(crowd.inside) == 2 and crowd.turnstile._waiting == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert empty(crowd.turnstile)


async def test_whoever_waits_in_vain_is_told_and_leaves_nothing_behind() -> None:
    crowd = Crowd(Turnstile(at_once=1, patience=0.01))
    inside = crowd.comes("a")
    await settled()
    for _ in range(3):
        with pytest.raises(OverloadedError):
            await crowd.visit("b", "b")
    assert crowd.turnstile._waiting == 0 and not crowd.turnstile._queues
    crowd.out("a")
    await inside
    again = crowd.comes("b")
    await settled()
    assert crowd.inside == ["b"]
    crowd.out("b")
    await again
    assert empty(crowd.turnstile)


async def test_a_place_that_is_given_to_somebody_who_just_left_goes_to_the_next() -> None:
    crowd, door = Crowd(Turnstile(at_once=1)), asyncio.Event()

    async def leaves() -> None:
        async with crowd.turnstile.turn("a"):
            await door.wait()
        second.cancel()  # in the same step: the place is the second's, who has not run since

    first = asyncio.ensure_future(leaves())
    await settled()
    second, third = crowd.comes("b"), crowd.comes("c")
    await settled()
    door.set()
    await first
    await settled()
    assert crowd.entered == crowd.inside == ["c"]
    crowd.out("c")
    await asyncio.gather(second, third, return_exceptions=True)
    assert second.cancelled() and empty(crowd.turnstile)


async def test_an_error_inside_gives_the_place_back() -> None:
    turnstile = Turnstile(at_once=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"):
            async with turnstile.turn("a"):
                raise ValueError("inside")
    assert empty(turnstile)


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_people_do_the_count_holds_and_the_last_one_finds_it_empty(seed: int) -> None:
    chance = random.Random(seed)
    crowd = Crowd(Turnstile(at_once=3, waiting=7))
    tasks: list[asyncio.Task[None]] = []
    for number in range(300):
        match chance.randrange(4):
            case 0 | 1:
                tasks.append(crowd.comes(f"{chance.choice('abc')}{number}"))
            case 2 if crowd.inside:
                crowd.out(chance.choice(crowd.inside))
            case 3 if tasks:
                chance.choice(tasks).cancel()
        if chance.randrange(3):
            await asyncio.sleep(0)
        waiting = sum(map(len, crowd.turnstile._queues.values()))
        assert crowd.most <= 3 and crowd.turnstile._waiting == waiting <= 7
    while not all(task.done() for task in tasks):
        for name in list(crowd.inside):
            crowd.out(name)
        await settled()
    kinds = {type(task.exception()) for task in tasks if not task.cancelled()}
    assert kinds == {type(None), OverloadedError}
    assert empty(crowd.turnstile)
