"""The desk: what may become of a request, who may answer it, and when an answer counts. Pure.

Theory of operation
-------------------
A request is a frozen value; every function here takes one and returns the next, or raises a VoteError and nothing has
happened. `EDGES` is the whole state machine, there is no other edge:

    pending (held | returned) ──► approved ──► consumed     the bytes were released, once
                │                    ├───────► lapsed       nobody used it within its validity
                │                    └───────► revoked      policy stricter, a voter gone, a deny after all, an operator
                ├──► denied                                 one deny, whatever was approved before
                ├──► expired                                silence is not consent
                ├──► cancelled                              withdrawn, or its hold-only client left
                └──► superseded                             the same was asked under other terms, or the text was edited

Held and returned are both pending: they only say whether the client still waits in place. A request that a grant covers is
born approved (`open_under`): people answered before it was asked.

An answer passes four gates, in this order, and the first that closes gives the reason: authority (an active person, not
one of the excluded, in one of the groups, not new among them), binding (the digest is the one that is stored), state (still
open, in time, not voted yet), terms (scope and proof as the rule asks for, for approvals); the first and the last are
authority.py's. Denying is always possible to whoever may answer, also after enough people approved, as long as nothing was
released: deny wins.

What this module knows: requests, votes, quorum, expiry. What it must not know: channels' protocols,
the store, clocks (every `now` comes from `approvals.reckoning`), and what a command means (approvals.md, "Model").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from interlock.approvals import quorum
from interlock.approvals.authority import House, Voter, check_authority, check_terms
from interlock.approvals.digest import request_digest
from interlock.approvals.grants import Grant
from interlock.approvals.model import ApprovalRequest, Presence, RequestDraft, Scope, State, Vote, VoteVerdict
from interlock.errors import Reason, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.policy.model import Need

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


# -- opening --------------------------------------------------------------------------------------------------------------


def open_request(
    draft: RequestDraft, *, request_id: str, nonce: str, match: str, now: datetime, excluded: Iterable[Identity] = (),
    edited_from: str = "", author: Voter | None = None,
) -> ApprovalRequest:  # fmt: skip
    """Open a held request. `excluded` adds what the directory knows to the requester, its chain and its owner.

    An edited text is returned from the start: nobody waits for it in place, and its author never votes on it.
    """
    request = ApprovalRequest(
        id=request_id,
        nonce=nonce,
        digest="",
        match=match,
        draft=draft,
        created=now,
        expires=now + timedelta(seconds=draft.terms.expires),
        presence=Presence.RETURNED if edited_from else Presence.HELD,
        excluded=draft.principal.excluded() | frozenset(excluded) | (author.person if author else frozenset()),
        edited_from=edited_from,
        author=author.identity if author else None,
        author_handle=author.handle if author else "",
    )
    return replace(request, digest=request_digest(request))


def open_under(
    grant: Grant, draft: RequestDraft, *, request_id: str, nonce: str, match: str, now: datetime, house: House,
    excluded: Iterable[Identity] = (),
) -> ApprovalRequest:  # fmt: skip
    """Open a request that a grant covers: approved by those who gave the grant, and no longer than it lives."""
    opened = open_request(draft, request_id=request_id, nonce=nonce, match=match, now=now, excluded=excluded)
    under = replace(opened, grant=grant.id, digest="")
    return replace(
        under, digest=request_digest(under), state=State.APPROVED, votes=grant.votes, decided_at=now,
        valid_until=min(grant.valid_until, now + timedelta(seconds=house.validity)),
    )  # fmt: skip


# -- answering ------------------------------------------------------------------------------------------------------------


def vote(
    request: ApprovalRequest, ballot: Vote, voter: Voter, *, now: datetime, house: House, excluded: Iterable[Identity] = (),
) -> ApprovalRequest:  # fmt: skip
    """Count one answer.

    `excluded` are further identities that may not answer, as the directory knows them now. The same delivery twice
    returns the request as it is. Raise VoteError with the reason when the answer does not count.
    """
    check_authority(request, ballot, voter, now, house, excluded)
    if ballot.digest != request.digest or ballot.reviewer != voter.identity:
        raise VoteError(reason=Reason.DIGEST_MISMATCH)
    if delivered_before(request, ballot):
        return request
    if ballot.verdict is VoteVerdict.DENY and usable(request, now) and not request.grant:
        # Enough people approved, nothing was released yet, and somebody who may answer says no.
        _check_first(request, ballot, voter)
        return replace(_move(request, State.REVOKED), votes=(*request.votes, ballot))
    _check_pending(request, now)
    _check_first(request, ballot, voter)
    if ballot.verdict is VoteVerdict.DENY:
        return replace(_move(_counted(request, ballot, voter), State.DENIED), decided_at=now)
    check_terms(request, ballot, now, house)
    counted = _counted(request, ballot, voter)
    if ballot.break_glass:
        return _approved(counted, now, house.glass_validity)
    return counted if lacking(counted) else _approved(counted, now, house.validity)


def delivered_before(request: ApprovalRequest, ballot: Vote) -> bool:
    """Whether this very delivery was counted already: same event, same reviewer, same verdict."""
    return ballot.event != "" and any(
        (v.event, v.reviewer, v.verdict) == (ballot.event, ballot.reviewer, ballot.verdict) for v in request.votes
    )


def lacking(request: ApprovalRequest) -> tuple[Need, ...]:
    """Return which people are still needed for an approval."""
    approvals = [vote for vote in request.votes if vote.verdict is VoteVerdict.APPROVE]
    if any(vote.break_glass for vote in approvals):
        return ()
    # `_check_first` let each person in once, whatever account was used, so these are distinct people.
    return quorum.missing(request.draft.terms.needs, [frozenset(vote.groups) for vote in approvals])


def scope_of(request: ApprovalRequest, now: datetime, house: House) -> tuple[Scope, datetime] | None:
    """Return the scope wider than once that every approver chose, and its end; None when it is once."""
    approvals = [vote for vote in request.votes if vote.verdict is VoteVerdict.APPROVE]
    scopes = {vote.scope for vote in approvals}
    if request.state is not State.APPROVED or request.grant or len(scopes) != 1 or scopes == {Scope.ONCE}:
        return None
    latest = now + timedelta(seconds=house.longest_grant)
    return Scope(scopes.pop()), min((vote.valid_until for vote in approvals if vote.valid_until is not None), default=latest)


# -- the rest of a request's life -----------------------------------------------------------------------------------------


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


def escalate(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """Nobody decided in time to be left alone: more people are told. Who may answer, and how, stays as it is."""
    _check_pending(request, now)
    return replace(request, escalated_at=now)


def cancel(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """Withdraw a request before anybody decided."""
    return replace(_move(request, State.CANCELLED), decided_at=now)


def supersede(request: ApprovalRequest, *, now: datetime, successor: str = "") -> ApprovalRequest:
    """Another request takes its place; nobody can answer the old question any more."""
    return replace(_move(request, State.SUPERSEDED), decided_at=now, successor=successor)


def edit(request: ApprovalRequest, editor: Voter, digest: str, *, now: datetime, house: House, successor: str,
         excluded: Iterable[Identity] = ()) -> ApprovalRequest:  # fmt: skip
    """A reviewer proposes another text: the old request ends. Only who could have answered may. Raise VoteError."""
    ballot = Vote(editor.identity, editor.handle, "", "", VoteVerdict.DENY, digest, now)
    check_authority(request, ballot, editor, now, house, excluded)
    if digest != request.digest:
        raise VoteError(reason=Reason.DIGEST_MISMATCH)
    _check_pending(request, now)
    if not request.draft.terms.returns:
        raise VoteError("the rule is hold-only, so the agent could not come back with another text", reason=Reason.NOT_EDITABLE)
    return supersede(request, now=now, successor=successor)


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
    """When time itself changes this request next, or None."""
    match request.state:
        case State.PENDING:
            return min(request.expires, escalation(request) or request.expires)
        case State.APPROVED:
            return request.valid_until
        case _:
            return None


def in_time(request: ApprovalRequest, *, now: datetime) -> ApprovalRequest:
    """Return what time has made of the request by now: escalated, expired, lapsed, or the same."""
    due = deadline(request)
    if due is None or now < due:
        return request
    if request.state is State.APPROVED:
        return lapse(request, now=now)
    return expire(request, now=now) if now >= request.expires else escalate(request, now=now)


def escalation(request: ApprovalRequest) -> datetime | None:
    """When more people are to be told, or None when never or told already."""
    after = request.draft.terms.escalate
    return request.created + timedelta(seconds=after) if after and request.escalated_at is None else None


def standing(request: ApprovalRequest, voters: Mapping[Identity, Voter], excluded: Iterable[Identity] = ()) -> bool:
    """Whether the approval still stands on enough distinct active people (property 36).

    `voters` are the approvers that the directory still has. Groups are not asked again: they counted when the vote was
    given. Whoever turned out to be excluded meanwhile, by a link that was added, does not stand.
    """
    barred = request.excluded | frozenset(excluded)
    people: list[frozenset[Identity]] = []
    counted: list[Vote] = []
    for given in request.votes:
        if given.verdict is not VoteVerdict.APPROVE:
            continue
        voter = voters.get(given.reviewer)
        if voter is None or voter.disabled or voter.kind is not Kind.HUMAN or voter.person & barred:
            return False
        if not any(voter.person & other for other in people):
            people.append(voter.person)
            counted.append(given)
    return bool(counted) and not lacking(replace(request, votes=tuple(counted)))


def denied(request: ApprovalRequest) -> bool:
    """Whether somebody said no: before enough people approved, or after that and before the release."""
    return any(vote.verdict is VoteVerdict.DENY for vote in request.votes)


def decided(request: ApprovalRequest) -> VoteError:
    """Return the error that tells a late click the final state (property 20)."""
    return VoteError(f"{request.id} is {request.state} already", reason=Reason.ALREADY_DECIDED)


def _check_pending(request: ApprovalRequest, now: datetime) -> None:
    if request.state is not State.PENDING:
        raise decided(request)
    if now >= request.expires:
        # Told like any final state: it is one, whether or not anybody has written it down yet.
        raise decided(replace(request, state=State.EXPIRED))


def _check_first(request: ApprovalRequest, ballot: Vote, voter: Voter) -> None:
    """One person, one answer; only from approving to denying may somebody still go."""
    given = [v for v in request.votes if v.reviewer in voter.person]
    if any(v.verdict is ballot.verdict or v.verdict is VoteVerdict.DENY for v in given):
        raise VoteError(reason=Reason.ALREADY_VOTED)


def _counted(request: ApprovalRequest, ballot: Vote, voter: Voter) -> ApprovalRequest:
    """Add an answer, with those of the request's groups that count for it now (property 5)."""
    groups = tuple(group for group in request.draft.terms.all_groups if group in voter.groups)
    return replace(request, votes=(*request.votes, replace(ballot, groups=groups)))


def _approved(request: ApprovalRequest, now: datetime, validity: float) -> ApprovalRequest:
    return replace(_move(request, State.APPROVED), decided_at=now, valid_until=now + timedelta(seconds=validity))


def _move(request: ApprovalRequest, state: State) -> ApprovalRequest:
    if state not in EDGES[request.state]:
        raise decided(request)
    return replace(request, state=state)
