"""The desk's events in the node's journal: every answer, counted or not, and every final state. Pure.

`generation` mirrors the store's count of writes: a store that is older than its journal was restored from a backup. What
people wrote is committed to (evidence.md, rule 2), everything else is plain.
"""

from __future__ import annotations

from interlock.approvals.fatigue import Lock
from interlock.approvals.grants import Grant
from interlock.approvals.model import ApprovalRequest, Proof, Vote
from interlock.approvals.proof import recorded
from interlock.clock import rfc3339
from interlock.errors import Reason
from interlock.evidence.events import EventDraft, Json
from interlock.identity.principal import Identity


def answer_event(request: ApprovalRequest, vote: Vote, generation: int, *, refused: Reason | None = None) -> EventDraft:
    """Return the `vote` event of one answer; `refused` is why it does not count. A person's words are committed to."""
    fields: dict[str, Json] = {
        "request": request.id, "digest": vote.digest, "reviewer": str(vote.reviewer), "handle": vote.reviewer_handle,
        "channel": vote.channel, "actor": vote.channel_actor, "verdict": str(vote.verdict), "scope": vote.scope,
        "proof": str(vote.proof), "event": vote.event, "counted": refused is None, "generation": generation,
    }  # fmt: skip
    if vote.valid_until is not None:
        fields["valid_until"] = rfc3339(vote.valid_until)
    if vote.break_glass:
        fields["break_glass"] = True
    secret: dict[str, Json] = {"said": vote.reason} if vote.reason else {}
    if vote.signed is not None and vote.proof is Proof.PERSONAL:  # else nobody has checked these bytes
        fields["signed"] = recorded(vote.signed)
        secret["statement"] = vote.signed.statement.decode()
    if refused is not None:
        fields["reason"] = str(refused)
    return EventDraft("vote", fields, secret)


def outcome_event(request: ApprovalRequest, generation: int, why: str) -> EventDraft:
    """Return the `approval.response` event of a final state; `why` is our own sentence, where nobody voted for it."""
    fields: dict[str, Json] = {
        "request": request.id, "digest": request.digest, "state": str(request.state), "generation": generation,
        "reviewers": [str(vote.reviewer) for vote in request.votes],
    }  # fmt: skip
    if request.grant:
        fields["grant"] = request.grant
    if why:
        fields["why"] = why
    return EventDraft("approval.response", fields)


def escalation_event(request: ApprovalRequest, generation: int) -> EventDraft:
    return EventDraft("approval.escalated", {"request": request.id, "digest": request.digest, "generation": generation})


def edit_event(request: ApprovalRequest, edited: ApprovalRequest, channel: str, actor: str, said: str) -> EventDraft:
    """A reviewer proposed another text; that text is in the session's record when somebody runs it."""
    fields: dict[str, Json] = {
        "request": request.id, "digest": request.digest, "successor": edited.id, "successor_digest": edited.digest,
        "author": str(edited.author), "channel": channel, "actor": actor,
    }  # fmt: skip
    text = edited.draft.command.text.decode("utf-8", "backslashreplace")
    return EventDraft("approval.edited", fields, {"text": text, **({"said": said} if said else {})})


def grant_event(grant: Grant, generation: int, by: Identity | None = None, why: str = "") -> EventDraft:
    """A grant began (`active`) or ended."""
    fields: dict[str, Json] = {
        "grant": grant.id, "request": grant.request, "digest": grant.digest, "scope": str(grant.scope),
        "state": str(grant.state), "requester": str(grant.requester), "target": grant.target.name, "rule": grant.rule,
        "valid_until": rfc3339(grant.valid_until), "generation": generation,
    }  # fmt: skip
    if by is not None:
        fields["by"] = str(by)
    return EventDraft("grant", fields, {"words": grant.words, **({"why": why} if why else {})})


def lock_event(lock: Lock) -> EventDraft:
    return EventDraft("requester.lock", {"requester": str(lock.requester), "until": rfc3339(lock.until)})


def unlock_event(requester: Identity, by: Identity) -> EventDraft:
    return EventDraft("requester.unlock", {"requester": str(requester), "by": str(by)})


def glass_event(request: ApprovalRequest, reviewer: Identity, note: str) -> EventDraft:
    """Somebody else looked at an approval that broke the glass."""
    return EventDraft("glass.reviewed", {"request": request.id, "reviewer": str(reviewer)}, {"note": note})
