"""Logins under way: begun here, confirmed by a person at the identity provider, redeemed once.

Two ways: a device grant (a code that is shown here and confirmed elsewhere) and a browser's authorization code with PKCE,
state and nonce. A flow is known by a secret that only whoever began it has; what a browser carries back must be the state
of that very flow. Everything is bounded: how many are begun, how many are redeemed at once, for how long, how often the provider
is asked.

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
from interlock.errors import AuthenticationError, InterlockError, OverloadedError, Reason
from interlock.identity.derived import Derive
from interlock.identity.flows import Flows
from interlock.identity.idtoken import IdTokens
from interlock.identity.logins import Logins, Opened
from interlock.identity.logouts import Logouts
from interlock.identity.provider import SLOWER_S, DeviceGrant, Provider, ProviderClient, Waiting
from interlock.identity.tokens import fingerprint
from interlock.identity.turnstile import Turnstile

MAX_PER_SOURCE = 64
"""Codes of one source at once: the provider is asked for each, and would stop answering all of us."""

MAX_BROWSERS = 1024
"""Logins of one source at once that ask the provider nothing before somebody comes back: behind one address may be a company."""

BROWSER_S = 600

_OVER = "this login is over, or was not begun here; log in again"

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
        turnstile: Turnstile | None = None, logouts: Logouts | None = None,
    ) -> None:  # fmt: skip
        self._logouts = logouts
        self._provider = provider
        self._tokens = tokens
        self._logins = logins
        self._clients = clients
        self._clock = clock
        self._entropy = entropy
        self._flows: Flows[_Device | _Browser] = Flows(clock)
        self._turnstile = turnstile if turnstile is not None else Turnstile()
        self._verifying = asyncio.Lock()

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
        with self._flows.room(source, MAX_PER_SOURCE) as place:
            async with self._turnstile.turn(source):
                grant = await self._provider.begin_device(client, self._clients.scopes)
            flow, now = self._secret(), self._clock.monotonic_us()
            device = _Device(grant, source, grant.interval, now + _us(grant.interval))
            self._flows.put(place, fingerprint(flow), device, now + _us(grant.lifetime))
        return DeviceFlow(flow, grant.user_code, grant.address, grant.complete, grant.interval, grant.lifetime)

    async def poll(self, flow: str, *, method: str = "device", derive: Derive | None = None) -> Opened | Pending:
        """Ask whether the person has decided; the provider is asked no oftener than it wants. Raise InterlockError.

        A flow is redeemed once, and gone when it was refused. `derive` makes what the login is for in one step with it.
        """
        key = fingerprint(flow)
        device, now = self._flows.get(key), self._clock.monotonic_us()
        if not isinstance(device, _Device):
            raise AuthenticationError("nobody confirmed the login in time; log in again")
        if device.asking or now < device.next_us:
            return Pending(device.interval)
        device.asking = True
        try:
            async with self._turnstile.turn(device.source):
                client = _offered(self._clients.device)
                answer = await self._asked(key, device, client)
                if not isinstance(answer, Waiting):
                    self._flows.pop(key)
                    return await self._open(answer, client, None, method, device.source, derive)
        except OverloadedError:
            return Pending(device.interval)  # whoever asks again anyhow need not hear of it
        finally:
            device.asking = False
            device.next_us = self._clock.monotonic_us() + _us(device.interval)
        return Pending(device.interval)

    async def _asked(self, key: bytes, device: _Device, client: ProviderClient) -> str | Waiting:
        """Ask the provider once, and less often from then on if that is what it wants."""
        try:
            answer = await self._provider.device_token(client, device.grant)
        except AuthenticationError:
            self._flows.pop(key)
            raise
        except InterlockError as error:
            if error.code is not Reason.PROVIDER_UNAVAILABLE:
                raise
            # RFC 8628 §3.5: on a timeout, ask less often. The person's confirmation is not lost by our network.
            answer = Waiting.SLOWER
        if answer is Waiting.SLOWER:
            device.interval += SLOWER_S
        return answer

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
        flow, state, nonce = self._secret(), self._secret(), self._secret()
        with self._flows.room(source, MAX_BROWSERS) as place:
            address = await self._provider.authorization_url(
                client, self._clients.scopes, redirect=redirect, state=state, nonce=nonce, challenge=challenge, again=again
            )
            browser = _Browser(client, redirect, fingerprint(state), nonce, challenge, source)
            self._flows.put(place, fingerprint(flow), browser, self._clock.monotonic_us() + _us(BROWSER_S))
        return BrowserFlow(flow, address, state)

    async def finish(
        self, flow: str, *, state: str, code: str, verifier: str, issuer: str | None, method: str, derive: Derive | None = None
    ) -> Opened:
        """Redeem what a browser brought back. A flow is tried once, whatever comes of it. Raise InterlockError.

        Who is sent away by the turnstile has not tried: the same may be sent again.
        """
        key = fingerprint(flow)
        browser = self._flows.get(key)
        if not isinstance(browser, _Browser):
            raise AuthenticationError(_OVER)
        try:
            _check_own(browser, state, verifier)
        except AuthenticationError:
            self._flows.pop(key)
            raise
        async with self._turnstile.turn(browser.source):
            if self._flows.pop(key) is None:
                raise AuthenticationError(_OVER)  # it was tried, or its time ended, while this waited for its turn
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
            # One at a time, and the loop comes round between two: of sixty answers that came together the sessions feel one.
            async with self._verifying:
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

    def abandon(self, flow: str) -> None:
        """Forget a device flow whose client went away."""
        self._flows.pop(fingerprint(flow))

    def _secret(self) -> str:
        return base64.urlsafe_b64encode(self._entropy(32)).rstrip(b"=").decode()


def _check_own(browser: _Browser, state: str, verifier: str) -> None:
    """Raise AuthenticationError unless the answer is that of this login, and comes from whoever began it."""
    if not hmac.compare_digest(browser.state, fingerprint(state)):
        raise AuthenticationError("the answer belongs to another login (state); log in again")
    if not _VERIFIER.match(verifier) or not hmac.compare_digest(challenge_of(verifier), browser.challenge):
        raise AuthenticationError("the answer belongs to another login (PKCE); log in again")


def challenge_of(verifier: str) -> str:
    """RFC 7636 §4.2: S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _offered(client: ProviderClient | None) -> ProviderClient:
    if client is None:
        raise InterlockError("this way of logging in is not configured (identity.login)", reason=Reason.REQUEST_NOT_OFFERED)
    return client


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
