"""The rules about the claims of a token whose signature was verified. Pure; time comes in as an argument.

Knows RFC 7519 §4.1, RFC 8693 §4.1 (act) and §4.4 (may_act), OpenID Connect Core §2, and where
platforms keep what others call `jti` and `sub`. Must not know headers, signatures or the directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from interlock.config import Issuer
from interlock.errors import Reason
from interlock.identity import claimed
from interlock.identity.claimed import SKEW_S
from interlock.identity.jose import rejected
from interlock.identity.principal import MAX_CHAIN, Assurance, Identity, Origin
from interlock.platforms import PLATFORMS

_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
"""OpenID Connect Core §2 and §3.3.2.11: only ID tokens carry these. RFC 9068 §4 lets a `typ` of at+jwt settle it."""

_OTHER_KINDS = frozenset({"id", "refresh", "offline", "logout", "logout+jwt"})
"""Keycloak writes the kind of a token into a claim `typ`."""

_SPIFFE = "spiffe://"


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that passed every rule. `actors` are who act for `identity`, the one acting now first (RFC 8693 §4.1).

    `workload` is the handle that the configuration gives to tokens with these claims, `may_act` who alone may act for it,
    `origin` by what the issuer may say later that the login behind it is over.
    """

    issuer: Issuer
    identity: Identity
    jti: str
    issued: datetime
    expires: datetime
    groups: frozenset[str]
    actors: tuple[Identity, ...]
    assurance: Assurance
    origin: Origin
    workload: str = ""
    may_act: Identity | None = None
    has_groups: bool = True


def verified(
    claims: Mapping[str, Any], issuer: Issuer, now: datetime, pinned: frozenset[str], *,
    access_token: bool = False, named: str = "",
) -> VerifiedToken:  # fmt: skip
    """Apply every rule about an access or workload token. `pinned` are the issuers an actor may come from, `named` is what
    the token is called where its platform gives it no name."""
    _check_issuer(claims, issuer)
    _check_audience(claims, issuer.audience)
    issued, expires = _check_times(claims, issuer, now)
    if not access_token and (_ID_TOKEN_CLAIMS & claims.keys() or "events" in claims):
        raise rejected("it is an ID or logout token, not an access token")
    if str(claims.get("typ", "")).lower() in _OTHER_KINDS:
        raise rejected("it is not an access token")
    _check_platform(claims, issuer)
    return _token(claims, issuer, issued, expires, pinned, named)


def trust_domain(claims: Mapping[str, Any]) -> str:
    """Return the trust domain of a SPIFFE ID in `sub`; empty when it is none (SPIFFE-ID §2.1)."""
    sub = claims.get("sub")
    if not isinstance(sub, str) or not sub.startswith(_SPIFFE):
        return ""
    return sub.removeprefix(_SPIFFE).partition("/")[0]


# -- rules ---------------------------------------------------------------------------------------------------------------


def _token(
    claims: Mapping[str, Any], issuer: Issuer, issued: datetime, expires: datetime, pinned: frozenset[str], named: str
) -> VerifiedToken:
    platform = PLATFORMS[issuer.platform]
    jti = named if named and platform.digest and platform.jti not in claims else claimed.name(claims, platform.jti)
    identity = Identity(issuer.issuer, claimed.name(claims, issuer.subject))
    actors = _actors(claims, issuer.issuer, pinned)
    if len({identity, *actors}) != len(actors) + 1:
        raise rejected("its act chain names somebody twice")
    return VerifiedToken(
        issuer=issuer,
        identity=identity,
        jti=jti,
        issued=issued,
        expires=expires,
        groups=claimed.groups(claims, issuer.groups_claim),
        actors=actors,
        assurance=claimed.assurance(claims),
        workload=_workload(claims, issuer),
        may_act=_may_act(claims, issuer.issuer),
        has_groups=issuer.groups_claim in claims,
        origin=_origin(claims, identity, actors, issued),
    )


def _origin(claims: Mapping[str, Any], identity: Identity, actors: tuple[Identity, ...], issued: datetime) -> Origin:
    """A logout names `sub` and `sid` (Back-Channel Logout 1.0 §2.4), also where another claim is the subject here."""
    named = [one.subject for one in (identity, *actors) if one.issuer == identity.issuer]
    sub = claims.get("sub")
    accounts = dict.fromkeys([*named, *([sub] if isinstance(sub, str) else [])])
    return Origin(identity.issuer, tuple(accounts), claimed.name(claims, "sid") if "sid" in claims else "", issued)


def _check_issuer(claims: Mapping[str, Any], issuer: Issuer) -> None:
    if "iss" not in claims and issuer.trust_domain:
        return
    if claims.get("iss") != issuer.issuer:
        raise rejected("its issuer is not the one it was verified for")


