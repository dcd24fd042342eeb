"""JWTs of pinned issuers: which are accepted, and who they say is asking (identity.md, "Token rules").

Knows RFC 7519, RFC 8725 (best practices), RFC 9068 (access tokens), RFC 8693 §4.1 (act) and OpenID Connect Core. The
signature is PyJWT's; every other rule is here, on the injected clock. Must not know the directory: a verified token is
facts, and what they are worth is `authenticate`'s to say. Errors never quote the token.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
from jwt.exceptions import PyJWTError

from interlock.clock import Clock
from interlock.config import Issuer
from interlock.errors import AuthenticationError, ConfigError, Reason
from interlock.identity.keyset import ALGORITHMS, KeySet
from interlock.identity.principal import MAX_CHAIN, Assurance, Identity

MAX_TOKEN = 32 * 1024
SKEW_S = 60
MAX_GROUPS = 1000
MAX_NAME = 255

_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
"""OpenID Connect Core §2 and §3.3.2.11: only ID tokens carry these. RFC 9068 §4 lets a `typ` of at+jwt settle it."""

_OTHER_KINDS = frozenset({"id", "refresh", "offline", "logout", "logout+jwt"})
"""Keycloak writes the kind of a token into a claim `typ`."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that passed every rule. `actors` are who act for `identity`, the one acting now first (RFC 8693 §4.1)."""

    issuer: Issuer
    identity: Identity
    jti: str
    expires: datetime
    groups: frozenset[str]
    actors: tuple[Identity, ...]
    assurance: Assurance


class TokenVerifier:
    """Verifies tokens of the configured issuers. Keys are fetched when first needed; `close` ends the connections."""

    def __init__(self, issuers: Sequence[Issuer], *, clock: Clock, client: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ConfigError("two identity.issuers have the same issuer")
        for issuer in issuers:
            unknown = [name for name in issuer.algorithms if name not in ALGORITHMS]
            if unknown or not issuer.algorithms:
                raise ConfigError(
                    f"identity.issuers {issuer.name}: algorithms must be among {', '.join(ALGORITHMS)}, not {', '.join(unknown)}"
                )
        self._keys = {
            issuer.issuer: KeySet(issuer.issuer, jwks_url=issuer.jwks_url, clock=clock, client=client or self._client)
            for issuer in issuers
        }

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(limits=httpx.Limits(max_connections=8), trust_env=False)
        return self._http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def verify(self, token: str) -> VerifiedToken:
        """Return what a token says. Raise AuthenticationError (token-rejected) that names the rule it breaks."""
        header, unverified = _unverified(token)
        named = unverified.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise _rejected("its issuer is not configured here")
        algorithm, kid = _checked_header(header, issuer)
        key = await self._keys[issuer.issuer].find(kid, algorithm)
        try:
            payload = jwt.api_jws.decode(token, key.public, algorithms=[algorithm])
            claims = json.loads(payload)
        except (PyJWTError, ValueError, TypeError):
            raise _rejected("its signature does not verify") from None
        if not isinstance(claims, dict):
            raise _rejected("its claims are no object")
        return verified(claims, issuer, self._clock.now(), frozenset(self._issuers), access_token=_is_access(header))


def _rejected(why: str) -> AuthenticationError:
    return AuthenticationError(f"the token was not accepted: {why}", reason=Reason.TOKEN_REJECTED)


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read header and claims only to learn whose keys to check with."""
    if len(token) > MAX_TOKEN:
        raise _rejected(f"it is longer than {MAX_TOKEN} bytes")
    if not token.isascii() or token.count(".") != 2:
        raise _rejected("it is no signed JWT")
    try:
        header, claims = (json.loads(_part(part)) for part in token.split(".")[:2])
    except (binascii.Error, ValueError, RecursionError):
        raise _rejected("it is no signed JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _rejected("it is no signed JWT")
    return header, claims


def _part(part: str) -> bytes:
    return jwt.utils.base64url_decode(part)


def _checked_header(header: Mapping[str, Any], issuer: Issuer) -> tuple[str, str | None]:
    """Return algorithm and kid. jku, x5u, x5c and jwk are not even read: keys come from the issuer's own set."""
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise _rejected("its algorithm is not allowed for this issuer")
    if kid is not None and (not isinstance(kid, str) or not kid or len(kid) > MAX_NAME):
        raise _rejected("its kid is malformed")
    if "crit" in header or "b64" in header:
        raise _rejected("it has extensions that must be understood")
    if _type(header) not in {_short(name) for name in issuer.token_type}:
        raise _rejected("its typ is not one of an access token for us")
    return algorithm, kid


def _short(name: str) -> str:
    """RFC 7515 §4.1.9: `application/` may be left out, and case does not matter."""
    return name.lower().removeprefix("application/")


def _type(header: Mapping[str, Any]) -> str:
    value = header.get("typ", "")
    return _short(value) if isinstance(value, str) else "?"


def _is_access(header: Mapping[str, Any]) -> bool:
    return _type(header) == "at+jwt"


def verified(
    claims: Mapping[str, Any], issuer: Issuer, now: datetime, pinned: frozenset[str], *, access_token: bool = False
) -> VerifiedToken:
    """Apply every rule about claims. Pure; `pinned` are the issuers an actor may come from."""
    if claims.get("iss") != issuer.issuer:
        raise _rejected("its issuer is not the one it was verified for")
    _check_audience(claims, issuer.audience)
    expires = _check_times(claims, issuer, now)
    if not access_token and (_ID_TOKEN_CLAIMS & claims.keys() or "events" in claims):
        raise _rejected("it is an ID or logout token, not an access token")
    if str(claims.get("typ", "")).lower() in _OTHER_KINDS:
        raise _rejected("it is not an access token")
    jti = _name(claims, "jti")
    identity = Identity(issuer.issuer, _name(claims, "sub"))
    actors = _actors(claims, issuer.issuer, pinned)
    if len({identity, *actors}) != len(actors) + 1:
        raise _rejected("its act chain names somebody twice")
    return VerifiedToken(
        issuer=issuer,
        identity=identity,
        jti=jti,
        expires=expires,
        groups=_groups(claims, issuer.groups_claim),
        actors=actors,
        assurance=_assurance(claims),
    )


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise _rejected(f"its {claim} is missing or malformed")
    return value


def _check_audience(claims: Mapping[str, Any], audience: str) -> None:
    """RFC 7519 §4.1.3, exactly; with several audiences the token must have been issued to us (OIDC Core §3.1.3.7)."""
    value = claims.get("aud")
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed) or audience not in listed:
        raise _rejected("it is not for us (aud)")
    if len(listed) > 1 and claims.get("azp") != audience:
        raise _rejected("it has several audiences and was not issued to us (azp)")


