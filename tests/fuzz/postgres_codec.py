"""The Postgres codec, function by function, against bytes that were made whole and then damaged.

Each attempt makes bytes from its random numbers and holds what the codec says of them against a second reading that is
written here, slowly and plainly. Nothing but RemoteProtocolError may leave the codec, what it takes must be used up to the
last byte, and any cut of a stream must give the same messages.
"""

from __future__ import annotations

import random  # noqa: TID251  the caller seeds it
import struct
from collections import Counter
from collections.abc import Callable, Sequence

from fuzz.postgres_streams import changed, client_stream, cut
from harness.wire_client import WireClient, message
from interlock.errors import RemoteProtocolError
from interlock.postgres import reading
from interlock.postgres.wire import answers, opening, requests, stretch, values
from interlock.postgres.wire.frame import CLIENT_CAPS, COPY_CAP, SERVER_CAP, STREAMED, WATCHED, ClientFrames, Frame, ServerFrames
from interlock.postgres.wire.given import listed, listed_plain
from interlock.postgres.wire.rows import skip_rows, skip_rows_plain

Attempt = Callable[[random.Random, Counter[str]], None]
REFUSED = "refused"

_SERVER_BODIES = {
    b"T": b"\0\1id\0\0\0\0\0\0\0\0\0\0\x17\0\4\xff\xff\xff\xff\0\0", b"D": b"\0\1\0\0\0\1x", b"C": b"SELECT 1\0", b"Z": b"I",
    b"E": b"SERROR\0VERROR\0C22012\0Mno\0\0", b"S": b"TimeZone\0UTC\0", b"t": b"\0\1\0\0\0\x17", b"d": b"1\tx\n", b"A": bytes(7),
    b"G": bytes(3), b"H": bytes(3), b"N": b"SNOTICE\0C00000\0Mhi\0\0", b"W": bytes(3),
}  # fmt: skip


def _server_stream(rng: random.Random) -> bytes:
    kinds = [bytes([kind]) for kind in sorted(WATCHED | STREAMED)]
    return b"".join(message(kind, _SERVER_BODIES.get(kind, b"")) for kind in rng.choices(kinds, k=rng.randint(1, 20)))


def _maybe_changed(data: bytes, rng: random.Random) -> bytes:
    return changed(data, rng) if rng.random() < 0.7 else data


# -- the client's side -------------------------------------------------------------------------------------------------


def client_frames(rng: random.Random, seen: Counter[str]) -> None:
    data = _maybe_changed(client_stream(rng), rng)
    expected, refused = _cut_plainly(data)
    frames, found, ended = ClientFrames(), [], False
    for piece in cut(data, rng):
        frames.feed(piece)
        try:
            while (frame := frames.next()) is not None:
                if isinstance(frame, Frame) or frame.first:
                    found.append(frame.raw)
                else:
                    found[-1] += frame.raw
        except RemoteProtocolError:
            ended = True
            break
    assert found == expected
    assert ended == refused
    seen[REFUSED if ended else "taken"] += 1
    for raw in found:
        _request(raw, seen)


def _cut_plainly(data: bytes) -> tuple[list[bytes], bool]:
    """Return the messages of a client's stream, a CopyData as far as it came, and whether something in it can't be."""
    found, at = [], 0
    while len(data) - at >= 5:
        kind, (length,) = data[at], struct.unpack_from("!I", data, at + 1)
        if kind not in CLIENT_CAPS or not CLIENT_CAPS[kind][0] <= length <= CLIENT_CAPS[kind][1]:
            return found, True
        if len(data) - at < 1 + length and kind != ord("d"):
            break
        found.append(data[at : at + 1 + length])
        at += 1 + length
    return found, False


def _request(raw: bytes, seen: Counter[str]) -> None:
    """What a message was read as must be that message again, byte for byte."""
    kind = raw[:1]
    try:
        match kind:
            case b"Q":
                again = requests.encode_query(requests.query(raw))
            case b"P":
                again = requests.encode_parse(requests.parse(raw))
            case b"B":
                again = _bind_again(requests.bind(raw))
            case b"E":
                read = requests.execute(raw)
                again = WireClient.execute(read.portal, read.limit)
            case b"D" | b"C":
                named = requests.named(raw)
                again = message(kind, f"{named.of}{named.name}\0".encode())
            case _:
                return
    except RemoteProtocolError:
        seen[f"{kind.decode()} {REFUSED}"] += 1
        return
    assert again == raw
    seen[kind.decode()] += 1


