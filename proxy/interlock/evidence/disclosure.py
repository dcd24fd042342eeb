"""Salted commitments in the disclosure form of RFC 9901 §4.2 (SD-JWT). Pure: salts come in as arguments.

An event carries only `_sd`, the sorted digests of its disclosures. A disclosure is base64url of the JSON array
`[salt, name, value]`; its digest is base64url of the SHA-256 of that text. Deleting a disclosure leaves the chain, the
seal and every proof valid, and nobody can guess a value back from its digest.

A line of `disclosures.jsonl` is the canonical object `{"d": disclosure, "seq": the event that commits to it}`.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec

from interlock.errors import EvidenceError, Reason
from interlock.evidence import jcs
from interlock.evidence.events import Json

__all__ = [
    "DRAWN", "OF_SEAL", "SALT", "URL_SAFE", "Disclosed", "beginnings", "commit", "digest", "digest_of", "encoded_tail",
    "encoded_tail_plain", "line", "parse_line", "read_tail", "seq_of", "tail", "tail_of_bytes",
]  # fmt: skip

SALT = 16
"""Bytes of salt: 128 bits (RFC 9901 §9.3)."""

DRAWN = SALT + 2
"""Bytes of entropy that `beginnings` takes for a salt; the first two are not used."""

OF_SEAL = -1
"""`seq` of the disclosure that the seal commits to; it stands last."""

URL_SAFE = bytes.maketrans(b"+/", b"-_")

LONG = 1024
"""Bytes from which on two searches are quicker than a table."""


_STANDARD = bytes.maketrans(b"-_", b"+/")

_LINE = re.compile(rb'\{"d":"([A-Za-z0-9_-]+)","seq":(-1|[0-9]+)\}\n?')
"""A line as `line` writes it; no other is ours."""

_decode_content = msgspec.json.Decoder(tuple[str, str, Any]).decode


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What a disclosure says. `seq` is the event that committed to it, -1 for the seal."""

    name: str
    value: Json
    digest: str
    seq: int


def commit(salt: bytes, name: str, value: Json) -> tuple[str, str]:
    """Return (disclosure, digest) of one named value. Raise NotCanonicalError."""
    (begin,) = beginnings(bytes(DRAWN - SALT) + salt)
    text = begin + tail(name, value)
    return text.decode(), digest_of(text).decode()


def beginnings(drawn: bytes) -> list[bytes]:
    """Return the begin of a disclosure for every `DRAWN` bytes: base64url of `["` and the 22 characters of a salt.

    The salt is the last `SALT` of them. These begins are 24 bytes, so what follows is encoded by itself: `tail` depends
    on name and value alone. All are encoded together: behind two zero bytes and moved to the left by four bits, the
    base64 of a salt is `AA` and its 22 characters.
    """
    count = len(drawn) // DRAWN
    frames = bytearray(drawn)
    frames[0::DRAWN] = frames[1::DRAWN] = bytes(count)
    texts = bytearray(_b64((int.from_bytes(frames, "big") << 4).to_bytes(len(frames), "big")))
    texts[0::24] = b"[" * count
    texts[1::24] = b'"' * count
    whole = _b64(texts)
    return [whole[at : at + 32] for at in range(0, len(whole), 32)]


def tail(name: str, value: Json) -> bytes:
    """Return the rest of a disclosure behind `beginnings`. Raise NotCanonicalError."""
    return encoded_tail(_name(name), jcs.encode(value))


def encoded_tail_plain(name: bytes, value: bytes, /) -> bytes:
    """Like `tail`, of a name and a value whose canonical bytes these are."""
    return _b64(b'",%b,%b]' % (name, value))


def tail_of_bytes(name: str, data: bytes) -> bytes:
    """Like `tail`, of bytes, which are said in base64. For many of them: what is base64 need not be looked through for JSON."""
    return encoded_tail_plain(_name(name), b'"%b"' % b2a_base64(data, newline=False))


def read_tail(data: bytes) -> tuple[str, Json]:
    """Return the name and the value that a tail says."""
    _, name, value = _decode_content(b'["' + _bytes(data))
    return name, value


def digest_of(text: bytes) -> bytes:
    """Return the digest of a disclosure (RFC 9901 §4.2.3)."""
    return b2a_base64(sha256(text).digest(), newline=False).translate(URL_SAFE, b"=")


@cache
def _name(name: str) -> bytes:
    """Names are a closed set, written in the code that makes events."""
    return jcs.encode(name)


def digest(disclosure: str) -> str:
    """Return the digest of a disclosure (RFC 9901 §4.2.3)."""
    return digest_of(disclosure.encode("ascii")).decode()


def line(disclosure: str | bytes, seq: int) -> bytes:
    """Return the line of `disclosures.jsonl`, newline included. Keys stand in canonical order."""
    return b'{"d":"%b","seq":%d}\n' % (disclosure if isinstance(disclosure, bytes) else disclosure.encode("ascii"), seq)


def parse_line(data: bytes) -> Disclosed:
    """Read one line of `disclosures.jsonl` back. Raise EvidenceError: the file is not what we wrote."""
    text, seq = _parts(data)
    try:
        _, name, value = _decode_content(_bytes(text))
    except ValueError:  # msgspec's, binascii's and Unicode's errors are all of this kind
        raise _unreadable() from None
    return Disclosed(name, value, digest_of(text).decode(), seq)


def seq_of(data: bytes) -> int:
    """Return only the `seq` of a line, or raise EvidenceError."""
    return _parts(data)[1]


def _parts(data: bytes) -> tuple[bytes, int]:
    found = _LINE.fullmatch(data)
    if found is None:
        raise _unreadable()
    text, seq = found.groups()
    return text, int(seq)


def _unreadable() -> EvidenceError:
    return EvidenceError("a line of the disclosures can't be read", reason=Reason.EVIDENCE_INVALID)


def _bytes(text: bytes) -> bytes:
    return a2b_base64(text.translate(_STANDARD) + b"=" * (-len(text) % 4))


def _b64(data: bytes | bytearray) -> bytes:
    """Encode as base64url without padding (RFC 4648 §5), quicker than the base64 module."""
    encoded = b2a_base64(data, newline=False)
    if len(encoded) > LONG:
        # What a command printed is base64 already, and base64 of ASCII has neither of the two characters: searching for
        # them is fifty times quicker than translating.
        return encoded.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=")
    return encoded.translate(URL_SAFE, b"=")


try:
    from interlock.evidence._chain import encoded_tail
except ImportError:
    encoded_tail = encoded_tail_plain
