"""The readings of scp and of a push, alone: however the bytes are cut, the same goes on, and nothing before its turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from interlock.errors import RemoteProtocolError
from interlock.ssh.transfers import pktlines
from interlock.ssh.transfers.push import PushReading
from interlock.ssh.transfers.scp import ScpEnd, ScpReading
from interlock.ssh.transfers.steps import Carried, Named, Passed, Pushed, Reading, Side

C, T = Side.CLIENT, Side.TARGET
TREE: tuple[tuple[Side, bytes], ...] = (
    (T, b"\0"), (C, b"D0755 0 a\n"), (T, b"\0"), (C, b"T1 0 1 0\n"), (T, b"\0"), (C, b"C0644 5 x\n"), (T, b"\0"),
    (C, b"hello"), (C, b"\0"), (T, b"\0"), (C, b"C0644 3 y\n"), (T, b"\1scp: no\n"), (C, b"C0600 0 z\n"), (T, b"\0"), (C, b"\0"),
    (T, b"\0"), (C, b"\1scp: q: gone\n"), (C, b"E\n"), (T, b"\0"),
)  # fmt: skip
"""A folder with three files, the second of which the target refuses; and one that the client could not read."""


def steps(reading: Reading, said: Sequence[tuple[Side, bytes]]) -> tuple[dict[Side, bytes], list[str]]:
    """Feed it, letting everything through; return what went to each side, and what was named or carried in between."""
    went, seen = {C: b"", T: b""}, []
    for side, data in said:
        reading.feed(side, data)
        while (step := reading.next()) is not None:
            match step:
                case Passed(to, passed):
                    went[to] += passed
                case Named(operations):
                    seen.append(" or ".join(one.text.decode() for one in operations))
                case Pushed(push):
                    seen.append(push.text.decode())
                case Carried(direction, place, content, complete):
                    seen.append(f"{direction} {place} {content.size} {complete}")
    return went, seen


SEEN = [
    "scp mkdir /d/a mode=0755 or scp mkdir /d mode=0755", "scp put /d/a/x mode=0644 or scp put /d/x mode=0644",
    "in /d/a/x 5 True",
    "scp put /d/a/y mode=0644 or scp put /d/y mode=0644", "scp put /d/a/z mode=0600 or scp put /d/z mode=0600",
    "in /d/a/z 0 True",
]  # fmt: skip


def test_a_tree_is_named_place_by_place() -> None:
    went, seen = steps(ScpReading(ScpEnd(True, ("/d",))), TREE)
    assert seen == SEEN
    assert went == {side: b"".join(data for other, data in TREE if other is not side) for side in (C, T)}


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_bytes_cut_and_ahead_of_their_turn_give_the_same(data: st.DataObject) -> None:
    """Each side's bytes in any pieces, and in any order against the other side's."""
    left = {side: b"".join(said for other, said in TREE if other is side) for side in (C, T)}
    said: list[tuple[Side, bytes]] = []
    while left[C] or left[T]:
        side = data.draw(st.sampled_from([s for s in (C, T) if left[s]]))
        cut = data.draw(st.integers(1, len(left[side])))
        said.append((side, left[side][:cut]))
        left[side] = left[side][cut:]
    went, seen = steps(ScpReading(ScpEnd(True, ("/d",))), said)
    assert seen == SEEN
    assert went == {side: b"".join(s for other, s in TREE if other is not side) for side in (C, T)}


def test_nothing_of_a_name_goes_on_before_the_answer_to_what_came_before() -> None:
    reading = ScpReading(ScpEnd(True, ("/d",)))
    went, seen = steps(reading, [(T, b"\0"), (C, b"C0644 20 x\nC0644 4 .bashrc\nevil\0")])
    assert seen == ["scp put /d/x mode=0644 or scp put /d mode=0644"]
    assert went[T] == b"C0644 20 x\n"
    went, seen = steps(reading, [(T, b"\1scp: /d/x: denied\n")])
    assert seen == ["scp put /d/.bashrc mode=0644 or scp put /d mode=0644"]  # the target reads a name there, and so do we


def test_the_end_of_the_target_may_say_why_and_no_more_is_heard_of_the_client() -> None:
    reading = ScpReading(ScpEnd(True, ("/d",)))
    went, _ = steps(reading, [(T, b"\0"), (C, b"C0644 1 x\n"), (T, b"\2scp: over\n"), (C, b"C0644 1 y\n"), (T, b"more")])
    assert went == {T: b"C0644 1 x\n", C: b"\0\2scp: over\nmore"}


def test_what_is_read_is_named_below_the_path_of_the_command() -> None:
    said = [
        (C, b"\0"),
        (T, b"D0755 0 log\n"),
        (C, b"\0"),
        (T, b"C0644 2 a\n"),
        (C, b"\0"),
        (T, b"hi\0"),
        (C, b"\0"),
        (T, b"E\n"),
        (C, b"\0"),
    ]
    _, seen = steps(ScpReading(ScpEnd(False, ("/var/log", "/srv/x"))), said)
    assert seen == ["scp ls /var/log", "scp get /var/log/a", "out /var/log/a 2 True"]


def test_a_home_is_where_relative_paths_begin() -> None:
    assert ScpEnd.of(("scp", "-r", "-d", "-t", "--", "~/a"), homes=True) == ScpEnd(True, ("a",), True)
    assert ScpEnd.of(("scp", "-f", "~"), homes=True) == ScpEnd(False, (".",))
    assert ScpEnd.of(("scp", "-t", "~/a")) == ScpEnd(True, ("~/a",))  # quoted: a folder of that name


A, B = "a" * 40, "b" * 40
COMMANDS = (
    pktlines.encode(f"{A} {B} refs/heads/main\0 report-status side-band-64k push-options agent=git/2".encode())
    + pktlines.encode(f"{'0' * 40} {B} refs/tags/v1\n".encode()) + b"0000" + pktlines.encode(b"ci.skip") + b"0000"
)  # fmt: skip
PACK = b"PACK" + bytes(range(256)) * 4


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.integers(1, len(COMMANDS + PACK) - 1), max_size=8))
def test_a_push_is_decided_once_before_any_of_it_goes_on(cuts: list[int]) -> None:
    whole, places = COMMANDS + PACK, [0, *sorted(set(cuts)), len(COMMANDS + PACK)]
    went, seen = steps(PushReading("/x.git"), [(C, whole[a:b]) for a, b in pairwise(places)])
    assert seen == [f"git-push /x.git update=refs/heads/main:{A}..{B} create=refs/tags/v1:{B} option=ci.skip"]
    assert went[T].endswith(PACK)
    _, again = steps(PushReading("/x.git"), [(C, went[T])])
    assert again == seen  # what went on reads as what was decided


def test_until_then_nothing_of_a_push_goes_on() -> None:
    reading = PushReading("/x.git")
    reading.feed(C, COMMANDS)
    assert isinstance(reading.next(), Pushed)
    assert reading.waiting(T) == 0


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_make_a_reading_fail_otherwise_than_in_words(data: bytes, takes: bool) -> None:
    for reading, first in ((ScpReading(ScpEnd(takes, ("/d",))), b"\0"), (PushReading("/x.git"), b"")):
        try:
            steps(reading, [(T if takes else C, first), (C if takes else T, data)])
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize("features", [b" push-options", b"push-options=1", b"a  push-options"])
def test_options_are_awaited_wherever_receive_pack_would(features: bytes) -> None:
    reading = PushReading("/x.git")
    reading.feed(C, pktlines.encode(f"{A} {B} refs/heads/main\0".encode() + features) + b"0000")
    assert reading.next() is None
    reading.feed(C, pktlines.encode(b"x") + b"0000")
    step = reading.next()
    assert isinstance(step, Pushed)
    assert step.push.options == ("x",)
