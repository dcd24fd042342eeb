"""The gate's ports in memory, for tests of a front end alone. The real parts are in harness.gate.

`rm`, `tee` and `systemctl` are reviewed, `shutdown` is denied, a shell or an interpreter reading its script from standard
input is code, everything else is allowed as it is.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from harness.clock import ManualClock
from interlock.approvals.model import ApprovalRequest, RequestDraft, State, Vote, VoteVerdict
from interlock.clock import Clock
from interlock.commands.model import Analysis, Command, Effect, Stdin, Unreadable
from interlock.errors import AuthenticationError, EvidenceError, Reason
from interlock.evidence.events import Draft, EventDraft, Json
from interlock.gate import Gate
from interlock.identity.principal import Identity, Principal
from interlock.policy.model import Access, Decision, Facts, ReviewTerms, SessionFacts, Target, Verdict


class WordClassifier:
    """Judges a command by its first word."""

    def classify_now(self, command: Command) -> Analysis | None:
        try:
            text = command.text.decode()
        except UnicodeDecodeError:
            return Analysis(unreadable=Unreadable(Reason.NOT_UTF8, "the command is not UTF-8", 0), parser="words")
        if not text.strip():
            return Analysis(unreadable=Unreadable(Reason.EMPTY_COMMAND, "the command is empty", 0), parser="words")
        if any(ord(c) < 32 and c not in "\n\t" for c in text):
            return Analysis(
                unreadable=Unreadable(Reason.DECEPTIVE_TEXT, "the command holds control characters", 0), parser="words"
            )
        words = text.split()
        stdin = {"bash": Stdin.CODE, "sh": Stdin.CODE, "tee": Stdin.DATA}.get(words[0], Stdin.IGNORED)
        if words[0] in ("bash", "sh") and "-c" in words:
            stdin = Stdin.IGNORED
        verb = "delete" if words[0] == "rm" or b"rm " in (command.stdin.data if command.stdin else b"") else "execute"
        return Analysis((Effect(verb, text, program=words[0]),), sent=text, stdin=stdin, parser="words")

    async def classify(self, command: Command) -> Analysis:
        found = self.classify_now(command)
        assert found is not None
        return found


class WordPolicy:
    """Everything is open to everybody but `closed`."""

    digest = "sha256:" + "0" * 64

    def __init__(self, terms: ReviewTerms) -> None:
        self.terms = terms

    @property
    def current(self) -> WordPolicy:
        return self

    def may_open(self, principal: Principal, target: Target) -> Access:
        granted = target.name != "closed" and target.account != "nobody"
        return Access(granted, "test/access", "granted" if granted else "no access rule opens this target for you")

    def may_see(self, principal: Principal, target: Target) -> bool:
        return target.name != "closed"

    def decide(self, facts: Facts) -> Decision:
        effect = facts.analysis.effects[0]
        if effect.program == "shutdown":
            return Decision(
                Verdict.DENY, "test/no-shutdown", "hosts are not shut down from here", self.digest, hint="Ask operations."
            )
        if effect.verb == "delete" or effect.program in ("tee", "systemctl"):
            return Decision(Verdict.REVIEW, "test/risky", "it can't be undone", self.digest, review=self.terms)
        return Decision(Verdict.ALLOW, "test/allow", "harmless", self.digest)


@dataclass(eq=False)
class MemoryTicket:
    desk: MemoryApprovals
    id: str

    @property
    def request(self) -> ApprovalRequest:
        return self.desk.requests[self.id]

    async def settled(self, timeout: float) -> ApprovalRequest:
        try:
            async with asyncio.timeout(timeout):
                await self.desk.events[self.id].wait()
        except TimeoutError:
            pass
        return self.request

    async def consume(self) -> ApprovalRequest | None:
        if self.request.state is not State.APPROVED:
            return None
        return self.desk.put(replace(self.request, state=State.CONSUMED))

    async def give_back(self) -> ApprovalRequest:
        self.desk.returned.append(self.id)
        return self.request

    async def revoke(self, why: str) -> None:
        self.desk.put(replace(self.request, state=State.REVOKED))


class MemoryApprovals:
    """A desk without rules: whoever calls `answer` is heard."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self.requests: dict[str, ApprovalRequest] = {}
        self.events: dict[str, asyncio.Event] = {}
        self.returned: list[str] = []
        self.asked = asyncio.Event()

    async def submit(self, draft: RequestDraft) -> MemoryTicket:
        match = f"{draft.principal.identity} {draft.target} {draft.command.text!r} {draft.command.stdin} {draft.command.env}"
        for request in self.requests.values():
            if request.match == match and request.state in (State.PENDING, State.APPROVED):
                return MemoryTicket(self, request.id)
        number, now = next(self._numbers), self._clock.now()
        request = ApprovalRequest(
            f"req_{number}", "nonce", f"sha256:{number}", match, draft, now, now + timedelta(seconds=draft.terms.expires)
        )
        self.requests[request.id] = request
        self.events[request.id] = asyncio.Event()
        self.asked.set()
        return MemoryTicket(self, request.id)

    def link(self, request: ApprovalRequest) -> str:
        return ""

    def put(self, request: ApprovalRequest) -> ApprovalRequest:
        self.requests[request.id] = request
        return request

    async def next_request(self) -> ApprovalRequest:
        """Wait until somebody asks, and return the latest request."""
        async with asyncio.timeout(30):
            await self.asked.wait()
        self.asked.clear()
        return list(self.requests.values())[-1]

    def answer(self, request_id: str, verdict: VoteVerdict, *, reason: str = "", by: str = "bob") -> None:
        request = self.requests[request_id]
        vote = Vote(Identity("local", by), by, "test", by, verdict, request.digest, self._clock.now(), reason=reason)
        state = State.APPROVED if verdict is VoteVerdict.APPROVE else State.DENIED
        self.put(replace(request, state=state, votes=(vote,)))
        self.events[request_id].set()


