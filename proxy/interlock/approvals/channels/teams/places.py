"""Where a request is shown: the configured conversation, the one for escalations, and one-to-one.

Conversations are learned from authenticated deliveries alone, and of a person only after the service confirmed who they
are. With `conversation` in the configuration nothing is posted elsewhere; without it, the first conversation that an
administrator installs the app in becomes the place, and stays the only one: anybody in it can remove the app, so when that
happens nothing is posted any more until the configuration names a conversation or an administrator adds it there again.

Knows conversations. Must not know cards, votes or what is in a request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from interlock.approvals.channels.teams.roster import Account, Roster, confirms
from interlock.approvals.channels.teams.transport import Delivery, Transport, TransportError
from interlock.approvals.model import ApprovalRequest, State
from interlock.clock import Clock
from interlock.errors import EvidenceError, InterlockError
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.entries import ADMINS
from interlock.identity.principal import Kind
from interlock.store.conversations import ConversationRows

log = structlog.get_logger()

CHANNEL = "teams"
HOME = "place:"
LEFT = "left:"
"""The place, after the app was removed from it. It is kept beside the place, so that no other one is ever found."""

MAX_DIRECT = 60
"""People who are written to one by one for one request."""

AT_ONCE = 4
ASK_AGAIN_S = 600
"""After the service could not say who somebody is, or opened no conversation with them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A conversation, and the one person in it when it is one-to-one."""

    conversation: str
    person: Account | None = None


def base(conversation: str) -> str:
    """A channel's conversation id carries the thread: `19:…@thread.tacv2;messageid=…`."""
    return conversation.partition(";")[0]


def broke_glass(request: ApprovalRequest) -> bool:
    return any(vote.break_glass for vote in request.votes)


