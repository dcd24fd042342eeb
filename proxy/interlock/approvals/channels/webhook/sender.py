"""The webhook channel: follows the desk, writes down what there is to tell, and tells it until it is heard.

Theory of operation. The desk calls back with a request; it is put into a dict, and nothing else happens on the desk's time. A
task of ours writes the messages about it into the outbox (what was ever written down is not written down again), and a few
others send what is due. A message leaves the outbox when the receiver answered 2xx, or after three days, and then the node's
journal says so. A crash loses nothing: what a request has been through follows from the request (`changes`), and at the next
start everything recent is looked at again. What was sent and not yet removed is sent again, under the same id.

Must not know what the desk decides. Nothing that a receiver answers has any effect on a request.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import httpx
import structlog

from interlock.approvals.channels.webhook import pace, signing
from interlock.approvals.channels.webhook.changes import Change, changes
from interlock.approvals.channels.webhook.payload import body
from interlock.approvals.channels.webhook.waiting import Slip, Waiting
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest
from interlock.clock import Clock, Entropy
from interlock.errors import EvidenceError
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.store.outbox import OutboxRow, OutboxRows

log = structlog.get_logger()

CHANNEL = "webhook"
ROOM = 10_000
"""Messages that wait at most. What has no room is told later, from the requests themselves."""

SENDERS = 4
ATTEMPT_S = 10.0
"""Seconds for one attempt, from looking the name up to the status line."""

PULSE = 30.0
RETRY = 1.0
LAG = 0.05
"""Seconds before a change is written down: the desk's own transactions about it go first."""

BATCH = 50
RECENT = timedelta(days=7)
"""Requests that ended earlier are not looked at when the channel starts."""

MARKS_LAST = timedelta(days=30)
_TICK = timedelta(microseconds=1)


