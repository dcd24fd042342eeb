"""Whether a token is signed as its issuer signs: by an allowed algorithm, with one of the issuer's own keys.

Knows the header of RFC 7515 §4.1 and the rules of RFC 8725 §3.1 and §3.11; the signature itself is PyJWT's. Must not know
claims. jku, x5u, x5c and jwk are not even read: keys come from the issuer's own set.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from interlock.config import Issuer
from interlock.identity.claimed import MAX_NAME
from interlock.identity.jose import Unverified, rejected
from interlock.identity.keyset import KeySet


async def check(token: str, read: Unverified, issuer: Issuer, keys: KeySet, *, types: Collection[str], untyped: str = "") -> None:
    """Raise AuthenticationError unless `token`, of which `read` is the text, is signed and of one of these `types`.

    `untyped` is what a token without a `typ` is taken for.
    """
    algorithm, kid = _checked_header(read.header, issuer)
    if typ(read.header, untyped) not in {short(name) for name in types}:
        raise rejected("its typ is another kind of token's")
    key = await keys.find(kid, algorithm)
    try:
        jwt.api_jws.decode(token, key.public, algorithms=[algorithm])
    except (PyJWTError, ValueError, TypeError, RecursionError):
        raise rejected("its signature does not verify") from None


def typ(header: Mapping[str, Any], untyped: str = "") -> str:
    """Return the type that a header says, in its short form."""
    value = header.get("typ", untyped)
    return short(value) if isinstance(value, str) else "?"


def short(name: str) -> str:
    """RFC 7515 §4.1.9: `application/` may be left out, and case does not matter."""
    return name.lower().removeprefix("application/")


def _checked_header(header: Mapping[str, Any], issuer: Issuer) -> tuple[str, str | None]:
    """Return algorithm and kid."""
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise rejected("its algorithm is not allowed for this issuer")
    if kid is not None and (not isinstance(kid, str) or not kid or len(kid) > MAX_NAME):
        raise rejected("its kid is malformed")
    if "crit" in header or "b64" in header:
        raise rejected("it has extensions that must be understood")
    return algorithm, kid
