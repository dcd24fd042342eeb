"""The key set of one pinned issuer: fetched, bounded, cached, and closed when it can't be trusted any more.

Knows OpenID Connect Discovery 1.0 §4, RFC 7517 (JWK) and RFC 9111 (max-age). Must not know tokens or claims. The issuer
comes from the configuration; nothing in a token leads anywhere, and only the issuer's own document to its keys. HTTPS
without redirects; plain HTTP only where the configuration itself names an address on loopback, or where an issuer that
is there points to one.

One fetch at a time, whoever asks. A set is fresh for its max-age (5 minutes to 24 hours); after that it is used only
while fetching fails, and at most `STALE_S` longer. An unknown kid causes a fetch at most every `UNKNOWN_KID_S`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from interlock.clock import Clock
from interlock.config import is_loopback
from interlock.errors import AuthenticationError, ConfigError, Reason

log = structlog.get_logger()

MIN_FRESH_S = 300
MAX_FRESH_S = 86_400
STALE_S = 6 * 3600
UNKNOWN_KID_S = 60
RETRY_S = 30
TIMEOUT_S = 10
MAX_BODY = 262_144
MAX_KEYS = 100
MAX_RSA_BITS = 8192

ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "RS256": ("RSA", ""), "RS384": ("RSA", ""), "RS512": ("RSA", ""),
    "PS256": ("RSA", ""), "PS384": ("RSA", ""), "PS512": ("RSA", ""),
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}  # fmt: skip
"""Signature algorithms that can be allowed, each with the only key type (and curve) it works with. All asymmetric."""

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key for signatures. `algorithm` is empty when the set does not say."""

    kid: str
    kty: str
    crv: str
    algorithm: str
    public: Any
    endorsements: tuple[str, ...] = ()  # channels a Bot Connector key may sign for; no other issuer has them

    def fits(self, algorithm: str) -> bool:
        return ALGORITHMS[algorithm] == (self.kty, self.crv) and self.algorithm in ("", algorithm)


@dataclass(frozen=True, slots=True)
class _Fetched:
    keys: tuple[Key, ...]
    fresh_until_us: int
    usable_until_us: int


class KeySet:
    """Finds the key of a token's header. One an issuer; `client` is shared and closed by whoever made it."""

    def __init__(
        self, issuer: str, *, jwks_url: str | None, clock: Clock, client: Callable[[], httpx.AsyncClient],
        metadata_url: str | None = None,
    ) -> None:  # fmt: skip
        """`metadata_url` is where the discovery document is, for an issuer that keeps it elsewhere than the standard says."""
        self._issuer = issuer
        self._metadata_url = metadata_url or issuer.rstrip("/") + "/.well-known/openid-configuration"
        self._loopback = _checked_url(issuer, loopback=True)
        if jwks_url is not None:
            _checked_url(jwks_url, loopback=True)
        if metadata_url is not None:
            self._loopback = _checked_url(metadata_url, loopback=True)
        self._jwks_url = jwks_url
        self._clock = clock
        self._client = client
        self._fetched: _Fetched | None = None
        self._flight: asyncio.Task[None] | None = None
        self._not_before_us = 0
        self._unknown_not_before_us = 0

    async def find(self, kid: str | None, algorithm: str) -> Key:
        """Return the one key that a token with this header was signed with. Raise AuthenticationError."""
        now = self._clock.monotonic_us()
        if self._fetched is None or now >= self._fetched.fresh_until_us:
            await self._refresh()
        keys = self._usable()
        found = _select(keys, kid, algorithm)
        if found is None and kid is not None and not any(k.kid == kid for k in keys):
            now = self._clock.monotonic_us()
            if now >= self._unknown_not_before_us:
                self._unknown_not_before_us = now + UNKNOWN_KID_S * 1_000_000
                await self._refresh()
            elif self._flight is not None:
                await self._refresh()  # another token with a new kid is already asking: wait for the same answer
            found = _select(self._usable(), kid, algorithm)
        if found is None:
            raise AuthenticationError("the token's key is not in the issuer's key set", reason=Reason.TOKEN_REJECTED)
        return found

    def _usable(self) -> tuple[Key, ...]:
        if self._fetched is None or self._clock.monotonic_us() >= self._fetched.usable_until_us:
            raise AuthenticationError("the issuer's key set can't be fetched", reason=Reason.ISSUER_UNAVAILABLE)
        return self._fetched.keys

    async def _refresh(self) -> None:
        """Join the fetch under way, or start one unless the last failed a moment ago."""
        if self._flight is None:
            if self._clock.monotonic_us() < self._not_before_us:
                return
            self._flight = asyncio.get_running_loop().create_task(self._fetch())
        # A waiter that is cancelled must not end the fetch that others wait for.
        await asyncio.shield(self._flight)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                url = self._jwks_url or await self._discover()
                body, headers = await self._get(url)
                keys = await asyncio.to_thread(_parse, body)  # a hundred keys take longer than the loop may stand still
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError, ConfigError) as error:
            # Kept: the old set, as long as it is usable. The message may quote the answer, so only its kind is logged.
            log.warning("keyset.fetch_failed", issuer=self._issuer, error=error.__class__.__name__)
            self._not_before_us = self._clock.monotonic_us() + RETRY_S * 1_000_000
        else:
            now, fresh = self._clock.monotonic_us(), _freshness(headers.get("cache-control", "")) * 1_000_000
            self._fetched = _Fetched(keys, now + fresh, now + fresh + STALE_S * 1_000_000)
        finally:
            self._flight = None

    async def _discover(self) -> str:
        """OpenID Connect Discovery 1.0 §4: the document must name the issuer that was asked."""
        body, _ = await self._get(self._metadata_url)
        document = json.loads(body)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise ValueError("the discovery document is another issuer's")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise ValueError("the discovery document has no jwks_uri")  # noqa: TRY004  one error for a bad document
        _checked_url(url, loopback=self._loopback)
        return url

    async def _get(self, url: str) -> tuple[bytes, httpx.Headers]:
        """Read a small JSON document: status 200, no redirect followed, bounded in size."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with self._client().stream("GET", url, headers=headers, follow_redirects=False, timeout=TIMEOUT_S) as response:
            if response.status_code != 200:
                raise ValueError("the issuer did not answer 200")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ValueError("the issuer's document is compressed")  # a kilobyte may hold a gigabyte
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BODY:
                    raise ValueError("the issuer's document is too large")
            return bytes(body), response.headers


def _checked_url(url: str, *, loopback: bool) -> bool:
    """Return whether the URL is plain HTTP on loopback. Raise ConfigError unless it is that, if allowed, or HTTPS."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.username or parts.password or parts.fragment or parts.query:
        raise ConfigError(f"an issuer's address is an https URL without user, query or fragment, not {url[:100]!r}")
    if parts.scheme == "https":
        return False
    if parts.scheme == "http" and loopback and is_loopback(host):
        return True
    raise ConfigError(f"an issuer's address begins with https:, not {url[:100]!r}")


