"""The table of logins under way: bounded, fair, and empty when everything in it is over."""

from __future__ import annotations

import random  # noqa: TID251  walks that repeat
from itertools import count

import pytest

from harness.clock import ManualClock
from interlock.errors import InterlockError, Reason
from interlock.identity.flows import Flows

_NUMBERS = count()


def begin(flows: Flows[str], source: str, *, most: int = 1000, lasts_s: float = 600, clock: ManualClock) -> bytes:
    key = next(_NUMBERS).to_bytes(8, "big")
    with flows.room(source, most) as place:
        flows.put(place, key, source, clock.monotonic_us() + int(lasts_s * 1_000_000))
    return key


def refused(flows: Flows[str], source: str, *, most: int = 1000) -> bool:
    try:
        with flows.room(source, most):
            return False
    except InterlockError as error:
        assert error.code is Reason.LIMIT_REACHED
        return True


def test_a_source_has_its_room_and_time_empties_it(clock: ManualClock) -> None:
    flows: Flows[str] = Flows(clock)
    keys = [begin(flows, "flood", most=3, clock=clock) for _ in range(3)]
    assert refused(flows, "flood", most=3) and not refused(flows, "other", most=3)
    assert flows.pop(keys[0]) == "flood"
    assert flows.pop(keys[0]) is None
    assert not refused(flows, "flood", most=3)
    clock.advance(600)
    assert flows.get(keys[1]) is None and flows.pop(keys[2]) is None
    assert len(flows) == 0 and flows.held("flood") == 0


def test_what_is_only_being_begun_counts_as_well(clock: ManualClock) -> None:
    flows: Flows[str] = Flows(clock)
    with flows.room("a", 2), flows.room("a", 2):
        assert refused(flows, "a", most=2) and len(flows) == 2
    with pytest.raises(ValueError, match="no"), flows.room("a", 2):
        raise ValueError("no answer of the provider")
    assert len(flows) == 0 and flows.held("a") == 0


def test_a_crowd_from_many_places_keeps_nobody_out(clock: ManualClock) -> None:
    flows: Flows[str] = Flows(clock, most=1000)
    crowd = [begin(flows, f"bot-{n % 20}", most=64, clock=clock) for n in range(1000)]
    assert len(flows) == 1000
    mine = [begin(flows, "dora", most=64, clock=clock) for _ in range(10)]
    assert len(flows) == 1000 and all(flows.get(key) == "dora" for key in mine)
    assert sum(flows.get(key) is None for key in crowd) == 10
    for _ in range(2000):  # they go on, and displace one another
        if not refused(flows, "bot-3", most=64):
            begin(flows, "bot-3", most=64, clock=clock)
    assert all(flows.get(key) == "dora" for key in mine) and len(flows) == 1000


def test_where_nobody_has_more_the_newcomer_waits(clock: ManualClock) -> None:
    flows: Flows[str] = Flows(clock, most=50)
    keys = [begin(flows, f"person-{n}", clock=clock) for n in range(50)]
    assert refused(flows, "late")
    assert all(flows.get(key) is not None for key in keys)


@pytest.mark.parametrize("seed", range(10))
def test_the_table_agrees_with_a_plain_one(clock: ManualClock, seed: int) -> None:
    chance = random.Random(seed)
    flows: Flows[str] = Flows(clock)
    plain: dict[bytes, tuple[str, int]] = {}
    for _ in range(2000):
        match chance.randrange(5):
            case 0 | 1:
                source, lasts = chance.choice("abcd"), chance.choice((1, 60, 600))
                mine = sum(one == source and end > clock.monotonic_us() for one, end in plain.values())
                if refused(flows, source, most=20):
                    assert mine >= 20
                else:
                    key = begin(flows, source, most=20, lasts_s=lasts, clock=clock)
                    plain[key] = (source, clock.monotonic_us() + lasts * 1_000_000)
                    assert mine < 20
            case 2 if plain:
                key = chance.choice(sorted(plain))
                source, end = plain.pop(key)
                assert flows.pop(key) == (source if clock.monotonic_us() < end else None)
            case 3 if plain:
                key = chance.choice(sorted(plain))
                assert flows.get(key) == (plain[key][0] if clock.monotonic_us() < plain[key][1] else None)
            case 4:
                clock.advance(chance.choice((0, 1, 30)))
        assert len(flows._ends) <= 2 * len(flows) + 66  # what was redeemed is no memory
    clock.advance(600)
    assert not refused(flows, "a") and len(flows) == 0 and not flows._of and not flows._ends
