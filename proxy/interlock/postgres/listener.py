"""The Postgres listener: accepts connections, walks each through its start-up, and keeps the live sessions.

Knows: how the rooms of this front end fit together, limits and deadlines.
Must not know: rules; what a message means.

Each connection has its own task and deadline from its first moment, so clients that never speak, or speak slowly, hold a
socket and nothing else, and nobody waits behind them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog

from interlock import gate
from interlock.approvals.wording import Refusal
from interlock.clock import Clock, Entropy, ulid
from interlock.config import Config, TargetConfig, is_loopback
from interlock.errors import SENTENCES, ConfigError, EvidenceError, InterlockError, Reason, TargetError
from interlock.evidence.events import EventDraft, Json
from interlock.identity import oauthbearer
from interlock.listening import bound
from interlock.policy.model import SessionFacts, Target
from interlock.postgres import idle, refusals
from interlock.postgres.arrivals import Arrivals, meet, turned_away
from interlock.postgres.cancel import CancelKeys
from interlock.postgres.catalog import CatalogSource
from interlock.postgres.credentials.source import Providers
from interlock.postgres.dialogue import Dialogue, LeftError
from interlock.postgres.encryption import own_binding
from interlock.postgres.estimate import Estimator
from interlock.postgres.proving import Authenticator, Methods, Proving, RejectedError
from interlock.postgres.session import PostgresSession
from interlock.postgres.settings import StartupRefusedError, pinned, requested, search_path, server_parameters, stated_reason
from interlock.postgres.startup import Admitted, Reception
from interlock.postgres.upstream import Connector, ServerRefusedError, Upstream
from interlock.postgres.wire import answers
from interlock.postgres.wire.answers import ErrorFields
from interlock.postgres.wire.opening import CancelRequest
from interlock.record import who

log = structlog.get_logger()

STARTUP_DEADLINE = 15.0
"""Seconds from accept to an authenticated client."""
ACCEPT_PAUSE = 0.5
"""Seconds without accepting after the system refused to: out of files, as a rule, and those who leave give some back."""
CATALOG_PATIENCE = 5.0
"""Seconds the first session of a target waits for the catalog's first load, so that its first reads are understood."""


