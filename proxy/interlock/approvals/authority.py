"""Who may answer a request, and whether an answer is as its rule asks for. Pure.

Authority is of an active person, not one of the excluded, in one of the groups, and not new among them. Terms are the scope
and the proof of an approval. Must not know states and edges: what an answer leads to is the desk's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from interlock.approvals import grants
from interlock.approvals.model import ApprovalRequest, Proof, Scope, Vote, VoteVerdict
from interlock.errors import Reason, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import StepUp

FRESH_CHANNELS = frozenset(("console", "cli", "api"))
"""Channels that admit a decision only within a step-up of five minutes (identity.md). A click in a chat is none."""

MIN_GLASS_REASON = 10
"""Characters that breaking the glass must be explained with, at least."""

_ORDER = (StepUp.NONE, StepUp.REAUTH, StepUp.PASSKEY)


@dataclass(frozen=True, slots=True)
class House:
    """What the installation says for every rule. Durations in seconds.

    `validity`: how long an approval waits to be used. `longest_grant`: the longest life of a wider scope. `newcomer`: how long
    a reviewer who was just created, linked or re-grouped can't vote unless confirmed. `glass`: the groups whose members
    may break it, and `glass_validity` how long such an approval waits.
    """

    validity: float = 900.0
    longest_grant: float = 3600.0
    newcomer: float = 0.0
    glass: frozenset[str] = frozenset()
    glass_validity: float = 300.0


@dataclass(frozen=True, slots=True)
class Voter:
    """Who answers, as the directory knows them at this moment. `linked` are other identities of the same person.

    `since` is when their authority last grew, None when another administrator confirmed it.
    """

    identity: Identity
    handle: str
    kind: Kind
    groups: frozenset[str] = frozenset()
    linked: frozenset[Identity] = frozenset()
    disabled: bool = False
    since: datetime | None = None
    stale: bool = False  # groups that they may have are not known

    @property
    def person(self) -> frozenset[Identity]:
        """All identities of the person."""
        return self.linked | {self.identity}


def check_person(
    request: ApprovalRequest, ballot: Vote, voter: Voter, *, now: datetime, house: House, excluded: Iterable[Identity] = ()
) -> None:
    """Whether somebody may answer this request at all, as far as it follows from who they are. Raise VoteError."""
    if voter.disabled:
        raise VoteError(reason=Reason.DISABLED_PRINCIPAL)
    if voter.kind is not Kind.HUMAN:
        raise VoteError(reason=Reason.NOT_A_PERSON)
    if voter.person & (request.excluded | frozenset(excluded)):
        raise VoteError(reason=Reason.SELF_APPROVAL)
    if ballot.break_glass:
        if not voter.groups & house.glass:
            raise VoteError(reason=Reason.SIGN_IN_REQUIRED if voter.stale else Reason.BREAK_GLASS_REFUSED)
    elif not voter.groups & frozenset(request.draft.terms.all_groups):
        raise VoteError(reason=Reason.SIGN_IN_REQUIRED if voter.stale else Reason.NOT_A_REVIEWER)
    _check_settled(voter, now, house)


def check_authority(
    request: ApprovalRequest, ballot: Vote, voter: Voter, now: datetime, house: House, excluded: Iterable[Identity]
) -> None:
    check_person(request, ballot, voter, now=now, house=house, excluded=excluded)
    if ballot.break_glass:
        _check_glass(ballot)


def _check_settled(voter: Voter, now: datetime, house: House) -> None:
    if voter.since is not None and now < voter.since + timedelta(seconds=house.newcomer):
        raise VoteError(reason=Reason.REVIEWER_TOO_NEW)


def _check_glass(ballot: Vote) -> None:
    """Property 29: a passkey and a written reason. Whoever is excluded, or in no named group, was refused before."""
    if ballot.verdict is not VoteVerdict.APPROVE or ballot.scope != Scope.ONCE:
        raise VoteError("breaking the glass approves once, and nothing else", reason=Reason.BREAK_GLASS_REFUSED)
    if ballot.signed is None or ballot.signed.kind != "webauthn" or ballot.proof is not Proof.PERSONAL:
        raise VoteError(reason=Reason.BREAK_GLASS_REFUSED)
    if len(" ".join(ballot.reason.split())) < MIN_GLASS_REASON:
        raise VoteError(f"say in at least {MIN_GLASS_REASON} characters why the glass is broken", reason=Reason.REASON_REQUIRED)


def check_terms(request: ApprovalRequest, ballot: Vote, now: datetime, house: House) -> None:
    """Whether an approval is as the rule asks: its scope is offered and ends, its proof is strong enough."""
    terms = request.draft.terms
    if ballot.scope not in grants.offered(request.draft):
        raise VoteError(f"the scope {ballot.scope!r} is not offered here", reason=Reason.SCOPE_NOT_OFFERED)
    if _ORDER.index(strength(ballot.channel, ballot.proof)) < _ORDER.index(terms.step_up):
        raise VoteError(reason=Reason.STEP_UP_TOO_WEAK)
    latest = now + timedelta(seconds=house.longest_grant)
    if ballot.scope == Scope.ONCE:
        if ballot.valid_until is not None:
            raise VoteError("an approval of once has no time", reason=Reason.SCOPE_NOT_OFFERED)
    elif ballot.scope == Scope.EXACT and ballot.valid_until is None:
        raise VoteError("the scope exact needs valid_until", reason=Reason.SCOPE_NOT_OFFERED)
    elif ballot.valid_until is not None and not now < ballot.valid_until <= latest:
        raise VoteError(
            f"valid_until lies in the future and within {int(house.longest_grant)} s", reason=Reason.SCOPE_NOT_OFFERED
        )


def check_second_look(
    request: ApprovalRequest, voter: Voter, note: str, *, now: datetime, house: House, excluded: Iterable[Identity] = (),
) -> None:  # fmt: skip
    """Whether somebody may look at a broken glass afterwards: another person than who broke it or asked, and not new.
    Raise VoteError."""
    if voter.disabled or voter.kind is not Kind.HUMAN:
        raise VoteError(reason=Reason.NOT_A_PERSON)
    involved = request.excluded | frozenset(excluded) | {vote.reviewer for vote in request.votes}
    if voter.person & involved:
        raise VoteError("whoever asked or broke the glass can't be the one who looks at it", reason=Reason.SELF_APPROVAL)
    _check_settled(voter, now, house)
    if not note.strip():
        raise VoteError("say what you found", reason=Reason.REASON_REQUIRED)


def strength(channel: str, proof: Proof) -> StepUp:
    """Return the strongest step-up that an answer over this channel, with this proof, amounts to."""
    if proof is Proof.PERSONAL:
        return StepUp.PASSKEY
    return StepUp.REAUTH if channel in FRESH_CHANNELS else StepUp.NONE