def _check_platform(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """What tokens of a platform are besides being signed: or one of its other tokens passes for this one."""
    if issuer.platform == "spiffe" and trust_domain(claims) != issuer.trust_domain:
        raise rejected("its SPIFFE ID is of another trust domain")
    if issuer.platform == "entra" and (issuer.kind == "human") != ("scp" in claims):
        # A person's access token has scopes; an ID token has none, and neither has an application's own.
        raise rejected("it is a person's token where an application's is expected, or no access token at all (scp)")


def _check_audience(claims: Mapping[str, Any], audience: str) -> None:
    """RFC 7519 §4.1.3, exactly; with several audiences the token must have been issued to us (OIDC Core §3.1.3.7)."""
    value = claims.get("aud")
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed) or audience not in listed:
        raise rejected("it is not for us (aud)")
    if len(listed) > 1 and claims.get("azp") != audience:
        raise rejected("it has several audiences and was not issued to us (azp)")


def _check_times(claims: Mapping[str, Any], issuer: Issuer, now: datetime) -> tuple[datetime, datetime]:
    """Return when it was issued, and until when it may be used: no longer than the operator allows."""
    at = now.timestamp()
    issued, ends = claimed.moment(claims, "iat"), claimed.moment(claims, "exp")
    if ends <= at - SKEW_S:
        raise rejected("it has expired", Reason.TOKEN_EXPIRED)
    if issued > at + SKEW_S:
        raise rejected("it is issued in the future")
    if "nbf" in claims and claimed.moment(claims, "nbf") > at + SKEW_S:
        raise rejected("it is not valid yet")
    if at - issued > issuer.oldest + SKEW_S:
        raise rejected("it is older than this issuer's max_age", Reason.TOKEN_EXPIRED)
    return datetime.fromtimestamp(issued, UTC), datetime.fromtimestamp(min(ends, issued + issuer.oldest), UTC)


def _actors(claims: Mapping[str, Any], issuer: str, pinned: frozenset[str]) -> tuple[Identity, ...]:
    """RFC 8693 §4.1: the outermost `act` acts now, the nested ones acted before it."""
    actors: list[Identity] = []
    link: Any = claims.get("act")
    while link is not None:
        if not isinstance(link, dict):
            raise rejected("its act chain is malformed")
        if len(actors) == MAX_CHAIN:
            raise rejected(f"its act chain is longer than {MAX_CHAIN}")
        vouched = link.get("iss", issuer)
        if not isinstance(vouched, str) or vouched not in pinned:
            raise rejected("its act chain names an issuer that is not configured here")
        actors.append(Identity(vouched, claimed.name(link, "sub")))
        link = link.get("act")
    if "act" in claims and not actors:
        raise rejected("its act chain is malformed")
    return tuple(actors)


def _may_act(claims: Mapping[str, Any], issuer: str) -> Identity | None:
    """RFC 8693 §4.4: the one party that the token's issuer lets act for its subject."""
    if "may_act" not in claims:
        return None
    named = claims["may_act"]
    vouched = named.get("iss", issuer) if isinstance(named, dict) else None
    if not isinstance(vouched, str):
        raise rejected("its may_act is malformed")
    return Identity(vouched, claimed.name(named, "sub"))


def _workload(claims: Mapping[str, Any], issuer: Issuer) -> str:
    """Return the one handle whose claims these are, or an empty string. Two that fit are a mistake, and nobody."""
    told = {**claims, **_kubernetes(claims)} if issuer.platform == "kubernetes" else claims
    fitting = {
        workload.principal
        for workload in issuer.workloads
        if all(told.get(name) in ([value] if isinstance(value, str) else value) for name, value in workload.claims.items())
    }
    if len(fitting) > 1:
        raise rejected("its claims fit several workloads of the configuration")
    return next(iter(fitting), "")


def _kubernetes(claims: Mapping[str, Any]) -> dict[str, str]:
    """Return namespace, service account and pod of a projected token. `sub` must say the same as the private claims."""
    private = claims.get("kubernetes.io")
    if not isinstance(private, dict):
        return {"namespace": "", "serviceaccount": "", "pod": ""}
    told = {"namespace": private.get("namespace")}
    for name in ("serviceaccount", "pod"):
        part = private.get(name)
        told[name] = part.get("name") if isinstance(part, dict) else ""
    if claims.get("sub") != f"system:serviceaccount:{told['namespace']}:{told['serviceaccount']}":
        raise rejected("its sub is not the service account that it names")
    return {name: value if isinstance(value, str) else "" for name, value in told.items()}