def _bind_again(bound: requests.Bind) -> bytes:
    lists = [_counted("H", bound.formats), _counted("H", bound.result_formats)]
    sent = b"".join(struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in bound.values)
    names = f"{bound.portal}\0{bound.statement}\0".encode()
    return message(b"B", names + lists[0] + struct.pack("!H", len(bound.values)) + sent + lists[1])


def _counted(code: str, numbers: Sequence[int]) -> bytes:
    return struct.pack(f"!H{len(numbers)}{code}", len(numbers), *numbers)


def stretch_asked(rng: random.Random, seen: Counter[str]) -> None:
    """The short way takes a read only where the long way would read the same."""
    count = rng.randint(0, 3)
    data = b"" if rng.random() < 0.5 else WireClient.parse("", rng.choice(["SELECT 1", "SELECT $1", ""]))
    data += WireClient.bind(rng.choice(["", "", "p"]), rng.choice(["", "s"]), [b"x" * rng.randint(0, 9)] * count)
    data += (WireClient.describe("P", "") if rng.random() < 0.5 else b"") + WireClient.execute("") + WireClient.SYNC
    data = _maybe_changed(data, rng)
    found = stretch.asked(data)
    assert found == stretch.asked_plain(data)
    seen["known" if found else "left to the long way"] += 1
    if found is not None:
        whole, refused = _cut_plainly(data)
        kinds = b"".join(raw[:1] for raw in whole)
        assert not refused and b"".join(whole) == data
        parse, statement, described, at = found
        bind = requests.bind(whole[1 if parse else 0])
        assert kinds == (b"P" if parse else b"") + b"B" + (b"D" if described else b"") + b"ES"
        assert (bind.portal, bind.statement, bind.at) == ("", statement, at - len(parse))
        assert parse == (whole[0] if parse else b"")
        assert listed(data, at, (23,), values.shown) == listed_plain(data, at, (23,), values.shown)


# -- the server's side -------------------------------------------------------------------------------------------------


def server_frames(rng: random.Random, seen: Counter[str]) -> None:
    data = _maybe_changed(_server_stream(rng), rng)
    expected, refused = _watched_plainly(data)
    frames, relayed, watched, ended = ServerFrames(), b"", [], False
    for piece in cut(data, rng):
        try:
            scan = frames.scan(piece)
        except RemoteProtocolError:
            ended = True
            break
        relayed += scan.data[: scan.end]
        watched += [scan.data[start:end] for _, start, end in scan.places]
    assert data.startswith(relayed)
    assert watched == expected[: len(watched)]
    assert ended == refused
    if not ended:
        assert watched == expected
    seen[REFUSED if ended else "taken"] += 1
    for raw in watched:
        _answer(raw, seen)


def _watched_plainly(data: bytes) -> tuple[list[bytes], bool]:
    found, at = [], 0
    while len(data) - at >= 5:
        kind, (length,) = data[at], struct.unpack_from("!I", data, at + 1)
        if not 4 <= length <= (COPY_CAP if kind in STREAMED else SERVER_CAP if kind in WATCHED else 0):
            return found, True
        if kind in WATCHED and len(data) - at > length:
            found.append(data[at : at + 1 + length])
        at += 1 + length
    return found, False


def _answer(raw: bytes, seen: Counter[str]) -> None:
    body = raw[5:]
    try:
        match raw[:1]:
            case b"E":
                answers.error_fields(body)
            case b"S":
                answers.parameter_status(body)
            case b"t":
                assert struct.pack(f"!{len(types := answers.parameter_types(body))}I", *types) == body[2:]
            case b"C":
                assert (answers.rows_of(body[:-1]) or 0) >= 0
            case _:
                return
    except RemoteProtocolError:
        seen[f"answer {raw[:1].decode()} {REFUSED}"] += 1


