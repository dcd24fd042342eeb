"""The desk: what may become of a request, who may answer it, and when an answer counts. Pure.

Theory of operation
-------------------
A request is a frozen value; every function here takes one and returns the next, or raises a VoteError and nothing has
happened. `EDGES` is the whole state machine, there is no other edge:

    pending (held | returned) ──► approved ──► consumed     the bytes were released, once
                │                    ├───────► lapsed       nobody used it within its validity
                │                    └───────► revoked      policy stricter, a voter gone, an operator
                ├──► denied                                 one deny, whatever was approved before
                ├──► expired                                silence is not consent
                ├──► cancelled                              withdrawn, or its hold-only client left
                └──► superseded                             the same was asked under other terms

Held and returned are both pending: they only say whether the client still waits in place.

An answer passes four gates, in this order, and the first that closes gives the reason: authority (an active person, not
one of the excluded, in one of the groups), binding (the digest is the one that is stored), state (still pending, in time,
not voted yet), proof (as strong as the rule asks for, for approvals). Denying is always possible to whoever may answer.

What this module knows: requests, votes, quorum, expiry, separation of duties. What it must not know: channels' protocols,
the store, clocks (every `now` comes from `approvals.reckoning`), and what a command means (approvals.md, "Model").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from interlock.approvals.digest import request_digest
from interlock.approvals.model import ApprovalRequest, Presence, Proof, RequestDraft, State, Vote, VoteVerdict
from interlock.errors import Reason, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import StepUp

_NOTHING: frozenset[State] = frozenset()

EDGES: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset((State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED, State.SUPERSEDED)),
    State.APPROVED: frozenset((State.CONSUMED, State.LAPSED, State.REVOKED)),
    State.DENIED: _NOTHING,
    State.EXPIRED: _NOTHING,
    State.CANCELLED: _NOTHING,
    State.SUPERSEDED: _NOTHING,
    State.CONSUMED: _NOTHING,
    State.LAPSED: _NOTHING,
    State.REVOKED: _NOTHING,
}

FRESH_CHANNELS = frozenset(("console", "cli", "api"))
"""Channels that admit a decision only within a step-up of five minutes (identity.md). A click in a chat is none."""

SCOPES = frozenset(("once",))
"""Scopes that the desk can keep. A rule that offers more still gets only these."""


@dataclass(frozen=True, slots=True)
class Voter:
    """Who answers, as the directory knows them at this moment. `linked` are other identities of the same person."""

    identity: Identity
    handle: str
    kind: Kind
    groups: frozenset[str] = frozenset()
    linked: frozenset[Identity] = frozenset()
    disabled: bool = False

    @property
    def person(self) -> frozenset[Identity]:
        """All identities of the person."""
        return self.linked | {self.identity}


def open_request(
    draft: RequestDraft, *, request_id: str, nonce: str, match: str, now: datetime, excluded: Iterable[Identity] = ()
) -> ApprovalRequest:
    """Open a held request. `excluded` adds what the directory knows to the requester, its chain and its owner."""
    request = ApprovalRequest(
        id=request_id,
        nonce=nonce,
        digest="",
        match=match,
        draft=draft,
        created=now,
        expires=now + timedelta(seconds=draft.terms.expires),
        excluded=draft.principal.excluded() | frozenset(excluded),
    )
    return replace(request, digest=request_digest(request))


def vote(
    request: ApprovalRequest, ballot: Vote, voter: Voter, *, now: datetime, validity: float,
    excluded: Iterable[Identity] = (),
) -> ApprovalRequest:  # fmt: skip
    """Count one answer. `validity` is in seconds, how long an approval waits to be used.

    `excluded` are further identities that may not answer, as the directory knows them now. The same delivery twice
    returns the request as it is. Raise VoteError with the reason when the answer does not count.
    """
    _check_authority(request, voter, excluded)
    if ballot.digest != request.digest or ballot.reviewer != voter.identity:
        raise VoteError(reason=Reason.DIGEST_MISMATCH)
    if delivered_before(request, ballot):
        return request
    _check_pending(request, now)
    _check_first(request, ballot, voter)
    if ballot.verdict is VoteVerdict.APPROVE:
        _check_terms(request, ballot)
    counted = replace(request, votes=(*request.votes, ballot))
    if ballot.verdict is VoteVerdict.DENY:
        return replace(_move(counted, State.DENIED), decided_at=now)
    if len(_approvers(counted)) < max(1, request.draft.terms.quorum):
        return counted
    return replace(_move(counted, State.APPROVED), decided_at=now, valid_until=now + timedelta(seconds=validity))


def delivered_before(request: ApprovalRequest, ballot: Vote) -> bool:
    """Whether this very delivery was counted already: same event, same reviewer, same verdict."""
    return ballot.event != "" and any(
        (v.event, v.reviewer, v.verdict) == (ballot.event, ballot.reviewer, ballot.verdict) for v in request.votes
    )


def give_back(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """The client stops waiting in place: held → returned, or cancelled when the rule is hold-only."""
    if not request.draft.terms.returns:
        return cancel(request, now=now)
    _check_pending(request, now)
    return replace(request, presence=Presence.RETURNED)


def hold_again(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """The same client, or another session of it, waits in place again."""
    _check_pending(request, now)
    return replace(request, presence=Presence.HELD)


def cancel(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """Withdraw a request before anybody decided."""
    return replace(_move(request, State.CANCELLED), decided_at=now)


def supersede(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """The same thing is asked anew under other terms; nobody can answer the old question any more."""
    return replace(_move(request, State.SUPERSEDED), decided_at=now)


def expire(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """Silence until the deadline. Raise VoteError before it."""
    if now < request.expires:
        raise VoteError(f"{request.id} has not reached its deadline", reason=Reason.APPROVAL_PENDING)
    return replace(_move(request, State.EXPIRED), decided_at=now)


def lapse(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """Nobody used the approval in its validity. Raise VoteError before that."""
    if usable(request, now):
        raise VoteError(f"{request.id} is still valid", reason=Reason.ALREADY_DECIDED)
    return _move(request, State.LAPSED)


def revoke(request: ApprovalRequest) -> ApprovalRequest:
    """Take an approval back before it is used."""
    return _move(request, State.REVOKED)


def consume(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """Use an approval: once, and within its validity. Raise VoteError otherwise."""
    if request.state is State.APPROVED and not usable(request, now):
        raise VoteError(f"{request.id} was approved, but not used in time", reason=Reason.APPROVAL_EXPIRED)
    return _move(request, State.CONSUMED)


def usable(request: ApprovalRequest, now: datetime) -> bool:
    """Whether the request is an approval that may still be consumed."""
    return request.state is State.APPROVED and request.valid_until is not None and now < request.valid_until


def deadline(request: ApprovalRequest) -> datetime | None:
    """When time itself ends this state, or None."""
    match request.state:
        case State.PENDING:
            return request.expires
        case State.APPROVED:
            return request.valid_until
        case _:
            return None


def standing(request: ApprovalRequest, voters: Mapping[Identity, Voter], excluded: Iterable[Identity] = ()) -> bool:
    """Whether the approval still stands on enough distinct active people (property 36).

    `voters` are the approvers that the directory still has. Groups are not asked again: they counted when the vote was
    given. Whoever turned out to be excluded meanwhile, by a link that was added, does not stand.
    """
    barred = request.excluded | frozenset(excluded)
    people: list[frozenset[Identity]] = []
    for identity in _approvers(request):
        voter = voters.get(identity)
        if voter is None or voter.disabled or voter.kind is not Kind.HUMAN or voter.person & barred:
            return False
        if not any(voter.person & other for other in people):
            people.append(voter.person)
    return len(people) >= max(1, request.draft.terms.quorum)


def strength(channel: str, proof: Proof) -> StepUp:
    """Return the strongest step-up that an answer over this channel, with this proof, amounts to."""
    if proof is Proof.PERSONAL:
        return StepUp.PASSKEY
    return StepUp.REAUTH if channel in FRESH_CHANNELS else StepUp.NONE


_ORDER = (StepUp.NONE, StepUp.REAUTH, StepUp.PASSKEY)


def _check_authority(request: ApprovalRequest, voter: Voter, excluded: Iterable[Identity]) -> None:
    if voter.disabled:
        raise VoteError(reason=Reason.DISABLED_PRINCIPAL)
    if voter.kind is not Kind.HUMAN:
        raise VoteError(reason=Reason.NOT_A_PERSON)
    if voter.person & (request.excluded | frozenset(excluded)):
        raise VoteError(reason=Reason.SELF_APPROVAL)
    if not voter.groups & frozenset(request.draft.terms.groups):
        raise VoteError(reason=Reason.NOT_A_REVIEWER)


def _check_pending(request: ApprovalRequest, now: datetime) -> None:
    if request.state is not State.PENDING:
        raise decided(request)
    if now >= request.expires:
        # Told like any final state: it is one, whether or not anybody has written it down yet.
        raise decided(replace(request, state=State.EXPIRED))


def decided(request: ApprovalRequest) -> VoteError:
    """Return the error that tells a late click the final state (property 20)."""
    return VoteError(f"{request.id} is {request.state} already", reason=Reason.ALREADY_DECIDED)


def _check_first(request: ApprovalRequest, ballot: Vote, voter: Voter) -> None:
    """One person, one answer; only from approving to denying may somebody still go."""
    given = [v for v in request.votes if v.reviewer in voter.person]
    if any(v.verdict is ballot.verdict or v.verdict is VoteVerdict.DENY for v in given):
        raise VoteError(reason=Reason.ALREADY_VOTED)


def _check_terms(request: ApprovalRequest, ballot: Vote) -> None:
    terms = request.draft.terms
    if ballot.scope not in SCOPES or ballot.scope not in terms.scopes:
        raise VoteError(f"the scope {ballot.scope!r} is not offered here", reason=Reason.SCOPE_NOT_OFFERED)
    if _ORDER.index(strength(ballot.channel, ballot.proof)) < _ORDER.index(terms.step_up):
        raise VoteError(reason=Reason.STEP_UP_TOO_WEAK)


def _approvers(request: ApprovalRequest) -> frozenset[Identity]:
    # `_check_first` let each person in once, whatever account was used, so these are distinct people.
    return frozenset(v.reviewer for v in request.votes if v.verdict is VoteVerdict.APPROVE)


def _move(request: ApprovalRequest, state: State) -> ApprovalRequest:
    if state not in EDGES[request.state]:
        raise decided(request)
    return replace(request, state=state)
