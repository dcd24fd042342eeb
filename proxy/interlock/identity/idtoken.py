"""ID tokens: who has just logged in at the provider, and when (OpenID Connect Core 1.0 §2 and §3.1.3.7).

An ID token is for the client that asked and for one login; it is never an access token, and is accepted nowhere else (`oidc`
reads those). Logout tokens, which the same provider signs, end what ID tokens began. The rules are pure and on the injected
clock; only the key comes from the issuer's key set.
"""

from __future__ import annotations

import binascii
import hmac
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from interlock.clock import Clock
from interlock.config import Issuer
from interlock.errors import AuthenticationError, Reason
from interlock.identity.keyset import KeySet
from interlock.identity.principal import Assurance, Identity

MAX_TOKEN = 32 * 1024
SKEW_S = 60
OLDEST_S = 600
"""An ID token is read once, seconds after it was made: one that is older was not made for this login."""

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"

MAX_GROUPS = 1000
MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """What a verified ID token says. `session` is the provider's own (`sid`), by which it ends it."""

    identity: Identity
    session: str
    names: tuple[str, ...]
    groups: frozenset[str]
    assurance: Assurance


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """What a verified logout token says: an account, a session of the provider, or a session of that account. It was said at
    `issued`, so it says nothing of logins that began later: a token that comes twice ends none of those."""

    provider: str
    account: str
    session: str
    issued: datetime


class IdTokens:
    """Verifies the ID tokens of one issuer."""

    def __init__(self, issuer: Issuer, keys: KeySet, *, clock: Clock, handle_claim: str) -> None:
        self._issuer = issuer
        self._keys = keys
        self._clock = clock
        self._handle_claim = handle_claim

    async def verify(self, token: str, *, client: str, nonce: str | None) -> LoggedIn:
        """Return who logged in at `client`. `nonce` is what the authorization request carried; a device grant has none.

        Raise AuthenticationError (token-rejected) that names the rule and nothing of the token.
        """
        claims = await self._claims(token, ("jwt",))
        return logged_in(claims, self._issuer, self._clock.now(), client=client, nonce=nonce, handle_claim=self._handle_claim)

    async def verify_logout(self, token: str, *, clients: Collection[str]) -> LoggedOut:
        """Return whose logins a back-channel logout token ends. Raise AuthenticationError."""
        claims = await self._claims(token, ("logout+jwt", "jwt"))
        return logged_out(claims, self._issuer, self._clock.now(), clients=clients)

    async def _claims(self, token: str, types: Collection[str]) -> dict[str, Any]:
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._issuer.algorithms:
            raise _rejected("its algorithm is not allowed for this issuer")
        if "crit" in header or "b64" in header or (kid is not None and not isinstance(kid, str)):
            raise _rejected("its header is malformed")
        if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in types:
            raise _rejected("its typ is another kind of token's")
        key = await self._keys.find(kid, algorithm)
        try:
            claims = json.loads(jwt.api_jws.decode(token, key.public, algorithms=[algorithm]))
        except (PyJWTError, ValueError, TypeError, RecursionError):
            raise _rejected("its signature does not verify") from None
        if not isinstance(claims, dict):
            raise _rejected("its claims are no object")
        return claims


def logged_in(
    claims: Mapping[str, Any], issuer: Issuer, now: datetime, *, client: str, nonce: str | None, handle_claim: str
) -> LoggedIn:
    """Apply every rule about claims. Pure."""
    if claims.get("iss") != issuer.issuer:
        raise _rejected("its issuer is another one")
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if listed != [client]:
        # §3.1.3.7 lets further audiences be, with azp: we know of none, and whoever else gets it could log in as the person.
        raise _rejected("it is not for this client alone (aud)")
    if claims.get("azp", client) != client:
        raise _rejected("it was issued to another client (azp)")
    moment = now.timestamp()
    issued, ends = _number(claims, "iat"), _number(claims, "exp")
    if not moment - OLDEST_S <= issued <= moment + SKEW_S or ends <= moment - SKEW_S:
        raise _rejected("it is expired, or not of this login")
    if nonce is not None and not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise _rejected("its nonce is another login's")
    if "events" in claims:
        raise _rejected("it is a logout token")
    when = _number(claims, "auth_time") if "auth_time" in claims else None
    if when is not None and when > moment + SKEW_S:
        raise _rejected("its auth_time is in the future")
    acr, amr, session = claims.get("acr"), claims.get("amr"), claims.get("sid", "")
    if not isinstance(session, str) or len(session) > MAX_NAME:
        raise _rejected("its sid is malformed")
    named = (claims.get(name) for name in dict.fromkeys((handle_claim, "preferred_username", "email")))
    return LoggedIn(
        identity=Identity(issuer.issuer, _name(claims, "sub")),
        session=session,
        names=tuple(name for name in named if isinstance(name, str) and 0 < len(name) <= MAX_NAME),
        groups=_groups(claims, issuer.groups_claim),
        assurance=Assurance(
            acr=acr if isinstance(acr, str) and len(acr) <= MAX_NAME else "",
            amr=tuple(m for m in amr if isinstance(m, str))[:16] if isinstance(amr, list) else (),
            auth_time=datetime.fromtimestamp(when, UTC) if when is not None else None,
        ),
    )


def logged_out(claims: Mapping[str, Any], issuer: Issuer, now: datetime, *, clients: Collection[str]) -> LoggedOut:
    """Apply every rule about a logout token (Back-Channel Logout 1.0 §2.4 and §2.6). Pure."""
    if claims.get("iss") != issuer.issuer:
        raise _rejected("its issuer is another one")
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not any(client in listed for client in clients):
        raise _rejected("it is not for us (aud)")
    moment, issued = now.timestamp(), _number(claims, "iat")
    if not moment - OLDEST_S <= issued <= moment + SKEW_S or _number(claims, "exp") <= moment - SKEW_S:
        raise _rejected("it is expired")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT), dict):
        raise _rejected("it is no logout token (events)")
    if "nonce" in claims:
        raise _rejected("it has a nonce, so it is an ID token")
    _name(claims, "jti")
    account = _name(claims, "sub") if "sub" in claims else ""
    session = _name(claims, "sid") if "sid" in claims else ""
    if not account and not session:
        raise _rejected("it names neither a person nor a session")
    return LoggedOut(issuer.issuer, account, session, datetime.fromtimestamp(issued, UTC))


def _header(token: str) -> dict[str, Any]:
    if len(token) > MAX_TOKEN or not token.isascii() or token.count(".") != 2:
        raise _rejected("it is no signed JWT")
    try:
        header = json.loads(jwt.utils.base64url_decode(token.split(".", maxsplit=1)[0]))
    except (binascii.Error, ValueError, RecursionError):
        raise _rejected("it is no signed JWT") from None
    if not isinstance(header, dict):
        raise _rejected("it is no signed JWT")
    return header


def _number(claims: Mapping[str, Any], claim: str) -> float:
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < 2**40:
        raise _rejected(f"its {claim} is missing or malformed")
    return float(value)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    # The directory links subjects of printable ASCII; OpenID Connect Core §2 has no others.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isascii() or not value.isprintable():
        raise _rejected(f"its {claim} is missing or malformed")
    return value


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


def _rejected(why: str) -> AuthenticationError:
    return AuthenticationError(f"the ID token was not accepted: {why}", reason=Reason.TOKEN_REJECTED)
