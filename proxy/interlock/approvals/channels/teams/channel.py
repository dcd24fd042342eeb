"""The Teams channel: a card for each request, an answer for each click, every card kept true.

A thin client of the desk. It authenticates deliveries, maps the actor to exactly one person of the directory, and says
what the desk said. It holds no approval state but which message shows which request.

A click passes, in this order: the transport's gate (it came from Teams, to us, from our tenant), the card's binding (the
nonce of the request, on the very message that was posted, in the conversation it was posted to), the person (confirmed by
the service, mapped by the directory), and the desk. Nothing that goes out to Teams holds up the answer to a click.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import structlog

from interlock.approvals.channels.teams import cards, clicks, viewers
from interlock.approvals.channels.teams.clicks import Click, Verb
from interlock.approvals.channels.teams.noticeboard import Noticeboard, Pause
from interlock.approvals.channels.teams.places import CHANNEL, Place, Places, base
from interlock.approvals.channels.teams.roster import Account, Roster, confirms
from interlock.approvals.channels.teams.transport import Delivery, Transport, TransportError
from interlock.approvals.electorate import Electorate
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, Proof, State, VoteVerdict
from interlock.approvals.wording import one_line
from interlock.clock import Clock
from interlock.errors import EvidenceError, InterlockError, Reason, VoteError
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.throttle import Throttle, ThrottledError
from interlock.store.conversations import ConversationRows
from interlock.store.messages import MessageRows

log = structlog.get_logger()

MEMBER_S = 5.0
"""How long the service may take to say who clicked. Teams itself waits for our answer about ten."""

FREE_REFUSALS = 20
LONGEST_BLOCK_S = 60.0
"""Whoever keeps clicking what does not count is not looked at for a while: nothing is asked, nothing is written down."""

LOOKED_S = 60
MAX_LOOKED = 1_000
"""Who a viewer is, is asked once a minute. Who answers is asked at each answer."""

MAX_TASKS = 200


class TeamsChannel:
    """`start()` before use."""

    def __init__(
        self, *, transport: Transport, inbox: Inbox, directory: Directory, messages: MessageRows,
        conversations: ConversationRows, journal: Recorder, clock: Clock, conversation: str = "",
        escalation: str = "", direct: bool = False, pause: Pause = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._inbox = inbox
        self._journal = journal
        self._clock = clock
        self._electorate = Electorate(directory)
        self._roster = Roster(directory, self._electorate)
        self._places = Places(
            transport=transport, rows=conversations, roster=self._roster, journal=journal, clock=clock,
            conversation=conversation, escalation=escalation, direct=direct,
        )  # fmt: skip
        self._messages = messages
        self._board = Noticeboard(
            transport=transport, places=self._places, inbox=inbox, messages=messages, journal=journal, clock=clock,
            drawn=self._drawn, pause=pause,
        )  # fmt: skip
        self._throttle = Throttle(clock, free=FREE_REFUSALS, longest=LONGEST_BLOCK_S)
        self._looked: dict[tuple[str, Account], tuple[int, bool]] = {}
        self._finding: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False

    async def start(self) -> None:
        """Begin to follow the desk, and bring cards up to date that changed while we were away. Raise StoreError."""
        await self._places.load()
        self._unsubscribe = self._inbox.subscribe(lambda request: self._board.show(request.id))
        self._started = True
        await self._board.start()
        if not self._places.home:
            log.warning(
                "teams.no_conversation",
                hint="set approvals.channels.teams.conversation, or have an administrator install the app in a channel",
            )

    async def close(self) -> None:
        if not self._started:
            return
        self._started = False
        self._unsubscribe()
        await self._board.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- out ------------------------------------------------------------------------------------------------------

    async def _drawn(self, request: ApprovalRequest, place: Place) -> dict[str, Any]:
        """Draw a request for a place: for everybody, or for the one person who is there."""
        frame = await self._frame(request)
        if place.person is None:
            return cards.card(request, frame)
        entry = self._roster.entry(place.person)
        return cards.card(request, frame, viewers.STRANGER if entry is None else self._view(request, entry))

    async def _frame(self, request: ApprovalRequest) -> cards.Frame:
        original = None
        if request.edited_from:
            original = await self._inbox.get(request.edited_from)
        previous = await self._inbox.previous(request) if request.state is State.PENDING else None
        accounts = self._roster.viewers(request)[: cards.MAX_IDS]
        known = [ident for account in accounts if (ident := self._roster.ident(account))]
        if len(known) < len(accounts) and self._places.home and request.id not in self._finding:
            self._background(self._find(request.id, accounts))
        return cards.Frame(
            link=self._inbox.link(request), viewers=known, longest_grant=self._inbox.house.longest_grant,
            original=original, previous=previous,
        )  # fmt: skip

    async def _find(self, request: str, accounts: tuple[Account, ...]) -> None:
        """Ask who the viewers of a card are in Teams; then each of them gets a view of their own."""
        self._finding.add(request)
        try:
            before = [self._roster.ident(account) for account in accounts]
            for account in accounts:
                await self._places.find(account)
        finally:
            self._finding.discard(request)
        if before != [self._roster.ident(account) for account in accounts]:
            self._board.show(request)

    def _view(self, request: ApprovalRequest, entry: Entry) -> viewers.View:
        try:
            voter = self._electorate.voter(entry.identity)
        except VoteError:
            return viewers.STRANGER
        return viewers.view(
            request, voter, now=self._clock.now(), house=self._inbox.house, excluded=self._electorate.excluded(request.draft)
        )

    # -- in -------------------------------------------------------------------------------------------------------

    async def receive(self, delivery: Delivery) -> dict[str, Any] | None:
        """Answer an authenticated activity. Returns the body of the invoke response, or None for plain activities."""
        try:
            click = clicks.read(delivery)
        except VoteError as error:
            return self._malformed(delivery, error)
        if click is None:
            self._background(self._listen(delivery))
            return None
        answer = await (self._refresh(click, delivery) if click.verb is Verb.REFRESH else self._answer(click, delivery))
        return answer if delivery.kind == "invoke" else None

    def _malformed(self, delivery: Delivery, error: VoteError) -> dict[str, Any]:
        """Refuse what no card of ours sends."""
        actor = Account.of(delivery.tenant, delivery.actor_oid)
        try:
            self._throttle.begin(str(actor))
        except ThrottledError as blocked:
            return _blocked(blocked)
        self._record_refused(delivery, error.code)
        return _error(error)

    async def _refresh(self, click: Click, delivery: Delivery) -> dict[str, Any]:
        """Show a viewer their own view. Changes nothing, whoever asks (property 27)."""
        try:
            request = await self._inbox.get(click.request)
            self._check_nonce(request, click)
            await self._check_place(request, delivery)
            entry: Entry | None = await self._viewer(delivery)
        except (TransportError, ThrottledError):
            return _card(cards.card(request, await self._frame(request)))  # nobody said who this is: what everybody sees
        except InterlockError as error:
            if error.code is not Reason.UNMAPPED_ACTOR:
                return _error(error)
            entry = None
        view = viewers.STRANGER if entry is None else self._view(request, entry)
        return _card(cards.card(request, await self._frame(request), view))

    async def _answer(self, click: Click, delivery: Delivery) -> dict[str, Any]:
        """Pass an answer on to the desk; return what the person sees of the request then."""
        actor = Account.of(delivery.tenant, delivery.actor_oid)
        request: ApprovalRequest | None = None
        entry: Entry | None = None
        try:
            self._throttle.begin(str(actor))  # before anything is asked: a thousand at once are not a thousand free ones
            request = await self._bound(click, delivery)
            entry = await self._person(delivery)
            self._check_offered(request, click, await self._frame(request))
        except ThrottledError as error:
            return _blocked(error)
        except InterlockError as error:
            self._record_refused(delivery, error.code)
            return await self._refusal(error, actor, delivery, request, entry)
        try:
            await self._vote(request, click, entry, delivery, actor)
        except InterlockError as error:  # the desk has written down that it did not count
            return await self._refusal(error, actor, delivery, request, entry)
        self._throttle.succeeded(str(actor))
        fresh = await self._inbox.get(request.id)
        return _card(cards.card(fresh, await self._frame(fresh), self._view(fresh, entry)))

    async def _vote(self, request: ApprovalRequest, click: Click, entry: Entry, delivery: Delivery, actor: Account) -> None:
        approve = click.verb in (Verb.APPROVE, Verb.GRANT)
        await self._inbox.vote(
            request.id,
            voter=entry.identity,
            channel=CHANNEL,
            channel_actor=str(actor),
            verdict=VoteVerdict.APPROVE if approve else VoteVerdict.DENY,
            digest=request.digest,
            scope=click.scope,
            valid_until=self._clock.now() + timedelta(minutes=click.minutes) if click.minutes else None,
            reason=click.reason,
            proof=Proof.CHANNEL,
            event=delivery.activity,
        )

    async def _bound(self, click: Click, delivery: Delivery) -> ApprovalRequest:
        """Find the request a card speaks of: its id, its nonce, and the very message we posted (properties 12, 24, 25)."""
        request = await self._inbox.get(click.request)
        try:
            self._check_nonce(request, click)
            await self._check_place(request, delivery)
        except VoteError as error:
            self._alert(request, delivery, str(error))
            raise
        return request

    def _check_nonce(self, request: ApprovalRequest, click: Click) -> None:
        if not hmac.compare_digest(request.nonce.encode(), click.nonce.encode()):
            raise VoteError("the card is not the one for this request", reason=Reason.DELIVERY_REJECTED)

    async def _check_place(self, request: ApprovalRequest, delivery: Delivery) -> None:
        here = (base(delivery.conversation), delivery.reply_to)
        posted = await self._messages.of(CHANNEL, request.id)
        if here not in [(base(row.conversation), row.message) for row in posted]:
            raise VoteError("the card was answered from another place than where it was posted", reason=Reason.DELIVERY_REJECTED)

    def _check_offered(self, request: ApprovalRequest, click: Click, frame: cards.Frame) -> None:
        if click.verb is not Verb.DENY and request.state is State.PENDING and not cards.approvable(request, frame):
            raise VoteError("this request is approved on its page, not in chat", reason=Reason.STEP_UP_TOO_WEAK)

    async def _viewer(self, delivery: Delivery) -> Entry:
        """Map whoever looks, like `_person`, but not asking the service anew each time a card comes into view."""
        account, now = Account.of(delivery.tenant, delivery.actor_oid), self._clock.monotonic_us()
        key, looking = (delivery.actor_id, account), f"looking {account}"
        until, confirmed = self._looked.get(key, (0, False))
        if now >= until:
            self._throttle.begin(looking)
            try:
                entry = await self._person(delivery)
            except VoteError:
                self._remember_look(key, confirmed=False)
                raise
            self._throttle.succeeded(looking)
            self._remember_look(key, confirmed=True)
            return entry
        known = self._roster.entry(account) if confirmed else None
        if known is None:
            raise VoteError(reason=Reason.UNMAPPED_ACTOR)
        return known

    def _remember_look(self, key: tuple[str, Account], *, confirmed: bool) -> None:
        if len(self._looked) >= MAX_LOOKED:
            self._looked.clear()
        self._looked[key] = (self._clock.monotonic_us() + LOOKED_S * 1_000_000, confirmed)

    async def _person(self, delivery: Delivery) -> Entry:
        """Map the actor by (tenant, object id), confirmed by the service, to exactly one person. Raise VoteError."""
        account = Account.of(delivery.tenant, delivery.actor_oid)
        try:
            async with asyncio.timeout(MEMBER_S):
                member = await self._transport.member(base(delivery.conversation), delivery.actor_id)
        except TimeoutError:
            raise TransportError("Teams did not say in time who this is, so nothing was counted; press again") from None
        if not confirms(member, account, delivery.actor_id):
            raise VoteError("Teams does not confirm that this is a member of the tenant", reason=Reason.UNMAPPED_ACTOR)
        self._roster.learn(account, member.id)
        entry = self._roster.entry(account)
        if entry is None:
            raise VoteError(reason=Reason.UNMAPPED_ACTOR)
        return entry

    # -- what did not count ---------------------------------------------------------------------------------------

    async def _refusal(
        self, error: InterlockError, actor: Account, delivery: Delivery, request: ApprovalRequest | None, entry: Entry | None
    ) -> dict[str, Any]:
        """Tell the person why, in place of the card where we know them; the request stays as it is."""
        if delivery.kind != "invoke":
            # An Action.Submit gets no answer of its own. Only the person's own conversation is told.
            self._background(self._whisper(actor, f"Your answer did not count: {error}"))
        if not isinstance(error, VoteError) or request is None or error.code is Reason.DELIVERY_REJECTED:
            return _error(error)
        fresh = await self._inbox.get(request.id)
        view = viewers.STRANGER if entry is None else viewers.refused(self._view(fresh, entry), error)
        return _card(cards.card(fresh, await self._frame(fresh), view))

    def _record_refused(self, delivery: Delivery, reason: Reason) -> None:
        fields: dict[str, Json] = {"counted": False, "reason": str(reason), "channel": CHANNEL, "event": delivery.activity[:255]}
        self._append(EventDraft("vote", fields, {"actor": f"{delivery.tenant}/{delivery.actor_oid}"}))

    def _alert(self, request: ApprovalRequest, delivery: Delivery, what: str) -> None:
        """Tell the operators, in the log and in the journal: a card was copied, forwarded or made up (property 25)."""
        log.error("teams.alert", request=request.id, what=what, delivery=delivery.activity)
        fields: dict[str, Json] = {"channel": CHANNEL, "what": what, "request": request.id, "event": delivery.activity[:255]}
        actor = f"{delivery.tenant}/{delivery.actor_oid}"
        self._append(EventDraft("channel.alert", fields, {"actor": actor, "conversation": delivery.conversation}))

    def _append(self, draft: EventDraft) -> None:
        try:
            self._journal.append(draft)
        except EvidenceError:
            log.error("teams.not_recorded", what=draft.type)  # nothing counted, so nothing is released either

    # -- everything else that Teams says --------------------------------------------------------------------------------

    async def _listen(self, delivery: Delivery) -> None:
        """Learn where we can write; greet whoever writes to us."""
        if delivery.kind not in ("message", "conversationUpdate", "installationUpdate"):
            return
        account = Account.of(delivery.tenant, delivery.actor_oid)
        if await self._places.learn(delivery):
            await self._arrived(base(delivery.conversation))
        elif delivery.kind == "message" and delivery.place == "personal":
            self._throttle.begin(f"greeting {account}")
            await self._greet(account, delivery)

    async def _arrived(self, here: str) -> None:
        lines = (
            "Requests that need a person are shown in this conversation from now on.",
            f"To keep it so, write into interlock.yaml: approvals.channels.teams.conversation: {here}",
        )
        await self._transport.send(here, cards.notice("Interlock is here", lines), "Interlock is here")
        for request in await self._inbox.list(State.PENDING):
            self._board.show(request.id)

    async def _greet(self, account: Account, delivery: Delivery) -> None:
        known = self._roster.entry(account)
        if known is not None and not known.disabled:
            lines = [f"You are {known.handle}. What you may answer is shown to you as a card."]
        else:
            lines = [
                "Your account is linked to nobody yet. Ask an administrator to run:",
                f"interlock principals link HANDLE --teams {account}",
            ]
        await self._transport.send(delivery.conversation, cards.notice("Interlock", lines), "Interlock")

    async def _whisper(self, account: Account, sentence: str) -> None:
        conversation = self._places.personal(account)
        if conversation:
            await self._transport.send(conversation, cards.notice("Interlock", [sentence]), "Interlock")

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no click waits for. Under a flood it is left out: nothing that counts is done this way."""
        if len(self._tasks) >= MAX_TASKS:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(_quiet(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quiet(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except InterlockError as error:
        log.info("teams.not_done", reason=str(error.code), error=str(error))
    except Exception as error:
        log.error("teams.defect", error=type(error).__name__)  # nothing that counts is done in the background


def _card(card: dict[str, Any]) -> dict[str, Any]:
    return {"statusCode": 200, "type": cards.CONTENT_TYPE, "value": card}


def _blocked(error: ThrottledError) -> dict[str, Any]:
    return _error(VoteError(f"too many answers that did not count; try again in {error.seconds} s", reason=error.code))


def _error(error: InterlockError) -> dict[str, Any]:
    """An invoke answer of HTTP 200 whose own status says no; Teams shows the message to the person who clicked."""
    down = isinstance(error, TransportError) or error.code in (Reason.STORE_UNAVAILABLE, Reason.EVIDENCE_UNAVAILABLE)
    return {
        "statusCode": 500 if down else 403,
        "type": "application/vnd.microsoft.error",
        "value": {"code": str(error.code), "message": one_line(str(error))},
    }