class WebhookChannel:
    """`start` after the inbox, `close` before it. `tick` lets it look at the clock now."""

    def __init__(
        self,
        *,
        url: str,
        key: bytes,
        events: frozenset[str],
        inbox: Inbox,
        rows: OutboxRows,
        journal: Recorder,
        clock: Clock,
        entropy: Entropy,
        transport: httpx.AsyncBaseTransport,
        room: int = ROOM,
    ) -> None:
        """`events` empty means every kind. `transport` is `address.Guarded` in production."""
        self._url = url
        self._key = key
        self._events = events
        self._inbox = inbox
        self._rows = rows
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._room = room
        self._http = httpx.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=ATTEMPT_S,
            headers={"User-Agent": "interlock", "Content-Type": "application/json"},
        )  # fmt: skip
        self._changed: dict[str, ApprovalRequest] = {}
        self._behind = False
        self._waiting = Waiting()
        self._last = clock.now()
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what waits, and whatever changed while we were away. Raise StoreError."""
        for row in await self._rows.waiting(CHANNEL):
            self._waiting.add(Slip(row.id, row.attempts, row.due, row.created))
            self._last = max(self._last, row.created)
        first = not await self._rows.begun(CHANNEL)
        await self._rows.forget(CHANNEL, self._clock.now() - MARKS_LAST)
        self._unsubscribe = self._inbox.subscribe(self._note)
        await self._look_back(first=first)
        self._tasks.append(asyncio.create_task(self._keep_writing(), name="webhook-outbox"))
        for number in range(SENDERS):
            self._tasks.append(asyncio.create_task(self._keep_sending(), name=f"webhook-{number}"))

    async def close(self) -> None:
        """Stop at once: what is not heard yet waits in the outbox. Idempotent."""
        if self._tasks:
            self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._http.aclose()

    def tick(self) -> None:
        """Let everybody look again: something is there to write, or the clock moved."""
        look, self._look = self._look, asyncio.Event()
        look.set()

    # -- writing down -------------------------------------------------------------------------------------------------

    def _note(self, request: ApprovalRequest) -> None:
        # One entry a request, and none while the store is down: then the desk changes nothing either.
        self._changed[request.id] = request
        self.tick()

    async def _look_back(self, *, first: bool = False) -> None:
        """Note every request whose changes may not all have been written down.

        When the channel starts for the first time, requests that ended before it existed are no news.
        """
        now = self._clock.now()
        old: list[str] = []
        for request in await self._inbox.list():
            if not request.state.terminal:
                self._note(request)
            elif first:
                old += [change.ident for change in changes(request)]
            elif max(request.created, request.decided_at or request.created, request.expires) >= now - RECENT:
                self._note(request)
        if old:
            await self._rows.mark(CHANNEL, old, now)

    async def _keep_writing(self) -> None:
        while True:
            look = self._look
            try:
                await self._write_down()
                if self._behind and len(self._waiting) < self._room // 2:
                    self._behind = False
                    await self._look_back()
            except Exception as error:
                # Whatever it is, the rest is told. No traceback: its frames hold requests.
                log.error("webhook.not_written_down", error=type(error).__name__)
                await asyncio.sleep(RETRY)
                continue
            if not self._changed:
                await self._pause(look, PULSE)

    async def _write_down(self) -> None:
        """Turn the changed requests into messages. A request is forgotten here only once its messages are kept."""
        while self._changed:
            await asyncio.sleep(LAG)
            batch = list(self._changed.items())[:BATCH]
            rows = [self._row(request, change) for _, request in batch for change in self._chosen(request)]
            kept = await self._rows.keep(rows, room=self._room)
            for ident, request in batch:
                if self._changed.get(ident) is request:
                    del self._changed[ident]
            for row in kept.new:
                self._waiting.add(Slip(row.id, row.attempts, row.due, row.created))
            if kept.new:
                self.tick()
            if kept.left_out and not self._behind:
                self._behind = True
                log.error("webhook.outbox_full", room=self._room)

    def _chosen(self, request: ApprovalRequest) -> list[Change]:
        return [change for change in changes(request) if not self._events or change.kind in self._events]

    def _row(self, request: ApprovalRequest, change: Change) -> OutboxRow:
        now = self._clock.now()
        # Strictly later than the one before, whatever the clock says: the order of creation is the order of sending.
        self._last = created = max(now, self._last + _TICK)
        message = body(request, change.kind, change.at or now, self._inbox.link(request))
        return OutboxRow(change.ident, CHANNEL, message, 0, now, created)

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _keep_sending(self) -> None:
        while True:
            look = self._look
            now = self._clock.now()
            slip = self._waiting.next(now)
            if slip is None:
                due = self._waiting.next_due()
                await self._pause(look, PULSE if due is None else min(PULSE, max(0.0, (due - now).total_seconds())))
                continue
            try:
                await self._send(slip)
            except Exception as error:
                # It may have been heard. It is sent again under its own id, and the receiver knows that.
                log.error("webhook.not_sent", message=slip.ident, error=type(error).__name__)
                self._waiting.back(replace(slip, due=self._clock.now() + timedelta(seconds=RETRY)))
                await self._pause(self._look, RETRY)

    async def _send(self, slip: Slip) -> None:
        message = await self._rows.payload(slip.ident)
        if message is None:
            self._waiting.done(slip)  # somebody emptied the table
            return
        failure, asked = await self._attempt(slip, message)
        now = self._clock.now()
        if failure and not pace.hopeless(slip.created, now):
            attempts = slip.attempts + 1
            due = now + timedelta(seconds=pace.delay(attempts, self._entropy, asked))
            log.warning("webhook.failed", message=slip.ident, attempts=attempts, why=failure)
            await self._rows.postpone(slip.ident, attempts, due)
            self._waiting.back(replace(slip, attempts=attempts, due=due))
            return
        if failure:
            self._give_up(slip, failure)
        await self._rows.remove(slip.ident)
        self._waiting.done(slip)
        self.tick()

    async def _attempt(self, slip: Slip, message: bytes) -> tuple[str, float | None]:
        """Return why it was not heard ("" when it was), and for how long the receiver wants to be left alone.

        The answer's body is not read. A redirect is a failure: following it would send the request's text elsewhere.
        """
        now = self._clock.now()
        signed = signing.headers(self._key, slip.ident, int(now.timestamp()), message)
        try:
            async with (
                asyncio.timeout(ATTEMPT_S),
                self._http.stream("POST", self._url, content=message, headers=signed) as response,
            ):
                if response.is_success:
                    return "", None
                return f"status {response.status_code}", pace.asked_for(response.headers.get("retry-after"), now)
        except TimeoutError:
            return "no answer in time", None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return f"{type(error).__name__}: {error}" if isinstance(error, httpx.ConnectError) else type(error).__name__, None

    def _give_up(self, slip: Slip, failure: str) -> None:
        log.error("webhook.given_up", message=slip.ident, attempts=slip.attempts + 1, why=failure)
        fields: dict[str, Json] = {"channel": CHANNEL, "message": slip.ident, "attempts": slip.attempts + 1, "why": failure[:200]}
        try:
            self._journal.append(EventDraft("message.given_up", fields))
        except EvidenceError:
            log.error("webhook.not_recorded", message=slip.ident)

    async def _pause(self, look: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await look.wait()
        except TimeoutError:
            pass  # looked at again by our own clock
