"""The connection to the target: TCP, TLS, proof of both sides, and the server's greeting. Also cancel requests to it.

Knows: PostgreSQL manual "Start-up" and "Password Authentication"; RFC 5929 binding through identity.scram.
Must not know: who the client is (beyond the parameters it is given), policy, where a login comes from.

Nothing but the start-up packet is sent before the server has proven itself: with a password configured a server that
skips SCRAM is refused. md5 is answered only where the configuration says so; a secret in clear is given only if it is one
that is made for that (an AWS token), to a server whose name TLS has proven (docs/adr/0018-what-a-server-must-prove.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from interlock.clock import Entropy
from interlock.config import Config, Secret, TargetConfig, split_address
from interlock.errors import AuthenticationError, ProtocolError, Reason, RemoteProtocolError, TargetError
from interlock.identity.scram import PLUS, ScramClient, salted_password, server_end_point
from interlock.postgres.credentials.login import Login, Provider
from interlock.postgres.dialogue import Dialogue, LeftError
from interlock.postgres.encryption import broken, client_context, distrust
from interlock.postgres.wire import answers, requests

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
_AUTH_CAP = 64 * 1024
_GREETING_CAP = 1024 * 1024


class ServerRefusedError(TargetError):
    """The server answered our start-up with an error. `sqlstate` is its code."""

    def __init__(self, sqlstate: str, message: str, *, reason: Reason = Reason.TARGET_UNREACHABLE) -> None:
        super().__init__(message, reason=reason)
        self.sqlstate = sqlstate


@dataclass(slots=True)
class Upstream:
    """A server that waits for its first query. `greeting` is what the client may see of its start-up."""

    dialogue: Dialogue
    process: int
    secret: bytes = field(repr=False)
    parameters: dict[str, str]
    notices: bytes


class Connector:
    """Opens connections to one target."""

    def __init__(self, config: Config, target: TargetConfig, *, entropy: Entropy, provider: Provider) -> None:
        self.target = target
        self._entropy = entropy
        self._provider = provider
        self._host, self._port = split_address(target.address)
        self._tls = client_context(config, target)

    async def connect(self, parameters: Mapping[str, str]) -> Upstream:
        """Connect, prove each other, and read up to ReadyForQuery. Raise TargetError."""
        login = await self._provider.login(parameters["user"])
        try:
            return await self._connect(parameters, login)
        except ServerRefusedError as error:
            # A login that was kept may have been changed or taken back since. A fresh one gets one try.
            if error.code is not Reason.TARGET_CREDENTIAL or not self._provider.forget():
                raise
        return await self._connect(parameters, await self._provider.login(parameters["user"]))

    async def reach(self) -> None:
        """Connect, in TLS where it is configured, and leave without a word. Raise TargetError."""

        async def nothing(_: Dialogue) -> None:
            return None

        await self._during(nothing, then=Dialogue.close)

    async def _connect(self, parameters: Mapping[str, str], login: Login) -> Upstream:
        return await self._during(lambda dialogue: self._start(dialogue, {**parameters, "user": login.role}, login))

    async def _during(self, work: Callable[[Dialogue], Awaitable[T]], *, then: Callable[[Dialogue], None] | None = None) -> T:
        """Open a connection for `work`, within the time that it may take all in all. Raise TargetError, whatever failed."""
        dialogue: Dialogue | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                dialogue = await self._open()
                try:
                    done = await work(dialogue)
                except BaseException:
                    dialogue.abort()
                    raise
                if then is not None:
                    then(dialogue)
                return done
        except ssl.SSLCertVerificationError as error:
            raise self._distrusted(distrust(error)) from None
        except ssl.SSLError as error:
            raise self._distrusted(broken(error)) from None
        except (TimeoutError, OSError) as error:
            # With TLS 1.3 a server judges our certificate after the handshake, so its alert comes while we read.
            if isinstance(error, LeftError) and dialogue is not None and isinstance(dialogue.lost, ssl.SSLError):
                raise self._distrusted(broken(dialogue.lost)) from None
            what = "in time" if isinstance(error, TimeoutError) else f"({error.__class__.__name__})"
            raise TargetError(f"target {self.target.name} does not answer {what}") from None
        except AuthenticationError as error:
            raise self._distrusted(str(error)) from None
        except ProtocolError as error:
            raise TargetError(f"target {self.target.name} broke the protocol: {error}") from None

    def _distrusted(self, why: str) -> TargetError:
        return TargetError(f"target {self.target.name} {why}", reason=Reason.TARGET_IDENTITY)

    async def cancel(self, process: int, secret: bytes, wanted: Callable[[], bool] = lambda: True) -> None:
        """Send a CancelRequest and wait until the server has taken it. Best effort, as the protocol has no answer.

        `wanted` is asked at the last moment: what was to be cancelled may have ended while the connection was made.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                dialogue = await self._open()
                try:
                    if not wanted():
                        return
                    dialogue.write(requests.encode_cancel(process, secret))
                    await dialogue.exactly(1)
                finally:
                    dialogue.close()
        except (OSError, ProtocolError, TargetError):  # TimeoutError and LeftError are OSErrors
            return

    async def _open(self) -> Dialogue:
        loop = asyncio.get_running_loop()
        _, dialogue = await loop.create_connection(Dialogue, self._host, self._port)
        if self._tls is None:
            return dialogue
        try:
            dialogue.write(requests.SSL_REQUEST)
            if await dialogue.exactly(1) != b"S":
                raise self._distrusted("does not offer TLS: set ssl = on at the server")
            # Bytes behind the S came from somebody who could not wait for TLS (CVE-2021-23222).
            await dialogue.turn_to_tls(self._tls, server_side=False, name=self.target.tls_name or self._host)
        except BaseException:
            dialogue.abort()
            raise
        return dialogue

    async def _start(self, dialogue: Dialogue, parameters: dict[str, str], login: Login) -> Upstream:
        dialogue.write(requests.encode_startup(parameters))
        await self._authenticate(dialogue, login)
        return await self._greeting(dialogue)

    async def _authenticate(self, dialogue: Dialogue, login: Login) -> None:
        """Answer what the server asks for, if it is what our credential is for. Anything else ends here."""
        code, data = await self._authentication(dialogue)
        credentials = self.target.credentials
        match code, login.password:
            case 0, None:
                return
            case _, None:
                beside = " beside the certificate" if credentials.certificate is not None else ""
                raise TargetError(
                    f"target {self.target.name} asks for a password{beside} and none is configured",
                    reason=Reason.TARGET_CREDENTIAL,
                )
            case 10, Secret() as password:
                await self._by_scram(dialogue, data, password)
            case 3, Secret() as password if login.clear and self.target.tls == "verify-full" and dialogue.encrypted:
                dialogue.write(requests.encode_password(password.reveal().encode() + b"\0"))
            case 5, Secret() as password if credentials.md5 and len(data) == 4:
                dialogue.write(requests.encode_password(_md5(login.role, password, data)))
            case 5, _:
                raise self._distrusted(
                    "asks for an md5 password, and md5 proves nothing about the server: set password_encryption = "
                    "'scram-sha-256' there and the password anew, or md5: true in the credentials of this target"
                )
            case _:
                raise self._distrusted("does not ask for SCRAM-SHA-256, so it proves nothing and gets no password")
        await self._expect(dialogue, 0)

    async def _by_scram(self, dialogue: Dialogue, offer: bytes, password: Secret) -> None:
        shown = dialogue.certificate
        offered = [name.decode("ascii", "replace") for name in offer.split(b"\0") if name]
        exchange = ScramClient(offered, entropy=self._entropy, binding=server_end_point(shown) if shown else None)
        if self.target.tls == "require" and exchange.mechanism != PLUS:
            # Nobody vouches for the certificate. Only the binding shows that no one stands between and passes SCRAM on.
            raise self._distrusted("offers no channel binding, and tls: require trusts no certificate: use verify-full")
        first = exchange.first()
        body = exchange.mechanism.encode() + b"\0" + len(first).to_bytes(4, "big") + first
        dialogue.write(requests.encode_password(body))
        stretch = exchange.challenge(await self._expect(dialogue, 11))
        salted = await asyncio.to_thread(salted_password, password.reveal(), stretch.salt, stretch.iterations)
        dialogue.write(requests.encode_password(exchange.final(salted)))
        exchange.verify(await self._expect(dialogue, 12))

    async def _expect(self, dialogue: Dialogue, code: int) -> bytes:
        got, data = await self._authentication(dialogue)
        if got != code:
            raise RemoteProtocolError(f"authentication request {got} where {code} was due")
        return data

    async def _authentication(self, dialogue: Dialogue) -> tuple[int, bytes]:
        kind, body = await dialogue.message(_AUTH_CAP)
        if kind == ord("E"):
            raise self._refused(body)
        if kind != ord("R") or len(body) < 4:
            raise RemoteProtocolError(f"a message of type {kind} during authentication")
        return int.from_bytes(body[:4], "big"), body[4:]

    async def _greeting(self, dialogue: Dialogue) -> Upstream:
        parameters: dict[str, str] = {}
        notices, process, secret = b"", 0, b""
        while True:
            kind, body = await dialogue.message(_GREETING_CAP)
            match chr(kind):
                case "S":
                    name, value = answers.parameter_status(body)
                    parameters[name] = value
                case "K":
                    if len(body) < 8:
                        raise RemoteProtocolError("a malformed BackendKeyData")
                    process, secret = int.from_bytes(body[:4], "big"), body[4:]
                case "N":
                    notices += requests.message(b"N", body)
                    if len(notices) > _GREETING_CAP:
                        raise RemoteProtocolError("too many notices at start-up")
                case "E":
                    raise self._refused(body)
                case "Z" if body == b"I":
                    return Upstream(dialogue, process, secret, parameters, notices)
                case other:
                    raise RemoteProtocolError(f"a message of type {other!r} at start-up")

    def _refused(self, body: bytes) -> ServerRefusedError:
        fields = answers.error_fields(body)
        code = fields.get("C", "08004")
        if code.startswith("28"):
            # The server's words may name our credential; the client needs to know only that it is ours.
            why = (
                "" if code == "28P01" else ": no line of its pg_hba.conf takes this role, database and address with what we show"
            )
            return ServerRefusedError(
                "08004", f"target {self.target.name} did not accept our credential{why}", reason=Reason.TARGET_CREDENTIAL
            )
        message = f"target {self.target.name}: {fields.get('M', 'refused the connection')}"
        return ServerRefusedError(code, message, reason=Reason.TARGET_UNREACHABLE)


def _md5(role: str, password: Secret, salt: bytes) -> bytes:
    """PostgreSQL manual, "AuthenticationMD5Password"."""
    inner = hashlib.md5(password.reveal().encode() + role.encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode() + b"\0"
