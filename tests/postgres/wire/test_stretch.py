"""The short way knows a read only when the long way reads the same in it: no byte more, no length believed."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire import requests, stretch
from interlock.postgres.wire.frame import ClientFrames, CopyPiece, ServerFrames
from interlock.postgres.wire.requests import SYNC, Bind, Parse, message

compiled = pytest.mark.skipif(stretch.asked is stretch.asked_plain, reason="no compiler at build time")
DESCRIBE, EXECUTE = requests.encode_describe_portal(""), requests.encode_execute("")
VALUES = st.lists(st.one_of(st.none(), st.binary(max_size=12)), max_size=4).map(tuple)


@st.composite
def asked_reads(draw: st.DrawFn) -> bytes:
    values = draw(VALUES)
    formats = draw(st.sampled_from([(), (0,), (1,)]))
    parse = requests.encode_parse(Parse("", b"SELECT $1", (23,))) if draw(st.booleans()) else b""
    bind = requests.encode_bind(Bind(draw(st.sampled_from(["", "p"])), draw(st.sampled_from(["", "s"])), formats, values, ()))
    return parse + bind + draw(st.sampled_from([b"", DESCRIBE])) + EXECUTE + SYNC


@st.composite
def answer_reads(draw: st.DrawFn) -> bytes:
    row = message(b"D", b"\0\1\0\0\0\1x")
    head = draw(st.sampled_from([b"", message(b"1")])) + message(b"2")
    described = draw(st.sampled_from([b"", message(b"T", b"\0\1a\0" + bytes(18)), message(b"n")]))
    tag = message(b"C", draw(st.sampled_from([b"SELECT 1\0", b"INSERT 0 3\0"])))
    return head + described + row * draw(st.integers(0, 3)) + tag + message(b"Z", draw(st.sampled_from([b"I", b"T", b"E"])))


def damaged(reads: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Reads with some bytes replaced, cut off, put in, or joined to another."""
    places = st.integers(0, 200)
    return st.one_of(
        reads,
        st.builds(lambda a, at, b: a[: at % len(a)] + bytes([b]) + a[at % len(a) + 1 :], reads, places, st.integers(0, 255)),
        st.builds(lambda a, at: a[: at % len(a)], reads, places),
        st.builds(lambda a, at, more: a[: at % len(a)] + more + a[at % len(a) :], reads, places, st.binary(max_size=6)),
        st.builds(bytes.__add__, reads, reads),
    )


def client_messages(data: bytes) -> list[bytes] | None:
    frames, found = ClientFrames(), []
    frames.feed(data)
    try:
        while (frame := frames.next()) is not None:
            if isinstance(frame, CopyPiece):
                return None
            found.append(frame.raw)
    except RemoteProtocolError:
        return None
    return found if frames.at_rest else None


@compiled
@given(st.one_of(damaged(asked_reads()), st.binary(max_size=40)))
def test_both_forms_say_the_same_of_a_client(data: bytes) -> None:
    assert stretch.asked(data) == stretch.asked_plain(data)


@compiled
@given(damaged(st.binary(max_size=9).map(requests.encode_query)))
def test_both_forms_say_the_same_of_a_query(data: bytes) -> None:
    assert stretch.query(data) == stretch.query_plain(data)


@compiled
@given(st.one_of(damaged(answer_reads()), st.binary(max_size=40)), st.booleans(), st.booleans())
def test_both_forms_say_the_same_of_a_server(data: bytes, parsed: bool, described: bool) -> None:
    assert stretch.answered(data, parsed, described) == stretch.answered_plain(data, parsed, described)
    for start in (0, 5, 10):
        assert stretch.queried(data[start:]) == stretch.queried_plain(data[start:])


@compiled
@pytest.mark.parametrize("wrong", [(), (b"", True), ("", True, True), (b"", 1, True), (b"", True, None)])
def test_the_compiled_form_refuses_what_is_not_its_own(wrong: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        stretch.answered(*wrong)  # type: ignore[arg-type]
    for form in (stretch.asked, stretch.query, stretch.queried):
        with pytest.raises(TypeError):
            form("B")  # type: ignore[arg-type]


@given(asked_reads())
def test_what_drivers_send_is_known(data: bytes) -> None:
    found = stretch.asked(data)
    messages = client_messages(data)
    assert messages is not None
    bind = requests.bind(messages[1] if messages[0][:1] == b"P" else messages[0])
    assert (found is None) == (bind.portal != "")


@pytest.mark.parametrize("asked", [stretch.asked, stretch.asked_plain])
@pytest.mark.parametrize("codes", [((), ()), ((1,), (1,)), ((2,), ()), ((0, 0), ()), ((), (2,)), ((), (0, 0xFFFF))])
def test_format_codes_that_there_are_not_are_left_to_the_long_way(
    asked: Callable[[bytes], object], codes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    formats, results = codes
    head = requests.encode_bind(Bind("", "", formats, (b"x",), ()))[5:-2]
    bind = head + struct.pack(f"!H{len(results)}H", len(results), *results)
    known = asked(message(b"B", bind) + EXECUTE + SYNC) is not None
    assert known == (max(*formats, *results, 0, 0) < 2 and len(formats) < 2)


@given(damaged(asked_reads()))
def test_what_is_known_of_the_client_is_what_the_long_way_reads(data: bytes) -> None:
    found = stretch.asked(data)
    if found is None:
        return
    messages = client_messages(data)
    assert messages is not None
    before, statement, described, at = found
    parse = [before] if before else []
    assert messages[: len(parse)] == parse
    assert [m[:1] for m in messages] == [b"P"] * len(parse) + [b"B", *([b"D"] if described else []), b"E", b"S"]
    bind = requests.bind(messages[len(parse)])
    assert (bind.portal, bind.statement, bind.at) == ("", statement, at - len(before))
    assert messages[len(parse) + 1 :] == [*([DESCRIBE] if described else []), EXECUTE, SYNC]


@given(damaged(answer_reads()), st.booleans(), st.booleans())
def test_what_is_known_of_the_server_is_what_the_long_way_reads(data: bytes, parsed: bool, described: bool) -> None:
    found = stretch.answered(data, parsed, described)
    if found is None:
        return
    frames = ServerFrames()
    scan = frames.scan(data)
    assert scan.end == len(data)
    assert frames.at_rest
    kinds = bytes(kind for kind, _, _ in scan.places).decode()
    assert kinds in {("1" if parsed else "") + "2" + columns + "CZ" for columns in ("Tn" if described else [""])}
    _, start, end = scan.places[-2]
    assert found == (data[start + 5 : end - 1], chr(data[-1]))


@given(answer_reads())
def test_what_servers_answer_is_known(data: bytes) -> None:
    parsed = data[:1] == b"1"
    described = data[10 if parsed else 5 :][:1] in b"Tn"
    assert stretch.answered(data, parsed, described) is not None


@pytest.mark.parametrize("length", [0, 3, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_row_whose_length_lies_is_left_to_the_long_way(length: int) -> None:
    row = b"D" + length.to_bytes(4, "big") + b"\0\1\0\0\0\1x"
    data = message(b"2") + row + message(b"C", b"SELECT 1\0") + message(b"Z", b"I")
    assert stretch.answered(data, False, False) is None