class PostgresListener:
    """Listens on `listen.postgres`. `start` binds, `port` tells where, `close` ends every session."""

    def __init__(
        self,
        config: Config,
        gate: gate.Gate,
        authenticator: Authenticator,
        *,
        clock: Clock,
        entropy: Entropy,
        tls_context: ssl.SSLContext | None = None,
        startup_deadline: float = STARTUP_DEADLINE,
        arrivals: Arrivals | None = None,
    ) -> None:
        if config.listen.postgres is None:
            raise ConfigError("listen.postgres is not set")
        self._config = config
        self._gate = gate
        self._clock = clock
        self._entropy = entropy
        self._address = config.listen.postgres
        self._deadline = startup_deadline
        self._tls = tls_context
        self._reception = Reception(Proving(authenticator, _methods(config), entropy=entropy), tls=tls_context)
        self._providers = Providers(config, clock=clock)
        self._connectors = {
            target.name: Connector(config, target, entropy=entropy, provider=self._providers.of(target))
            for target in config.targets
            if target.protocol == "postgres"
        }
        self._estimators = {name: Estimator(connector) for name, connector in self._connectors.items()}
        self._catalogs: dict[tuple[str, str, str], CatalogSource] = {}
        self._keys = CancelKeys(clock=clock, entropy=entropy)
        self._arrivals = arrivals or Arrivals()
        self._sessions: set[PostgresSession] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is bound; useful when the configuration says 0."""
        if self._socket is None:
            raise ConfigError("the Postgres listener is not started")
        return int(self._socket.getsockname()[1])

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    async def start(self) -> None:
        """Bind and accept; begin to read the catalogs of the targets. Raise ConfigError when the address can't be used."""
        self._socket = bound("postgres", self._address)
        self._socket.setblocking(False)
        for connector in self._connectors.values():
            target = connector.target
            if target.unsafe_client_settings:
                log.warning("target is for tests only: clients choose how its server reads text", target=target.name)
            else:
                self._catalog(connector, target.role, target.database).start()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self._socket))

    async def close(self) -> None:
        """Stop accepting, end every session (held requests are handed back), and wait until all transcripts are closed."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        for session in list(self._sessions):
            session.end("shutting-down", refusals.fatal(Reason.SHUTTING_DOWN))
        for catalog in self._catalogs.values():
            await catalog.close()
        while self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self._deadline)
        await self._providers.close()

    def adopt(self, connection: socket.socket, source: str) -> None:
        """Take a connection that came another way than through the socket: a tunnel of SSH. `source`: who is behind it."""
        if self._socket is not None and self._arrivals.admit(source, sessions=len(self._sessions)):
            self._spawn(self._arrived(connection, source))
        else:
            turned_away(connection)

    # -- one connection -----------------------------------------------------------------------------------------------

    async def _accept(self, listening: socket.socket) -> None:
        """Take what comes and give each a task of its own. Nothing here waits for a client."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, name = await loop.sock_accept(listening)
            except ConnectionError:  # it left before it was taken
                continue
            except OSError as error:
                log.warning("postgres.accept_failed", error=error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            source = str(name[0])
            if self._arrivals.admit(source, sessions=len(self._sessions)):
                self._spawn(self._arrived(connection, source))
            else:
                turned_away(connection)

    async def _arrived(self, connection: socket.socket, source: str) -> None:
        """One connection, from its first byte on, under one deadline until it has proven who it is."""
        deadline = asyncio.get_running_loop().time() + self._deadline
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            async with asyncio.timeout_at(deadline):
                dialogue = await meet(connection, self._tls)
            dialogue.source = source
        except OSError as error:  # LeftError, ssl.SSLError and TimeoutError are some
            log.debug("postgres.not_met", client=source, error=error.__class__.__name__)
        else:
            await self._receive(dialogue, source, deadline)
        finally:
            self._arrivals.leave(source)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a connection failed", error=task.exception().__class__.__name__, exc_info=task.exception())

    async def _receive(self, dialogue: Dialogue, source: str, deadline: float) -> None:
        """Start-up to running session. Whatever goes wrong is told to the client in one FATAL and ends here."""
        try:
            async with asyncio.timeout_at(deadline):
                arrived = await self._reception.receive(dialogue, trusted_wire=is_loopback(source))
            if isinstance(arrived, CancelRequest):
                await self._keys.cancel(arrived.process, arrived.secret, source)
                dialogue.close()
                return
            await self._open(dialogue, arrived, source)
        except StartupRefusedError as error:
            self._turn_away(dialogue, error.fields)
        except RejectedError as error:
            self._turn_away(dialogue, ErrorFields("FATAL", refusals.sqlstate(error.code), str(error)))
        except ServerRefusedError as error:
            self._turn_away(dialogue, refusals.fatal(error.code, str(error), code=error.sqlstate))
        except LeftError:
            dialogue.abort()
        except TimeoutError:
            self._turn_away(dialogue, refusals.fatal(Reason.PROTOCOL_VIOLATION, "the start-up took too long"))
        except (ssl.SSLError, OSError):
            dialogue.abort()
        except InterlockError as error:
            self._turn_away(dialogue, refusals.fatal(error.code, str(error)))
        except BaseException:
            dialogue.abort()
            raise

    def _turn_away(self, dialogue: Dialogue, fields: ErrorFields) -> None:
        dialogue.write(answers.error(fields))
        dialogue.close()

    async def _open(self, dialogue: Dialogue, admitted: Admitted, source: str) -> None:
        """Ask the gate for a session, connect to the target, and let the two talk."""
        connector = self._connectors.get(admitted.address.target)
        if connector is None:
            refusal = Refusal(Reason.NO_ACCESS, SENTENCES[Reason.NO_ACCESS])
            self._note_refused(source, admitted, refusal)
            self._turn_away(dialogue, refusals.no_access(refusal))
            return
        where, principal = admitted.address, admitted.principal
        if (until := principal.credential.expires) is not None:
            # The same subject has a new credential: what it has open lasts as long as this one (postgres.md).
            self._gate.renew(
                principal.identity, until, acting_for=principal.acting_for, groups=principal.groups, behind=principal.behind
            )
        target = connector.target
        role, database = where.role or target.role, where.database or target.database
        parameters = server_parameters(admitted.startup, target, role=role, database=database, principal=admitted.principal)
        facts = SessionFacts(ulid(self._clock, self._entropy), source, self._clock.now())
        described = Target(target.name, "postgres", target.labels, role=role, database=database)
        asked: dict[str, Json] = {"tls": dialogue.encrypted}
        if target.unsafe_client_settings:
            asked["unsafe_client_settings"] = True
        opened = await self._gate.open(admitted.principal, described, facts, asked)
        if isinstance(opened, Refusal):
            self._turn_away(dialogue, refusals.no_access(opened))
            return
        try:
            catalog = None if target.unsafe_client_settings else self._catalog(connector, role, database)
            if catalog is not None:
                catalog.start()
            upstream = await connector.connect(parameters)
            try:
                if catalog is not None and catalog.current is None:
                    await catalog.first_load(CATALOG_PATIENCE)
                # Ended while the target answered, when there was nobody to tell. An expired credential may be renewed.
                if (ended := opened.stopped()) is not None and ended.reason is not Reason.CREDENTIAL_EXPIRED:
                    raise InterlockError(ended.message, reason=ended.reason)
                self._begin(dialogue, admitted, opened, upstream, connector, catalog)
            except BaseException:
                upstream.dialogue.abort()
                raise
        except BaseException as error:
            why = (
                str(error.code) if isinstance(error, TargetError) else "client-left" if isinstance(error, LeftError) else "failed"
            )
            await self._close_quietly(opened, why)
            raise

    def _begin(
        self,
        dialogue: Dialogue,
        admitted: Admitted,
        opened: gate.Session,
        upstream: Upstream,
        connector: Connector,
        catalog: CatalogSource | None,
    ) -> None:
        target: TargetConfig = connector.target
        session = PostgresSession(
            opened,
            search_path=search_path(target),
            settings=pinned(target),
            max_hold=self._config.approvals.max_hold_in_transaction,
            entropy=self._entropy,
            cancel_server=partial(connector.cancel, upstream.process, upstream.secret),
            catalog=catalog,
            said=stated_reason(admitted.startup),
            idle_asked=requested(admitted.startup).get(idle.SETTING, ""),
            estimator=None if catalog is None else self._estimators[target.name],
        )
        for name, value in upstream.parameters.items():
            if (poison := session.watch.take(name, value)) is not None:
                raise TargetError(f"the target did not take our settings: {poison[1]}", reason=Reason.TARGET_IDENTITY)
        secret = self._keys.issue(upstream.process, session.cancel, minor=admitted.startup.speaks)
        session.on_end(partial(self._ended, upstream.process, secret))
        greeting = b"".join(
            (
                admitted.welcome,
                *(answers.encode_parameter_status(name, value) for name, value in upstream.parameters.items()),
                answers.backend_key_data(upstream.process, secret),
                upstream.notices,
                answers.ready_for_query(),
            )
        )
        early = upstream.dialogue.rest()  # a notice or a new setting may come in one read with the greeting
        try:
            if upstream.dialogue.gone:
                raise TargetError(f"target {target.name} closed the connection right behind its greeting")
            client = dialogue.hand_over(session.relay.client_side)
            server = upstream.dialogue.hand_over(session.relay.server_side)
        except BaseException:
            self._keys.withdraw(upstream.process, secret)
            raise
        self._sessions.add(session)
        opened.on_kill = partial(self._killed, session)
        opened.on_revoke = partial(self._revoked, session)
        session.start(client, server)
        session.relay.to_client(greeting)
        if early:
            session.from_server(early)

    @staticmethod
    def _killed(session: PostgresSession, refusal: Refusal) -> None:
        session.end(str(refusal.reason), refusals.fatal(refusal.reason, refusal.message))

    @staticmethod
    def _revoked(session: PostgresSession) -> None:
        """What runs at the server is cancelled, and what comes from there (a result, a notification) reaches nobody."""
        reason = Reason.DISABLED_PRINCIPAL
        session.end(str(reason), refusals.fatal(reason, "the access that this session was opened with was taken back"))

    def _ended(self, process: int, secret: bytes, session: PostgresSession, why: str) -> None:
        self._keys.withdraw(process, secret)
        self._sessions.discard(session)
        self._spawn(session.settle(why))

    def _catalog(self, connector: Connector, role: str, database: str) -> CatalogSource:
        key = (connector.target.name, role, database)
        source = self._catalogs.get(key)
        if source is None:
            source = CatalogSource(
                connector, role=role, database=database, clock=self._clock, journal=lambda: self._gate.transcripts.journal
            )
            self._catalogs[key] = source
        return source

    # -- the node's journal -------------------------------------------------------------------------------------------

    def _note_refused(self, source: str, admitted: Admitted, refusal: Refusal) -> None:
        fields: dict[str, Json] = {"reason": str(refusal.reason), "client": source, "protocol": "postgres"}
        self._note(
            EventDraft("access.refused", {**fields, **who(admitted.principal)}, {"claimed_target": admitted.address.target})
        )

    def _note(self, draft: EventDraft) -> None:
        try:
            self._gate.transcripts.journal.append(draft)
        except EvidenceError as error:
            log.error("journal broken", reason=str(error.code))

    @staticmethod
    async def _close_quietly(session: gate.Session, why: str) -> None:
        try:
            await session.close(why)
        except EvidenceError as error:
            log.error("transcript not sealed", session=session.id, reason=str(error.code))


def _methods(config: Config) -> Methods:
    """Read from the configuration how clients may prove who they are. It was validated as a whole."""
    issuer = config.oauth_issuer
    return Methods(
        config.listen.postgres_methods,
        binding=own_binding(config.tls, config) if config.tls is not None else None,
        metadata=oauthbearer.metadata(issuer.issuer) if issuer is not None else "",
        scope=config.listen.postgres_oauth.scope,
    )
