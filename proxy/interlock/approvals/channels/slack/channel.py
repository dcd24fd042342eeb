"""The Slack channel: a message for each request, an answer for each click, every message kept true.

A thin client of the desk. It takes authenticated deliveries once, maps the actor to exactly one person of the directory by
an explicit link, and says what the desk said. It holds no approval state but which message shows which request.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import structlog

from interlock.approvals.channels.courier import LATER, Courier, Patience
from interlock.approvals.channels.slack import blocks, forms
from interlock.approvals.channels.slack.client import Account, SlackApi, SlackError
from interlock.approvals.channels.slack.forms import Answer, Question, Seal
from interlock.approvals.channels.slack.inbound import Actor, Click, Delivery, Expected, Submission, interaction
from interlock.approvals.channels.slack.linking import LinkCodes
from interlock.approvals.desk import decided
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, Proof, State, VoteVerdict
from interlock.approvals.portrait import chat_portrait
from interlock.approvals.wording import one_line
from interlock.clock import Clock
from interlock.errors import EvidenceError, InterlockError, NotFoundError, Reason, VoteError
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.throttle import Throttle, ThrottledError
from interlock.store.deliveries import DeliveryRows
from interlock.store.messages import MessageRow, MessageRows

log = structlog.get_logger()

CHANNEL = "slack"
FREE_REFUSALS = 20
LONGEST_BLOCK_S = 60.0
"""Whoever keeps clicking what does not count is not looked at for a while: nothing is asked, nothing is written down."""

ALARM = "slack-glass"  # messages beside the request's own, which nobody can answer
MAX_AT_ONCE = 256
REMEMBERED = timedelta(days=1)
MAX_REMEMBERED = 50
"""Of what ended while we were away, so much is brought up to date at a start: the newest first."""


class SlackChannel:
    """Posts and updates messages in the configured conversation; turns authenticated interactions into votes."""

    def __init__(
        self,
        *,
        api: SlackApi,
        expected: Expected,
        conversation: str,
        escalation: str,
        inbox: Inbox,
        directory: Directory,
        messages: MessageRows,
        deliveries: DeliveryRows,
        journal: Recorder,
        codes: LinkCodes,
        seal: Seal,
        clock: Clock,
        public_url: str,
        longest_grant: float,
        patience: Patience = Patience(),
    ) -> None:
        self._api = api
        self._expected = expected
        self._conversation = conversation
        self._escalation = escalation
        self._inbox = inbox
        self._directory = directory
        self._messages = messages
        self._deliveries = deliveries
        self._journal = journal
        self._codes = codes
        self._seal = seal
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._longest_grant = longest_grant
        self._courier = Courier(CHANNEL, self._show, _passing, patience=patience)
        self._throttle = Throttle(clock, free=FREE_REFUSALS, longest=LONGEST_BLOCK_S)
        self._held_off = 0
        self._unkept: dict[tuple[str, str, str], str] = {}  # posted, and not in the store yet
        self._team_confirmed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to follow the desk, and bring messages up to date that changed while we were away."""
        self._unsubscribe = self._inbox.subscribe(lambda request: self._courier.wanted(request.id))
        known = await self._inbox.list()
        since = self._clock.now() - REMEMBERED
        over = [r for r in known if r.state.terminal and (r.decided_at or r.expires) >= since]
        for request in [*(r for r in known if not r.state.terminal), *over[:MAX_REMEMBERED]]:
            self._courier.wanted(request.id, urgency=LATER)
        self._courier.start()

    async def close(self) -> None:
        self._unsubscribe()
        await self._courier.close()
        await self.settled()

    # -- out ------------------------------------------------------------------------------------------------------

    async def _show(self, request_id: str) -> None:
        """Bring every message of a request to its present state, and post it where it belongs and is not yet."""
        if not self._team_confirmed:
            if await self._api.team() != self._expected.team:
                raise SlackError(
                    "the bot token is for another workspace than approvals.channels.slack.team, so nothing is posted"
                )
            self._team_confirmed = True
        request = await self._inbox.get(request_id)
        content = blocks.message(request, link=self._inbox.link(request))
        summary = blocks.summary(request)
        posted = {row.conversation: row.message for row in await self._messages.of(CHANNEL, request.id)}
        posted |= await self._kept(request.id)
        failed: SlackError | None = None
        for conversation in dict.fromkeys((*posted, *self._places(request))):
            try:
                if conversation in posted:
                    await self._api.update(conversation, posted[conversation], content, summary)
                else:
                    self._unkept[CHANNEL, request.id, conversation] = await self._api.post(conversation, content, summary)
                    await self._kept(request.id)
            except SlackError as error:
                # One conversation that is gone must not keep the others from being true.
                failed = error if failed is None or error.passing else failed
        if _broke_glass(request):
            await self._alarm(request)
        if failed is not None:
            raise failed

    async def _kept(self, request: str) -> dict[str, str]:
        """Put into the store what was posted for a request and is not there yet; nothing is posted twice for a full disk."""
        kept: dict[str, str] = {}
        for (channel, ident, conversation), message in list(self._unkept.items()):
            if ident == request:
                await self._messages.remember(MessageRow(channel, ident, conversation, message))
                self._unkept.pop((channel, ident, conversation), None)
                if channel == CHANNEL:
                    kept[conversation] = message
        return kept

    def _places(self, request: ApprovalRequest) -> list[str]:
        """Where a request is posted if it is not yet: nowhere once it is decided."""
        if request.state is not State.PENDING:
            return []
        return [self._conversation, *self._wider] if request.escalated_at is not None else [self._conversation]

    @property
    def _wider(self) -> list[str]:
        return [self._escalation] if self._escalation else []

    async def _alarm(self, request: ApprovalRequest) -> None:
        """Say aloud, once in every place, that the glass was broken: an update of a message rings no phone."""
        told = {row.conversation for row in await self._messages.of(ALARM, request.id)}
        for conversation in dict.fromkeys((self._conversation, *self._wider)):
            if conversation not in told:
                where = f"{request.draft.principal.handle} at {request.draft.target.name}"
                text = f"The glass was broken: one person alone approved a command of {where}. Somebody else has to review it."
                content = blocks.note(text, link=self._inbox.link(request), words="See everything")
                self._unkept[ALARM, request.id, conversation] = await self._api.post(conversation, content, text)
                await self._kept(request.id)

    # -- in -------------------------------------------------------------------------------------------------------

    def accept(self, envelope: str, payload: object) -> dict[str, Any] | None:
        """Take what came over Socket Mode: return at once what to acknowledge it with."""
        try:
            delivery = interaction(payload, ident=f"envelope {envelope}", expected=self._expected)
            return self.begin(delivery, taken=False)
        except InterlockError as error:
            log.warning("slack.refused", reason=str(error.code), error=str(error))
            return None

    async def take(self, delivery: Delivery) -> bool:
        """Take a delivery that came over HTTP; False when it came before. Raise StoreError."""
        first = await self._deliveries.take(CHANNEL, *delivery.idents, now=self._clock.now())
        if not first:
            log.error("slack.replayed")
        return first

    def begin(self, delivery: Delivery, *, taken: bool = True) -> dict[str, Any] | None:
        """Start what a delivery asks for, and return at once: a form's mistakes, or None. Raise InterlockError when busy."""
        said = delivery.said
        if said is not None and not self._looked_at(said.actor):
            return None
        if isinstance(said, Submission):
            content = forms.read(said, self._longest_minutes)
            if not isinstance(content, Answer):
                return {"response_action": "errors", "errors": content}
            self._spawn(self._receive(delivery, taken, self._submitted(said, content)))
        elif isinstance(said, Click):
            self._spawn(self._receive(delivery, taken, self._clicked(said)))
        return None

    def _looked_at(self, actor: Actor) -> bool:
        """Whether an actor's next click is looked at at all: each one counts as refused until the desk has counted it."""
        try:
            self._throttle.begin(str(actor))
        except ThrottledError:
            self._held_off += 1
            if self._held_off & (self._held_off - 1) == 0:  # the 1st, 2nd, 4th, 8th …: clicks fill no log
                log.warning("slack.throttled", actor=str(actor), refused=self._held_off)
            return False
        return True

    async def settled(self) -> None:
        """Return once everything that was begun has ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= MAX_AT_ONCE:
            work.close()
            raise InterlockError(reason=Reason.LIMIT_REACHED)
        task = asyncio.create_task(work, name="slack-interaction")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, delivery: Delivery, taken: bool, work: Coroutine[Any, Any, None]) -> None:
        try:
            if taken or await self.take(delivery):
                await work
        except InterlockError as error:
            # Whoever clicked is told nothing, for telling is what failed; the request stays as it is.
            log.error("slack.unanswered", reason=str(error.code), error=str(error))
        except Exception as error:  # a defect in one answer must not go unseen in a task nobody waits for
            log.exception("slack.failed", error=type(error).__name__)
        finally:
            work.close()

    async def _clicked(self, click: Click) -> None:
        match click.action:
            case blocks.OPEN:
                return  # a link: the browser has opened it
            case blocks.LINK:
                await self._offer_link(click)
            case blocks.APPROVE:
                await self._answer(Question.of(click, ""), click.actor, click.trigger, VoteVerdict.APPROVE, Answer())
            case blocks.CHOOSE | blocks.DENY:
                await self._ask(click, VoteVerdict.DENY if click.action == blocks.DENY else VoteVerdict.APPROVE)
            case _:
                error = VoteError("the message has no such button", reason=Reason.DELIVERY_REJECTED)
                await self._refused(click.actor, click.conversation, click.trigger, error)

    async def _ask(self, click: Click, verdict: VoteVerdict) -> None:
        """Open the form behind a button, before whoever may use it."""
        try:
            request = await self._named(Question.of(click, ""), verdict)
            await self._person(click.actor)
        except InterlockError as error:
            await self._refused(click.actor, click.conversation, click.trigger, error)
            return
        heading = blocks.summary(request)
        if verdict is VoteVerdict.DENY:
            form = forms.deny_form(self._seal.close(Question.of(click, forms.DENY_FORM)), heading)
        else:
            offered = chat_portrait(request, longest=self._longest_grant).scopes  # with secrets hidden, as in the message
            metadata = self._seal.close(Question.of(click, forms.APPROVE_FORM))
            form = forms.approve_form(metadata, heading, offered, self._longest_minutes)
        try:
            await self._api.open_form(click.trigger, form)
        except SlackError as error:
            log.warning("slack.form_not_opened", request=request.id, error=str(error))
            await self._whisper(click.actor, click.conversation, "Slack could not open the form. Press the button again.")

    async def _submitted(self, submission: Submission, content: Answer) -> None:
        try:
            question = self._seal.open(submission)
        except VoteError as error:
            # Nobody is told: where the form came from is not known either.
            self._record_refused(submission.actor, submission.trigger, error)
            log.error("slack.forged_form", actor=str(submission.actor))
            return
        verdict = VoteVerdict.DENY if submission.form == forms.DENY_FORM else VoteVerdict.APPROVE
        await self._answer(question, submission.actor, submission.trigger, verdict, content)

    async def _answer(self, question: Question, actor: Actor, event: str, verdict: VoteVerdict, content: Answer) -> None:
        """Count an answer; tell whoever gave it when it does not count."""
        try:
            request = await self._named(question, verdict)
            person = await self._person(actor)
        except InterlockError as error:
            await self._refused(actor, question.conversation, event, error)
            return
        valid_until = None if content.minutes is None else self._clock.now() + timedelta(minutes=content.minutes)
        try:
            await self._inbox.vote(
                request.id,
                voter=person.identity,
                channel=CHANNEL,
                channel_actor=str(actor),
                verdict=verdict,
                digest=request.digest,
                scope=str(content.scope),
                valid_until=valid_until,
                reason=one_line(content.reason),
                proof=Proof.CHANNEL,
                event=event,
            )
        except InterlockError as error:
            # The desk has put it on record.
            self._courier.wanted(request.id)
            await self._tell(actor, question.conversation, error)
        else:
            self._throttle.succeeded(str(actor))

    async def _named(self, question: Question, verdict: VoteVerdict) -> ApprovalRequest:
        """Find the request a button speaks of: its id, its nonce, and the very message we posted (properties 12, 24, 25)."""
        ident, _, nonce = question.value.partition(" ")
        try:
            request = await self._inbox.get(ident)
        except NotFoundError:
            raise VoteError("the message names no request", reason=Reason.DELIVERY_REJECTED) from None
        if not hmac.compare_digest(request.nonce.encode(), nonce.encode()):
            raise VoteError("the message is not the one for this request", reason=Reason.DELIVERY_REJECTED)
        posted = [(row.conversation, row.message) for row in await self._messages.of(CHANNEL, ident)]
        if (question.conversation, question.message) not in posted:
            log.error("slack.forwarded_message", request=ident, conversation=question.conversation)
            self._alert(ident, question, "the button was pressed in another place than where we posted it")
            raise VoteError("the button was pressed in another place than where we posted it", reason=Reason.DELIVERY_REJECTED)
        if request.state is not State.PENDING and not (request.state is State.APPROVED and verdict is VoteVerdict.DENY):
            self._courier.wanted(request.id)
            raise decided(request)
        if verdict is VoteVerdict.APPROVE and not blocks.approvable(request):
            raise VoteError("this request is approved on its page, not in chat", reason=Reason.STEP_UP_TOO_WEAK)
        return request

    async def _person(self, actor: Actor) -> Entry:
        """Map the actor by workspace and user id, as Slack knows them at this moment, to exactly one active person."""
        await self._member(actor)
        entry = self._directory.by_slack(actor.team, actor.user)
        if entry is None:
            raise VoteError("your Slack account is linked to nobody here", reason=Reason.UNMAPPED_ACTOR)
        return entry

    async def _member(self, actor: Actor) -> Account:
        try:
            account = await self._api.account(actor.user)
        except SlackError as error:
            if error.passing:
                raise
            raise VoteError("Slack does not know this account", reason=Reason.UNMAPPED_ACTOR) from None
        if not account.person or account.team != actor.team:
            raise VoteError("Slack does not confirm a full member of this workspace", reason=Reason.UNMAPPED_ACTOR)
        return account

    # -- linking --------------------------------------------------------------------------------------------------

    async def _offer_link(self, click: Click) -> None:
        """Tell whoever asks for it, and nobody else, where to say that this account is theirs."""
        try:
            account = await self._member(click.actor)
        except InterlockError as error:
            await self._tell(click.actor, click.conversation, error)
            return
        entry = self._directory.by_slack(click.actor.team, click.actor.user)
        if entry is not None:
            await self._whisper(click.actor, click.conversation, f"This Slack account is linked to {entry.handle} already.")
        elif self._public_url:
            code = self._codes.issue(click.actor, account.name)
            told = (
                "Open this page within ten minutes, log in, and confirm that this Slack account is yours. Pass it on to nobody."
            )
            page = f"{self._public_url}/console/link/slack/{code}"
            await self._whisper(click.actor, click.conversation, told, link=page, words="Confirm in the console")

    # -- telling --------------------------------------------------------------------------------------------------

    async def _refused(self, actor: Actor, conversation: str, event: str, error: InterlockError) -> None:
        self._record_refused(actor, event, error)
        await self._tell(actor, conversation, error)

    async def _tell(self, actor: Actor, conversation: str, error: InterlockError) -> None:
        """Say to whoever clicked, and to nobody else, why it did not count."""
        told = one_line(str(error) if str(error) == error.next_step else f"{error}. {error.next_step}", 1_000)
        if isinstance(error, SlackError):
            told = "Slack did not say who you are when it was asked, so nothing was counted. Press again in a moment."
        unlinked = error.code is Reason.UNMAPPED_ACTOR and self._directory.by_slack(actor.team, actor.user) is None
        if unlinked and self._public_url:
            how = "If you are registered here, link your account; then press again."
            await self._whisper(actor, conversation, f"{told} {how}", action=blocks.LINK, words="Link my account")
        else:
            await self._whisper(actor, conversation, told)

    async def _whisper(self, actor: Actor, conversation: str, text: str, **button: str) -> None:
        try:
            await self._api.whisper(conversation, actor.user, blocks.note(text, **button), text)
        except SlackError as error:
            log.warning("slack.not_told", error=str(error))

    def _alert(self, request: str, question: Question, what: str) -> None:
        """Tell the operators in the journal, too: a message was copied, forwarded or made up (property 25)."""
        actor = f"{question.team}/{question.user}"
        fields: dict[str, Json] = {"channel": CHANNEL, "what": what, "request": request, "event": question.message}
        try:
            self._journal.append(EventDraft("channel.alert", fields, {"actor": actor, "conversation": question.conversation}))
        except EvidenceError:
            log.error("slack.not_recorded", what="channel.alert")  # nothing counted, so nothing is released either

    def _record_refused(self, actor: Actor, event: str, error: InterlockError) -> None:
        self._journal.append(
            EventDraft(
                "vote",
                {"counted": False, "reason": str(error.code), "channel": CHANNEL, "event": event},
                {"actor": str(actor)},
            )
        )

    @property
    def _longest_minutes(self) -> int:
        return max(1, int(self._longest_grant // 60))


def _broke_glass(request: ApprovalRequest) -> bool:
    return any(vote.break_glass for vote in request.votes)


def _passing(error: InterlockError) -> float | None:
    if isinstance(error, SlackError):
        return error.wait if error.passing else None
    return 0.0 if error.code is Reason.STORE_UNAVAILABLE else None
