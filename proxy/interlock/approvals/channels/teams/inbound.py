"""The strict gate of what claims to come from the Bot Connector. Every check is a line in approvals.md and a test.

Authenticates the *delivery* only. Who the actor is, and whether he may answer, the directory and the desk say.
https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-authentication
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import jwt

from interlock.approvals.channels.teams.transport import Delivery
from interlock.errors import AuthenticationError, Reason
from interlock.identity.keyset import KeySet

ISSUER = "https://api.botframework.com"
SKEW_S = 300
MAX_LIFETIME_S = 24 * 3600
LAST_STAMP = 253_402_300_799  # the end of the year 9999
MAX_BODY = 256 * 1024
MAX_TOKEN = 16 * 1024
MAX_MEMBERS = 500


@dataclass(frozen=True, slots=True)
class Expected:
    """What this bot is: the only values that are believed."""

    app_id: str
    tenants: frozenset[str]
    service_hosts: frozenset[str]
    loopback: bool = False  # plain http is for a service on loopback only


def refuse(why: str) -> AuthenticationError:
    return AuthenticationError(f"the delivery was refused: {why}", reason=Reason.DELIVERY_REJECTED)


async def admit(authorization: str, body: bytes, expected: Expected, keys: KeySet, now: datetime) -> Delivery:
    """Check token and activity against each other and against what we are. Raise AuthenticationError."""
    if len(body) > MAX_BODY:
        raise refuse("the body is larger than 256 KiB")
    claims = await _claims(authorization, expected, keys, now)
    try:
        activity = json.loads(body)
    except (ValueError, RecursionError):
        raise refuse("the body is not JSON") from None
    if not isinstance(activity, dict):
        raise refuse("the body is not an activity")
    try:
        json.dumps(activity, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise refuse("the body holds what is not text") from None  # half a surrogate pair: nothing could be recorded of it
    return _activity(activity, claims, expected)


def bearer(authorization: str) -> str:
    """Return the token of an Authorization header. Cheap: asked before anything of the body is read."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or token.count(".") != 2 or len(token) > MAX_TOKEN:
        raise refuse("it carries no bearer token")
    return token


async def _claims(authorization: str, expected: Expected, keys: KeySet, now: datetime) -> dict[str, Any]:
    token = bearer(authorization)
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise refuse("its token is malformed") from None
    kid = header.get("kid")
    if header.get("alg") != "RS256" or not isinstance(kid, str) or not kid or "crit" in header:
        raise refuse("its token must be RS256 with a key id, and ask for nothing else")
    try:
        key = await keys.find(kid, "RS256")
    except AuthenticationError:
        raise refuse("its key is not in the connector's key set, or the set can't be fetched") from None
    if "msteams" not in key.endorsements:
        raise refuse("its key is not endorsed for msteams")
    try:
        # Times are checked below against the injected clock; everything else here.
        claims = jwt.decode(
            token,
            key.public,
            algorithms=["RS256"],
            audience=expected.app_id,
            issuer=ISSUER,
            options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.PyJWTError:
        raise refuse("its token does not verify") from None
    if claims.get("aud") != expected.app_id:  # PyJWT also takes a list that contains it
        raise refuse("its audience is not this bot alone")
    _check_times(claims, now)
    return dict(claims)


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    issued = claims.get("iat", claims.get("nbf"))
    begins, ends = claims.get("nbf", issued), claims["exp"]
    for stamp in (issued, begins, ends):
        # The comparison also refuses what is not a number, has no end, or is too long for a float.
        if not isinstance(stamp, int | float) or isinstance(stamp, bool) or not 0 <= stamp <= LAST_STAMP:
            raise refuse("its token must say when it was issued and when it ends")
    at = now.timestamp()
    if at > ends + SKEW_S or at < begins - SKEW_S or at < issued - SKEW_S:
        raise refuse("its token is not valid now")
    if ends - min(issued, begins) > MAX_LIFETIME_S:
        raise refuse("its token lives longer than a day")


def _activity(activity: Mapping[str, Any], claims: Mapping[str, Any], expected: Expected) -> Delivery:
    service_url = _string(activity, "serviceUrl")
    claimed = claims.get("serviceurl")
    if not isinstance(claimed, str) or claimed != service_url:
        raise refuse("the service URL of token and body differ")
    if not service_allowed(service_url, expected):
        raise refuse("the service URL is not an allowed one")
    if activity.get("channelId") != "msteams":
        raise refuse("its channel is not msteams")
    recipient = _string(_mapping(activity, "recipient"), "id")
    if recipient not in (expected.app_id, f"28:{expected.app_id}"):
        raise refuse("its recipient is not this bot")
    conversation = _mapping(activity, "conversation")
    tenants = {
        _string(conversation, "tenantId"),
        _string(_mapping(_mapping(activity, "channelData"), "tenant"), "id"),
    }
    if len(tenants) != 1 or not tenants <= expected.tenants:
        raise refuse("its tenant is not a configured one")
    actor = _mapping(activity, "from")
    if actor.get("role") == "bot" or str(actor.get("id")).startswith("28:"):
        raise refuse("its sender is a bot")
    value = activity.get("value")
    return Delivery(
        kind=_string(activity, "type"),
        name=str(activity.get("name") or ""),
        activity=_string(activity, "id"),
        conversation=_string(conversation, "id"),
        reply_to=str(activity.get("replyToId") or ""),
        tenant=tenants.pop(),
        actor_oid=str(actor.get("aadObjectId") or ""),
        actor_id=_string(actor, "id"),
        service_url=service_url,
        value=value if isinstance(value, dict) else {},
        place=str(conversation.get("conversationType") or ""),
        change=str(activity.get("action") or ""),
        added=_members(activity, "membersAdded"),
        removed=_members(activity, "membersRemoved"),
        recipient=recipient,
    )


def service_allowed(url: str, expected: Expected) -> bool:
    """Whether outbound calls may go to this service URL: HTTPS on a listed host; plain HTTP on loopback in tests."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.username or parts.password or parts.query or parts.fragment:
        return False
    if parts.scheme == "https":
        return host in expected.service_hosts and port in (None, 443)
    return expected.loopback and parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")


def _mapping(source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = source.get(key)
    if not isinstance(value, dict):
        raise refuse(f"{key} is missing")
    return value


def _members(activity: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the ids of members that came or left; what is not a list of members is none."""
    listed = activity.get(key)
    found = [m.get("id") for m in listed[:MAX_MEMBERS] if isinstance(m, dict)] if isinstance(listed, list) else []
    return tuple(ident for ident in found if isinstance(ident, str))


def _string(source: Mapping[str, Any], key: str) -> str:
    value = source.get(key)
    if not isinstance(value, str) or not value or len(value) > 2048:
        raise refuse(f"{key} is missing")
    return value