def _freshness(cache_control: str) -> int:
    """Return seconds from `Cache-Control`, within our bounds (RFC 9111 §5.2.2)."""
    found = _MAX_AGE.search(cache_control.lower())
    if found is None or "no-store" in cache_control.lower() or "no-cache" in cache_control.lower():
        return MIN_FRESH_S
    return max(MIN_FRESH_S, min(MAX_FRESH_S, int(found[1])))


def _parse(body: bytes) -> tuple[Key, ...]:
    """Read a JWK set. Keys of kinds we don't use are left out; a set without any usable key is an error."""
    document = json.loads(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("this is no key set")
    keys = tuple(key for jwk in listed if isinstance(jwk, dict) and (key := _key(jwk)) is not None)
    if not keys:
        raise ValueError("the key set has no usable key")
    return keys


def _key(jwk: dict[str, Any]) -> Key | None:
    kty, crv, algorithm, kid = (jwk.get(name, "") for name in ("kty", "crv", "alg", "kid"))
    if not all(isinstance(value, str) for value in (kty, crv, algorithm, kid)):
        return None
    operations = jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or (operations is not None and operations != ["verify"]):
        return None
    if kty == "RSA":
        crv = ""
    if (kty, crv) not in ALGORITHMS.values() or algorithm not in ("", *ALGORITHMS):
        return None
    # Only public members: a private key in a public set is read as what it proves, not as what it could sign.
    public = {name: jwk[name] for name in ("kty", "crv", "n", "e", "x", "y") if isinstance(jwk.get(name), str)}
    try:
        loaded = PyJWK(public).key
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(loaded, RSAPublicKey) and not _usual(loaded):
        return None
    endorsed = jwk.get("endorsements")
    endorsements = tuple(e for e in endorsed if isinstance(e, str)) if isinstance(endorsed, list) else ()
    return Key(kid, kty, crv, algorithm, loaded, endorsements)


def _usual(key: RSAPublicKey) -> bool:
    """Whether an RSA key is neither too weak nor made to be slow: verifying with a huge exponent takes seconds."""
    return 2048 <= key.key_size <= MAX_RSA_BITS and key.public_numbers().e < 2**32


def _select(keys: tuple[Key, ...], kid: str | None, algorithm: str) -> Key | None:
    """With a kid, the one key of that name; without, the one key there is. Never a choice between several."""
    named = [key for key in keys if kid is None or key.kid == kid]
    return named[0] if len(named) == 1 and named[0].fits(algorithm) else None