class Places:
    """`load()` before use."""

    def __init__(
        self, *, transport: Transport, rows: ConversationRows, roster: Roster, journal: Recorder, clock: Clock,
        conversation: str = "", escalation: str = "", direct: bool = False,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._rows = rows
        self._roster = roster
        self._journal = journal
        self._clock = clock
        self._configured = base(conversation)
        self._discovered = ""
        self._left = False
        self.escalation = base(escalation)
        self._direct = direct
        self._personal: dict[Account, str] = {}
        self._silent_until: dict[Account, int] = {}
        self._learning = asyncio.Lock()

    async def load(self) -> None:
        """Read what was learned before. Raise StoreError."""
        for key, conversation in (await self._rows.of(CHANNEL)).items():
            if key.startswith(HOME):
                self._discovered = self._discovered or conversation
            elif key.startswith(LEFT):
                self._left = True
            else:
                tenant, _, oid = key.partition("/")
                self._personal[Account.of(tenant, oid)] = conversation

    @property
    def home(self) -> str:
        """The conversation that everything is posted to, or an empty string."""
        return self._configured or ("" if self._left else self._discovered)

    def person(self, conversation: str) -> Account | None:
        """Return whose one-to-one conversation this is."""
        return next((who for who, where in self._personal.items() if where == conversation), None)

    def personal(self, account: Account) -> str:
        return self._personal.get(account, "")

    async def of(self, request: ApprovalRequest) -> tuple[Place, ...]:
        """Return everywhere a request is to be shown as of now, opening conversations where that is possible."""
        places = [Place(self.home)] if self.home else []
        if self.escalation and (request.escalated_at is not None or broke_glass(request)):
            places.append(Place(self.escalation))
        if self._direct and request.state is State.PENDING:
            places += await self._one_to_one(self._roster.reviewers(request)[:MAX_DIRECT])
        return tuple({place.conversation: place for place in places}.values())

    async def _one_to_one(self, accounts: tuple[Account, ...]) -> list[Place]:
        at_once = asyncio.Semaphore(AT_ONCE)

        async def reach(account: Account) -> Place | None:
            async with at_once:
                conversation = self._personal.get(account) or await self._open(account)
            return Place(conversation, account) if conversation else None

        found = await asyncio.gather(*(reach(account) for account in accounts))
        return [place for place in found if place is not None]

    async def _open(self, account: Account) -> str:
        """Open the one-to-one conversation with somebody whom the service knows. An empty string when it can't be."""
        ident = await self.find(account)
        if not ident:
            return ""
        try:
            conversation = await self._transport.open_conversation(account.tenant, ident)
            await self._rows.remember(CHANNEL, str(account), conversation, self._clock.now())
        except InterlockError as error:
            self._leave_alone(account, error)
            return ""
        self._personal[account] = conversation
        return conversation

    async def find(self, account: Account) -> str:
        """Return the Teams id of an account, asking the service when it is not known. Empty when it does not say."""
        known = self._roster.ident(account)
        if known or not self.home or self._clock.monotonic_us() < self._silent_until.get(account, 0):
            return known
        try:
            member = await self._transport.member(self.home, account.oid)
        except TransportError as error:
            self._leave_alone(account, error)
            return ""
        if not confirms(member, account):
            self._leave_alone(account, None)
            return ""
        self._roster.learn(account, member.id)
        return member.id

    def _leave_alone(self, account: Account, error: InterlockError | None) -> None:
        """Don't ask about somebody again for a while."""
        self._silent_until[account] = self._clock.monotonic_us() + ASK_AGAIN_S * 1_000_000
        log.info("teams.not_reachable", account=str(account), error=str(error) if error else "not confirmed")

    # -- learning -----------------------------------------------------------------------------------------------------

    async def learn(self, delivery: Delivery) -> bool:
        """Take from a delivery where we can write. Return whether the place of all requests was found just now.

        Raise TransportError when the service does not say who is there, StoreError.
        """
        account = Account.of(delivery.tenant, delivery.actor_oid)
        async with self._learning:
            if delivery.change == "remove" or delivery.recipient in delivery.removed:  # an upgrade takes nothing away
                await self._forget(delivery, account)
                return False
            if delivery.place == "personal":
                await self._learn_person(delivery, account)
                return False
            return await self._discover(delivery, account)

    async def _learn_person(self, delivery: Delivery, account: Account) -> None:
        entry = self._roster.entry(account)
        if entry is None or entry.disabled or self._personal.get(account) == delivery.conversation:
            return
        if await self._confirmed(delivery, account):
            await self._rows.remember(CHANNEL, str(account), delivery.conversation, self._clock.now())
            self._personal[account] = delivery.conversation

    async def _discover(self, delivery: Delivery, account: Account) -> bool:
        installed = delivery.kind == "installationUpdate" and delivery.change.startswith("add")
        came = delivery.kind == "conversationUpdate" and delivery.recipient in delivery.added
        here = base(delivery.conversation)
        if not (installed or came) or self.home == here:
            return False
        other = self._configured or (self._discovered if self._discovered != here else "")
        if other or not self._administrator(account) or not await self._confirmed(delivery, account):
            # Nothing is said there: a request must not become readable wherever somebody adds an app.
            log.warning("teams.place_not_taken", conversation=here, by=str(account))
            return False
        await self._rows.remember(CHANNEL, HOME + here[:200], here, self._clock.now())
        await self._rows.forget(CHANNEL, LEFT + here[:200])
        self._discovered, self._left = here, False
        return True

    def _administrator(self, account: Account) -> bool:
        """Whether somebody may choose the place: whoever is shown a command there is their choice."""
        entry = self._roster.entry(account)
        return entry is not None and not entry.disabled and entry.kind is Kind.HUMAN and ADMINS in entry.groups

    async def _forget(self, delivery: Delivery, account: Account) -> None:
        here = base(delivery.conversation)
        if here == self._discovered and not self._left:
            self._left = True
            self._alert(here, account)
            await self._rows.remember(CHANNEL, LEFT + here[:200], here, self._clock.now())
        if self._personal.get(account) == delivery.conversation:
            await self._rows.forget(CHANNEL, str(account))
            del self._personal[account]

    def _alert(self, here: str, account: Account) -> None:
        """Tell the operators that requests are shown in no conversation any more."""
        hint = "set approvals.channels.teams.conversation, or have an administrator add the app there again"
        log.error("teams.place_left", conversation=here, by=str(account), hint=hint)
        fields: dict[str, Json] = {"channel": CHANNEL, "what": "app-removed"}
        try:
            self._journal.append(EventDraft("channel.alert", fields, {"actor": str(account), "conversation": here}))
        except EvidenceError:
            log.error("teams.alert_not_recorded", conversation=here)

    async def _confirmed(self, delivery: Delivery, account: Account) -> bool:
        member = await self._transport.member(base(delivery.conversation), delivery.actor_id)
        if not confirms(member, account, delivery.actor_id):
            return False
        self._roster.learn(account, member.id)
        return True
