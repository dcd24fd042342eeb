"""Framing: any split of a byte stream gives the same messages, and no length is believed before it is checked."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.frame import (
    BIND_CAP,
    CLIENT_CAPS,
    SERVER_CAP,
    STREAMED,
    TEXT_CAP,
    WATCHED,
    ClientFrames,
    CopyPiece,
    Frame,
    ServerFrames,
)


def message(kind: int, body: bytes = b"") -> bytes:
    return bytes([kind]) + struct.pack("!I", len(body) + 4) + body


def client_message(kind: int, filler: bytes) -> bytes:
    least, most = CLIENT_CAPS[kind]
    body = filler[: most - 4]
    return message(kind, body + b"\0" * (least - 4 - len(body)))


CLIENT = st.builds(client_message, st.sampled_from(sorted(CLIENT_CAPS)), st.binary(max_size=40))
SERVER = st.builds(message, st.sampled_from(sorted(WATCHED | STREAMED)), st.binary(max_size=40))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *points], [*points, len(data)], strict=True)]


def client_events(parts: list[bytes]) -> list[tuple[int, bytes]]:
    """Messages as (type, bytes); the pieces of a CopyData are joined, which is all that a split may change."""
    frames, events = ClientFrames(), []
    for part in parts:
        frames.feed(part)
        while (found := frames.next()) is not None:
            if isinstance(found, Frame):
                events.append((found.kind, found.raw))
            elif found.first:
                events.append((ord("d"), found.raw))
            else:
                events[-1] = (ord("d"), events[-1][1] + found.raw)
    assert frames.buffered == 0
    return events


@given(st.lists(CLIENT, min_size=1, max_size=12), st.lists(st.integers(0, 1000), max_size=20))
def test_any_split_of_the_clients_bytes_gives_the_same_messages(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(messages)
    assert client_events(pieces(data, cuts)) == [(m[0], m) for m in messages]


@given(st.lists(SERVER, min_size=1, max_size=12), st.lists(st.integers(0, 1000), max_size=20))
def test_any_split_of_the_servers_bytes_relays_them_whole_and_in_order(messages: list[bytes], cuts: list[int]) -> None:
    frames, relayed, watched = ServerFrames(), b"", []
    for part in pieces(b"".join(messages), cuts):
        scan = frames.scan(part)
        relayed += scan.data[: scan.end]
        watched += [(kind, scan.data[start:end]) for kind, start, end in scan.places]
        assert all(end <= scan.end for _, _, end in scan.places)
    assert relayed == b"".join(messages)
    assert watched == [(m[0], m) for m in messages if m[0] in WATCHED]
    assert frames.at_boundary
    copied = [m for m in messages if m[0] == ord("d")]
    counted = [*frames.copies, frames.take_copied()]
    assert (sum(b for b, _ in counted), sum(n for _, n in counted)) == (sum(len(m) - 5 for m in copied), len(copied))


def test_what_a_long_message_needed_is_not_asked_of_the_short_ones_behind_it() -> None:
    """Bytes that come while the session is busy, behind a message that once was incomplete."""
    long, sync = message(ord("Q"), b"x" * 90 + b"\0"), message(ord("S"))
    frames = ClientFrames()
    frames.feed(long[:50])
    assert frames.next() is None
    frames.feed(long[50:] + sync)
    assert frames.next() == Frame(ord("Q"), long)
    frames.feed(sync)
    assert [frames.next(), frames.next(), frames.next()] == [Frame(ord("S"), sync), Frame(ord("S"), sync), None]


@given(st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_no_length_outside_its_bounds_is_ever_waited_for(kind: int, length: int) -> None:
    frames = ClientFrames()
    frames.feed(bytes([kind]) + struct.pack("!I", length))
    least, most = CLIENT_CAPS.get(kind, (1, 0))
    if least <= length <= most:
        frames.next()
    else:
        with pytest.raises(RemoteProtocolError):
            frames.next()


@pytest.mark.parametrize(("kind", "cap"), [("Q", TEXT_CAP), ("P", TEXT_CAP), ("B", BIND_CAP)])
def test_caps(kind: str, cap: int) -> None:
    assert CLIENT_CAPS[ord(kind)][1] == cap


@given(st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_server_that_sends_an_impossible_message_is_noticed(kind: int, length: int) -> None:
    frames = ServerFrames()
    data = bytes([kind]) + struct.pack("!I", length)
    possible = (kind in WATCHED and 4 <= length <= SERVER_CAP) or (kind in STREAMED and 4 <= length < 2**30)
    if possible:
        frames.scan(data)
    else:
        with pytest.raises(RemoteProtocolError):
            frames.scan(data)


def test_copy_data_streams_without_being_kept() -> None:
    frames = ClientFrames()
    frames.feed(b"d" + struct.pack("!I", 4 + 10_000_000) + b"x" * 100)
    first = frames.next()
    assert isinstance(first, CopyPiece)
    assert (first.size, first.first, frames.buffered) == (100, True, 0)
    frames.feed(b"x" * 1000)
    second = frames.next()
    assert isinstance(second, CopyPiece)
    assert (second.raw, second.size, second.first) == (b"x" * 1000, 1000, False)
    assert frames.next() is None


def test_what_follows_a_long_message_does_not_wait_for_as_many_bytes_again() -> None:
    """A session that waits for a decision does not ask for the next message; what comes meanwhile is looked at when it does."""
    long, short = message(ord("Q"), b"x" * 50_000 + b"\0"), message(ord("Q"), b"SELECT 1\0")
    frames = ClientFrames()
    frames.feed(long[:1000])
    assert frames.next() is None
    frames.feed(long[1000:] + short[:7])
    first = frames.next()
    assert isinstance(first, Frame)
    assert first.raw == long
    frames.feed(short[7:])
    second = frames.next()
    assert isinstance(second, Frame)
    assert second.raw == short


@pytest.mark.parametrize(("kind", "length"), [(b"Q", TEXT_CAP + 1), (b"B", BIND_CAP + 1), (b"D", 0xFFFFFFFF)])
def test_whoever_sends_too_much_is_told_how_much_is_taken(kind: bytes, length: int) -> None:
    frames = ClientFrames()
    frames.feed(kind + struct.pack("!I", length))
    with pytest.raises(RemoteProtocolError, match=f"of {length:,} bytes: at most {CLIENT_CAPS[kind[0]][1]:,} are taken here"):
        frames.next()
