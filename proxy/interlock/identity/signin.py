"""Logins under way: begun here, confirmed by a person at the identity provider, redeemed once.

Two ways: a device grant (a code that is shown here and confirmed elsewhere) and a browser's authorization code with PKCE,
state and nonce. A flow is known by a secret that only whoever began it has; what a browser carries back must be the state
of that very flow. Everything is bounded: how many, for how long, how often the provider is asked.

Knows the provider's client and ID tokens. Must not know HTTP, cookies or SSH.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from interlock.clock import Clock, Entropy
from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.identity.idtoken import IdTokens
from interlock.identity.logins import Derive, Logins, Opened
from interlock.identity.logouts import Logouts
from interlock.identity.provider import SLOWER_S, DeviceGrant, Provider, ProviderClient, Waiting
from interlock.identity.tokens import fingerprint

MAX_FLOWS = 10_000
MAX_PER_SOURCE = 64
BROWSER_S = 600

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}\Z")
_CODE = re.compile(r"[\x20-\x7e]{1,2048}\Z")


@dataclass(frozen=True, slots=True)
class Clients:
    """Our registrations at the provider; None where that way is not offered."""

    scopes: str
    cli: ProviderClient | None = None
    device: ProviderClient | None = None
    web: ProviderClient | None = None


@dataclass(slots=True)
class _Device:
    grant: DeviceGrant
    source: str
    until_us: int
    interval: float
    next_us: int
    asking: bool = False


@dataclass(frozen=True, slots=True)
class _Browser:
    client: ProviderClient
    redirect: str
    state: bytes = field(repr=False)
    nonce: str = field(repr=False)
    challenge: str
    source: str
    until_us: int


@dataclass(frozen=True, slots=True)
class DeviceFlow:
    """What the one who began gets to see."""

    flow: str = field(repr=False)
    user_code: str
    address: str
    complete: str
    interval: float
    lifetime: float


@dataclass(frozen=True, slots=True)
class BrowserFlow:
    flow: str = field(repr=False)
    address: str
    state: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """Nobody has decided yet: ask again after `interval` seconds, and not sooner."""

    interval: float


class SignIn:
    """One a process, where `identity.login` is configured."""

    def __init__(
        self, provider: Provider, tokens: IdTokens, logins: Logins, clients: Clients, *, clock: Clock, entropy: Entropy,
        logouts: Logouts | None = None,
    ) -> None:  # fmt: skip
        self._logouts = logouts
        self._provider = provider
        self._tokens = tokens
        self._logins = logins
        self._clients = clients
        self._clock = clock
        self._entropy = entropy
        self._devices: dict[bytes, _Device] = {}
        self._browsers: dict[bytes, _Browser] = {}
        self._by_source: dict[str, int] = {}

    @property
    def offers_device(self) -> bool:
        return self._clients.device is not None

    @property
    def offers_browser(self) -> bool:
        return self._clients.cli is not None

    @property
    def offers_console(self) -> bool:
        return self._clients.web is not None

    # -- device grant -------------------------------------------------------------------------------------------------------

    async def begin_device(self, source: str) -> DeviceFlow:
        """Ask the provider for a code. Raise InterlockError."""
        client = _offered(self._clients.device)
        self._make_room(source)
        with _counted(self._by_source, source):
            grant = await self._provider.begin_device(client, self._clients.scopes)
        flow, now = self._secret(), self._clock.monotonic_us()
        self._devices[fingerprint(flow)] = _Device(
            grant, source, now + _us(grant.lifetime), grant.interval, now + _us(grant.interval)
        )
        self._by_source[source] = self._by_source.get(source, 0) + 1
        return DeviceFlow(flow, grant.user_code, grant.address, grant.complete, grant.interval, grant.lifetime)

    async def poll(self, flow: str, *, method: str = "device", derive: Derive | None = None) -> Opened | Pending:
        """Ask whether the person has decided; the provider is asked no oftener than it wants. Raise InterlockError.

        A flow is redeemed once, and gone when it was refused. `derive` makes what the login is for in one step with it.
        """
        key = fingerprint(flow)
        device, now = self._devices.get(key), self._clock.monotonic_us()
        if device is None or now >= device.until_us:
            self._forget_device(key)
            raise AuthenticationError("nobody confirmed the login in time; log in again")
        if device.asking or now < device.next_us:
            return Pending(device.interval)
        device.asking = True
        try:
            answer = await self._provider.device_token(_offered(self._clients.device), device.grant)
        except AuthenticationError:
            self._forget_device(key)
            raise
        except InterlockError as error:
            if error.code is not Reason.PROVIDER_UNAVAILABLE:
                raise
            # RFC 8628 §3.5: on a timeout, ask less often. The person's confirmation is not lost by our network.
            answer = Waiting.SLOWER
        finally:
            device.asking = False
            device.next_us = self._clock.monotonic_us() + _us(device.interval)
        if isinstance(answer, Waiting):
            if answer is Waiting.SLOWER:
                device.interval += SLOWER_S
                device.next_us = self._clock.monotonic_us() + _us(device.interval)
            return Pending(device.interval)
        client = _offered(self._clients.device)
        self._forget_device(key)
        return await self._open(answer, client, None, method, device.source, derive)

    async def confirmed(self, flow: str, *, method: str) -> Opened:
        """Wait until the person has decided, asking as often as the provider wants. Raise InterlockError."""
        while True:
            answer = await self.poll(flow, method=method)
            if isinstance(answer, Opened):
                return answer
            await asyncio.sleep(answer.interval)

    async def leave(self, opened: Opened) -> None:
        """End a login whose token was given to nobody, with the connection that it was for. What was asked for goes on waiting.

        Else those of stock clients would stand in the register for hours, and a few of them end the person's own.
        """
        await self._logins.end([opened.id], "connection-ended", withdraw=False)

    # -- browser ------------------------------------------------------------------------------------------------------------

    async def begin_browser(self, redirect: str, challenge: str, source: str) -> BrowserFlow:
        """Begin for a command line that listens on `redirect` (RFC 8252 §7.3) and keeps the verifier of `challenge`."""
        if not _CHALLENGE.match(challenge):
            raise AuthenticationError("the challenge must be S256 of a verifier (RFC 7636 §4.2)")
        return await self._begin(_offered(self._clients.cli), redirect, challenge, source)

    async def begin_console(self, redirect: str, source: str, *, again: bool) -> tuple[BrowserFlow, str]:
        """Begin for our own console; return the flow and the verifier that its browser keeps.

        `again`: the provider must ask who it is, whatever it remembers (OpenID Connect Core §3.1.2.1).
        """
        verifier = base64.urlsafe_b64encode(self._entropy(32)).rstrip(b"=").decode()
        flow = await self._begin(_offered(self._clients.web), redirect, challenge_of(verifier), source, again=again)
        return flow, verifier

    async def _begin(
        self, client: ProviderClient, redirect: str, challenge: str, source: str, *, again: bool = False
    ) -> BrowserFlow:
        self._make_room(source)
        flow, state, nonce = self._secret(), self._secret(), self._secret()
        with _counted(self._by_source, source):
            address = await self._provider.authorization_url(
                client, self._clients.scopes, redirect=redirect, state=state, nonce=nonce, challenge=challenge, again=again
            )
        until = self._clock.monotonic_us() + BROWSER_S * 1_000_000
        self._browsers[fingerprint(flow)] = _Browser(client, redirect, fingerprint(state), nonce, challenge, source, until)
        self._by_source[source] = self._by_source.get(source, 0) + 1
        return BrowserFlow(flow, address, state)

    async def finish(
        self, flow: str, *, state: str, code: str, verifier: str, issuer: str | None, method: str, derive: Derive | None = None
    ) -> Opened:
        """Redeem what a browser brought back. A flow is tried once, whatever comes of it. Raise InterlockError."""
        key = fingerprint(flow)
        browser = self._browsers.pop(key, None)
        if browser is not None:
            self._uncount(browser.source)
        if browser is None or self._clock.monotonic_us() >= browser.until_us:
            raise AuthenticationError("this login is over, or was not begun here; log in again")
        if not hmac.compare_digest(browser.state, fingerprint(state)):
            raise AuthenticationError("the answer belongs to another login (state); log in again")
        if not _VERIFIER.match(verifier) or not hmac.compare_digest(challenge_of(verifier), browser.challenge):
            raise AuthenticationError("the answer belongs to another login (PKCE); log in again")
        metadata = await self._provider.metadata()
        if (issuer is None and metadata.names_itself) or (issuer is not None and issuer != self._provider.issuer):
            raise AuthenticationError("the answer is of another identity provider (iss); log in again")  # RFC 9207 §2.4
        if not _CODE.match(code):
            raise AuthenticationError("the answer holds no code; log in again")
        token = await self._provider.code_token(browser.client, code, verifier, browser.redirect)
        return await self._open(token, browser.client, browser.nonce, method, browser.source, derive)

    async def _open(
        self, token: str, client: ProviderClient, nonce: str | None, method: str, source: str, derive: Derive | None
    ) -> Opened:
        try:
            who = await self._tokens.verify(token, client=client.client_id, nonce=nonce)
        except AuthenticationError as error:
            self._logins.refused(method, error.code, source)
            raise
        return await self._logins.open(who, method=method, source=source, derive=derive)

    # -- the end ------------------------------------------------------------------------------------------------------------

    async def log_out(self, token: str) -> int:
        """End the logins that a back-channel logout token names; a second delivery finds none. Raise AuthenticationError."""
        clients = {client.client_id for client in (self._clients.cli, self._clients.device, self._clients.web) if client}
        told = await self._tokens.verify_logout(token, clients=clients)
        if self._logouts is not None:
            await self._logouts.take(told)  # its own tokens, which nobody logged in here with
        return await self._logins.end_at_provider(told.provider, told.account, told.session, told.issued)

    # -- bounds -------------------------------------------------------------------------------------------------------------

    def _secret(self) -> str:
        return base64.urlsafe_b64encode(self._entropy(32)).rstrip(b"=").decode()

    def _make_room(self, source: str) -> None:
        """Raise InterlockError when there are too many. What is over makes room first."""
        now = self._clock.monotonic_us()
        for key in [key for key, device in self._devices.items() if now >= device.until_us]:
            self._forget_device(key)
        for key, browser in [(key, browser) for key, browser in self._browsers.items() if now >= browser.until_us]:
            del self._browsers[key]
            self._uncount(browser.source)
        if len(self._devices) + len(self._browsers) >= MAX_FLOWS or self._by_source.get(source, 0) >= MAX_PER_SOURCE:
            raise InterlockError("too many logins are under way; wait a little", reason=Reason.LIMIT_REACHED)

    def abandon(self, flow: str) -> None:
        """Forget a device flow whose client went away."""
        self._forget_device(fingerprint(flow))

    def _forget_device(self, key: bytes) -> None:
        device = self._devices.pop(key, None)
        if device is not None:
            self._uncount(device.source)

    def _uncount(self, source: str) -> None:
        left = self._by_source.get(source, 0) - 1
        if left > 0:
            self._by_source[source] = left
        else:
            self._by_source.pop(source, None)


class _counted:  # noqa: N801  reads as a statement
    """Counts a flow while the provider is asked: a hundred at once must not all find room for one."""

    def __init__(self, counts: dict[str, int], source: str) -> None:
        self._counts = counts
        self._source = source

    def __enter__(self) -> None:
        self._counts[self._source] = self._counts.get(self._source, 0) + 1

    def __exit__(self, *_: object) -> None:
        left = self._counts.get(self._source, 0) - 1
        if left > 0:
            self._counts[self._source] = left
        else:
            self._counts.pop(self._source, None)


def challenge_of(verifier: str) -> str:
    """RFC 7636 §4.2: S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _offered(client: ProviderClient | None) -> ProviderClient:
    if client is None:
        raise InterlockError("this way of logging in is not configured (identity.login)", reason=Reason.REQUEST_NOT_OFFERED)
    return client


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
