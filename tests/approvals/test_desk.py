"""The desk as dialogue: what people and time say on the left, what the desk answers on the right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from harness.people import ALICE, BOB, CAROL, CLAUDE, agent, person
from harness.requests import START, TERMS, draft
from interlock.approvals import authority, desk
from interlock.approvals.authority import Voter
from interlock.approvals.desk import EDGES
from interlock.approvals.model import ApprovalRequest, Presence, Proof, State, Vote, VoteVerdict
from interlock.errors import Reason, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import StepUp

DAVE = Identity("local", "dave")
ERIN = Identity("local", "erin")
VALIDITY = 600.0
HOUSE = authority.House(validity=VALIDITY)


class Dialogue:
    """One request, and what is said to it. `answers` are the states or reasons in order."""

    def __init__(self, request: ApprovalRequest | None = None, **terms: Any) -> None:
        self.now = START
        asked = draft(terms=replace(TERMS, **terms))
        self.request = request or desk.open_request(asked, request_id="req_1", nonce="00", match="m", now=START)
        self.answers: list[State | Reason | Presence] = []

    def _try(self, step: Callable[[ApprovalRequest, datetime], ApprovalRequest]) -> Dialogue:
        before = self.request
        try:
            self.request = step(before, self.now)
            self.answers.append(self.request.state)
        except VoteError as error:
            assert self.request is before
            self.answers.append(error.code)
        return self

    def votes(self, who: Voter | Identity, verdict: str = "approve", **more: Any) -> Dialogue:
        voter = who if isinstance(who, Voter) else Voter(who, who.subject, Kind.HUMAN, frozenset(("sre",)))
        channel, excluded = more.pop("channel", "cli"), more.pop("excluded", ())
        ballot = Vote(
            voter.identity, voter.handle, channel, "actor", VoteVerdict(verdict),
            more.pop("digest", self.request.digest), self.now, **more,
        )  # fmt: skip
        return self._try(lambda r, now: desk.vote(r, ballot, voter, now=now, house=HOUSE, excluded=excluded))

    def after(self, seconds: float) -> Dialogue:
        self.now += timedelta(seconds=seconds)
        return self

    def does(self, name: str) -> Dialogue:
        step = getattr(desk, name)
        return self._try(lambda r, now: step(r) if name == "revoke" else step(r, now=now))


def someone(identity: Identity = BOB, **changes: Any) -> Voter:
    return replace(Voter(identity, identity.subject, Kind.HUMAN, frozenset(("sre",))), **changes)


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_is_the_one_in_the_design() -> None:
    drawn = {(a, b) for a, ends in EDGES.items() for b in ends}
    assert drawn == {
        (State.PENDING, State.APPROVED), (State.PENDING, State.DENIED), (State.PENDING, State.EXPIRED),
        (State.PENDING, State.CANCELLED), (State.PENDING, State.SUPERSEDED),
        (State.APPROVED, State.CONSUMED), (State.APPROVED, State.LAPSED), (State.APPROVED, State.REVOKED),
    }  # fmt: skip
    assert set(EDGES) == set(State)
    assert {s for s, ends in EDGES.items() if not ends} == {s for s in State if s.terminal}


MOVES = ["expire", "cancel", "supersede", "consume", "lapse", "revoke", "give_back", "hold_again"]


@pytest.mark.parametrize("state", [s for s in State if s.terminal])
def test_nothing_leaves_a_final_state(state: State) -> None:
    ended = replace(Dialogue().request, state=state, valid_until=START)
    talk = Dialogue(ended).after(100_000)
    for move in MOVES:
        talk.does(move)
    talk.votes(BOB).votes(BOB, "deny")
    assert talk.answers == [Reason.ALREADY_DECIDED] * (len(MOVES) + 2)
    assert talk.request == ended


# -- straight dialogues -----------------------------------------------------------------------------------------------


def test_ask_approve_use() -> None:
    talk = Dialogue().votes(BOB).does("consume").does("consume").votes(CAROL, "deny")
    assert talk.answers == [State.APPROVED, State.CONSUMED, Reason.ALREADY_DECIDED, Reason.ALREADY_DECIDED]
    assert (talk.request.decided_at, talk.request.valid_until) == (START, START + timedelta(seconds=VALIDITY))


def test_ask_deny() -> None:
    assert Dialogue().votes(BOB, "deny").votes(CAROL).does("consume").answers == [
        State.DENIED, Reason.ALREADY_DECIDED, Reason.ALREADY_DECIDED,
    ]  # fmt: skip


def test_nothing_is_used_without_an_approval() -> None:
    assert Dialogue().does("consume").does("lapse").does("revoke").answers == [Reason.ALREADY_DECIDED] * 3


def test_silence() -> None:
    talk = Dialogue().after(899).does("expire").after(1).votes(BOB).does("expire")
    assert talk.answers == [Reason.APPROVAL_PENDING, Reason.ALREADY_DECIDED, State.EXPIRED]


def test_an_approval_that_nobody_uses() -> None:
    talk = Dialogue().votes(BOB).after(VALIDITY - 1).does("lapse").after(1).does("consume").does("lapse")
    assert talk.answers == [State.APPROVED, Reason.ALREADY_DECIDED, Reason.APPROVAL_EXPIRED, State.LAPSED]


def test_leaving_and_coming_back() -> None:
    talk = Dialogue().does("give_back")
    assert talk.request.presence is Presence.RETURNED
    talk.does("hold_again")
    assert talk.request.presence is Presence.HELD
    assert talk.votes(BOB).answers[-1] is State.APPROVED


def test_leaving_a_hold_only_rule() -> None:
    assert Dialogue(returns=False).does("give_back").votes(BOB).answers == [State.CANCELLED, Reason.ALREADY_DECIDED]


def test_a_late_click_is_told_the_final_state() -> None:
    talk = Dialogue().votes(BOB, "deny")
    with pytest.raises(VoteError, match="req_1 is denied already"):
        desk.cancel(talk.request, now=START)


# -- who --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["approve", "deny"])
@pytest.mark.parametrize(
    ("voter", "reason"),
    [
        (someone(ALICE), Reason.SELF_APPROVAL),
        (someone(CLAUDE), Reason.SELF_APPROVAL),
        (someone(BOB, linked=frozenset((ALICE,))), Reason.SELF_APPROVAL),
        (someone(BOB, groups=frozenset(("dba", "interlock-admins"))), Reason.NOT_A_REVIEWER),
        (someone(BOB, kind=Kind.AGENT), Reason.NOT_A_PERSON),
        (someone(BOB, kind=Kind.SERVICE), Reason.NOT_A_PERSON),
        (someone(BOB, disabled=True), Reason.DISABLED_PRINCIPAL),
    ],
    ids=["owner", "requester", "linked-to-owner", "other-group", "agent", "service", "disabled"],
)
def test_who_may_not_answer(voter: Voter, reason: Reason, verdict: str) -> None:
    talk = Dialogue().votes(voter, verdict)
    assert talk.answers == [reason]
    assert talk.request.votes == ()


def test_the_whole_chain_is_excluded() -> None:
    asked = draft(principal=replace(agent(acting_for=(BOB, CAROL, DAVE)), linked=frozenset((ERIN,))))
    request = desk.open_request(asked, request_id="req_1", nonce="00", match="m", now=START, excluded=(Identity("idp", "x"),))
    talk = Dialogue(request)
    for identity in (CLAUDE, ALICE, BOB, CAROL, DAVE, ERIN, Identity("idp", "x")):
        talk.votes(identity)
    assert talk.answers == [Reason.SELF_APPROVAL] * 7


def test_a_person_who_asks_can_not_answer() -> None:
    request = desk.open_request(draft(principal=person(BOB)), request_id="req_1", nonce="00", match="m", now=START)
    assert Dialogue(request).votes(BOB).votes(CAROL).answers == [Reason.SELF_APPROVAL, State.APPROVED]


def test_what_the_directory_learns_later_excludes_too() -> None:
    assert Dialogue().votes(BOB, excluded=(BOB,)).answers == [Reason.SELF_APPROVAL]


def test_a_rule_without_groups_is_answered_by_nobody() -> None:
    assert Dialogue(groups=()).votes(BOB).answers == [Reason.NOT_A_REVIEWER]


def test_the_same_name_from_another_issuer_is_somebody_else() -> None:
    assert Dialogue().votes(someone(Identity("idp", "alice"))).answers == [State.APPROVED]


# -- what -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", ["", "sha256:" + "0" * 64])
def test_an_answer_to_something_else(digest: str) -> None:
    assert Dialogue().votes(BOB, digest=digest).votes(BOB, "deny", digest=digest).answers == [Reason.DIGEST_MISMATCH] * 2


def test_a_ballot_in_another_name() -> None:
    request = Dialogue().request
    ballot = Vote(CAROL, "carol", "cli", "", VoteVerdict.APPROVE, request.digest, START)
    with pytest.raises(VoteError) as caught:
        desk.vote(request, ballot, someone(BOB), now=START, house=authority.House(validity=1))
    assert caught.value.code is Reason.DIGEST_MISMATCH


@pytest.mark.parametrize("offered", [("once",), ("once", "exact", "rule_in_session")])
def test_a_scope_that_the_desk_can_not_keep(offered: tuple[str, ...]) -> None:
    talk = Dialogue(scopes=offered).votes(BOB, scope="exact").votes(BOB, scope="")
    assert talk.answers == [Reason.SCOPE_NOT_OFFERED] * 2


def test_once_counts_only_where_it_is_offered() -> None:
    assert Dialogue(scopes=("exact",)).votes(BOB).answers == [Reason.SCOPE_NOT_OFFERED]


# -- how strongly -----------------------------------------------------------------------------------------------------

STRONG = [
    (StepUp.NONE, "teams", Proof.NONE, True),
    (StepUp.REAUTH, "teams", Proof.CHANNEL, False),
    (StepUp.REAUTH, "slack", Proof.NONE, False),
    (StepUp.REAUTH, "console", Proof.NONE, True),
    (StepUp.REAUTH, "teams", Proof.PERSONAL, True),
    (StepUp.PASSKEY, "console", Proof.CHANNEL, False),
    (StepUp.PASSKEY, "api", Proof.NONE, False),
    (StepUp.PASSKEY, "cli", Proof.PERSONAL, True),
]


@pytest.mark.parametrize(("step_up", "channel", "proof", "counts"), STRONG)
def test_the_rule_says_how_strong_a_proof_must_be(step_up: StepUp, channel: str, proof: Proof, counts: bool) -> None:
    talk = Dialogue(step_up=step_up).votes(BOB, channel=channel, proof=proof)
    assert talk.answers == [State.APPROVED if counts else Reason.STEP_UP_TOO_WEAK]
    # Saying no needs no more than being allowed to answer.
    assert Dialogue(step_up=step_up).votes(BOB, "deny", channel=channel, proof=proof).answers == [State.DENIED]


# -- how many ---------------------------------------------------------------------------------------------------------


def test_a_quorum_of_two() -> None:
    talk = Dialogue(quorum=2).votes(BOB).votes(BOB).votes(CAROL)
    assert talk.answers == [State.PENDING, Reason.ALREADY_VOTED, State.APPROVED]


def test_two_accounts_of_one_person_are_one_person() -> None:
    second = someone(DAVE, linked=frozenset((BOB,)))
    assert Dialogue(quorum=2).votes(BOB).votes(second).answers == [State.PENDING, Reason.ALREADY_VOTED]


def test_one_deny_ends_it_whatever_was_approved() -> None:
    assert Dialogue(quorum=3).votes(BOB).votes(CAROL).votes(DAVE, "deny").answers[-1] is State.DENIED


def test_somebody_may_go_from_approving_to_denying_but_not_back() -> None:
    talk = Dialogue(quorum=2).votes(BOB).votes(BOB, "deny")
    assert talk.answers == [State.PENDING, State.DENIED]


@pytest.mark.parametrize("quorum", [0, -1])
def test_a_quorum_of_nobody_still_needs_somebody(quorum: int) -> None:
    talk = Dialogue(quorum=quorum)
    assert talk.request.state is State.PENDING
    assert talk.votes(BOB).answers == [State.APPROVED]


def test_the_same_delivery_twice() -> None:
    talk = Dialogue(quorum=2).votes(BOB, event="e1")
    once = talk.request
    talk.votes(BOB, event="e1").votes(BOB, event="e2").votes(BOB, event="")
    assert talk.answers == [State.PENDING, State.PENDING, Reason.ALREADY_VOTED, Reason.ALREADY_VOTED]
    assert talk.request is once


def test_a_delivery_id_of_somebody_else_is_not_the_same_delivery() -> None:
    assert Dialogue(quorum=2).votes(BOB, event="e1").votes(CAROL, event="e1").answers == [State.PENDING, State.APPROVED]


def test_the_same_delivery_after_the_end_is_told_what_became_of_it() -> None:
    assert Dialogue().votes(BOB, event="e1").does("consume").votes(BOB, event="e1").answers[-1] is State.CONSUMED


# -- before the release -----------------------------------------------------------------------------------------------

STANDING: dict[str, tuple[dict[Identity, Voter], tuple[Identity, ...], bool]] = {
    "both-active": ({BOB: someone(), CAROL: someone(CAROL)}, (), True),
    "group-left-after-the-vote": ({BOB: someone(groups=frozenset()), CAROL: someone(CAROL)}, (), True),
    "one-disabled": ({BOB: someone(disabled=True), CAROL: someone(CAROL)}, (), False),
    "one-gone": ({BOB: someone()}, (), False),
    "one-no-person": ({BOB: someone(kind=Kind.AGENT), CAROL: someone(CAROL)}, (), False),
    "one-linked-to-the-owner": ({BOB: someone(linked=frozenset((ALICE,))), CAROL: someone(CAROL)}, (), False),
    "one-excluded-now": ({BOB: someone(), CAROL: someone(CAROL)}, (CAROL,), False),
    "linked-to-each-other": ({BOB: someone(linked=frozenset((CAROL,))), CAROL: someone(CAROL)}, (), False),
}


@pytest.mark.parametrize("name", STANDING)
def test_an_approval_stands_on_distinct_active_people(name: str) -> None:
    voters, excluded, stands = STANDING[name]
    approved = Dialogue(quorum=2).votes(BOB).votes(CAROL).request
    assert desk.standing(approved, voters, excluded) is stands
