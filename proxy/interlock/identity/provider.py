"""The company's identity provider, as its client: where its endpoints are, and what it answers there.

Knows OpenID Connect Discovery 1.0 §4, RFC 6749 §4.1.3 and §5.2, RFC 7636 (PKCE) and RFC 8628 (device grant). Must not know
people, sessions or which login is under way. The issuer comes from the configuration; the endpoints from the issuer's own
document and from nothing else: HTTPS, or plain HTTP on loopback. What bounds an answer is `asking`'s. What the provider says
about an error is matched against the RFCs' codes and never repeated: it may quote what was sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import structlog

from interlock.clock import Clock
from interlock.config import Secret, is_loopback
from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.identity.asking import Asking, AskingError

log = structlog.get_logger()

METADATA_S = 3600
RETRY_S = 5

DEFAULT_INTERVAL_S = 5
SLOWER_S = 5
"""RFC 8628 §3.5: `slow_down` adds five seconds, and the interval is five where none is given."""

MAX_TOKEN = 64 * 1024
MAX_TEXT = 2048

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class ProviderClient:
    """One registration at the provider. Without a secret it is a public client (RFC 6749 §2.1)."""

    client_id: str
    secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """Endpoints; empty where the provider has none."""

    authorization: str
    token: str
    device: str
    end_session: str
    names_itself: bool
    """Whether its answers carry `iss` (RFC 9207), so that one without is not its own."""


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """What RFC 8628 §3.2 answers. `secret` is the device code: whoever has it gets the tokens."""

    secret: Secret
    user_code: str
    address: str
    complete: str
    interval: float
    lifetime: float


class Waiting(Enum):
    """What RFC 8628 §3.5 answers while the person has not decided."""

    PENDING = "authorization_pending"
    SLOWER = "slow_down"


class Provider:
    """One issuer's endpoints. Whoever made `asking` closes it."""

    def __init__(self, issuer: str, *, clock: Clock, asking: Asking) -> None:
        self.issuer = issuer
        self._clock = clock
        self._asking = asking
        self._loopback = urlsplit(issuer).scheme == "http" and is_loopback(urlsplit(issuer).hostname or "")
        self._metadata: Metadata | None = None
        self._until_us = 0
        self._not_before_us = 0
        self._lock = asyncio.Lock()

    async def metadata(self) -> Metadata:
        """Return the endpoints, fetched at most once an hour; the old ones while fetching fails. Raise InterlockError."""
        async with self._lock:  # one fetch, whoever asks
            now = self._clock.monotonic_us()
            if self._metadata is not None and now < self._until_us:
                return self._metadata
            if now >= self._not_before_us:
                try:
                    document = await self._call("GET", self.issuer.rstrip("/") + "/.well-known/openid-configuration")
                    self._metadata = self._read(document)
                    self._until_us = self._clock.monotonic_us() + METADATA_S * 1_000_000
                except InterlockError:
                    self._not_before_us = self._clock.monotonic_us() + RETRY_S * 1_000_000
            if self._metadata is None:
                raise _unavailable()
            return self._metadata

    async def begin_device(self, client: ProviderClient, scope: str) -> DeviceGrant:
        """Ask for a device code (RFC 8628 §3.1). Raise InterlockError."""
        endpoint = (await self.metadata()).device
        if not endpoint:
            raise InterlockError(
                "the identity provider offers no device grant; log in with a browser on this machine, without --device",
                reason=Reason.REQUEST_NOT_OFFERED,
            )
        answer = await self._post(endpoint, client, {"scope": scope})
        if "error" in answer:
            raise _refused(answer)
        # Google's answer is older than the RFC and says `verification_url`.
        answer.setdefault("verification_uri", answer.get("verification_url"))
        code, user_code, address = (answer.get(name) for name in ("device_code", "user_code", "verification_uri"))
        complete, lifetime = answer.get("verification_uri_complete", ""), answer.get("expires_in")
        interval = answer.get("interval", DEFAULT_INTERVAL_S)
        # Shown on terminals and opened in browsers: nothing but printable ASCII, and an address we would open ourselves.
        shown = all(isinstance(text, str) and len(text) <= MAX_TEXT and text.isascii() and text.isprintable() for text in
                    (user_code, address, complete))  # fmt: skip
        timed = all(_is_number(value) and 0 < float(value or 0) <= 86_400 for value in (interval, lifetime))
        if not (isinstance(code, str) and 0 < len(code) <= MAX_TEXT and user_code and shown and timed):
            raise _unavailable()
        assert isinstance(user_code, str) and isinstance(address, str) and isinstance(complete, str)
        assert isinstance(lifetime, int | float)
        self._check(address)
        if complete:
            self._check(complete)
        return DeviceGrant(Secret(code), user_code, address, complete, float(interval), float(lifetime))

    async def device_token(self, client: ProviderClient, grant: DeviceGrant) -> str | Waiting:
        """Ask once whether the person has decided (RFC 8628 §3.4): an ID token, or what to wait for. Raise InterlockError."""
        form = {"grant_type": DEVICE_GRANT, "device_code": grant.secret.reveal()}
        answer = await self._post((await self.metadata()).token, client, form)
        if answer.get("error") in [str(waiting.value) for waiting in Waiting]:
            return Waiting(answer["error"])
        return _id_token(answer)

    async def code_token(self, client: ProviderClient, code: str, verifier: str, redirect: str) -> str:
        """Redeem an authorization code (RFC 6749 §4.1.3) with its verifier (RFC 7636 §4.5): an ID token. Raise InterlockError."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        return _id_token(await self._post((await self.metadata()).token, client, form))

    async def authorization_url(
        self, client: ProviderClient, scope: str, *, redirect: str, state: str, nonce: str, challenge: str, again: bool = False
    ) -> str:
        """Return where a browser goes to log in. Raise InterlockError."""
        asked = {
            "response_type": "code", "client_id": client.client_id, "redirect_uri": redirect, "scope": scope, "state": state,
            "nonce": nonce, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        if again:
            asked |= {"prompt": "login", "max_age": "0"}
        endpoint = (await self.metadata()).authorization
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    # -- HTTP -----------------------------------------------------------------------------------------------------------

    def _read(self, document: Mapping[str, Any]) -> Metadata:
        """Discovery §4.3: the document must name the issuer that was asked."""
        if document.get("issuer") != self.issuer:
            log.warning("provider.wrong_issuer", issuer=self.issuer)
            raise _unavailable()
        names = ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint", "end_session_endpoint")
        urls = [document.get(name, "") for name in names]
        for url in urls:
            if url:
                self._check(url)
        if not urls[0] or not urls[1]:
            raise _unavailable()
        authorization, token, device, end_session = map(str, urls)
        names_itself = document.get("authorization_response_iss_parameter_supported") is True
        return Metadata(authorization, token, device, end_session, names_itself)

    def _check(self, url: object) -> None:
        """Raise InterlockError unless an address of the provider is https, or plain on loopback like the issuer itself."""
        try:
            parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
            safe = parts.scheme == "https" or (self._loopback and parts.scheme == "http" and is_loopback(parts.hostname or ""))
            if safe and parts.hostname and not parts.username and not parts.password and not parts.fragment:
                return
        except ValueError:
            pass
        log.warning("provider.unsafe_address", issuer=self.issuer)
        raise _unavailable()

    async def _post(self, url: str, client: ProviderClient, form: Mapping[str, str]) -> dict[str, Any]:
        """Send a form as this client. RFC 6749 §2.3.1: a secret travels as Basic, form-encoded first."""
        headers = {}
        if client.secret is not None:
            pair = f"{quote(client.client_id, safe='')}:{quote(client.secret.reveal(), safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return await self._call("POST", url, data={**form, "client_id": client.client_id}, headers=headers)

    async def _call(self, method: str, url: str, *, data: Mapping[str, str] | None = None,
                    headers: Mapping[str, str] | None = None) -> dict[str, Any]:  # fmt: skip
        """Return the JSON object of an answer with status 200, or 400 and 401 for the errors of RFC 6749 §5.2."""
        try:
            answer = await self._asking.ask(method, url, form=data, headers=headers)
            document = json.loads(answer.body)
            if not isinstance(document, dict):
                raise ValueError("no object")  # noqa: TRY004  one error for a bad document
            failed = answer.status in (400, 401, 403, 428) and isinstance(document.get("error"), str)
            if answer.status != 200 and not failed:
                raise ValueError("status")
            if answer.status == 200 and "error" in document:
                raise ValueError("an error with status 200")
        except (AskingError, ValueError, RecursionError) as error:
            kind = str(error) if isinstance(error, AskingError) else type(error).__name__
            log.warning("provider.call_failed", issuer=self.issuer, error=kind)
            raise _unavailable() from None
        return document


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _id_token(answer: Mapping[str, Any]) -> str:
    if "error" in answer:
        raise _refused(answer)
    token = answer.get("id_token")
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN:
        raise AuthenticationError("the identity provider gave no ID token; add `openid` to identity.login.scopes")
    return token


_SENTENCES = {
    "access_denied": "the login was refused at the identity provider",
    "expired_token": "nobody confirmed the login in time; log in again",
    "invalid_grant": "the identity provider does not accept this login any more; log in again",
    "invalid_client": "the identity provider does not know this proxy; check identity.login's client_id and client_secret",
    "unauthorized_client": "the identity provider does not let this client log in so; allow the grant for it there",
    "invalid_scope": "the identity provider does not know a scope of identity.login.scopes",
}


def _refused(answer: Mapping[str, Any]) -> AuthenticationError:
    return AuthenticationError(_SENTENCES.get(str(answer.get("error")), "the identity provider did not accept the login"))


def _unavailable() -> InterlockError:
    return InterlockError(reason=Reason.PROVIDER_UNAVAILABLE)
