"""The Teams channel: a card for each request, an answer for each click, every card kept true.

A thin client of the desk. It authenticates deliveries, maps the actor to exactly one person of the directory, and says
what the desk said. It holds no approval state but which message shows which request.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

import structlog

from interlock.approvals.channels.teams import cards
from interlock.approvals.channels.teams.transport import Delivery, Transport, TransportError
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, Proof, State, VoteVerdict
from interlock.approvals.wording import one_line
from interlock.errors import InterlockError, NotFoundError, Reason, VoteError
from interlock.evidence.events import EventDraft, Recorder
from interlock.identity.directory import Directory
from interlock.identity.principal import Identity
from interlock.store.messages import MessageRow, MessageRows

log = structlog.get_logger()

CHANNEL = "teams"
MAX_PENDING_UPDATES = 10_000


class TeamsChannel:
    """Posts and updates cards in the configured conversation; turns authenticated invokes into votes."""

    def __init__(
        self,
        *,
        transport: Transport,
        conversation: str,
        inbox: Inbox,
        directory: Directory,
        messages: MessageRows,
        journal: Recorder,
    ) -> None:
        self._transport = transport
        self._conversation = conversation
        self._inbox = inbox
        self._directory = directory
        self._messages = messages
        self._journal = journal
        self._changes: asyncio.Queue[ApprovalRequest] = asyncio.Queue(MAX_PENDING_UPDATES)
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the desk, and bring cards up to date that changed while we were away."""
        self._unsubscribe = self._inbox.subscribe(self._changed)
        for request in await self._inbox.list(State.PENDING):
            self._changed(request)
        self._worker = asyncio.create_task(self._follow(), name="teams-cards")

    async def close(self) -> None:
        if self._worker is None:
            return
        self._unsubscribe()
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)

    # -- out ------------------------------------------------------------------------------------------------------

    def _changed(self, request: ApprovalRequest) -> None:
        try:
            self._changes.put_nowait(request)
        except asyncio.QueueFull:
            log.error("teams.behind", request=request.id)

    async def _follow(self) -> None:
        while True:
            request = await self._changes.get()
            try:
                await self._show(await self._inbox.get(request.id))
            except InterlockError as error:
                # A chat that is down never holds up the desk: the console and the CLI still answer.
                log.warning("teams.card_failed", request=request.id, reason=str(error.code), error=str(error))

    async def _show(self, request: ApprovalRequest) -> None:
        card = cards.card(request, self._inbox.link(request))
        posted = await self._messages.of(CHANNEL, request.id)
        for row in posted:
            await self._transport.update(row.conversation, row.message, card, cards.summary(request))
        if not posted and request.state is State.PENDING:
            message = await self._transport.send(self._conversation, card, cards.summary(request))
            await self._messages.remember(MessageRow(CHANNEL, request.id, self._conversation, message))

    # -- in -------------------------------------------------------------------------------------------------------

    async def receive(self, delivery: Delivery) -> dict[str, Any] | None:
        """Answer an authenticated activity. Returns the body of the invoke response, or None for plain activities."""
        if delivery.kind != "invoke" or delivery.name != "adaptiveCard/action":
            return None
        try:
            request = await self._vote(delivery)
        except InterlockError as error:
            self._record_refused(delivery, error.code)
            if error.code is Reason.ALREADY_DECIDED and (final := await self._final(delivery)) is not None:
                return _card(cards.card(final, self._inbox.link(final)))
            return _error(error)
        return _card(cards.card(request, self._inbox.link(request)))

    async def _vote(self, delivery: Delivery) -> ApprovalRequest:
        action = delivery.value.get("action")
        data = action.get("data") if isinstance(action, dict) else None
        if not isinstance(action, dict) or not isinstance(data, dict):
            raise VoteError("the card's action is malformed", reason=Reason.DELIVERY_REJECTED)
        request = await self._named(data, delivery)
        verb = action.get("verb")
        if verb not in ("approve", "deny"):
            raise VoteError("the card has no such action", reason=Reason.DELIVERY_REJECTED)
        verdict = VoteVerdict(verb)
        if verdict is VoteVerdict.APPROVE and not cards.approvable(request):
            raise VoteError("this request is approved on its page, not in chat", reason=Reason.STEP_UP_TOO_WEAK)
        voter = await self._actor(delivery)
        said = data.get("reason")
        return await self._inbox.vote(
            request.id,
            voter=voter,
            channel=CHANNEL,
            channel_actor=f"{delivery.tenant}/{delivery.actor_oid}",
            verdict=verdict,
            digest=request.digest,
            reason=one_line(said) if isinstance(said, str) else "",
            proof=Proof.CHANNEL,
            event=delivery.activity,
        )

    async def _named(self, data: dict[str, Any], delivery: Delivery) -> ApprovalRequest:
        """Find the request a card speaks of: its id, its nonce, and the very message we posted (properties 12, 24, 25)."""
        ident, nonce = data.get("request"), data.get("nonce")
        if not isinstance(ident, str) or not isinstance(nonce, str):
            raise VoteError("the card names no request", reason=Reason.DELIVERY_REJECTED)
        request = await self._inbox.get(ident)
        if not hmac.compare_digest(request.nonce.encode(), nonce.encode()):
            raise VoteError("the card is not the one for this request", reason=Reason.DELIVERY_REJECTED)
        # A channel's conversation id carries the thread: `19:…@thread.tacv2;messageid=…`.
        here = (delivery.conversation.partition(";")[0], delivery.reply_to)
        posted = await self._messages.of(CHANNEL, ident)
        if here not in [(row.conversation.partition(";")[0], row.message) for row in posted]:
            log.error("teams.forwarded_card", request=ident)
            raise VoteError("the card was answered from another place than where it was posted", reason=Reason.DELIVERY_REJECTED)
        return request

    async def _actor(self, delivery: Delivery) -> Identity:
        """Map the actor by (tenant, object id), confirmed by the service, to exactly one active person."""
        member = await self._transport.member(delivery.conversation, delivery.actor_id)
        same = member.oid == delivery.actor_oid and member.oid != "" and member.tenant in ("", delivery.tenant)
        if not same or member.role not in ("user", "owner", "admin"):
            raise VoteError("Teams does not confirm who this is", reason=Reason.UNMAPPED_ACTOR)
        entry = self._directory.by_teams(delivery.tenant, member.oid)
        if entry is None:
            raise VoteError(reason=Reason.UNMAPPED_ACTOR)
        return entry.identity

    async def _final(self, delivery: Delivery) -> ApprovalRequest | None:
        action = delivery.value.get("action")
        data = action.get("data") if isinstance(action, dict) else None
        try:
            return await self._inbox.get(str(data.get("request"))) if isinstance(data, dict) else None
        except NotFoundError:
            return None

    def _record_refused(self, delivery: Delivery, reason: Reason) -> None:
        self._journal.append(
            EventDraft(
                "vote",
                {"counted": False, "reason": str(reason), "channel": CHANNEL, "event": delivery.activity},
                {"actor": f"{delivery.tenant}/{delivery.actor_oid}"},
            )
        )


def _card(card: dict[str, Any]) -> dict[str, Any]:
    return {"statusCode": 200, "type": cards.CONTENT_TYPE, "value": card}


def _error(error: InterlockError) -> dict[str, Any]:
    """An invoke answer of HTTP 200 whose own status says no; Teams shows the message to the person who clicked."""
    down = isinstance(error, TransportError) or error.code in (Reason.STORE_UNAVAILABLE, Reason.EVIDENCE_UNAVAILABLE)
    return {
        "statusCode": 500 if down else 403,
        "type": "application/vnd.microsoft.error",
        "value": {"code": str(error.code), "message": one_line(str(error))},
    }
