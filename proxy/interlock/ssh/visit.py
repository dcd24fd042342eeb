"""A client's stay: the one gate session it gets, from its arrival to the sealed transcript.

The session is opened before the client is told that it is in, so that no request can come before the answer to "may you
open this target". Must not know which channels and requests there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import asyncssh
import structlog
from asyncssh.constants import DISC_BY_APPLICATION

from interlock.approvals.wording import Refusal
from interlock.clock import ulid
from interlock.config import TargetConfig
from interlock.errors import SENTENCES, EvidenceError, InterlockError, Reason
from interlock.evidence.events import EventDraft, Json
from interlock.gate import Session
from interlock.identity.logins import Opened
from interlock.identity.principal import Principal
from interlock.policy.model import SessionFacts, Target
from interlock.record import who
from interlock.ssh import address, records, refusals
from interlock.ssh.acks import acknowledge
from interlock.ssh.house import House
from interlock.ssh.limits import plain_address, source_of
from interlock.ssh.proving import Proving
from interlock.ssh.requests import Scope
from interlock.ssh.tunnel import Passage
from interlock.ssh.upstream import Upstream

log = structlog.get_logger()


class Visit(Proving):
    """The part of a client connection that holds its session. `passage`: it came through a tunnel of another connection."""

    def __init__(self, house: House, options: asyncssh.SSHServerConnectionOptions, passage: Passage | None = None) -> None:
        self._passage = passage
        self._entering = False
        self._opening: asyncio.Task[Session | Refusal] | None = None
        self._recognised = False
        self._principal: Principal | None = None  # since it is in; without a session it may open tunnels and nothing else
        self._gate_session: Session | None = None
        self._upstream: Upstream | None = None
        self._admitted = False
        self._refusals = 0
        self._numbered = 0
        self._work: set[asyncio.Task[None]] = set()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        super().__init__(house, options)

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
        for opened in self._confirmed:
            await self._leave_login(opened)

    async def _leave_login(self, opened: Opened) -> None:
        assert self._house.signin is not None  # it opened the login
        try:
            await self._house.signin.leave(opened)
        except InterlockError as error:
            log.error("ssh.login.not_ended", reason=str(error.code))

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

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work of this connection; it is cancelled and awaited when the connection ends."""
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    # -- the session ----------------------------------------------------------------------------------------------

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
        self._gate_session = opened
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
