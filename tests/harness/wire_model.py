"""A server without sockets, tables or SQL: it cuts what it gets into messages as strictly as PostgreSQL, and answers each.

It knows the message flow (PostgresMain, COPY) and nothing of what statements mean: a text with `fail` in it fails, one with
`COPY` and `STDIN` copies in. A command inside COPY ends it, as it does the real one. What can only come from somebody who
has lost the thread (an unknown type, an impossible length, bytes after Terminate) raises AssertionError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from harness.wire_client import message

ALLOWED = frozenset(b"QPBEDCSHXdcfF")
READY = {True: message(b"Z", b"T"), False: message(b"Z", b"I")}


class ServerModel:
    """Feed it bytes, get its answers. `texts` are those of Query and Parse, `left` what is not yet a whole message."""

    def __init__(self) -> None:
        self.left = b""
        self.texts: list[bytes] = []
        self.copying: int | None = None  # the message that a COPY FROM belongs to
        self._skipping = False
        self._copies: dict[bytes, bool] = {}  # statements and portals: does it copy?
        self.closed = False
        self.lost = False

    def feed(self, data: bytes) -> bytes:
        if self.lost:
            return b""
        assert not (self.closed and data), "bytes after Terminate"
        self.left += data
        return b"".join(self._answer(kind, body) for kind, body in self._messages())

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        while len(self.left) >= 5 and not self.lost:
            kind, (length,) = self.left[0], struct.unpack_from("!I", self.left, 1)
            assert kind in ALLOWED, f"a message of type {kind}: {self.left[:40]!r}"
            assert 4 <= length < 2**30, f"a message of length {length}"
            if len(self.left) < 1 + length:
                return
            body, self.left = self.left[5 : 1 + length], self.left[1 + length :]
            yield kind, body

    def _answer(self, kind: int, body: bytes) -> bytes:
        letter = chr(kind)
        if letter == "X":
            self.closed = True
            return b""
        if letter in "QP":
            self.texts.append(body[:-1] if letter == "Q" else body.split(b"\0")[1])
        if self.copying is not None:
            return self._copy(letter)
        if letter == "S":
            self._skipping = False
            return READY[False]
        if self._skipping or letter in "Hdcf":
            return b""
        return getattr(self, f"_on_{letter}")(body)

    def _copy(self, letter: str) -> bytes:
        if letter not in "dcfSH":
            self.lost, self.left = True, b""
            return message(b"E", b"SFATAL\0VFATAL\0C08P01\0Mprotocol synchronization was lost\0\0")
        if letter not in "cf":
            return b""
        from_query, self.copying = self.copying == ord("Q"), None
        if letter == "c":
            return message(b"C", b"COPY 1\0") + (READY[False] if from_query else b"")
        return self._fail(b"57014", from_query=from_query)

    def _fail(self, code: bytes, *, text: bytes = b"", from_query: bool = False) -> bytes:
        self._skipping = not from_query
        error = message(b"E", b"SERROR\0VERROR\0C" + code + b"\0Mno: " + text[:200] + b"\0\0")
        return error + (READY[False] if from_query else b"")

    def _on_Q(self, body: bytes) -> bytes:
        if b"fail" in body or body.startswith(b"interlock_refused"):
            return self._fail(b"42601", text=body[:-1], from_query=True)
        if b"STDIN" in body:
            self.copying = ord("Q")
            return message(b"G", b"\0\0\0")
        return message(b"T", b"\0\0") + message(b"D", b"\0\0") + message(b"C", b"SELECT 1\0") + READY[False]

    def _on_P(self, body: bytes) -> bytes:
        name, text, _ = body.split(b"\0", 2)
        if b"fail" in text or text.startswith(b"interlock_refused"):
            return self._fail(b"42601", text=text)
        self._copies[b"S" + name] = b"STDIN" in text
        return message(b"1")

    def _on_B(self, body: bytes) -> bytes:
        portal, name, _ = body.split(b"\0", 2)
        if b"S" + name not in self._copies:
            return self._fail(b"26000", text=name)
        self._copies[b"P" + portal] = self._copies[b"S" + name]
        return message(b"2")

    def _on_E(self, body: bytes) -> bytes:
        portal = body.split(b"\0")[0]
        if b"P" + portal not in self._copies:
            return self._fail(b"34000", text=b'portal "' + portal + b'" does not exist')
        if self._copies[b"P" + portal]:
            self.copying = ord("E")
            return message(b"G", b"\0\0\0")
        return message(b"D", b"\0\0") + message(b"C", b"SELECT 1\0")

    def _on_D(self, body: bytes) -> bytes:
        if body[:-1] not in self._copies:
            return self._fail(b"26000", text=body[:-1])
        return (message(b"t", b"\0\0") if body.startswith(b"S") else b"") + message(b"n")

    def _on_F(self, body: bytes) -> bytes:
        assert body == bytes(10), f"a function was called: {body!r}"
        return self._fail(b"42883", text=b"function with OID 0 does not exist", from_query=True)

    def _on_C(self, body: bytes) -> bytes:
        self._copies.pop(body[:-1], None)
        return message(b"3")
