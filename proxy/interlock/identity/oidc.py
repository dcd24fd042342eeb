"""JWTs of pinned issuers: which are accepted, and who they say is asking (identity.md, "Token rules").

Knows which issuer a token comes from. Whether it is signed is `signature`'s to say, what the claims of a signed token must be is
`claims`'. Must not know the directory: a verified token is facts, and what they are worth is `authenticate`'s to say.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from interlock.clock import Clock
from interlock.config import Issuer
from interlock.errors import ConfigError
from interlock.identity import claims as rules
from interlock.identity import jose, signature
from interlock.identity.claims import VerifiedToken
from interlock.identity.jose import rejected
from interlock.identity.keyset import ALGORITHMS, KeySet


def trusting(ca: Path | None) -> httpx.AsyncClient:
    """Return a client for key sets that trusts `ca` alone, or what the system trusts. Raise ConfigError."""
    try:
        trust = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"identity.issuers: ca {ca} can't be read: {error.__class__.__name__}") from None
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=8), trust_env=False, verify=trust)


class TokenVerifier:
    """Verifies tokens of the configured issuers. Keys are fetched when first needed; `close` ends the connections."""

    def __init__(self, issuers: Sequence[Issuer], *, clock: Clock, client: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self._clock = clock
        self._clients: dict[Path | None, httpx.AsyncClient] = {}
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._domains = {issuer.trust_domain: issuer for issuer in issuers if issuer.trust_domain}
        if len(self._issuers) != len(issuers):
            raise ConfigError("two identity.issuers have the same issuer")
        for issuer in issuers:
            unknown = [name for name in issuer.algorithms if name not in ALGORITHMS]
            if unknown or not issuer.algorithms:
                raise ConfigError(
                    f"identity.issuers {issuer.name}: algorithms must be among {', '.join(ALGORITHMS)}, not {', '.join(unknown)}"
                )
        self._keys = {
            issuer.issuer: KeySet(
                issuer.issuer, jwks_url=issuer.jwks_url, clock=clock, client=client or partial(self._client, issuer.ca)
            )
            for issuer in issuers
        }
        if client is None:
            for issuer in issuers:
                self._client(issuer.ca)  # now: reading what the system trusts takes longer than a login may hold the loop

    @property
    def any_once(self) -> bool:
        """Whether any issuer's tokens are good for one use."""
        return any(issuer.once for issuer in self._issuers.values())

    def _client(self, ca: Path | None) -> httpx.AsyncClient:
        if ca not in self._clients:
            self._clients[ca] = trusting(ca)
        return self._clients[ca]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def verify(self, token: str) -> VerifiedToken:
        """Return what an access token or a workload's token says. Raise AuthenticationError that names the rule it breaks."""
        issuer, header, claims = await self._signed(token)
        return rules.verified(
            claims, issuer, self._clock.now(), frozenset(self._issuers),
            access_token=signature.typ(header) == "at+jwt", named=jose.digest(token),
        )  # fmt: skip

    async def _signed(self, token: str) -> tuple[Issuer, Mapping[str, Any], Mapping[str, Any]]:
        """Return whose token this is and what it holds, once its signature is verified with one of the issuer's own keys."""
        unverified = jose.unverified(token)
        issuer = self._issuer(unverified.claims)
        keys = self._keys[issuer.issuer]
        await signature.check(token, unverified, issuer, keys, types=issuer.types)
        return issuer, unverified.header, unverified.claims

    def _issuer(self, claims: Mapping[str, Any]) -> Issuer:
        """Find whose keys to check with. A JWT-SVID may have no `iss` (JWT-SVID §3): its trust domain says it."""
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if "iss" not in claims:
            issuer = self._domains.get(rules.trust_domain(claims))
        if issuer is None:
            raise rejected("its issuer is not configured here")
        return issuer
