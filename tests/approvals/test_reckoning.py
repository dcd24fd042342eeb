"""The desk's time: the later of two clocks, never back."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from harness.requests import START
from interlock.approvals.reckoning import Mark, reckon

SECOND = 1_000_000


def at(seconds: float) -> Mark:
    return Mark(START + timedelta(seconds=seconds), int(seconds * SECOND))


def test_both_clocks_go() -> None:
    assert reckon(at(0), START + timedelta(seconds=5), 5 * SECOND) == at(5)


def test_a_wall_clock_set_back_changes_nothing() -> None:
    assert reckon(at(0), START - timedelta(days=1), 5 * SECOND).instant == at(5).instant


def test_a_wall_clock_set_forward_counts() -> None:
    mark = reckon(at(0), START + timedelta(days=1), 5 * SECOND)
    assert mark.instant == START + timedelta(days=1)
    # And setting it back does not bring the day back.
    assert reckon(mark, START + timedelta(seconds=6), 6 * SECOND).instant == START + timedelta(days=1, seconds=1)


def test_a_suspended_machine_is_seen_by_the_wall_clock() -> None:
    assert reckon(at(0), START + timedelta(hours=8), 1 * SECOND).instant == START + timedelta(hours=8)


def test_a_stored_mark_holds_over_a_restart() -> None:
    stored = Mark(START)
    assert reckon(stored, START - timedelta(hours=1), 77 * SECOND) == Mark(START, 77 * SECOND)


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**6)), max_size=20))
def test_time_never_goes_back_and_never_stands_still_while_the_monotonic_clock_moves(steps: list[tuple[int, int]]) -> None:
    mark, wall, mono = Mark(START, 0), START, 0
    for jump, passed in steps:
        wall += timedelta(seconds=jump)
        mono += passed
        later = reckon(mark, wall, mono)
        assert later.instant - mark.instant >= timedelta(microseconds=passed)
        assert later.instant >= wall
        mark = later