@dataclass(eq=False)
class MemoryRecorder:
    """Keeps drafts. `broken` makes every later append fail, as a full disk does."""

    session: str
    events: list[EventDraft] = field(default_factory=list)
    sync_every: bool = False
    broken: bool = False
    closed: Mapping[str, Json] | None = None
    heard: list[Callable[[EventDraft], None]] = field(default_factory=list)

    @property
    def next_seq(self) -> int:
        return len(self.events)

    def append(self, *drafts: Draft) -> int:
        if self.broken:
            raise EvidenceError
        first = len(self.events)
        for draft in drafts:
            self.events.append(draft.placed(len(self.events)))
            for listener in self.heard:
                listener(self.events[-1])
        return first

    async def sync(self) -> None:
        if self.broken:
            raise EvidenceError

    async def close(self, fields: Mapping[str, Json]) -> None:
        self.closed = fields

    def of(self, kind: str) -> list[EventDraft]:
        return [event for event in self.events if event.type == kind]


class MemoryTranscripts:
    def __init__(self) -> None:
        self.journal = MemoryRecorder("journal")
        self.sessions: list[MemoryRecorder] = []
        self.hooks: list[Callable[[MemoryRecorder], Any]] = []

    async def open(self, session: SessionFacts, opened: EventDraft) -> MemoryRecorder:
        recorder = MemoryRecorder(session.id)
        recorder.append(opened)
        self.sessions.append(recorder)
        for hook in self.hooks:
            hook(recorder)
        return recorder

    def all(self, kind: str) -> list[EventDraft]:
        return [event for session in self.sessions for event in session.of(kind)]


@dataclass
class MemoryGate:
    """A gate whose ports are all in memory."""

    clock: Clock = field(default_factory=ManualClock)
    terms: ReviewTerms = field(default_factory=lambda: ReviewTerms(groups=("sre",), hold=60))

    def __post_init__(self) -> None:
        self.approvals = MemoryApprovals(self.clock)
        self.transcripts = MemoryTranscripts()
        self.policy = WordPolicy(self.terms)
        self.gate = Gate(
            policies=self.policy,
            classifier=WordClassifier(),
            approvals=self.approvals,
            transcripts=self.transcripts,
            clock=self.clock,
        )


@dataclass
class MemoryAuthenticator:
    """Keys by blob and tokens by text."""

    keys: dict[bytes, Principal] = field(default_factory=dict)
    tokens: dict[str, Principal] = field(default_factory=dict)

    def ssh_key(self, blob: bytes) -> Principal | None:
        return self.keys.get(blob)

    def ssh_certificate(self, authority: bytes, serial: str, key: str, principals: list[str]) -> Principal | None:
        return None

    async def token(self, secret: str, *, source: str = "") -> Principal:
        if secret not in self.tokens:
            raise AuthenticationError(reason=Reason.TOKEN_REJECTED)
        return self.tokens[secret]
