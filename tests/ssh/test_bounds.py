"""Counting, holding and refusing: the small pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.approvals.wording import Refusal
from interlock.errors import InputError, Reason
from interlock.ssh import refusals
from interlock.ssh.limits import BURST, Allowance, Doorkeeper, Limits, plain_address, source_of
from interlock.ssh.stdin import HeldBuffer


def test_strangers_of_one_source_do_not_take_the_place_of_others() -> None:
    door = Doorkeeper(Limits(connections=100, connections_per_source=50, strangers=60, strangers_per_source=20))
    assert sum(door.admit("mallory") for _ in range(100)) == 20
    assert door.admit("alice")


@pytest.mark.parametrize(
    ("address", "shown", "source"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::/64"), ("2001:db8::2:3", "2001:db8::2:3", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
    ],
)  # fmt: skip
def test_a_source_is_a_host_in_whatever_way_it_comes(address: str, shown: str, source: str) -> None:
    assert plain_address(address) == shown
    assert source_of(shown) == source


def test_all_strangers_together_leave_room_for_those_inside() -> None:
    door = Doorkeeper(Limits(connections=100, connections_per_source=50, strangers=10, strangers_per_source=10))
    for source in range(10):
        assert door.admit(f"s{source}")
    assert not door.admit("late")
    door.recognise("s3")
    assert door.admit("late")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_every_arrival_is_counted_out_again(visits: list[tuple[str, bool]]) -> None:
    door = Doorkeeper(Limits(connections=20, connections_per_source=10, strangers=15, strangers_per_source=8))
    inside = [(source, known) for source, known in visits if door.admit(source)]
    assert door.inside == len(inside)
    for source, known in inside:
        if known:
            door.recognise(source)
    for source, known in inside:
        door.leave(source, stranger=not known)
    assert door.inside == 0
    assert all(door.admit(source) for source in "abc")


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_held_input_is_the_same_however_it_was_split(chunks: list[bytes]) -> None:
    held = HeldBuffer(1000)
    for chunk in chunks:
        held.feed(chunk)
    held.end()
    assert held.take().data == b"".join(chunks)


def test_input_without_an_end_is_refused() -> None:
    held = HeldBuffer(10)
    held.feed(b"half")
    with pytest.raises(InputError) as refused:
        held.take()
    assert refused.value.code is Reason.STDIN_WITHOUT_EOF


def test_input_that_is_too_large_is_refused_and_not_kept() -> None:
    held = HeldBuffer(1024)
    for _ in range(100):
        held.feed(b"x" * 1000)
    held.end()
    with pytest.raises(InputError) as refused:
        held.take()
    assert refused.value.code is Reason.STDIN_TOO_LARGE


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.DENIED_BY_POLICY, 126), (Reason.DENIED_BY_REVIEWER, 126), (Reason.CREDENTIAL_EXPIRED, 126),
        (Reason.APPROVAL_EXPIRED, 124), (Reason.APPROVAL_PENDING, 75), (Reason.TARGET_UNREACHABLE, 255),
        (Reason.STDIN_WITHOUT_EOF, 126), (Reason.CANNOT_BE_PINNED, 126), (Reason.NOT_UTF8, 126),
    ],
)  # fmt: skip
def test_exit_statuses_are_those_of_the_contract(reason: Reason, status: int) -> None:
    assert refusals.exit_status(reason) == status


def test_every_reason_has_a_status_that_is_no_success() -> None:
    assert all(refusals.exit_status(reason) in (75, 124, 126, 255) for reason in Reason)


@given(st.text(), st.text())
def test_a_refusal_can_not_write_to_the_terminal_but_in_plain_lines(message: str, hint: str) -> None:
    said = refusals.lines(Refusal(Reason.DENIED_BY_REVIEWER, message, hint)).decode()
    lines = said.split("\n")[:-1]
    assert 1 <= len(lines) <= 2
    assert all(line.startswith("interlock: ") and line.isprintable() for line in lines)


def test_an_allowance_is_so_many_at_once_and_so_many_a_second() -> None:
    allowance, now = Allowance(burst=3, a_second=2), 7_000_000
    assert [allowance.take(now) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [allowance.take(now + 500_000) for _ in range(2)] == [True, False]
    assert [allowance.take(now + 3_600_000_000) for _ in range(4)] == [True] * 3 + [False], "an hour of silence saves nothing up"
    assert all(allowance.take(now + 7_200_000_000 + at * 500_000) for at in range(1000)), "this often for ever"


def test_failed_logins_do_not_fill_the_journal_and_none_is_forgotten() -> None:
    door = Doorkeeper(Limits())
    noted = [door.may_note(1_000_000 + n) for n in range(1000)]
    assert noted.count(0) == BURST
    assert noted.count(None) == 1000 - BURST
    assert door.may_note(3_000_000) == 1000 - BURST
