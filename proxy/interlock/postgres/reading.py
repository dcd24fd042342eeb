"""Reading rows over a connection of our own: simple queries whose text was written here.

Knows: RowDescription, DataRow, the text forms of the few types our own queries give (PostgreSQL manual, "Arrays").
Must not know: sessions, policy. Text of a client never comes here.

It stands on `upstream`, so the target is proven the same way as for a session: no second client library with habits of
its own (one that answers a request for a clear password) ever holds the target's credential.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error

from interlock.errors import RemoteProtocolError
from interlock.postgres.upstream import ServerRefusedError, Upstream
from interlock.postgres.wire import answers, requests

MAX_MESSAGE = 16 * 1024 * 1024
MAX_ROWS = 500_000

Value = str | int | bool | list[str] | None

_COUNT = Struct("!H")
_SIGNED = Struct("!i")
_COLUMN = Struct("!IHIhih")
_TEXT_ARRAYS = (1009, 1002, 1003)


async def fetch(upstream: Upstream, sql: str) -> list[tuple[Value, ...]]:
    """Run one statement and return its rows. Raise ServerRefusedError when it fails, RemoteProtocolError, LeftError."""
    upstream.dialogue.write(requests.encode_query(sql.encode()))
    return await answer(upstream)


async def answer(upstream: Upstream) -> list[tuple[Value, ...]]:
    """Read the answer to what was just sent, up to ReadyForQuery. Raise as `fetch` does."""
    readers: list[Callable[[str], Value]] = []
    rows: list[tuple[Value, ...]] = []
    failure: ServerRefusedError | None = None
    while True:
        kind, body = await upstream.dialogue.message(MAX_MESSAGE)
        match chr(kind):
            case "T":
                readers = [_READERS.get(oid, str) for oid in column_types(body)]
            case "D":
                if len(rows) >= MAX_ROWS:
                    raise RemoteProtocolError("too many rows")
                rows.append(row(body, readers))
            case "E":
                fields = answers.error_fields(body)
                failure = ServerRefusedError(fields.get("C", ""), fields.get("M", ""))
            case "Z":
                if failure is not None:
                    raise failure
                return rows
            case "C" | "I" | "N" | "S" | "A" | "1" | "2" | "n":
                continue
            case other:
                raise RemoteProtocolError(f"a message of type {other!r} while reading rows")


def column_types(body: bytes) -> list[int]:
    """Return the type OIDs of a RowDescription. Raise RemoteProtocolError."""
    try:
        (count,) = _COUNT.unpack_from(body)
        pos, types = 2, []
        for _ in range(count):
            pos = body.index(0, pos) + 1
            types.append(_COLUMN.unpack_from(body, pos)[2])
            pos += _COLUMN.size
    except (ValueError, struct_error):
        raise RemoteProtocolError("a description of rows that is cut short") from None
    return types


def row(body: bytes, readers: list[Callable[[str], Value]]) -> tuple[Value, ...]:
    """Return the values of a DataRow, each as its reader has it. Raise RemoteProtocolError."""
    try:
        return _values(body, readers)
    except (ValueError, struct_error):
        raise RemoteProtocolError("a row that is not what was described") from None


def _values(body: bytes, readers: list[Callable[[str], Value]]) -> tuple[Value, ...]:
    (count,) = _COUNT.unpack_from(body)
    if count != len(readers):
        raise RemoteProtocolError("a row with another number of columns than described")
    pos, values = 2, []
    for reader in readers:
        (length,) = _SIGNED.unpack_from(body, pos)
        pos += 4
        if length < -1 or pos + length > len(body):
            raise RemoteProtocolError("a column's length is beyond its row")
        values.append(None if length == -1 else reader(body[pos : pos + length].decode()))
        pos += max(length, 0)
    return tuple(values)


def array(text: str) -> list[str]:
    """Read a one-dimensional text array in its text form; NULL elements are left out. Raise ValueError."""
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("not an array")
    found: list[str] = []
    characters = iter(text[1:-1])
    word: list[str] = []
    quoted = started = False
    for character in characters:
        if character == '"':
            started = quoted = True
            for inner in characters:
                if inner == '"':
                    break
                word.append(next(characters, "") if inner == "\\" else inner)
        elif character == ",":
            _add(found, word, quoted)
            word, quoted, started = [], False, False
        else:
            started = True
            word.append(next(characters, "") if character == "\\" else character)
    if started or found:
        _add(found, word, quoted)
    return found


def _add(found: list[str], word: list[str], quoted: bool) -> None:
    text = "".join(word)
    if quoted or text != "NULL":
        found.append(text)


_READERS: dict[int, Callable[[str], Value]] = {
    16: lambda text: text == "t",
    20: int,
    21: int,
    23: int,
    26: int,
    **dict.fromkeys(_TEXT_ARRAYS, array),
}
