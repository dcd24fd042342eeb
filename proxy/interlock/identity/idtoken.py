"""ID tokens: who has just logged in at the provider, and when (OpenID Connect Core 1.0 §2 and §3.1.3.7).

An ID token is for the client that asked and for one login; it is never an access token, and is accepted nowhere else (`oidc`
reads those). Logout tokens, which the same provider signs, end what ID tokens began. The rules are pure and on the injected
clock; only the key comes from the issuer's key set.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from interlock.clock import Clock
from interlock.config import Issuer
from interlock.identity import claimed, jose, signature
from interlock.identity.claimed import MAX_NAME, SKEW_S
from interlock.identity.jose import rejected
from interlock.identity.keyset import KeySet
from interlock.identity.principal import Assurance, Identity

OLDEST_S = 600
"""An ID token is read once, seconds after it was made: one that is older was not made for this login."""

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


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

    async def _claims(self, token: str, types: Collection[str]) -> Mapping[str, Any]:
        read = jose.unverified(token)  # strictly: what was signed is read by these rules before anybody asks who signed it
        await signature.check(token, read, self._issuer, self._keys, types=types, untyped="jwt")
        return read.claims


def logged_in(
    claims: Mapping[str, Any], issuer: Issuer, now: datetime, *, client: str, nonce: str | None, handle_claim: str
) -> LoggedIn:
    """Apply every rule about claims. Pure."""
    if claims.get("iss") != issuer.issuer:
        raise rejected("its issuer is another one")
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if listed != [client]:
        # §3.1.3.7 lets further audiences be, with azp: we know of none, and whoever else gets it could log in as the person.
        raise rejected("it is not for this client alone (aud)")
    if claims.get("azp", client) != client:
        raise rejected("it was issued to another client (azp)")
    at = now.timestamp()
    issued, ends = claimed.moment(claims, "iat"), claimed.moment(claims, "exp")
    if not at - OLDEST_S <= issued <= at + SKEW_S or ends <= at - SKEW_S:
        raise rejected("it is expired, or not of this login")
    if nonce is not None and not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise rejected("its nonce is another login's")
    if "events" in claims:
        raise rejected("it is a logout token")
    proved = claimed.assurance(claims)
    if proved.auth_time is not None and proved.auth_time.timestamp() > at + SKEW_S:
        raise rejected("its auth_time is in the future")
    session = claims.get("sid", "")
    if not isinstance(session, str) or len(session) > MAX_NAME:
        raise rejected("its sid is malformed")
    named = (claims.get(claim) for claim in dict.fromkeys((handle_claim, "preferred_username", "email")))
    return LoggedIn(
        identity=Identity(issuer.issuer, _account(claims, "sub")),
        session=session,
        names=tuple(one for one in named if isinstance(one, str) and 0 < len(one) <= MAX_NAME),
        groups=claimed.groups(claims, issuer.groups_claim),
        assurance=proved,
    )


def logged_out(claims: Mapping[str, Any], issuer: Issuer, now: datetime, *, clients: Collection[str]) -> LoggedOut:
    """Apply every rule about a logout token (Back-Channel Logout 1.0 §2.4 and §2.6). Pure."""
    if claims.get("iss") != issuer.issuer:
        raise rejected("its issuer is another one")
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not any(client in listed for client in clients):
        raise rejected("it is not for us (aud)")
    at, issued = now.timestamp(), claimed.moment(claims, "iat")
    if not at - OLDEST_S <= issued <= at + SKEW_S or claimed.moment(claims, "exp") <= at - SKEW_S:
        raise rejected("it is expired")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT), dict):
        raise rejected("it is no logout token (events)")
    if "nonce" in claims:
        raise rejected("it has a nonce, so it is an ID token")
    _account(claims, "jti")
    account = _account(claims, "sub") if "sub" in claims else ""
    session = _account(claims, "sid") if "sid" in claims else ""
    if not account and not session:
        raise rejected("it names neither a person nor a session")
    return LoggedOut(issuer.issuer, account, session, datetime.fromtimestamp(issued, UTC))


def _account(claims: Mapping[str, Any], claim: str) -> str:
    # The directory links subjects of printable ASCII; OpenID Connect Core §2 has no others.
    value = claimed.name(claims, claim)
    if not value.isascii():
        raise rejected(f"its {claim} is missing or malformed")
    return value
