"""The first packet of a connection: start-up, a request for TLS or GSSAPI encryption, or a cancel request.

Knows: PostgreSQL manual, "Start-up", "SSL Session Encryption", and how libpq and the server read `options`.
Must not know: who may connect, what the target is, sockets.

These packets have no type byte: a length and a code. The bound is 64 KiB, and the three requests have exact lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.frame import LENGTH, STARTUP_CAP

_CANCEL, _SSL, _GSS = 80877102, 80877103, 80877104
_MAX_PARAMETERS = 64

NEWEST = 2
"""Minor version of protocol 3 that is spoken. All that 3.2 changes is the length of cancel keys."""


@dataclass(frozen=True, slots=True)
class TlsRequest:
    """SSLRequest, exactly 8 bytes."""


@dataclass(frozen=True, slots=True)
class GssRequest:
    """GSSENCRequest, exactly 8 bytes."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    process: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Startup:
    """A StartupMessage of major version 3. `unknown` lists `_pq_.` options and `minor` its version: both negotiated."""

    minor: int
    parameters: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...] = ()

    @property
    def speaks(self) -> int:
        """The minor version that the connection has from here. There was never a 3.1."""
        return NEWEST if self.minor >= NEWEST else 0

    @property
    def negotiates(self) -> bool:
        """Something was asked for that the client must be told it does not get (NegotiateProtocolVersion)."""
        return self.minor != self.speaks or bool(self.unknown)

    def get(self, name: str) -> str:
        return next((value for key, value in self.parameters if key == name), "")


Opening = TlsRequest | GssRequest | CancelRequest | Startup


def packet_length(header: bytes) -> int:
    """Return the length of the whole packet whose first 4 bytes these are. Raise RemoteProtocolError."""
    (length,) = LENGTH.unpack(header)
    if not 8 <= length <= STARTUP_CAP:
        raise RemoteProtocolError("the first packet has a length that no start-up packet has")
    return int(length)


def opening(packet: bytes) -> Opening:
    """Decode a whole first packet, length included. Raise RemoteProtocolError."""
    (code,) = LENGTH.unpack_from(packet, 4)
    match code:
        case _ if code in (_SSL, _GSS):
            if len(packet) != 8:
                raise RemoteProtocolError("a request for encryption has exactly 8 bytes")
            return TlsRequest() if code == _SSL else GssRequest()
        case _ if code == _CANCEL:
            if not 16 <= len(packet) <= 268:
                raise RemoteProtocolError("a cancel request has a key of 4 to 256 bytes")
            (process,) = LENGTH.unpack_from(packet, 8)
            return CancelRequest(process, packet[12:])
        case _ if code >> 16 == 3:
            return _startup(code & 0xFFFF, packet[8:])
        case _:
            raise RemoteProtocolError(f"the protocol version {code >> 16}.{code & 0xFFFF} is not spoken here: use 3.0 or 3.2")


def _startup(minor: int, body: bytes) -> Startup:
    if not body.endswith(b"\0"):
        raise RemoteProtocolError("the start-up packet has no end")
    parts = body[:-1].split(b"\0")
    if parts[-1] != b"" or len(parts) % 2 != 1:
        raise RemoteProtocolError("the start-up packet's parameters are not pairs")
    if len(parts) > 2 * _MAX_PARAMETERS:
        raise RemoteProtocolError("the start-up packet has too many parameters")
    parameters: list[tuple[str, str]] = []
    unknown: list[str] = []
    for index in range(0, len(parts) - 1, 2):
        try:
            name, value = parts[index].decode(), parts[index + 1].decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("the start-up packet is not UTF-8") from None
        if not name or any(name == known for known, _ in parameters):
            raise RemoteProtocolError("the start-up packet has an empty or a repeated parameter")
        if name.startswith("_pq_."):
            unknown.append(name)
        else:
            parameters.append((name, value))
    return Startup(minor, tuple(parameters), tuple(unknown))


def parse_options(options: str) -> dict[str, str]:
    """Split `options` as the server does (pg_split_opts) and take only `-c name=value` and `--name=value`.

    Raise RemoteProtocolError for anything else: other switches reach the server's own command line.
    """
    words = _split(options)
    found: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word == "-c":
            if not words:
                raise RemoteProtocolError("options: -c needs name=value")
            setting = words.pop(0)
        elif word.startswith(("-c", "--")):
            setting = word[2:]
        else:
            raise RemoteProtocolError("options: only -c name=value and --name=value are taken")
        name, sep, value = setting.partition("=")
        if not sep or not name:
            raise RemoteProtocolError("options: write name=value")
        found[name.replace("-", "_").lower()] = value
    return found


def _split(options: str) -> list[str]:
    """Split at white space; a backslash takes the next character as it is."""
    words: list[str] = []
    word: list[str] | None = None
    characters = iter(options)
    for character in characters:
        if character in " \t\n\r\v\f":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        if word is None:
            word = []
        word.append(next(characters, "") if character == "\\" else character)
    if word is not None:
        words.append("".join(word))
    return words
