"""A Postgres client that sends exactly the bytes a test says, and reads answers by type."""

from __future__ import annotations

import secrets
import socket
import ssl
import struct
from collections.abc import Sequence

from interlock.identity.scram import PLAIN, ScramClient, salted_password


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(parameters: dict[str, str], version: int = 0x00030000) -> bytes:
    body = b"".join(f"{k}\0{v}\0".encode() for k, v in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, version) + body


class WireClient:
    """One connection. `until_ready` gives the answers as types; errors with SQLSTATE, ReadyForQuery with its status."""

    SYNC = message(b"S")
    FLUSH = message(b"H")

    SSL_REQUEST = struct.pack("!II", 8, 80877103)
    GSS_REQUEST = struct.pack("!II", 8, 80877104)

    def __init__(self, port: int, *, source: str = "127.0.0.1") -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=100, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.process = 0
        self.secret = b""
        self.errors: list[dict[str, str]] = []
        self.notices: list[str] = []
        self._buffer = b""

    def __enter__(self) -> WireClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @classmethod
    def connect(cls, port: int, user: str, database: str, password: str, **parameters: str) -> WireClient:
        client = cls(port)
        try:
            client.send(startup({"user": user, "database": database, **parameters}))
            client.authenticate(password)
            client.until_ready()
        except BaseException:
            client.socket.close()
            raise
        return client

    def to_tls(self, context: ssl.SSLContext, *, direct: bool = False) -> None:
        """Turn to TLS: after an SSLRequest, or at once."""
        if not direct:
            self.send(self.SSL_REQUEST)
            assert self.exactly(1) == b"S"
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def authenticate(self, password: str) -> None:
        exchange = ScramClient([PLAIN], entropy=secrets.token_bytes)
        self.read()
        first = exchange.first()
        self.send(message(b"p", PLAIN.encode() + b"\0" + struct.pack("!I", len(first)) + first))
        stretch = exchange.challenge(self.read()[1][4:])
        self.send(message(b"p", exchange.final(salted_password(password, stretch.salt, stretch.iterations))))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self._buffer += more
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def read(self) -> tuple[str, bytes]:
        """Read one message. Raise EOFError when the other side closed."""
        header = self.exactly(5)
        (length,) = struct.unpack("!I", header[1:])
        return chr(header[0]), self.exactly(length - 4)

    def until_ready(self) -> list[str]:
        seen: list[str] = []
        while True:
            kind, body = self.read()
            match kind:
                case "Z":
                    return [*seen, "Z" + body.decode()]
                case "E":
                    fields = {chr(part[0]): part[1:].decode() for part in body.split(b"\0") if part}
                    self.errors.append(fields)
                    seen.append("E" + fields["C"])
                case "K":
                    self.process, self.secret = struct.unpack("!I", body[:4])[0], body[4:]
                case "N":
                    self.notices.append(body.decode())
                case "S" | "A" | "R":
                    continue
                case other:
                    seen.append(other)

    def fatal(self) -> dict[str, str]:
        """Read to the end of the connection; return the fields of its last ErrorResponse (empty: there was none)."""
        fields: dict[str, str] = {}
        while True:
            try:
                kind, body = self.read()
            except (EOFError, ConnectionError):
                return fields
            if kind == "E":
                fields = {chr(part[0]): part[1:].decode() for part in body.split(b"\0") if part}

    # -- messages ------------------------------------------------------------------------------------------------------

    @staticmethod
    def query(text: str) -> bytes:
        return message(b"Q", text.encode() + b"\0")

    @staticmethod
    def parse(name: str, text: str) -> bytes:
        return message(b"P", f"{name}\0{text}\0".encode() + struct.pack("!H", 0))

    @staticmethod
    def bind(portal: str, statement: str, values: Sequence[bytes | None] = (), *, binary: bool = False) -> bytes:
        formats = struct.pack("!HH", 1, 1) if binary else struct.pack("!H", 0)
        encoded = b"".join(struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in values)
        body = f"{portal}\0{statement}\0".encode() + formats + struct.pack("!H", len(values)) + encoded + struct.pack("!H", 0)
        return message(b"B", body)

    @staticmethod
    def execute(portal: str, limit: int = 0) -> bytes:
        return message(b"E", portal.encode() + b"\0" + struct.pack("!i", limit))

    @staticmethod
    def describe(of: str, name: str) -> bytes:
        return message(b"D", f"{of}{name}\0".encode())

    @staticmethod
    def close(of: str, name: str) -> bytes:
        return message(b"C", f"{of}{name}\0".encode())

    @classmethod
    def extended(cls, text: str) -> bytes:
        return cls.parse("", text) + cls.bind("", "") + cls.execute("")