def _check_times(claims: Mapping[str, Any], issuer: Issuer, now: datetime) -> datetime:
    moment = now.timestamp()
    issued, ends = _number(claims, "iat"), _number(claims, "exp")
    if ends <= moment - SKEW_S:
        raise _rejected("it has expired")
    if issued > moment + SKEW_S:
        raise _rejected("it is issued in the future")
    if "nbf" in claims and _number(claims, "nbf") > moment + SKEW_S:
        raise _rejected("it is not valid yet")
    if moment - issued > issuer.max_age + SKEW_S:
        raise _rejected("it is older than this issuer's max_age")
    # A session lives no longer than the token, nor than the age that the operator allows.
    return datetime.fromtimestamp(min(ends, issued + issuer.max_age), UTC)


def _number(claims: Mapping[str, Any], claim: str) -> float:
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < 2**40:
        raise _rejected(f"its {claim} is missing or malformed")
    return float(value)


def _groups(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """Return the groups; none when the claim is absent. Overage (Entra) fails closed: a deny rule may name a group."""
    elsewhere = claims.get("_claim_names")
    overage = claims.get("hasgroups") not in (None, False, "false") or (
        elsewhere is not None and (not isinstance(elsewhere, dict) or claim in elsewhere or "groups" in elsewhere)
    )
    if overage:
        raise _rejected("its groups did not fit and are left out (overage); assign fewer groups to the application")
    value = claims.get(claim, [])
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        raise _rejected(f"its {claim} is no list of groups")
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable() for name in value):
        raise _rejected(f"its {claim} is no list of groups")
    return frozenset(value)


def _actors(claims: Mapping[str, Any], issuer: str, pinned: frozenset[str]) -> tuple[Identity, ...]:
    """RFC 8693 §4.1: the outermost `act` acts now, the nested ones acted before it."""
    actors: list[Identity] = []
    link: Any = claims.get("act")
    while link is not None:
        if not isinstance(link, dict):
            raise _rejected("its act chain is malformed")
        if len(actors) == MAX_CHAIN:
            raise _rejected(f"its act chain is longer than {MAX_CHAIN}")
        vouched = link.get("iss", issuer)
        if not isinstance(vouched, str) or vouched not in pinned:
            raise _rejected("its act chain names an issuer that is not configured here")
        actors.append(Identity(vouched, _name(link, "sub")))
        link = link.get("act")
    if "act" in claims and not actors:
        raise _rejected("its act chain is malformed")
    return tuple(actors)


def _assurance(claims: Mapping[str, Any]) -> Assurance:
    acr, amr = claims.get("acr"), claims.get("amr")
    when = claims.get("auth_time")
    return Assurance(
        acr=acr if isinstance(acr, str) and len(acr) <= MAX_NAME else "",
        amr=tuple(m for m in amr if isinstance(m, str))[:16] if isinstance(amr, list) else (),
        auth_time=datetime.fromtimestamp(_number(claims, "auth_time"), UTC) if when is not None else None,
    )
