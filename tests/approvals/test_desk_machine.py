"""Anything in any order: no illegal edge, one use at most, nobody excluded ever counted, deadlines kept."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from harness.budget import examples
from harness.people import ALICE, BOB, CAROL, CLAUDE
from harness.requests import START, TERMS, draft
from interlock.approvals import authority, desk
from interlock.approvals.authority import Voter
from interlock.approvals.desk import EDGES
from interlock.approvals.model import ApprovalRequest, Presence, Proof, State, Vote, VoteVerdict
from interlock.approvals.portable import read_vote, vote_form
from interlock.errors import VoteError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import StepUp

DAVE = Identity("local", "dave")
EVERYBODY = (ALICE, BOB, CAROL, DAVE, CLAUDE)
EXCLUDED = frozenset((ALICE, CLAUDE))


class AnyOrder(RuleBasedStateMachine):
    @initialize(quorum=st.integers(0, 3), expires=st.integers(0, 100), returns=st.booleans(), step_up=st.sampled_from(StepUp))
    def ask(self, quorum: int, expires: int, returns: bool, step_up: StepUp) -> None:
        terms = replace(TERMS, quorum=quorum, expires=expires, returns=returns, step_up=step_up)
        self.now = START
        self.request = desk.open_request(draft(terms=terms), request_id="req_1", nonce="00", match="m", now=START)
        self.frozen = self.request
        self.used = 0
        self.linked: dict[Identity, frozenset[Identity]] = {identity: frozenset() for identity in EVERYBODY}
        self.last: ApprovalRequest = self.request

    def become(self, after: ApprovalRequest) -> None:
        before, self.request = self.request, after
        if after.state is not before.state:
            assert after.state in EDGES[before.state]
            if after.state in (State.APPROVED, State.DENIED):
                assert self.now < before.expires
            if after.state is State.CONSUMED:
                self.used += 1
                assert before.valid_until is not None
                assert self.now < before.valid_until
        assert after.votes[: len(before.votes)] == before.votes
        if after.votes != before.votes:
            # A deny is heard as long as nothing was released.
            assert before.state is State.PENDING or (before.state, after.state) == (State.APPROVED, State.REVOKED)

    @rule(who=st.sampled_from(EVERYBODY), other=st.sampled_from(EVERYBODY))
    def link(self, who: Identity, other: Identity) -> None:
        """Two accounts turn out to be one person: links are symmetric and transitive, as the directory keeps them."""
        person = {who, other, *self.linked[who], *self.linked[other]}
        for identity in person:
            self.linked[identity] = frozenset(person - {identity})

    @rule(
        who=st.sampled_from(EVERYBODY), kind=st.sampled_from([Kind.HUMAN, Kind.HUMAN, Kind.AGENT, Kind.SERVICE]),
        groups=st.sets(st.sampled_from(["sre", "dba"])), disabled=st.integers(0, 4).map(lambda n: n == 0),
        verdict=st.sampled_from(VoteVerdict), right=st.integers(0, 5).map(lambda n: n > 0), event=st.sampled_from(["", "a", "b"]),
        scope=st.sampled_from(["once", "once", "exact"]), channel=st.sampled_from(["teams", "cli"]), proof=st.sampled_from(Proof),
    )  # fmt: skip
    def vote(
        self, who: Identity, kind: Kind, groups: set[str], disabled: bool, verdict: VoteVerdict, right: bool, event: str,
        scope: str, channel: str, proof: Proof,
    ) -> None:  # fmt: skip
        digest = self.request.digest if right else "sha256:other"
        voter = Voter(who, who.subject, kind, frozenset(groups), self.linked[who], disabled)
        ballot = Vote(who, who.subject, channel, "", verdict, digest, self.now, scope, proof, "", event)
        assert read_vote(vote_form(ballot)) == ballot
        with suppress(VoteError):
            after = desk.vote(self.request, ballot, voter, now=self.now, house=authority.House(validity=50))
            self.become(after)
            assert kind is Kind.HUMAN
            assert not disabled
            assert right
            assert "sre" in groups
            assert not voter.person & EXCLUDED

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(move=st.sampled_from(["expire", "cancel", "supersede", "consume", "lapse", "give_back", "hold_again"]))
    def move(self, move: str) -> None:
        with suppress(VoteError):
            self.become(getattr(desk, move)(self.request, now=self.now))

    @rule()
    def revoke(self) -> None:
        with suppress(VoteError):
            self.become(desk.revoke(self.request))

    @invariant()
    def used_at_most_once(self) -> None:
        assert getattr(self, "used", 0) <= 1

    @invariant()
    def an_approval_has_its_quorum_of_people_who_may(self) -> None:
        if not hasattr(self, "request"):
            return
        request = self.request
        approvers = {v.reviewer for v in request.votes if v.verdict is VoteVerdict.APPROVE}
        assert not approvers & EXCLUDED
        assert len(approvers) == sum(v.verdict is VoteVerdict.APPROVE for v in request.votes)
        denials = sum(v.verdict is VoteVerdict.DENY for v in request.votes)
        if request.state in (State.APPROVED, State.CONSUMED, State.LAPSED, State.REVOKED):
            assert len(approvers) >= max(1, request.draft.terms.quorum)
            assert denials <= (request.state is State.REVOKED)
            assert request.valid_until is not None
        if request.state is State.DENIED:
            assert denials == 1

    @invariant()
    def what_was_asked_never_changes(self) -> None:
        if hasattr(self, "request"):
            same = replace(self.request, state=State.PENDING, presence=Presence.HELD, votes=(), decided_at=None, valid_until=None)
            assert same == self.frozen


AnyOrder.TestCase.settings = settings(max_examples=examples(100), stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase
