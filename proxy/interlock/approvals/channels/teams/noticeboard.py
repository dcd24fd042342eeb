"""Keeps every message of every request true, behind the desk's back and never in its way.

Theory of operation: a change only marks its request. For each request and conversation at most one task runs; it reads the
request as it is at that moment, draws it and sends it, and runs once more when it was marked meanwhile. So changes that come
fast become one update, and an older state never overwrites a newer one. When Teams is busy or down the task waits as long
as Teams asks for, a bounded number of times, and reads the request again before each try.

A message is posted only for a request that is pending, once a conversation: which one it is, is in the store before anything
else happens to it. A message that shows a final state is settled; after a restart, and every few minutes, only those that are
not settled are looked at.

Knows messages and their order. Must not know what is drawn, nor who may answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import structlog

from interlock.approvals.channels.teams import cards
from interlock.approvals.channels.teams.places import CHANNEL, Place, Places, broke_glass
from interlock.approvals.channels.teams.transport import Transport, TransportError
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, State
from interlock.clock import Clock
from interlock.errors import EvidenceError, InterlockError
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.store.messages import MessageRow, MessageRows

log = structlog.get_logger()

WAITS_S = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""Between the tries of one message. Then the message is given up and the journal says so."""

LONGEST_WAIT_S = 300.0
AT_ONCE = 8
CLOSING_S = 5.0
SWEEP_S = 300.0
"""Between the looks at messages that were given up."""

Drawn = Callable[[ApprovalRequest, Place], Awaitable[dict[str, Any]]]
Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A message of its own beside the card: an update alone rings no phone. `kind` is the channel its row is under."""

    kind: str
    title: str


GLASS = Alarm("teams-glass", "GLASS BROKEN: one person approved alone. Somebody else has to review it.")
ESCALATED = Alarm("teams-escalated", "Escalated: nobody has decided yet.")


class Noticeboard:
    """`start()` before use. `drawn` makes the card of a request for a place."""

    def __init__(
        self, *, transport: Transport, places: Places, inbox: Inbox, messages: MessageRows, journal: Recorder, clock: Clock,
        drawn: Drawn, pause: Pause = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._places = places
        self._inbox = inbox
        self._messages = messages
        self._journal = journal
        self._clock = clock
        self._drawn = drawn
        self._pause = pause
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._again: set[tuple[str, str]] = set()
        self._showing: dict[tuple[str, str], str] = {}
        self._not_before: dict[str, int] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._posting: set[asyncio.Task[None]] = set()
        self._given_up: set[tuple[str, str]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look at everything now, and again every few minutes. Raise StoreError."""
        await self.sweep()
        self._sweeper = asyncio.get_running_loop().create_task(self._keep_sweeping(), name="teams sweep")

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except InterlockError as error:
                log.warning("teams.not_swept", reason=str(error.code), error=str(error))

    async def sweep(self) -> None:
        """Look at everything that waits, and at every message that may still show an older state. Raise StoreError."""
        waiting = [request.id for request in await self._inbox.list(State.PENDING)]
        open_still = dict.fromkeys((*waiting, *await self._messages.unsettled(CHANNEL)))
        self._given_up = {key for key in self._given_up if key[0] in open_still}
        for request in open_still:
            self.show(request)

    async def close(self) -> None:
        """Stop. What was not sent is found again at the next start; what is on its way is seen through, or it would be
        sent twice."""
        running = [*self._running.values(), *([self._sweeper] if self._sweeper is not None else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._posting:
            await asyncio.wait(set(self._posting), timeout=CLOSING_S)

    def show(self, request: str) -> None:
        """Bring a request's messages up to date, soon. Never blocks."""
        for key in self._running:
            if key[0] == request and key[1]:  # it may be posting what was true before, and no row tells of it yet
                self._mark(key)
        self._run((request, ""), lambda: self._tend(request))

    # -- one task a key -----------------------------------------------------------------------------------------------

    def _run(self, key: tuple[str, str], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if key in self._running:
            self._mark(key)
        else:
            self._running[key] = asyncio.get_running_loop().create_task(self._until_done(key, work), name=f"teams {key[0]}")

    def _mark(self, key: tuple[str, str]) -> None:
        """Let a task that runs look once more when it is done."""
        self._again.add(key)

    async def _until_done(self, key: tuple[str, str], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            while True:
                self._again.discard(key)
                try:
                    await work()
                except InterlockError as error:
                    log.warning("teams.card_failed", request=key[0], reason=str(error.code), error=str(error))
                except Exception as error:
                    # A defect of ours with one card is not the others'. No traceback: its frames hold the command.
                    log.error("teams.card_defect", request=key[0], error=type(error).__name__)
                if key not in self._again:
                    return
        finally:
            del self._running[key]

    # -- what is to be done for a request ---------------------------------------------------------------------------------

    async def _tend(self, ident: str) -> None:
        request = await self._inbox.get(ident)
        posted = {row.conversation: row for row in await self._messages.of(CHANNEL, ident)}
        places = {where: Place(where, self._places.person(where)) for where in posted}
        if request.state is State.PENDING or broke_glass(request):
            places |= {place.conversation: place for place in await self._places.of(request)}
        for place in places.values():
            self._run((ident, place.conversation), lambda place=place: self._bring(ident, place))  # type: ignore[misc]
        for alarm, conversations in self._alarms(request, posted).items():
            for where in conversations:
                self._run((ident, alarm.kind + where), lambda alarm=alarm, where=where: self._ring(ident, where, alarm))  # type: ignore[misc]

    def _alarms(self, request: ApprovalRequest, posted: dict[str, MessageRow]) -> dict[Alarm, tuple[str, ...]]:
        home, escalation = self._places.home, self._places.escalation
        both = tuple(dict.fromkeys(where for where in (home, escalation) if where))
        alarms: dict[Alarm, tuple[str, ...]] = {}
        if broke_glass(request):
            alarms[GLASS] = both
        if request.state is State.PENDING and request.escalated_at is not None:
            # The card itself is new where escalations go, and rings by itself.
            alarms[ESCALATED] = (home,) if home in posted else ()
        return alarms

    async def _bring(self, ident: str, place: Place) -> None:
        """Make the one message of a request in a conversation show what is true now."""
        await self._persist(ident, place.conversation, lambda: self._once(ident, place))

    async def _once(self, ident: str, place: Place) -> None:
        request = await self._inbox.get(ident)
        rows = await self._messages.of(CHANNEL, ident)
        row = next((row for row in rows if row.conversation == place.conversation), None)
        if row.settled == "gone" if row is not None else request.state is not State.PENDING:
            return  # deleted in Teams, or decided before anybody was asked here
        card = await self._drawn(request, place)
        key, looks = (ident, place.conversation), sha256(repr(card).encode()).hexdigest()
        if row is None:
            await self._post(CHANNEL, ident, place.conversation, card, cards.summary(request))
        elif self._showing.get(key) != looks:
            async with self._at_once:
                await self._transport.update(place.conversation, row.message, card, cards.summary(request))
        self._showing[key] = looks
        if request.state.terminal:
            self._showing.pop(key, None)
            if row is not None and row.settled != str(request.state):
                await self._messages.settle(row, str(request.state))

    async def _ring(self, ident: str, where: str, alarm: Alarm) -> None:
        await self._persist(ident, where, lambda: self._ring_once(ident, where, alarm))

    async def _ring_once(self, ident: str, where: str, alarm: Alarm) -> None:
        if any(row.conversation == where for row in await self._messages.of(alarm.kind, ident)):
            return
        request = await self._inbox.get(ident)
        lines = (cards.summary(request), *cards.banners(request))
        notice = cards.notice(alarm.title, lines, link=self._inbox.link(request), color="attention")
        await self._post(alarm.kind, ident, where, notice, alarm.title, settled="sent")

    async def _post(self, kind: str, ident: str, where: str, card: dict[str, Any], summary: str, settled: str = "") -> None:
        """Post a new message and remember it, both or neither as far as we can: a stop in between waits."""

        async def both() -> None:
            async with self._at_once:
                message = await self._transport.send(where, card, summary)
            await self._messages.remember(MessageRow(kind, ident, where, message, settled))

        task = asyncio.get_running_loop().create_task(both())
        self._posting.add(task)
        task.add_done_callback(self._seen_through)
        await asyncio.shield(task)

    def _seen_through(self, task: asyncio.Task[None]) -> None:
        self._posting.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it through the shield

    # -- trying again -------------------------------------------------------------------------------------------------

    async def _persist(self, ident: str, where: str, once: Callable[[], Awaitable[None]]) -> None:
        """Try until it worked, waiting as long as Teams asks for; in the end say in the journal that it did not."""
        for wait in (*WAITS_S, None):
            await self._pace(where)
            try:
                await once()
                self._given_up.discard((ident, where))
                return
            except TransportError as error:
                if not error.passing or wait is None:
                    await self._give_up(ident, where, error)
                    return
                asked = min(error.retry_after or 0.0, LONGEST_WAIT_S)
                until = self._clock.monotonic_us() + int(max(wait, asked) * 1_000_000)
                self._not_before[where] = max(until, self._not_before.get(where, 0))

    async def _pace(self, where: str) -> None:
        """Wait until Teams takes messages in this conversation again: what it told one message holds for all there."""
        left = self._not_before.get(where, 0) - self._clock.monotonic_us()
        if left > 0:
            await self._pause(left / 1_000_000)
        else:
            self._not_before.pop(where, None)

    async def _give_up(self, ident: str, where: str, error: TransportError) -> None:
        log.error("teams.card_given_up", request=ident, conversation=where, status=error.status, error=str(error))
        if (ident, where) not in self._given_up:  # said once, however often it is tried again
            self._given_up.add((ident, where))
            self._say_given_up(ident, where, error)
        if error.gone:
            for row in await self._messages.of(CHANNEL, ident):
                if row.conversation == where and not row.settled:
                    await self._messages.settle(row, "gone")

    def _say_given_up(self, ident: str, where: str, error: TransportError) -> None:
        fields: dict[str, Json] = {"channel": CHANNEL, "what": "message-not-sent", "request": ident, "status": error.status}
        try:
            self._journal.append(EventDraft("channel.alert", fields, {"conversation": where}))
        except EvidenceError:
            log.error("teams.alert_not_recorded", request=ident)
