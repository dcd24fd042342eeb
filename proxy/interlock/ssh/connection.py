"""One client connection: who it is, the one gate session it gets, and its channels.

Authority comes from the method that completed, for the user name it completed with, and from nothing else: a key that
was only offered, or signed for another name, proves nothing (CVE-2024-45337). The session is opened before the client
is told that it is in, so that no request can come before the answer to "may you open this target".

asyncssh has no public hooks for most of this; see channel.py on private parts and the pinned version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

import asyncssh
import structlog
from asyncssh.auth import Auth
from asyncssh.constants import (
    DISC_BY_APPLICATION,
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_KEXINIT,
    MSG_REQUEST_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
)
from asyncssh.packet import SSHPacket
from asyncssh.public_key import SSHOpenSSHCertificate, SSHX509CertificateChain

from interlock.approvals.wording import Refusal
from interlock.clock import Clock, Entropy, ulid
from interlock.config import Config, TargetConfig
from interlock.errors import SENTENCES, AuthenticationError, EvidenceError, InterlockError, Reason
from interlock.evidence.events import EventDraft, Json
from interlock.gate import Gate, Session
from interlock.identity.principal import Principal
from interlock.identity.signin import SignIn
from interlock.policy.model import SessionFacts, Target
from interlock.record import who
from interlock.ssh import address, algorithms, certificates, records, refusals, requests, tunnel
from interlock.ssh.acks import acknowledge
from interlock.ssh.channel import ClientChannel, ClientSession
from interlock.ssh.dialling import Dialler
from interlock.ssh.enrolment import Enrolments
from interlock.ssh.exec import Execution
from interlock.ssh.limits import Doorkeeper, Limits, plain_address, source_of
from interlock.ssh.lines import Lines
from interlock.ssh.outflow import Outflow
from interlock.ssh.relay import ClientSide
from interlock.ssh.requests import Scope, Told
from interlock.ssh.sftp.session import FileSession
from interlock.ssh.tunnel import Adopt, Passage, TunnelChannel
from interlock.ssh.upstream import Upstream

log = structlog.get_logger()

NO_TARGET = "this connection names no target: ssh TARGET@PROXY 'command', or ssh -J HANDLE@PROXY TARGET"


def invitation(address: str, code: str) -> str:
    """Return what a stock client prints while it waits. Who did not run ssh just now must not confirm (RFC 8628 §5.4)."""
    return (
        f"To log in, open {address}\nand confirm the code {code}. Confirm only what you began yourself.\n"
        "This connection waits. With `interlock login` it need not.\n"
    )


TOKEN_PROMPT = ("Interlock", "", "", (("Token: ", False),))


class Authenticator(Protocol):
    """identity.authenticate, as far as SSH asks it."""

    def ssh_key(self, blob: bytes) -> Principal | None: ...

    def ssh_certificate(self, authority: bytes, serial: str, key: str, principals: list[str]) -> Principal | None: ...

    async def token(self, secret: str, *, source: str = "") -> Principal: ...


@dataclass(frozen=True, slots=True)
class House:
    """What all connections of a listener share."""

    config: Config
    gate: Gate
    authenticator: Authenticator
    diallers: dict[str, Dialler]
    lines: Lines
    enrolments: Enrolments
    clock: Clock
    entropy: Entropy
    limits: Limits
    door: Doorkeeper
    connections: set[ClientConnection]
    postgres: Adopt | None = None  # the other front end, where there is one: for tunnels to its targets
    signin: SignIn | None = None


@dataclass(frozen=True, slots=True)
class Proven:
    """A completed authentication: the method object that completed, the name it was for, and whose it is."""

    method: Auth
    username: str
    principal: Principal


class Owner(asyncssh.SSHServer):
    """asyncssh wants one. It says yes only to keys that `ClientConnection` has found in the directory already."""

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


class ClientConnection(Outflow):
    """A client of the proxy. `passage`: it came through a tunnel of another connection."""

    def __init__(self, house: House, options: asyncssh.SSHServerConnectionOptions, passage: Passage | None = None) -> None:
        self._house = house
        self._passage = passage
        self._proven: Proven | None = None
        self._certified: tuple[bytes, Principal] | None = None
        self._confirming = ""
        self._entering = False
        self._opening: asyncio.Task[Session | Refusal] | None = None
        self._recognised = False
        self._principal: Principal | None = None  # since it is in; without a session it may open tunnels and nothing else
        self._gate_session: Session | None = None
        self._upstream: Upstream | None = None
        self._target: TargetConfig | None = None
        self._address: address.Address | None = None
        self._admitted = False
        self._failures = 0
        self._offers = 0
        self._refusals = 0
        self._numbered = 0
        self._last_session = False
        self._later: list[str] = []
        self._work: set[asyncio.Task[None]] = set()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        super().__init__(house.limits, options)

    # -- arrival and departure ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._source = self._passage.client if self._passage else plain_address(str(peer[0])) if peer else "unknown"
        self._counted_as = source_of(self._source)
        if not self._house.door.admit(self._counted_as):
            self._cancel_login_timer()
            cast("asyncio.Transport", transport).abort()  # uvloop's transports are none by their type
            self.over.set_result(None)
            return
        self._admitted = True
        self._house.connections.add(self)
        self.expect_keys()
        super().connection_made(transport)

    def _cleanup(self, exc: Exception | None) -> None:
        super()._cleanup(exc)
        if not self._admitted:
            return
        self._admitted = False
        self._house.door.leave(self._counted_as, stranger=not self._recognised)
        if exc is not None and not isinstance(exc, (asyncssh.DisconnectError, OSError)):
            log.error("ssh.connection.failed", client=self._source, error=exc.__class__.__name__)
        if not self._entering and self._failures:
            left_out = self._house.door.may_note(self._house.clock.monotonic_us())
            if left_out is not None:
                fields: dict[str, Json] = {"attempts": self._failures, "left_out": left_out}
                self._journal("access.refused", {"reason": str(Reason.NOT_AUTHENTICATED), **fields})
        farewell = self._loop.create_task(self._depart())
        self._work.add(farewell)
        farewell.add_done_callback(self._departed)

    async def _depart(self) -> None:
        """End what runs, hand back what is held, seal the transcript."""
        me = asyncio.current_task()
        work = [task for task in self._work if task is not me]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        if self._upstream is not None:
            await self._upstream.close()
        session = self._gate_session or await self._opened_late()
        if session is not None:
            try:
                await session.close(self._why, {"channels": self._numbered})
            except EvidenceError as error:
                log.error("ssh.transcript.not_sealed", session=session.id, reason=str(error.code))

    async def _opened_late(self) -> Session | None:
        """The client may go away while its session is being opened: then it is sealed empty."""
        if self._opening is None:
            return None
        opened = (await asyncio.gather(self._opening, return_exceptions=True))[0]
        return opened if isinstance(opened, Session) else None

    def _departed(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._house.connections.discard(self)
        if not task.cancelled() and task.exception() is not None:
            log.error("ssh.departure.failed", error=repr(task.exception()))
        if not self.over.done():
            self.over.set_result(None)

    def _killed(self, refusal: Refusal) -> None:
        if self._upstream is not None:
            self._upstream.retire()
        self.leave(refusal)

    def leave(self, refusal: Refusal) -> None:
        """End the connection with a sentence that a stock client prints."""
        self._why = str(refusal.reason)
        for channel in self._session_channels():  # a client that still has a channel open prints nothing of a disconnect
            channel.say(refusals.plain(refusal))
        self.disconnect(DISC_BY_APPLICATION, refusals.sentence(refusal))

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        acknowledge(self._transport, len(data))
        super().data_received(data, datatype)

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        self._why = str(Reason.PROTOCOL_VIOLATION)
        super().internal_error(exc_info, error_logger)

    # -- key exchange ---------------------------------------------------------------------------------------------

    def _send_kexinit(self) -> None:
        if b"OpenSSH" in self._client_version:
            self._enc_algs = [name.encode() for name in algorithms.GCM]
        super()._send_kexinit()

    async def _process_strict_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        await super()._process_kexinit(pkttype, pktid, packet)
        if not self._strict_kex:
            raise asyncssh.KeyExchangeFailed(algorithms.OLD_PEER)

    async def reload_config(self) -> None:
        """There is no per-user configuration file; asyncssh would read all keys again for each name that is tried."""

    # -- authentication -------------------------------------------------------------------------------------------

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    def host_based_auth_supported(self) -> bool:
        return False

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Say whether a key may be used (no `msg`), or whether it signed. Only the second proves anything."""
        self._certified = None  # set by the hook below, while super() runs
        principal = self._house.authenticator.ssh_key(key_data)
        self._offers += 1
        if self._offers > self._house.limits.login_offers:
            raise asyncssh.PermissionDenied("interlock: too many keys were offered")
        certificate = principal is None and algorithms.is_certificate(key_data)
        if principal is None and not certificate:
            return False
        if msg and algorithms.signature_algorithm(signature) not in algorithms.SIGNATURES:
            return False
        if not await super().validate_public_key(username, key_data, msg, signature):
            return False
        if certificate:
            # Had asyncssh read it elsewhere than in the hook below, or another one meanwhile, it would not be here.
            principal = self._certified_by(key_data)
        if principal is None:
            return False
        if msg:
            self._prove(username, principal)
        return True

    def _certified_by(self, key_data: bytes) -> Principal | None:
        certified, self._certified = self._certified, None
        return certified[1] if certified is not None and certified[0] == key_data else None

    async def _validate_openssh_certificate(self, username: str, cert: SSHOpenSSHCertificate) -> asyncssh.SSHKey | None:
        """asyncssh's hook between reading a certificate and checking the signature with its key (certificates.py)."""
        principal = certificates.holder(cert, self._house.authenticator, self._source)
        if principal is None:
            return None
        self._certified = (cert.public_data, principal)
        cert.key.set_touch_required(True)
        return cert.key

    async def _validate_x509_certificate_chain(self, username: str, cert: SSHX509CertificateChain) -> asyncssh.SSHKey | None:
        return None

    async def validate_password(self, username: str, password: str) -> bool:
        try:
            principal = await self._house.authenticator.token(password, source=self._source)
        except AuthenticationError as error:
            log.info("ssh.token.refused", client=self._source, reason=str(error.code))
            return False
        except InterlockError as error:
            log.error("ssh.authentication.failed", client=self._source, reason=str(error.code))
            return False
        self._prove(username, principal)
        return True

    async def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        return False

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        """Show the code of a device grant and wait for it, where people log in so; else ask for a token."""
        signin = self._house.signin
        if signin is None or not signin.offers_device:
            return TOKEN_PROMPT
        try:
            flow = await signin.begin_device(self._counted_as)
        except InterlockError as error:
            log.info("ssh.login.not_begun", client=self._source, reason=str(error.code))
            return TOKEN_PROMPT
        self._confirming = flow.flow
        # People take longer than keys; the provider says how long its code is good for.
        self._cancel_login_timer()
        patience = min(flow.lifetime, self._house.limits.confirmation)
        self._login_timer = self._loop.call_later(patience, self._login_timer_callback)
        return ("Interlock", invitation(flow.complete or flow.address, flow.user_code), "", ())

    async def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        flow, self._confirming = self._confirming, ""
        if not flow:
            return len(responses) == 1 and await self.validate_password(username, responses[0])
        signin, method = self._house.signin, self.auth
        if signin is None or responses:
            return False
        try:
            answer = await signin.confirmed(flow, method="ssh")
        except InterlockError as error:
            log.info("ssh.login.refused", client=self._source, reason=str(error.code))
            return False
        finally:
            signin.abandon(flow)
        if self.auth is not method:
            return False  # the client began another authentication meanwhile: what was confirmed was not for that
        self._prove(username, answer.principal)
        return True

    def _prove(self, username: str, principal: Principal) -> None:
        if self.auth is not None:
            self._proven = Proven(self.auth, username, principal)

    def send_userauth_failure(self, partial_success: bool) -> None:
        self._failures += 1
        if self._failures > self._house.limits.login_failures:
            raise asyncssh.PermissionDenied("interlock: too many authentication failures")
        super().send_userauth_failure(partial_success)

    async def send_userauth_success(self) -> None:
        """Open the gate's session, and only then tell the client that it is in."""
        proven, self._proven = self._proven, None
        if proven is None or proven.method is not self.auth or proven.username != self._username or self._entering:
            raise asyncssh.PermissionDenied("interlock: nothing was proven")
        self._entering = True
        refusal = await self._open(proven.principal, self._username)
        if refusal is not None:
            self.leave(refusal)
            return
        if self.auth is not proven.method:
            raise asyncssh.PermissionDenied("interlock: another authentication began")
        self._recognised = True
        self._house.door.recognise(self._counted_as)
        await super().send_userauth_success()

    async def _open(self, principal: Principal, username: str) -> Refusal | None:
        """Find the target and open the session on it. A refusal is in the node's journal when this returns."""
        self._principal = principal
        if self._passage is not None and self._passage.opener != principal.identity:
            self._journal("access.refused", {"reason": str(Reason.NO_ACCESS), "principal": str(principal.identity)})
            return Refusal(Reason.NO_ACCESS, "somebody else opened this tunnel: authenticate as the same in both places")
        wanted = self._passage.address(username) if self._passage is not None else address.parse(username)
        config = self._house.config.target(wanted.target) if wanted is not None else None
        if self._passage is None and config is None and username == principal.handle:
            # Nowhere yet: a jump host's user name is the client's own, and tunnels are all that it may ask for.
            self._journal("login", {"method": "jump", "outcome": "accepted", **who(principal)})
            return None
        if wanted is None or config is None or config.protocol != "ssh":
            self._journal("access.refused", {"reason": str(Reason.NO_ACCESS), "principal": str(principal.identity)},
                          {"user": username})  # fmt: skip
            return Refusal(
                Reason.NO_ACCESS, f"there is no SSH target {username} that is open to you", SENTENCES[Reason.NO_ACCESS]
            )
        account = wanted.account or config.account
        target = Target(name=config.name, protocol="ssh", labels=config.labels, account=account)
        facts = SessionFacts(id=ulid(self._house.clock, self._house.entropy), client=self._source, opened=self._house.clock.now())
        self._opening = self._loop.create_task(self._house.gate.open(principal, target, facts, self._transport_facts()))
        try:
            opened = await asyncio.shield(self._opening)
        except InterlockError as error:
            return Refusal(error.code, str(error), error.next_step)
        if isinstance(opened, Refusal):
            return opened
        self._gate_session, self._target, self._address = opened, config, wanted
        opened.on_kill = self._killed
        if (ended := opened.stopped()) is not None:  # while it opened, when there was nobody to tell
            return ended
        house = self._house
        self._upstream = Upstream(opened, house.diallers[config.name], house.lines, house.enrolments, account, house.limits)
        return None

    def _transport_facts(self) -> dict[str, Json]:
        """What of the connection belongs to the record: the client's software and the algorithms in use."""
        version = self._client_version[:128].decode("ascii", "replace")
        return {"software": "".join(c if c.isprintable() else "?" for c in version),
                "cipher": self._enc_alg_cs.decode("ascii", "replace"), "strict_kex": self._strict_kex,
                **({"through": self._passage.session} if self._passage is not None else {})}  # fmt: skip

    # -- channels and requests ------------------------------------------------------------------------------------

    def _process_gated_open(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        kind = requests.shown_name(packet.get_string())
        peer, window, size = packet.get_uint32(), packet.get_uint32(), packet.get_uint32()
        if size <= 0:
            raise asyncssh.ProtocolError("Invalid maximum packet size")
        row = requests.find(Scope.OPEN, kind)
        if row.refused:
            detail = packet.get_remaining_payload()[:512].decode("utf-8", "backslashreplace")
            self.record(records.refused_request(Scope.OPEN, kind, detail=detail))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, f"interlock: {row.sentence}", "en")
            return
        if len(self._channels) >= self._house.limits.channels:
            self.refuse_limit(Scope.OPEN, kind)
            self.send_channel_open_failure(peer, OPEN_RESOURCE_SHORTAGE, "interlock: too many channels at once", "en")
            return
        if size < self._house.limits.packet:
            self.refuse_limit(Scope.OPEN, kind)
            self.send_channel_open_failure(peer, OPEN_RESOURCE_SHORTAGE, "interlock: packets that small are not sent", "en")
            return
        if kind == "direct-tcpip":
            self._open_tunnel(peer, window, size, tunnel.destination(packet))
            return
        packet.check_end()
        if self._last_session:
            raise asyncssh.ProtocolError("interlock: a session after no-more-sessions")  # as sshd does (PROTOCOL §2.2)
        if self._gate_session is None:
            self.record(records.refused_request(Scope.OPEN, kind))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, f"interlock: {NO_TARGET}", "en")
            return
        self._numbered += 1
        channel = ClientChannel(self, self._numbered, self._house.limits)
        channel.process_open(peer, window, size, ClientSession(self))

    def _open_tunnel(self, peer: int, window: int, size: int, wanted: tunnel.Destination) -> None:
        """Lead a tunnel to a front end of ours, or refuse it. Nothing is dialled in either case."""
        assert self._principal is not None
        target = self._visible(wanted.host)
        why = tunnel.refused(wanted, target, nested=self._passage is not None, postgres=self._house.postgres is not None)
        if why or target is None:
            self.record(records.refused_request(Scope.OPEN, "direct-tcpip", detail=str(wanted)))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, f"interlock: {why}", "en")
            return
        if (stopped := self._stopped()) is not None:
            self.record(records.refused_request(Scope.OPEN, "direct-tcpip", detail=str(wanted)))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, refusals.sentence(stopped), "en")
            return
        if not self._house.door.room(self._counted_as):
            self.refuse_limit(Scope.OPEN, "direct-tcpip")
            self.send_channel_open_failure(peer, OPEN_RESOURCE_SHORTAGE, "interlock: too many connections at once", "en")
            return
        self._numbered += 1
        self.record(records.tunnelled(self._numbered, target.name, target.protocol))
        channel = TunnelChannel(self, self._numbered)
        if target.protocol == "postgres" and self._house.postgres is not None:
            channel.process_open(peer, window, size, tunnel.to_postgres(self._house.postgres, self._source))
            return
        session = self._gate_session.id if self._gate_session is not None else ""
        passage = Passage(target.name, self._principal.identity, session, self._source)
        channel.inner = ClientConnection(self._house, self._options, passage)
        channel.process_open(peer, window, size, channel.inner)  # type: ignore[arg-type]  # asyncssh's connections are sessions
        for _ in self.clogs:
            channel.clog()

    def _visible(self, name: str) -> TargetConfig | None:
        """Return the target of that name, unless it is closed to the client: what it may not open it may not learn of."""
        config = self._house.config.target(name)
        if config is None or self._principal is None:
            return None
        about = Target(name=config.name, protocol=config.protocol, labels=config.labels)
        return config if self._house.gate.policies.current.may_see(self._principal, about) else None

    def _stopped(self) -> Refusal | None:
        """Say why nothing more may begin on this connection."""
        if self._gate_session is not None:
            return self._gate_session.stopped()
        if self._principal is None or self._principal.expired(self._house.clock.now()):
            return Refusal(Reason.CREDENTIAL_EXPIRED, SENTENCES[Reason.CREDENTIAL_EXPIRED])
        return None

    def _process_gated_global_request(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        kind = requests.shown_name(packet.get_string())
        want_reply = packet.get_boolean()
        row = requests.find(Scope.GLOBAL, kind)
        if row.refused:
            detail = packet.get_remaining_payload()[:512].decode("utf-8", "backslashreplace")
            self.record(records.refused_request(Scope.GLOBAL, kind, detail=detail))
            if row.told is Told.NEXT_CHANNEL and row.sentence not in self._later:
                self._later.append(row.sentence)
        elif kind == "no-more-sessions@openssh.com":
            self._last_session = True
        if want_reply:
            self.send_packet(MSG_REQUEST_FAILURE)  # also to a keepalive: any answer says that we live (RFC 4254 §4)

    _packet_handlers = {  # noqa: RUF012
        **Outflow._packet_handlers,
        MSG_KEXINIT: _process_strict_kexinit,
        MSG_CHANNEL_OPEN: _process_gated_open,
        MSG_GLOBAL_REQUEST: _process_gated_global_request,
    }

    def channel_opened(self, channel: ClientChannel) -> None:
        self.record(records.opened(channel.number))
        while self._later:
            channel.say(self._later.pop(0))

    def channel_closed(self, channel: ClientChannel) -> None:
        if channel.execution is None:
            self.record(records.closed(channel.number, "refused", {}))

    def tunnel_closed(self, channel: TunnelChannel) -> None:
        self.record(records.closed(channel.number, "left", {}))

    def script_reader(self) -> bytes:
        """Return what reads the script of a client that asks for a shell: the account's own where that is bash, else sh."""
        assert self._upstream is not None
        return b"bash -s" if self._upstream.context().shell.rpartition("/")[2] == "bash" else b"sh -s"

    def execution(
        self, channel: int, text: bytes, env: tuple[tuple[str, str], ...], client: ClientSide, said: str, unended: str = ""
    ) -> Execution:
        session, upstream = self._gate_session, self._upstream
        assert session is not None
        assert upstream is not None
        return Execution(
            channel, text, env, session=session, upstream=upstream, client=client, limits=self._house.limits,
            context=upstream.context(), said=said, unended=unended,
        )  # fmt: skip

    def files(self, channel: int, client: ClientSide, said: str) -> FileSession:
        session, upstream = self._gate_session, self._upstream
        assert session is not None
        assert upstream is not None
        return FileSession(channel, session=session, upstream=upstream, client=client, limits=self._house.limits, said=said)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work of this connection; it is cancelled and awaited when the connection ends."""
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    # -- the record -----------------------------------------------------------------------------------------------

    def record(self, draft: EventDraft) -> None:
        """Write what happened around commands. A transcript that can't be written ends the connection."""
        if draft.type == "channel.refuse":
            self._refusals += 1
            if self._refusals > self._house.limits.refusals:
                raise asyncssh.ProtocolError("interlock: too many refused requests")
        if self._gate_session is None:
            about = {"principal": str(self._principal.identity)} if self._principal is not None else {}
            self._journal(draft.type, {**about, **draft.fields}, dict(draft.secret))
            return
        try:
            self._gate_session.record(draft)
        except EvidenceError as error:
            if not self.is_closed():
                self.leave(Refusal(error.code, str(error), error.next_step))

    def refuse_limit(self, scope: Scope, what: str, channel: int | None = None) -> None:
        self.record(records.refused_limit(scope, what, channel=channel))

    def _journal(self, kind: str, fields: dict[str, Json], secret: dict[str, Json] | None = None) -> None:
        try:
            self._house.gate.transcripts.journal.append(
                EventDraft(kind, {"client": self._source, "protocol": "ssh", **fields}, secret or {})
            )
        except EvidenceError as error:
            log.error("ssh.journal.failed", reason=str(error.code))
