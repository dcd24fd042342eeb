"""The master property of the gate, over random interleavings, faults at every port, votes and cancellations.

    No byte of a command reaches a target before a decision about those bytes is recorded; the bytes released are the
    bytes decided (or their re-rendering, and then both are in the record); when anything on this path fails, nothing
    is released.

The ports are fakes in memory, each able to fail and each able to let others run first; the desk's rules are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from harness.clock import ManualClock
from harness.journal import MemoryRecorder
from harness.people import BOB, agent
from harness.requests import TERMS
from interlock.approvals import authority, desk
from interlock.approvals.authority import Voter
from interlock.approvals.model import ApprovalRequest, Presence, RequestDraft, State, Vote, VoteVerdict
from interlock.approvals.wording import Notice, Refusal
from interlock.commands.model import Analysis, Command, HeldInput, Stdin, Unreadable, Wire
from interlock.commands.model import Kind as Asked
from interlock.errors import EvidenceError, InputError, InterlockError, Reason, StoreError, VoteError
from interlock.evidence.events import Draft, EventDraft, Json, Recorder
from interlock.gate import Gate, Pending, Release, Session
from interlock.identity.principal import Kind, Principal
from interlock.policy.model import Access, Decision, Facts, SessionFacts, Target, Verdict

TARGET = Target("web-1", "ssh", account="deploy")


class Pauses:
    """Lets other tasks run before a port answers: the drawn numbers are the interleaving."""

    def __init__(self, drawn: list[int]) -> None:
        self._drawn = drawn
        self._next = 0

    async def __call__(self) -> None:
        if self._drawn:
            turns = self._drawn[self._next % len(self._drawn)]
            self._next += 1
            for _ in range(turns):
                await asyncio.sleep(0)


class Faults:
    """Which call of which port fails, counted from zero."""

    def __init__(self, planned: Mapping[str, int]) -> None:
        self._left = dict(planned)
        self.struck: list[str] = []

    def at(self, port: str, error: Exception) -> None:
        if port not in self._left:
            return
        if self._left[port] == 0:
            del self._left[port]
            self.struck.append(port)
            raise error
        self._left[port] -= 1


class Transcript(MemoryRecorder):
    def __init__(self, pauses: Pauses, faults: Faults, *, sync_every: bool) -> None:
        super().__init__("session", sync_every=sync_every)
        self._pauses, self._faults = pauses, faults

    def append(self, *drafts: Draft) -> int:
        try:
            self._faults.at("append", EvidenceError())
        except EvidenceError:
            self.fail_append = True
            raise
        return super().append(*drafts)

    async def sync(self) -> None:
        length = len(self.events)
        await self._pauses()
        try:
            self._faults.at("sync", EvidenceError())
        except EvidenceError:
            self.fail_append = True
            raise
        if self.fail_append:
            raise EvidenceError
        self.synced = max(self.synced, length)

    async def close(self, fields: Mapping[str, Json]) -> None:
        await super().close(fields)
        self.fail_append = True


class Transcripts:
    def __init__(self, recorder: Transcript) -> None:
        self._recorder = recorder
        self.journal: Recorder = MemoryRecorder()

    async def open(self, session: SessionFacts, opened: EventDraft) -> Recorder:
        self._recorder.append(opened)
        return self._recorder


def verb_of(text: bytes) -> str:
    return text.split(b" ")[0].decode()


class Classifier:
    """`slow-` texts take the way through the child; `code` and `data` read input; `broken` is unreadable."""

    def __init__(self, pauses: Pauses, faults: Faults) -> None:
        self._pauses, self._faults = pauses, faults

    def _analysis(self, command: Command) -> Analysis:
        words = verb_of(command.text).split("-")
        if "broken" in words:
            return Analysis(unreadable=Unreadable(Reason.SYNTAX_ERROR, "it does not parse"))
        stdin = Stdin.CODE if "code" in words else Stdin.DATA if "data" in words else Stdin.IGNORED
        sent = None if "opaque" in words else f"'{command.text.decode()}'"
        return Analysis(sent=sent, stdin=stdin, parser="test")

    def classify_now(self, command: Command) -> Analysis | None:
        if "slow" in verb_of(command.text).split("-"):
            return None
        self._faults.at("classify_now", RuntimeError("a defect"))
        return self._analysis(command)

    async def classify(self, command: Command) -> Analysis:
        await self._pauses()
        self._faults.at("classify", RuntimeError("a defect"))
        return self._analysis(command)


@dataclass
class Policy:
    """Decides by the first word. `stricter` is switched on by a reload in the middle."""

    faults: Faults
    stricter: bool = False
    digest: str = "sha256:test"

    @property
    def current(self) -> Policy:
        return self

    def may_open(self, principal: Principal, target: Target) -> Access:
        return Access(granted=True, rule="0", reason="")

    def may_see(self, principal: Principal, target: Target) -> bool:
        return True

    def decide(self, facts: Facts) -> Decision:
        self.faults.at("decide", RuntimeError("a defect"))
        words = verb_of(facts.command.text).split("-")
        verdict = Verdict.DENY if "deny" in words else Verdict.REVIEW if "review" in words else Verdict.ALLOW
        if verdict is Verdict.REVIEW and self.stricter:
            verdict = Verdict.DENY
        terms = replace(TERMS, returns="hold" not in words) if verdict is Verdict.REVIEW else None
        return Decision(verdict, f"test/{verdict}", "because", self.digest, review=terms)


class Place:
    def __init__(self, approvals: Approvals, number: int) -> None:
        self._approvals, self._number = approvals, number

    @property
    def request(self) -> ApprovalRequest:
        return self._approvals.requests[self._number]

    async def settled(self, timeout: float) -> ApprovalRequest:
        await self._approvals.pauses()
        self._approvals.faults.at("settled", StoreError())
        while self.request.state is State.PENDING and not self._approvals.impatient:
            await self._approvals.changed.wait()
        return self.request

    async def consume(self) -> ApprovalRequest | None:
        await self._approvals.pauses()
        self._approvals.faults.at("consume", StoreError())
        try:
            used = desk.consume(self.request, now=self._approvals.now)
        except VoteError:
            return None
        self._approvals.put(self._number, used)
        await self._approvals.pauses()
        return used

    async def give_back(self) -> ApprovalRequest:
        self._approvals.faults.at("give_back", StoreError())
        now = self._approvals.now
        with suppress(VoteError):
            late = self.request.state is State.PENDING and now >= self.request.expires
            self._approvals.put(self._number, (desk.expire if late else desk.give_back)(self.request, now=now))
        return self.request

    async def revoke(self, why: str) -> None:
        await self._approvals.pauses()
        self._approvals.faults.at("revoke", StoreError())
        try:
            self._approvals.put(self._number, desk.revoke(self.request))
        except VoteError:
            pass


class Approvals:
    """The real desk over a list."""

    def __init__(self, pauses: Pauses, faults: Faults, clock: ManualClock) -> None:
        self.pauses, self.faults, self._clock = pauses, faults, clock
        self.requests: list[ApprovalRequest] = []
        self.changed = asyncio.Event()
        self.impatient = False  # every wait in place is over

    @property
    def now(self) -> Any:
        return self._clock.now()

    def put(self, number: int, request: ApprovalRequest) -> None:
        self.requests[number] = request
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def submit(self, draft: RequestDraft) -> Place:
        await self.pauses()
        self.faults.at("submit", StoreError())
        for number, known in enumerate(self.requests):
            if known.draft.command == draft.command and (
                known.state in (State.PENDING, State.DENIED) or desk.usable(known, self.now)
            ):
                if known.state is State.PENDING:
                    self.put(number, desk.hold_again(known, now=self.now))
                return Place(self, number)
        number = len(self.requests)
        self.requests.append(desk.open_request(draft, request_id=f"req_{number}", nonce="00", match=f"m{number}", now=self.now))
        return Place(self, number)

    def link(self, request: ApprovalRequest) -> str:
        return ""

    def vote(self, verdict: VoteVerdict) -> None:
        """Answer the oldest pending request."""
        for number, request in enumerate(self.requests):
            if request.state is State.PENDING:
                ballot = Vote(BOB, "bob", "cli", "bob", verdict, request.digest, self.now)
                voter = Voter(BOB, "bob", Kind.HUMAN, frozenset(("sre",)))
                self.put(number, desk.vote(request, ballot, voter, now=self.now, house=authority.House(validity=600)))
                return


@dataclass
class Client:
    """The waiting client; its input comes, or never ends."""

    pauses: Pauses
    faults: Faults
    notices: list[Notice] = field(default_factory=list)
    max_hold: float | None = None
    said: str = ""

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        await self.pauses()
        return ()

    async def read_input(self) -> HeldInput:
        await self.pauses()
        self.faults.at("read_input", InputError())
        return HeldInput(b"the input\n")

    async def ready_to_wait(self) -> Refusal | None:
        await self.pauses()
        self.faults.at("ready_to_wait", InputError())
        return None

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)


class World:
    """A session at a target, and what really reached that target."""

    def __init__(self, pauses: list[int], faults: Mapping[str, int], *, sync_every: bool = False) -> None:
        self.clock = ManualClock()
        self.pauses, self.faults = Pauses(pauses), Faults(faults)
        self.recorder = Transcript(self.pauses, self.faults, sync_every=sync_every)
        self.approvals = Approvals(self.pauses, self.faults, self.clock)
        self.policy = Policy(self.faults)
        self.gate = Gate(
            policies=self.policy, classifier=Classifier(self.pauses, self.faults), approvals=self.approvals,
            transcripts=Transcripts(self.recorder), clock=self.clock,
        )  # fmt: skip
        self.released: list[tuple[Command, Release]] = []
        self.refused: list[tuple[Command, Refusal]] = []
        self.cancelled = 0
        self.session: Session

    async def open(self, principal: Principal | None = None) -> None:
        opened = await self.gate.open(principal or agent(), TARGET, SessionFacts("session", "192.0.2.7"))
        assert isinstance(opened, Session)
        self.session = opened

    async def run(self, text: bytes) -> None:
        """What a front end does with one command."""
        command = Command(Wire.SSH, Asked.EXEC, text)
        answer = self.session.submit(command, Client(self.pauses, self.faults))
        if isinstance(answer, Pending):
            try:
                outcome = await answer.outcome()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        else:
            outcome = answer
        if isinstance(outcome, Release):
            self._send(command, outcome)
        else:
            self.refused.append((command, outcome))

    def _send(self, command: Command, release: Release) -> None:
        """The target gets the bytes: at this very moment everything must be on record."""
        events = self.recorder.events
        decision, forward = events[release.decision], events[release.forward]
        asked = events[int(str(decision.fields["ref"]))]
        assert decision.type == "decision"
        assert forward.type == "forward"
        assert forward.fields["ref"] == release.decision
        assert asked.secret["text"] == command.text.decode()
        words = verb_of(command.text).split("-")
        assert not {"deny", "broken"} & set(words)
        if self.recorder.sync_every:
            assert self.recorder.synced > release.forward
        if decision.fields["verdict"] == "allow":
            assert not {"review", "opaque"} & set(words)
            assert release.payload == f"'{command.text.decode()}'".encode()
            assert forward.secret["sent_text"] == release.payload.decode()
            assert not release.approved
        else:
            assert decision.fields["verdict"] == "review"
            assert release.payload == command.text
            assert release.approved
            assert self.recorder.synced > release.forward
            answered = events[release.forward - 1]
            assert (answered.type, answered.fields["request"]) == ("approval.response", release.request)
            assert answered.fields["state"] == "consumed"
            assert release.request not in {r.request for _, r in self.released}
            (request,) = [r for r in self.approvals.requests if r.id == release.request]
            assert request.state is State.CONSUMED
            assert request.draft.command.text == command.text
            assert request.draft.command.stdin == (release.stdin if request.draft.command.stdin else None)
        if {"code", "data"} & set(words) and "review" in words:
            assert release.stdin == HeldInput(b"the input\n")
            assert asked.secret["stdin"]
        self.released.append((command, release))

    def check_the_rest(self) -> None:
        """What must hold when all is over."""
        events = self.recorder.events
        forwards = [e.fields["ref"] for e in events if e.type == "forward"]
        assert len(forwards) == len(set(forwards))
        consumed = sum(r.state is State.CONSUMED for r in self.approvals.requests)
        reviewed = sum(r.approved for _, r in self.released)
        assert reviewed <= consumed
        if "give_back" not in self.faults.struck:
            # Nobody waits any more, so no request says that somebody does (properties 17 and 18).
            held = [r for r in self.approvals.requests if r.state is State.PENDING and r.presence is Presence.HELD]
            assert held == []
        if not self.recorder.fail_append:
            # Every decision has its end on record: bytes sent, or why not.
            decided = [n for n, e in enumerate(events) if e.type == "decision"]
            ended = {int(str(e.fields["ref"])) for e in events if e.type in ("forward", "block")}
            assert [n for n in decided if n not in ended] == []


WORDS = (
    b"allow", b"slow-allow", b"allow-opaque", b"code-allow", b"deny", b"slow-deny", b"broken", b"slow-broken", b"review",
    b"review-opaque", b"slow-review", b"data-review", b"code-review", b"hold-review",
)  # fmt: skip
PORTS = (
    "append", "sync", "classify_now", "classify", "decide", "submit", "settled", "consume", "give_back", "revoke", "read_input",
    "ready_to_wait",
)  # fmt: skip
COMMAND = st.tuples(st.just("command"), st.sampled_from(WORDS), st.integers(0, 1))
STEP = st.one_of(
    COMMAND,
    COMMAND,
    st.tuples(st.just("approve"), st.just(b""), st.just(0)),
    st.tuples(st.just("approve"), st.just(b""), st.just(0)),
    st.tuples(st.just("deny"), st.just(b""), st.just(0)),
    st.tuples(st.just("cancel"), st.just(b""), st.integers(0, 5)),
    st.tuples(st.just("run"), st.just(b""), st.integers(1, 12)),
    st.tuples(st.just("pass-time"), st.just(b""), st.sampled_from([1, 899, 901])),
    st.tuples(st.sampled_from(["stricter", "drain", "revoke"]), st.just(b""), st.just(0)),
)


async def play(world: World, steps: list[tuple[str, bytes, int]]) -> None:
    await world.open()
    tasks: list[asyncio.Task[None]] = []
    for step, word, number in steps:
        match step:
            case "command":
                tasks.append(asyncio.create_task(world.run(word + b" %d" % number)))
            case "approve" | "deny":
                with suppress(VoteError):
                    world.approvals.vote(VoteVerdict(step))
            case "cancel":
                if tasks:
                    tasks[number % len(tasks)].cancel()
            case "run":
                for _ in range(number):
                    await asyncio.sleep(0)
            case "pass-time":
                world.clock.advance(number)
            case "stricter":
                world.policy.stricter = True
            case "drain":
                world.gate.draining = True
            case "revoke":
                world.session.revoke()
    for _ in range(40):
        await asyncio.sleep(0)
    world.approvals.impatient = True
    world.approvals.wake()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [r for r in results if isinstance(r, Exception)] == []


@settings(max_examples=examples(400), deadline=None)
@given(
    steps=st.lists(STEP, min_size=1, max_size=14),
    pauses=st.lists(st.integers(0, 3), max_size=6),
    faults=st.dictionaries(st.sampled_from(PORTS), st.integers(0, 6), max_size=2),
    sync_every=st.booleans(),
)
def test_nothing_is_released_that_was_not_decided_and_recorded(
    steps: list[tuple[str, bytes, int]], pauses: list[int], faults: dict[str, int], sync_every: bool
) -> None:
    async def scene() -> None:
        world = World(pauses, {port: n + (port == "append") for port, n in faults.items()}, sync_every=sync_every)
        await play(world, steps)
        world.check_the_rest()

    asyncio.run(scene())


# -- a fault at each step of one command: nothing of it is released ---------------------------------------------------------

ROUTES = {
    "allow": (b"slow-allow 1", ("append", "classify", "decide")),
    "allow-now": (b"allow 1", ("append",)),
    "allow-synced": (b"allow 2", ("append", "sync", "decide", "classify_now")),
    "code": (b"code-allow 1", ("append", "classify", "decide", "read_input")),
    "review": (b"slow-review 1", ("append", "sync", "classify", "decide", "submit", "settled", "consume", "ready_to_wait")),
    "review-data": (b"data-review 1", ("read_input",)),
}
CASES = [
    (route, port, nth)
    for route, (_, ports) in ROUTES.items()
    for port in ports
    for nth in range({"append": 3, "sync": 2, "decide": 2}.get(port, 1))
    if not (route.startswith(("allow", "code")) and nth > 0)
]


@pytest.mark.parametrize(("route", "port", "nth"), CASES)
def test_a_failure_at_any_step_releases_nothing(route: str, port: str, nth: int) -> None:
    async def scene() -> None:
        text, _ = ROUTES[route]
        world = World([], {port: nth + (port == "append")}, sync_every=route == "allow-synced")
        await world.open()
        task = asyncio.create_task(world.run(text))
        for _ in range(10):
            await asyncio.sleep(0)
        world.approvals.vote(VoteVerdict.APPROVE)
        await task
        assert world.faults.struck == [port]
        assert world.released == []
        assert len(world.refused) == 1
        world.check_the_rest()

    asyncio.run(scene())


def test_without_a_failure_each_of_these_is_released() -> None:
    async def scene(text: bytes) -> None:
        world = World([], {})
        await world.open()
        task = asyncio.create_task(world.run(text))
        for _ in range(10):
            await asyncio.sleep(0)
        world.approvals.vote(VoteVerdict.APPROVE)
        await task
        assert len(world.released) == 1

    for text, _ in ROUTES.values():
        asyncio.run(scene(text))


AWAITS = 60


@pytest.mark.parametrize("text", [b"slow-review 1", b"data-review 1"])
def test_a_client_that_leaves_at_any_await_gets_nothing_and_holds_nothing(text: bytes) -> None:
    async def scene(leave_after: int) -> World:
        world = World([1], {})
        await world.open()
        task = asyncio.create_task(world.run(text))
        for turn in range(AWAITS):
            if turn == leave_after:
                task.cancel()
            if turn == 25:
                world.approvals.vote(VoteVerdict.APPROVE)
            await asyncio.sleep(0)
        await asyncio.gather(task, return_exceptions=True)
        world.check_the_rest()
        return world

    worlds = [asyncio.run(scene(turn)) for turn in range(AWAITS)]
    # Some left in time, some after the release: both ways were walked, and no release went to a client that had left.
    assert any(world.cancelled for world in worlds)
    assert worlds[-1].released
    assert all(not (world.cancelled and world.released) for world in worlds)


def test_a_session_that_is_revoked_while_its_approval_is_used_gets_nothing() -> None:
    async def scene() -> None:
        world = World([2], {})
        await world.open()
        task = asyncio.create_task(world.run(b"review 1"))
        for _ in range(30):
            await asyncio.sleep(0)
        world.approvals.vote(VoteVerdict.APPROVE)
        for _ in range(100):
            if world.approvals.requests[0].state is State.CONSUMED:
                world.session.revoke()
                break
            await asyncio.sleep(0)
        await task
        assert world.released == []
        assert world.refused[0][1].reason is Reason.DISABLED_PRINCIPAL

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param("stricter", Reason.APPROVAL_REVOKED, id="stricter"),
        pytest.param("revoked", Reason.DISABLED_PRINCIPAL, id="revoked"),
        pytest.param("expired", Reason.CREDENTIAL_EXPIRED, id="expired"),
    ],
)
def test_what_changed_between_the_request_and_the_release_counts(change: str, reason: Reason) -> None:
    async def scene() -> None:
        world, who = World([], {}), agent()
        expires = world.clock.now() + timedelta(seconds=10)
        await world.open(replace(who, credential=replace(who.credential, expires=expires)))
        task = asyncio.create_task(world.run(b"review 1"))
        for _ in range(10):
            await asyncio.sleep(0)
        match change:
            case "stricter":
                world.policy.stricter = True
            case "revoked":
                world.session.revoke()
            case "expired":
                world.clock.advance(10)
        world.approvals.vote(VoteVerdict.APPROVE)
        await task
        assert world.released == []
        assert world.refused[0][1].reason is reason
        assert world.approvals.requests[0].state is State.REVOKED
        world.check_the_rest()

    asyncio.run(scene())


def test_the_target_gets_the_exact_bytes_and_the_whole_input_once() -> None:
    async def scene() -> None:
        world = World([], {})
        await world.open()
        for _ in range(2):
            task = asyncio.create_task(world.run(b"data-review-opaque 1"))
            for _ in range(10):
                await asyncio.sleep(0)
            world.approvals.vote(VoteVerdict.APPROVE)
            await task
        # The second run did not find the first one's approval: it was asked for, and answered, anew.
        assert [r.payload for _, r in world.released] == [b"data-review-opaque 1"] * 2
        assert len({r.request for _, r in world.released}) == 2

    asyncio.run(scene())


def test_a_defect_is_a_refusal_without_details() -> None:
    async def scene() -> None:
        world = World([], {"classify": 0})
        await world.open()
        await world.run(b"slow-allow 1")
        ((_, refusal),) = world.refused
        assert refusal.reason is Reason.INTERNAL
        assert "defect" not in refusal.message

    asyncio.run(scene())


def test_errors_of_ours_keep_their_reason() -> None:
    assert issubclass(StoreError, InterlockError)

    async def scene() -> None:
        world = World([], {"submit": 0})
        await world.open()
        await world.run(b"review 1")
        assert world.refused[0][1].reason is Reason.STORE_UNAVAILABLE

    asyncio.run(scene())
