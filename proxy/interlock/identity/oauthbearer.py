"""OAUTHBEARER, the server's side, as values: what a client sent, and what it is told when that was not enough.

Knows RFC 7628 (the mechanism), RFC 5801 §4 (the gs2 header) and RFC 6750 §2.1 (what a bearer token looks like). Must not
know sockets, Postgres framing, issuers. A token may only be asked for inside TLS: that is the caller's to see to.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from interlock.errors import RemoteProtocolError

MECHANISM = "OAUTHBEARER"
MAX_RESPONSE = 48 * 1024
"""Above the longest token that is looked at (`jose.MAX_TOKEN`), so that such a one gets its own answer."""

DISMISSAL = b"\x01"
"""What a client answers to `failure` (§3.2.3). Only then is the exchange over."""

_KEY = re.compile(rb"[A-Za-z]+\Z")
_VALUE = re.compile(rb"[\x21-\x7e \t\r\n]*\Z")
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +(?P<token>[A-Za-z0-9._~+/-]+=*)\Z")
_MAX_PAIRS = 16


@dataclass(frozen=True, slots=True)
class Bearer:
    """The client's response. An empty `token` asks where to get one (§4.3): it is no attempt to log in."""

    token: str = field(repr=False)


def response(message: bytes) -> Bearer:
    """Decode the client's initial response. Raise RemoteProtocolError, whose text never holds any part of it."""
    if len(message) > MAX_RESPONSE:
        raise RemoteProtocolError("the OAUTHBEARER message is too long")
    header, sep, rest = message.partition(b"\x01")
    if not sep or not rest.endswith(b"\x01"):
        raise RemoteProtocolError("the OAUTHBEARER message has no end")
    _check_header(header)
    if rest == b"\x01":
        raise RemoteProtocolError("the OAUTHBEARER message has no auth value")
    if not rest.endswith(b"\x01\x01"):
        raise RemoteProtocolError("the OAUTHBEARER message has no end")
    pairs: dict[bytes, bytes] = {}
    for pair in rest[:-2].split(b"\x01"):
        key, sep, value = pair.partition(b"=")
        if not sep or not _KEY.match(key) or not _VALUE.match(value) or key in pairs or len(pairs) == _MAX_PAIRS:
            raise RemoteProtocolError("the OAUTHBEARER message has a malformed or repeated value")
        pairs[key] = value
    if b"auth" not in pairs:
        raise RemoteProtocolError("the OAUTHBEARER message has no auth value")
    if not pairs[b"auth"]:
        return Bearer("")
    found = _BEARER.match(pairs[b"auth"])
    if found is None:
        raise RemoteProtocolError("the OAUTHBEARER message carries no bearer token")
    return Bearer(found["token"].decode("ascii"))


def _check_header(header: bytes) -> None:
    """`n,,` or `y,,`: OAUTHBEARER binds to no channel (§3.1), and acting as somebody else is not offered."""
    flag, sep, rest = header.partition(b",")
    if not sep or flag not in (b"n", b"y"):
        raise RemoteProtocolError("the OAUTHBEARER message has a channel binding header that does not fit")
    if rest != b",":
        raise RemoteProtocolError("acting as another user by SASL is not offered")


def failure(configuration: str, scope: str) -> bytes:
    """Return the error result (§3.2.2): where the issuer's metadata is, and the scope to ask for there."""
    return json.dumps(
        {"status": "invalid_token", "openid-configuration": configuration, "scope": scope}, separators=(",", ":")
    ).encode()


def metadata(issuer: str) -> str:
    """Return the address of an issuer's metadata (OpenID Connect Discovery 1.0 §4), which clients compare with theirs."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"
