"""A running Postgres session: two sockets, the client's half, the server's half, and who has the turn.

Knows: how the halves (asking, answering) and the short way (stretches) fit together, and when the session ends.
Must not know: what a message means, policy, the desk, the store, how a client proved who it is.

Spec: postgres.md "Where to hold, how to refuse". The order within one connection is the client's own: a message that
waits stops everything behind it, and what was sent before it goes on. Messages go to the server one by one as they are
decided, never at Sync: drivers send megabytes without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from interlock import gate
from interlock.clock import Entropy
from interlock.commands.model import Analysis, Command
from interlock.errors import EvidenceError, InterlockError, Reason, RemoteProtocolError
from interlock.postgres import refusals
from interlock.postgres.answering import Answering, PoisonedError
from interlock.postgres.asking import Asking
from interlock.postgres.cancelling import Cancelling, CancelServer
from interlock.postgres.catalog import CatalogSource
from interlock.postgres.estimate import Estimator
from interlock.postgres.idle import IdleLimit
from interlock.postgres.onlooker import Onlooker
from interlock.postgres.relay import WAITING_BOUND, Relay
from interlock.postgres.results import Results
from interlock.postgres.schema import SchemaView
from interlock.postgres.statements import SessionNames
from interlock.postgres.stretches import LongWay, Stretches
from interlock.postgres.waiting import HeldClient
from interlock.postgres.watch import ParameterWatch
from interlock.postgres.wire import answers, requests
from interlock.postgres.wire.answers import ErrorFields, RefusedNames
from interlock.postgres.wire.frame import ClientFrames
from interlock.postgres.wire.pipeline import Pipeline

log = structlog.get_logger()

FRAMES_AT_ONCE = 32
"""Messages of one client that are handled before others have their turn."""
MAX_IN_FLIGHT = 16_384
"""Messages that may wait for their answers; more than a server's output buffer can hold back without a Flush."""


