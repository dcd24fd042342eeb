"""The desk's events in the node's journal: every answer, counted or not, and every final state. Pure.

`generation` mirrors the store's count of writes: a store that is older than its journal was restored from a backup.
"""

from __future__ import annotations

from interlock.approvals.model import ApprovalRequest, Vote
from interlock.approvals.proof import recorded
from interlock.clock import rfc3339
from interlock.errors import Reason
from interlock.evidence.events import EventDraft, Json


def answer_event(request: ApprovalRequest, vote: Vote, generation: int, *, refused: Reason | None = None) -> EventDraft:
    """Return the `vote` event of one answer; `refused` is why it does not count. A person's words are committed to."""
    fields: dict[str, Json] = {
        "request": request.id, "digest": vote.digest, "reviewer": str(vote.reviewer), "handle": vote.reviewer_handle,
        "channel": vote.channel, "actor": vote.channel_actor, "verdict": str(vote.verdict), "scope": vote.scope,
        "proof": str(vote.proof), "event": vote.event, "counted": refused is None, "generation": generation,
    }  # fmt: skip
    secret: dict[str, Json] = {"said": vote.reason} if vote.reason else {}
    if vote.valid_until is not None:
        fields["valid_until"] = rfc3339(vote.valid_until)
    if vote.signed is not None:
        fields["signed"] = recorded(vote.signed)
        secret["nonce"] = request.nonce
    if refused is not None:
        fields["reason"] = str(refused)
    return EventDraft("vote", fields, secret)


def outcome_event(request: ApprovalRequest, generation: int, why: str) -> EventDraft:
    """Return the `approval.response` event of a final state; `why` is our own sentence, where nobody voted for it."""
    fields: dict[str, Json] = {
        "request": request.id, "digest": request.digest, "state": str(request.state), "generation": generation,
        "reviewers": [str(vote.reviewer) for vote in request.votes],
    }  # fmt: skip
    if why:
        fields["why"] = why
    return EventDraft("approval.response", fields)
