"""The connection to the target: TCP, TLS, SCRAM, and the server's greeting. Also cancel requests to it.

Knows: PostgreSQL manual "Start-up"; RFC 5929 binding through identity.scram.
Must not know: who the client is (beyond the parameters it is given), policy.

Nothing but the start-up packet is sent before the server has proven itself: with a password configured a server that
skips SCRAM is refused, and md5 or a clear password are never given.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from interlock.clock import Entropy
from interlock.config import Config, TargetConfig, split_address
from interlock.errors import AuthenticationError, ConfigError, ProtocolError, Reason, RemoteProtocolError, TargetError
from interlock.identity.scram import ScramClient, salted_password, server_end_point
from interlock.postgres.dialogue import Dialogue
from interlock.postgres.wire import answers, requests

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


def tls_context(config: Config, target: TargetConfig) -> ssl.SSLContext | None:
    """Return how this target's certificate is judged; None when TLS is off (loopback only). Reads files."""
    if target.tls == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif target.tls_ca is not None:
        try:
            context.load_verify_locations(config.path(target.tls_ca))
        except OSError as error:
            raise ConfigError(f"tls_ca of target {target.name} can't be read: {error.__class__.__name__}") from None
    else:
        context.load_default_certs()
    return context


class Connector:
    """Opens connections to one target."""

    def __init__(self, config: Config, target: TargetConfig, *, entropy: Entropy) -> None:
        self.target = target
        self._config = config
        self._entropy = entropy
        self._host, self._port = split_address(target.address)
        self._tls = tls_context(config, target)

    async def connect(self, parameters: Mapping[str, str]) -> Upstream:
        """Connect, prove each other, and read up to ReadyForQuery. Raise TargetError."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                dialogue = await self._open()
                try:
                    return await self._start(dialogue, dict(parameters))
                except BaseException:
                    dialogue.abort()
                    raise
        except ssl.SSLCertVerificationError as error:
            raise TargetError(
                f"target {self.target.name} showed a certificate that does not verify: {error.verify_message}",
                reason=Reason.TARGET_IDENTITY,
            ) from None
        except (TimeoutError, OSError) as error:
            what = "in time" if isinstance(error, TimeoutError) else f"({error.__class__.__name__})"
            raise TargetError(f"target {self.target.name} does not answer {what}") from None
        except AuthenticationError as error:
            raise TargetError(f"target {self.target.name}: {error}", reason=Reason.TARGET_IDENTITY) from None
        except ProtocolError as error:
            raise TargetError(f"target {self.target.name} broke the protocol: {error}") from None

    async def cancel(self, process: int, secret: bytes) -> None:
        """Send a CancelRequest and wait until the server has taken it. Best effort, as the protocol has no answer."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                dialogue = await self._open()
                try:
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
                raise TargetError(f"target {self.target.name} does not offer TLS", reason=Reason.TARGET_IDENTITY)
            # Bytes behind the S came from somebody who could not wait for TLS (CVE-2021-23222).
            await dialogue.turn_to_tls(self._tls, server_side=False, name=self._host)
        except BaseException:
            dialogue.abort()
            raise
        return dialogue

    async def _start(self, dialogue: Dialogue, parameters: dict[str, str]) -> Upstream:
        dialogue.write(requests.encode_startup(parameters))
        await self._authenticate(dialogue)
        return await self._greeting(dialogue)

    async def _authenticate(self, dialogue: Dialogue) -> None:
        code, data = await self._authentication(dialogue)
        credentials = self.target.credentials
        if credentials.kind != "password" or credentials.source is None:
            if code != 0:
                raise TargetError(
                    f"target {self.target.name} asks for a password and none is configured", reason=Reason.TARGET_CREDENTIAL
                )
            return
        if code != 10:
            raise TargetError(
                f"target {self.target.name} does not ask for SCRAM-SHA-256, so it proves nothing and gets no password",
                reason=Reason.TARGET_IDENTITY,
            )
        tls = dialogue.transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        offered = [name.decode("ascii", "replace") for name in data.split(b"\0") if name]
        exchange = ScramClient(offered, entropy=self._entropy, binding=server_end_point(certificate) if certificate else None)
        first = exchange.first()
        body = exchange.mechanism.encode() + b"\0" + len(first).to_bytes(4, "big") + first
        dialogue.write(requests.encode_password(body))
        stretch = exchange.challenge(await self._expect(dialogue, 11))
        try:
            secret = credentials.source.resolve(self._config.base)
        except ConfigError as error:
            raise TargetError(str(error), reason=Reason.TARGET_CREDENTIAL) from None
        salted = await asyncio.to_thread(salted_password, secret.reveal(), stretch.salt, stretch.iterations)
        dialogue.write(requests.encode_password(exchange.final(salted)))
        exchange.verify(await self._expect(dialogue, 12))
        await self._expect(dialogue, 0)

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
            return ServerRefusedError(
                "08004", f"target {self.target.name} did not accept our credential", reason=Reason.TARGET_CREDENTIAL
            )
        message = f"target {self.target.name}: {fields.get('M', 'refused the connection')}"
        return ServerRefusedError(code, message, reason=Reason.TARGET_UNREACHABLE)
