"""What there is to tell of a request: each change once, under a name that is the same whenever it is asked for. Pure.

The names follow from the request alone. So nothing needs to be remembered between a change and the message about it: after
a crash the request still says what should have been told, and what was told already is found by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from interlock.approvals.model import ApprovalRequest, State

ENDS: dict[State, str] = {
    State.DENIED: "denied",
    State.EXPIRED: "expired",
    State.CANCELLED: "ended",
    State.SUPERSEDED: "ended",
    State.CONSUMED: "ended",
    State.LAPSED: "ended",
    State.REVOKED: "ended",
}
_ONCE_APPROVED = frozenset((State.APPROVED, State.CONSUMED, State.LAPSED, State.REVOKED))


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is what `webhook.events` chooses from, `ident` the webhook-id, `at` when it happened, if that is known."""

    kind: str
    ident: str
    at: datetime | None


def changes(request: ApprovalRequest) -> tuple[Change, ...]:
    """Return everything that has happened to a request, in its order: opened, answers that did not decide, escalated,
    decided, ended."""
    found: list[Change] = []

    def add(kind: str, at: datetime | None, name: str = "") -> None:
        found.append(Change(kind, f"{request.id.removeprefix('req_')}-{name or kind}", at))

    if not request.grant:  # under a grant nobody was asked: it is approved from its beginning
        add("pending", request.created)
    decided = request.decided_at
    for number, vote in enumerate(request.votes, 1):
        if decided is None or vote.at < decided:
            add("pending", vote.at, f"pending-{number}")
    if request.escalated_at is not None:
        add("escalated", request.escalated_at)
    for vote in request.votes:
        if vote.break_glass:
            add("break_glass", vote.at)
            break
    if request.state in _ONCE_APPROVED:
        add("approved", decided)
    if request.state in ENDS:
        add(ENDS[request.state], None if request.state in _ONCE_APPROVED else decided)
    return tuple(found)


def request_of(ident: str) -> str:
    """Return the part of a webhook-id that is the same for all messages about one request."""
    return ident.partition("-")[0]
