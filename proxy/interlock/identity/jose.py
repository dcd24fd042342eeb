"""A compact JWS as text (RFC 7515 §7.1): taken apart strictly, so that no two readers see different tokens.

Knows base64url and JSON. Must not know keys, issuers or what a claim means. Nothing that is returned has been verified, and
errors never quote the token.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from interlock.errors import AuthenticationError, Reason

MAX_TOKEN = 32 * 1024

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\Z")


@dataclass(frozen=True, slots=True)
class Unverified:
    """Header and claims as anybody could have written them."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]


def rejected(why: str, reason: Reason = Reason.TOKEN_REJECTED) -> AuthenticationError:
    return AuthenticationError(f"the token was not accepted: {why}", reason=reason)


def unverified(token: str) -> Unverified:
    """Take a token apart, to learn whose keys to check it with. Raise AuthenticationError."""
    if len(token) > MAX_TOKEN:
        raise rejected(f"it is longer than {MAX_TOKEN} bytes")
    found = _COMPACT.match(token)
    if found is None:
        raise rejected("it is no signed JWT")
    header, claims = (_object(part) for part in (found[1], found[2]))
    return Unverified(header, claims)


def digest(token: str) -> str:
    """Name a token by its own SHA-256, for platforms that give it no name. Not the token, and nothing that leads to it."""
    # The signature's last character has spare bits, and an ECDSA signature has a twin: neither may make a second name.
    return "sha256-" + sha256(token.rpartition(".")[0].encode()).hexdigest()[:40]


def _object(part: str) -> dict[str, Any]:
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        read = json.loads(raw.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_refused)
    except (binascii.Error, ValueError, RecursionError):
        raise rejected("it is no signed JWT, or its JSON can be read in two ways") from None
    if not isinstance(read, dict):
        raise rejected("it is no signed JWT")
    return read


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a member stands twice")  # RFC 7519 §4: which one counts differs from reader to reader
    return read


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