class PostgresSession:
    """One client on one server connection. Give `relay`'s sides to the transports, then call `start`."""

    def __init__(
        self,
        session: gate.Session,
        *,
        search_path: tuple[str, ...],
        settings: tuple[tuple[str, str], ...],
        max_hold: float,
        entropy: Entropy,
        cancel_server: CancelServer,
        catalog: CatalogSource | None,
        said: str = "",
        idle_asked: str = "",
        estimator: Estimator | None = None,
        onlooker: Onlooker | None = None,
    ) -> None:
        self.gate_session = session
        self.relay = Relay(self)
        self.watch = ParameterWatch(pinned=bool(settings))
        self._schema = schema = SchemaView(catalog)
        idle = IdleLimit(idle_asked, lambda: catalog.idle_limit if catalog is not None else None)
        self._names = names = SessionNames(search_path, schema.known, pinned=bool(settings), idle=idle)
        self._caller = HeldClient(self, max_hold, said)
        self._cancel_server = cancel_server
        self._estimator = estimator
        self._ended: Callable[[PostgresSession, str], None] = lambda _session, _why: None
        # Two names: a text may be seen in pg_stat_activity, and whoever knows the portal's name could DECLARE it.
        refused = RefusedNames(answers.REFUSED + entropy(16).hex(), answers.REFUSED + entropy(16).hex())
        self._frames = ClientFrames()
        self._pipeline = Pipeline()
        self._cancelling = Cancelling(self._pipeline, cancel_server, self.go_on)
        self._results = Results(session.recorder.append)
        self._answering = Answering(
            pipeline=self._pipeline,
            names=names,
            results=self._results,
            watch=self.watch,
            refused=refused,
            idle=schema.settled,
            onlooker=onlooker,
        )
        way = Stretches if onlooker is None else LongWay
        self._stretches = way(session, pipeline=self._pipeline, names=names, schema=schema, results=self._results)
        self._asking = Asking(
            session,
            self,
            caller=self._caller,
            settings=settings,
            refused=refused,
            pipeline=self._pipeline,
            names=names,
            schema=schema,
            results=self._results,
            answering=self._answering,
            stretches=self._stretches,
            cancelling=self._cancelling,
        )
        self._said: list[bytes] = []
        self._pumping = False
        self._yielded: asyncio.Handle | None = None
        self._drain_future: asyncio.Future[None] | None = None
        self._finished = False

    # -- for the listener ---------------------------------------------------------------------------------------------

    def on_end(self, ended: Callable[[PostgresSession, str], None]) -> None:
        """Set who is told, once, that the session has ended and must be settled."""
        self._ended = ended

    def start(self, client: asyncio.Transport, server: asyncio.Transport) -> None:
        self.relay.start(client, server)

    async def cancel(self) -> None:
        """A CancelRequest with this session's key: what is held goes back, what runs is cancelled at the server."""
        self._stretches.leave()
        if len(self._pipeline):
            await self._cancelling.cancel()
        else:
            self._asking.cancel()

    def end(self, why: str, error: ErrorFields | None = None) -> None:
        """End the session, telling the client why. Idempotent."""
        if self._finished:
            return
        self._finished = True
        self._stretches.leave()
        self._cancelling.stop()
        self._asking.stop()
        if error is not None and self._answering.at_boundary:
            self.relay.to_client(answers.error(error))
        self.relay.to_server(requests.TERMINATE)
        self.relay.close()
        self._ended(self, why)

    async def settle(self, why: str) -> None:
        """Wait for what was held to be handed back, stop what still runs, close the transcript. Called once, after `end`.

        A server notices that its client has left only when it has something to send, so a statement without a result is
        cancelled: nothing runs on for somebody who is gone.
        """
        waiting = [task for task in (self._asking.waiting, self._schema.waiting) if task is not None]
        if waiting:
            await asyncio.wait(waiting)
        try:
            for ref in self._pipeline.unanswered():
                self._results.failed(ref, "unknown")
            self._results.flush()
        except EvidenceError as error:
            log.error("transcript broken at close", session=self.gate_session.id, reason=str(error.code))
        running = why != "target-left" and bool(self._pipeline.unanswered())
        if running:
            await asyncio.gather(self._cancel_server(), self._seal(why))
        else:
            await self._seal(why)

    async def _seal(self, why: str) -> None:
        try:
            await self.gate_session.close(why)
        except EvidenceError as error:
            log.error("transcript not sealed", session=self.gate_session.id, reason=str(error.code))

    # -- relay.Ends ---------------------------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        stretches = self._stretches
        if stretches.ready and not self.relay.server_side.full and stretches.begin(data):
            self.relay.to_server(data)
            return
        if self._finished:
            return
        stretches.leave()
        self._frames.feed(data)
        self.go_on()

    @property
    def _at_rest(self) -> bool:
        """Nothing is in flight, nothing waits, nothing is kept of either stream."""
        return (
            self._pipeline.at_rest
            and self._frames.at_rest
            and self._answering.at_rest
            and not (self._asking.busy or self._asking.unsettled or self._held_back)
        )

    def client_left(self) -> None:
        self.end("client-left")

    def server_left(self) -> None:
        self.end("target-left")

    def server_ready(self) -> None:
        self.go_on()

    def from_server(self, data: bytes) -> None:
        if self._stretches.flying and self._landed(data):
            return
        owed = len(self._pipeline)
        if self._finished or not self._relayed(data):
            return
        if self._said and self._answering.at_boundary:
            self.relay.to_client(b"".join(self._said))
            self._said.clear()
        if owed and self._pipeline.drained:
            self._on_drained()
        if owed > MAX_IN_FLIGHT >= len(self._pipeline):
            self.go_on()
        self._stretches.ready = self._at_rest and not self._finished

    def _landed(self, data: bytes) -> bool:
        """Relay one read of the server that answers a whole stretch; False when it does not."""
        try:
            if not self._stretches.answered(data):
                return False
        except EvidenceError as error:
            self.end(str(error.code), refusals.fatal(error.code, str(error)))
            return True
        self.relay.to_client(data)
        return True

    def _relayed(self, data: bytes) -> bool:
        """Relay one read of the server; False when that ended the session."""
        try:
            self._stretches.leave()
            if relayed := self._answering.take(data):
                self.relay.to_client(relayed)
        except (EvidenceError, PoisonedError) as error:
            self.end(str(error.code), refusals.fatal(error.code, str(error)))
        except RemoteProtocolError as error:
            log.warning("target broke the protocol", session=self.gate_session.id, what=str(error))
            self.end("target-protocol", refusals.fatal(Reason.PROTOCOL_VIOLATION, f"the target broke the protocol: {error}"))
        return not self._finished

    # -- waiting.Waiting ----------------------------------------------------------------------------------------------

    @property
    def transaction_open(self) -> bool:
        return self._pipeline.in_transaction

    @property
    def idle_limit(self) -> float | None:
        return self._names.idle_limit.seconds

    async def drained(self, *, begins_anew: bool) -> bool:
        # Also when nothing is owed: a server's clock of idle time stops at any message, and starts at its next ReadyForQuery.
        self.relay.to_server(requests.FLUSH)
        if not self._pipeline.drained:
            self._drain_future = asyncio.get_running_loop().create_future()
            try:
                await self._drain_future
            finally:
                self._drain_future = None
        failed = self._pipeline.status == "E" and not self._pipeline.unsynced and not begins_anew
        return not (self._pipeline.skipping or failed)

    async def estimate(self, command: Command, analysis: Analysis) -> str | None:
        if self._estimator is None:
            return None
        return await self._estimator.estimate(self.gate_session, self._caller, command, analysis)

    def say(self, data: bytes) -> None:
        if self._answering.at_boundary:
            self.relay.to_client(data)
        else:
            self._said.append(data)

    def _on_drained(self) -> None:
        if self._drain_future is not None and not self._drain_future.done():
            self._drain_future.set_result(None)
        self._asking.drained()

    # -- asking.Turns ---------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Handle what the client sent, as far as nothing waits and the server takes it."""
        if self._pumping:
            return
        self._pumping = True
        asking = self._asking
        try:
            left = 0 if self._held_back else FRAMES_AT_ONCE
            while left and not asking.busy and not self._finished:
                frame = self._frames.next()
                if frame is None:
                    break
                asking.take(frame)
                left -= 1
            if not left and not self._held_back:
                self._go_on_soon()
        except RemoteProtocolError as error:
            self.flush()
            self.end("protocol-violation", refusals.fatal(Reason.PROTOCOL_VIOLATION, str(error)))
        except InterlockError as error:
            self.flush()
            self.end(str(error.code), refusals.fatal(error.code, str(error)))
        finally:
            self._pumping = False
        self.flush()
        waiting = asking.busy or self._yielded is not None
        self.relay.read_client((not waiting or self._frames.buffered < WAITING_BOUND) and not self._held_back)

    def flush(self) -> None:
        out = self._asking.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self.relay.to_server(data)

    @property
    def _held_back(self) -> bool:
        """The server gets nothing more now: its socket is full, it owes too many answers, or a cancel must come first."""
        return self.relay.server_full or len(self._pipeline) > MAX_IN_FLIGHT or self._cancelling.under_way

    def _go_on_soon(self) -> None:
        """Let other sessions have their turn before the rest of what this client sent."""
        if self._yielded is None:
            self._yielded = asyncio.get_running_loop().call_soon(self._after_yielding)

    def _after_yielding(self) -> None:
        self._yielded = None
        self.go_on()
