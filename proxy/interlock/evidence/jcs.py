"""RFC 8785 (JSON Canonicalization Scheme) of the values that events may hold. Pure.

Narrower than the RFC on purpose: no floats, no integer of 2^53 or more, no lone surrogates. What is left is what every
JSON reader, jq and shell loop agree on byte for byte.

Two paths, one result: our own keys are ASCII, so their order by UTF-16 units (RFC 8785 §3.2.3) is the order by bytes
and msgspec encodes them; anything else goes the slow way. tests/evidence/test_jcs.py holds both against `rfc8785`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from interlock.errors import EvidenceError
from interlock.evidence.events import Json

LIMIT = 2**53
"""Integers must lie strictly between -LIMIT and LIMIT (RFC 7493 §2.2)."""

_fast = msgspec.json.Encoder(order="sorted").encode


class NotCanonicalError(EvidenceError):
    """A value that has no canonical form here: a float, a huge integer, a lone surrogate, an unknown type."""


def encode(value: Json) -> bytes:
    """Return the canonical UTF-8 bytes of `value`, without a newline. Raise NotCanonicalError."""
    return encode_with(value, value)


def encode_text(text: bytes) -> bytes:
    """Return the canonical bytes of a string that these are in UTF-8. Raise UnicodeDecodeError when they are none."""
    return _fast(text.decode())


def encode_with(checked: Json, whole: Json) -> bytes:
    """Return the canonical bytes of `whole`, of which only the values in `checked` are not known to be canonical.

    For the writer's own keys and values around the fields of an event. Raise NotCanonicalError.
    """
    try:
        return _fast(whole) if _plain(checked) else _slow(whole).encode()
    except UnicodeEncodeError:
        raise NotCanonicalError("a string holds a lone surrogate") from None
    except RecursionError:
        raise NotCanonicalError("the value is nested too deeply") from None


_ATOMS = frozenset((str, bool, type(None)))


def _plain(value: Any) -> bool:
    """Check every leaf; True when the fast encoder gives the canonical form as it is."""
    kind = type(value)
    if kind is dict:
        try:
            plain = "".join(value).isascii()
        except TypeError:
            raise NotCanonicalError("a key is not a string") from None
        items = value.values()
    elif kind is list or kind is tuple:
        plain, items = True, value
    elif kind is int:
        return _small(value)
    else:
        return kind in _ATOMS
    for item in items:
        kind = type(item)
        if kind in _ATOMS:
            continue
        if kind is int:
            _small(item)
        elif not _plain(item):
            plain = False
    return plain


def _small(value: int) -> bool:
    if not -LIMIT < value < LIMIT:
        raise NotCanonicalError("an integer of 2^53 or more has no canonical form")
    return True


def _slow(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, int):
        _small(value)
        return str(int(value))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise NotCanonicalError("a key is not a string")
        ordered = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_slow(key)}:{_slow(item)}" for key, item in ordered) + "}"
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return "[" + ",".join(map(_slow, value)) + "]"
    raise NotCanonicalError(f"a {type(value).__name__} has no canonical form")
