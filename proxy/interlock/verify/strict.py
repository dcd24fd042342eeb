"""Reads the one JSON form that is accepted: canonical (RFC 8785), without floats and without big integers.

Whatever is read is encoded again and must give the same bytes, so no two readers of a line can see different things:
no repeated key, no escape that hides a character, no second spelling of a number.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, NoReturn

LIMIT = 2**53


class MalformedError(ValueError):
    """The bytes are not in the accepted form."""


def _refuse(text: str) -> NoReturn:
    raise MalformedError(f"{text[:20]} is not an integer")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) >= LIMIT:
        raise MalformedError(f"{text[:20]} is too large")
    return int(text)


_decode = json.JSONDecoder(parse_float=_refuse, parse_int=_integer, parse_constant=_refuse).decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def parse(data: bytes) -> Any:
    """Return the value of canonical JSON. Raise MalformedError."""
    try:
        value = _decode(data.decode("utf-8"))
        again = _encode(value).encode("utf-8")
    except MalformedError:
        raise
    except (ValueError, RecursionError):
        raise MalformedError("not JSON in UTF-8") from None
    if again != data:
        raise MalformedError("not canonical JSON (RFC 8785)")
    return value


def parse_object(data: bytes) -> dict[str, Any]:
    """Return an object with ASCII keys (their order by code point is then the canonical one). Raise MalformedError."""
    value = parse(data)
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object")
    if not all(key.isascii() for key in value):
        raise MalformedError("a key is not ASCII")
    return value


def b64url(text: str) -> bytes:
    """Decode base64url without padding, in its only spelling. Raise MalformedError."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("not base64url") from None
    if to_b64url(data) != text:
        raise MalformedError("not base64url in its only spelling")
    return data


def to_b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def leaf(line: bytes) -> bytes:
    """Return the RFC 6962 leaf hash of a line."""
    return hashlib.sha256(b"\x00" + line).digest()


class Frontier:
    """The RFC 6962 tree over leaf hashes, kept as its complete subtrees."""

    def __init__(self) -> None:
        self._subtrees: list[tuple[int, bytes]] = []  # (number of leaves, hash), largest first

    def add(self, hashed: bytes) -> None:
        size = 1
        while self._subtrees and self._subtrees[-1][0] == size:
            _, left = self._subtrees.pop()
            hashed = hashlib.sha256(b"\x01" + left + hashed).digest()
            size *= 2
        self._subtrees.append((size, hashed))

    def root(self) -> str:
        if not self._subtrees:
            return hashlib.sha256(b"").hexdigest()
        hashed = self._subtrees[-1][1]
        for _, left in reversed(self._subtrees[:-1]):
            hashed = hashlib.sha256(b"\x01" + left + hashed).digest()
        return hashed.hex()
