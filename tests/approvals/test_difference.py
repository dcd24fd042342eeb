"""What changed since the last approval is told word by word, completely, and within bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.requests import SHELL, SQL, START, draft
from interlock.approvals.desk import open_request
from interlock.approvals.difference import MAX_WORDS, Change, Segment, compare, difference
from interlock.approvals.model import ApprovalRequest
from interlock.commands.model import BindValue, Command, HeldInput

SAME, REMOVED, ADDED = Change.SAME, Change.REMOVED, Change.ADDED


def opened(command: Command, name: str = "req_1") -> ApprovalRequest:
    return open_request(draft(command), request_id=name, nonce="n" * 32, match="hmac", now=START)


def test_words_that_differ_are_told() -> None:
    assert compare("rm -rf /tmp/x", "rm -rf /srv/x y") == (
        Segment(SAME, "rm -rf /"),
        Segment(REMOVED, "tmp"),
        Segment(ADDED, "srv"),
        Segment(SAME, "/x"),
        Segment(ADDED, " y"),
    )


def test_command_input_and_values_are_compared_apart() -> None:
    before = opened(replace(SQL, binds=(BindValue(b"1", shown="1"), BindValue(None)), stdin=HeldInput(b"yes\n")), "req_0")
    after = opened(replace(SQL, binds=(BindValue(b"2", shown="2"), BindValue(None)), stdin=HeldInput(b"no\n")))
    found = difference(after, before)
    assert (found.request, found.same) == ("req_0", False)
    assert all(segment.change is SAME for segment in found.command)
    assert Segment(REMOVED, "yes") in found.stdin
    assert Segment(ADDED, "2") in found.binds
    assert difference(after, replace(after, id="req_2")).same


def test_an_invisible_difference_is_in_sight() -> None:
    found = difference(opened(replace(SHELL, text="rm /tmp/\u200bx".encode())), opened(replace(SHELL, text=b"rm /tmp/x")))
    assert Segment(ADDED, "⟦U+200B zero width space⟧") in found.command
    binary = difference(
        opened(replace(SQL, binds=(BindValue(b"\x01", 1),))), opened(replace(SQL, binds=(BindValue(b"\x02", 1),)))
    )
    assert not binary.same


def test_a_long_middle_is_told_whole_and_what_is_around_it_stays() -> None:
    """Words that all repeat are the worst case of the comparison; it is not made beyond MAX_WORDS."""
    before, after = "a " * 50_000, "b " * 50_000
    found = compare(f"rm {before}end", f"rm {after}end")
    assert found == (Segment(SAME, "rm "), Segment(REMOVED, before[:-1]), Segment(ADDED, after[:-1]), Segment(SAME, " end"))
    assert MAX_WORDS < 50_000


TEXT = st.text(alphabet="ab /\n⟦⟧", max_size=40)


@given(TEXT, TEXT)
def test_both_texts_can_be_read_from_the_difference(before: str, after: str) -> None:
    found = compare(before, after)
    assert "".join(s.text for s in found if s.change is not ADDED) == before
    assert "".join(s.text for s in found if s.change is not REMOVED) == after
    assert all(one.change is not other.change for one, other in pairwise(found))
