"""SFTP on the wire: what is read is what is written, however the bytes are cut; anything else is an error of the peer's."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import RemoteProtocolError, TargetError
from interlock.ssh.sftp import packets, translation
from interlock.ssh.sftp.handles import Content
from interlock.ssh.sftp.packets import Attrs, Frames, Packet, Type
from interlock.ssh.sftp.target import FarServer

U32 = st.integers(0, 2**32 - 1)
ATTRS = st.builds(
    Attrs, st.none() | st.integers(0, 2**64 - 1), st.none() | st.tuples(U32, U32), st.none() | st.integers(0, 0o7777),
    st.none() | st.tuples(U32, U32),
)  # fmt: skip
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).map(str.encode)


def opening(path: bytes, flags: int, attrs: Attrs) -> Packet:
    return Packet(Type.OPEN, 7, (path, flags, attrs))


ON_A_PATH = st.sampled_from([Type.STAT, Type.LSTAT, Type.OPENDIR, Type.REMOVE, Type.RMDIR, Type.REALPATH, Type.READLINK])
WITH_ATTRIBUTES = st.sampled_from([Type.SETSTAT, Type.MKDIR])
REQUESTS = st.one_of(
    st.builds(lambda kind, path: Packet(kind, 7, (path,)), ON_A_PATH, PATHS),
    st.builds(lambda kind, path, attrs: Packet(kind, 7, (path, attrs)), WITH_ATTRIBUTES, PATHS, ATTRS),
    st.builds(lambda kind, one, two: Packet(kind, 7, (one, two)), st.sampled_from([Type.RENAME, Type.SYMLINK]), PATHS, PATHS),
    st.builds(lambda path, flags, attrs: opening(path, flags | 2, attrs), PATHS, st.integers(0, 0x3B), ATTRS),
    st.builds(lambda path: opening(path, 1, Attrs()), PATHS),
    st.builds(lambda name, one, two: Packet(Type.EXTENDED, 7, (name, packets.payload(one, two))),
              st.sampled_from([b"posix-rename@openssh.com", b"hardlink@openssh.com"]), PATHS, PATHS),
    st.builds(lambda path, attrs: Packet(Type.EXTENDED, 7, (b"lsetstat@openssh.com", packets.payload(path, attrs))),
              PATHS, ATTRS),
)  # fmt: skip


@given(st.lists(REQUESTS, max_size=8), st.data())
def test_any_split_gives_the_same_packets(sent: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(map(packets.encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    frames, got = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames.feed(stream[start:end])
        while (body := frames.next()) is not None:
            got.append(packets.decode(body, packets.REQUESTS))
    assert got == sent
    assert frames.buffered == 0


@given(REQUESTS)
def test_a_released_operation_makes_the_request_that_was_asked(packet: Packet) -> None:
    operation = translation.operation(packet)
    assert operation is not None
    again = translation.request(operation, packet.id)
    if packet.type is Type.OPEN and not int(packet.fields[1]) & 2:  # type: ignore[arg-type]
        assert again.fields[:2] == packet.fields[:2]
    else:
        assert again == packet


@given(st.binary(max_size=80))
def test_bytes_of_any_kind_are_a_packet_or_an_error_of_the_peer(data: bytes) -> None:
    frames = Frames()
    frames.feed(len(data).to_bytes(4, "big") + data)
    for kinds in (packets.REQUESTS, packets.REPLIES):
        try:
            body = frames.next()
            packet = None if body is None else packets.decode(body, kinds)
            if packet is not None and kinds is packets.REQUESTS:
                translation.operation(packet)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "stream",
    [b"\xff\xff\xff\xff", b"\0\0\0\0", (packets.MAX_PACKET + 1).to_bytes(4, "big")],
)
def test_a_length_that_can_not_be_ends_it_before_anything_is_kept(stream: bytes) -> None:
    frames = Frames()
    frames.feed(stream)
    with pytest.raises(RemoteProtocolError, match="SFTP packet of"):
        frames.next()


@pytest.mark.parametrize(
    "body",
    [
        b"\x03\0\0\0\1\xff\xff\xff\xff", b"\x0d\0\0\0\1\0\0\0\1ab", b"\x09\0\0\0\1\0\0\0\1a\x80\0\0\0", b"\x65\0\0\0\1\0\0\0\0",
        b"\x63\0\0\0\1", b"\x01\0\0\0\3", b"\x0d\0\0",
    ],
)  # fmt: skip
def test_a_smuggled_field_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        packets.decode(body, packets.REQUESTS)


def test_a_content_has_a_hash_only_when_it_passed_in_order() -> None:
    content = Content()
    content.passed(0, b"ab")
    content.passed(2, b"c")
    assert content.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    content.passed(1, b"x")
    assert (content.sha256, content.size) == (None, 4)


# -- a target that lies ------------------------------------------------------------------------------------------------


def greeted() -> FarServer:
    far = FarServer(lambda: False)
    far.data_received(packets.version(Type.VERSION, {}), None)
    return far


@pytest.mark.parametrize(
    "answer",
    [
        Packet(Type.STATUS, 99, (0, b"")),  # to nothing
        Packet(Type.HANDLE, 1, (b"h",)),  # a handle for a name
        Packet(Type.DATA, 1, (b"data",)),
    ],
)
async def test_an_answer_that_the_request_can_not_have_ends_the_conversation(answer: Packet) -> None:
    far = greeted()
    got: list[Packet] = []
    far.ask(Packet(Type.REALPATH, 5, (b".",)), got.append)
    far.data_received(packets.encode(answer), None)
    assert isinstance(await far.lost, RemoteProtocolError)
    assert got == []


async def test_what_waits_for_an_answer_hears_that_the_target_is_gone() -> None:
    far = greeted()
    waiting = asyncio.ensure_future(far.answer_to(Packet(Type.STAT, 5, (b".",))))
    await asyncio.sleep(0)
    far.connection_lost(None)
    with pytest.raises(TargetError, match="was lost"):
        await waiting


async def test_a_target_of_another_version_is_not_spoken_to() -> None:
    far = FarServer(lambda: False)
    far.data_received(packets.framed(b"\x02\0\0\0\6"), None)
    with pytest.raises(TargetError, match="offers no SFTP"):
        await far.greet()


async def test_answers_come_under_the_clients_own_number() -> None:
    far = greeted()
    got: list[Packet] = []
    far.ask(Packet(Type.STAT, 41, (b"a",)), got.append)
    far.ask(Packet(Type.STAT, 40, (b"b",)), got.append)
    far.data_received(packets.encode(packets.status(2, 2)) + packets.encode(packets.attributes(1, Attrs(size=3))), None)
    assert [(packet.id, packet.type) for packet in got] == [(40, Type.STATUS), (41, Type.ATTRS)]