def stretch_answered(rng: random.Random, seen: Counter[str]) -> None:
    parsed, described = rng.random() < 0.5, rng.random() < 0.5
    data = (message(b"1") if parsed else b"") + message(b"2")
    if described:
        data += rng.choice([message(b"n"), message(b"T", _SERVER_BODIES[b"T"])])
    data += message(b"D", _SERVER_BODIES[b"D"]) * rng.randint(0, 4) + message(b"C", b"SELECT 1\0") + message(b"Z", b"T")
    data = _maybe_changed(data, rng)
    found = stretch.answered(data, parsed, described)
    assert found == stretch.answered_plain(data, parsed, described)
    seen["known" if found else "left to the long way"] += 1
    if found is not None:
        watched, refused = _watched_plainly(data)
        kinds = b"".join(raw[:1] for raw in watched).decode()
        assert not refused
        assert kinds in {("1" if parsed else "") + "2" + columns + "CZ" for columns in (("T", "n") if described else ("",))}
        assert found == (watched[-2][5:-1], watched[-1][5:].decode())


def rows(rng: random.Random, seen: Counter[str]) -> None:
    data = _maybe_changed(message(b"D", _SERVER_BODIES[b"D"]) * rng.randint(0, 9) + _server_stream(rng), rng)
    at = rng.randrange(len(data) + 1)
    behind = skip_rows(data, at)
    assert behind == skip_rows_plain(data, at)
    seen["rows" if behind != at else "none"] += 1


def own_reading(rng: random.Random, seen: Counter[str]) -> None:
    """What we read of our own queries (the catalog's, the planner's) from a server that may be broken."""
    columns = rng.randint(0, 3)
    described = struct.pack("!H", columns) + b"".join(
        b"c\0" + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0) for _ in range(columns)
    )
    cells = b"".join(struct.pack("!i", len(cell)) + cell for cell in [b"{a,NULL}", b"7", b""][:columns])
    try:
        types = reading.column_types(_maybe_changed(described, rng))
        readers = [rng.choice([str, int, reading.array]) for _ in types]
        row = reading.row(_maybe_changed(struct.pack("!H", columns) + cells, rng), readers)
    except RemoteProtocolError:
        seen[REFUSED] += 1
        return
    assert len(row) == len(types)
    seen["read"] += 1


# -- the first packets, and values ---------------------------------------------------------------------------------------


def openings(rng: random.Random, seen: Counter[str]) -> None:
    body = b"".join(
        name + b"\0" + value + b"\0"
        for name, value in rng.sample(
            [
                (b"user", b"claude"),
                (b"database", b"orders"),
                (b"options", rng.randbytes(8)),
                (b"_pq_.x", b"1"),
                (b"TimeZone", b"UTC"),
            ],
            rng.randint(0, 5),
        )
    )
    code = rng.choice([80877102, 80877103, 80877104, 0x30000, 0x30002, 0x3FFFF, 0x20000])
    packet = struct.pack("!I", code) + _maybe_changed(body + b"\0", rng)
    try:
        found = opening.opening(struct.pack("!I", len(packet) + 4) + packet)
        if isinstance(found, opening.Startup):
            again = b"".join(f"{name}\0{value}\0".encode() for name, value in found.parameters)
            assert len(again) <= len(packet) - 5
            opening.parse_options(found.get("options"))
    except RemoteProtocolError:
        seen[REFUSED] += 1
        return
    seen[type(found).__name__] += 1


_OIDS = sorted(values._BINARY)


def shown_values(rng: random.Random, seen: Counter[str]) -> None:
    raw = rng.randbytes(rng.choice([0, 1, 2, 4, 8, 12, 16, 20, 40]))
    if rng.random() < 0.3:
        raw = struct.pack("!iiI", rng.randint(0, 7), 0, rng.choice(_OIDS)) + struct.pack("!ii", rng.randint(-1, 3), 1) + raw
    shown = values.shown(raw, rng.randint(0, 1), rng.choice(_OIDS))
    assert shown is None or len(shown) <= values.MAX_SHOWN + 40
    seen["shown" if shown is not None else "not"] += 1


ATTEMPTS: dict[str, Attempt] = {
    attempt.__name__: attempt
    for attempt in (
        client_frames, stretch_asked, server_frames, stretch_answered, rows, own_reading, openings, shown_values,
    )
}  # fmt: skip
