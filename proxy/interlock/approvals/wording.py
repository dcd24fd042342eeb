"""What the waiting client is told: the same sentences on every protocol.

Pure. Text of people (a reviewer's reason) is data: it is flattened to printable characters on one line here, before
it reaches any terminal (property 34).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from interlock.approvals.model import ApprovalRequest, State, VoteVerdict
from interlock.errors import SENTENCES, Reason

MAX_REASON = 300


class Moment(StrEnum):
    HELD = "held"
    WAITING = "waiting"
    APPROVED = "approved"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell a client that waits. `text` is one line without a newline."""

    moment: Moment
    request: str
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that was not released. A front end renders it in its protocol's own words.

    `retry_after` is in seconds, for what may be run again later; `text` is what a reviewer proposes instead.
    """

    reason: Reason
    message: str
    hint: str = ""
    request: str | None = None
    rule: str | None = None
    retry_after: int | None = None
    text: str | None = None

    def detail(self) -> dict[str, object]:
        """Return the machine-readable part: DETAIL of a Postgres error (interface.md)."""
        shown: dict[str, object] = {"v": 1, "request": self.request}
        if self.reason is Reason.APPROVAL_PENDING:
            return {**shown, "retry_after": self.retry_after}
        if self.reason is Reason.APPROVAL_EDITED:
            shown |= {"retry_after": self.retry_after, "text": self.text}
        return {**shown, "reason_code": str(self.reason), "rule": self.rule, "reason": self.message, "hint": self.hint}


def one_line(text: str, limit: int = MAX_REASON) -> str:
    """Flatten text of people to printable characters on one line, cut at `limit`."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    flat = " ".join(flat.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def duration(seconds: int) -> str:
    """Say how long is left, rounded up to what a person would say: 90s, 15m, 2h."""
    if seconds < 120:
        return f"{seconds}s"
    minutes = -(-seconds // 60)
    return f"{minutes}m" if minutes < 120 or minutes % 60 else f"{minutes // 60}h"


def held(request: ApprovalRequest, remaining: int, link: str) -> Notice:
    """The first line a held client sees."""
    text = (
        f"held for approval {request.id} (rule {request.draft.decision.rule}); reviewers: {request.reviewers}; "
        f"expires in {duration(remaining)}"
    )
    return Notice(Moment.HELD, request.id, text + (f"; {link}" if link else ""))


def waiting(request: ApprovalRequest, remaining: int) -> Notice:
    return Notice(Moment.WAITING, request.id, f"still waiting for {request.id}; expires in {duration(remaining)}")


def approved(request: ApprovalRequest) -> Notice:
    people = ", ".join(v.reviewer_handle for v in request.votes if v.verdict is VoteVerdict.APPROVE)
    return Notice(Moment.APPROVED, request.id, f"approved by {people} ({request.id})")


def pending(request: ApprovalRequest, retry_after: int) -> Refusal:
    return Refusal(
        Reason.APPROVAL_PENDING,
        f"pending {request.id}: run the same command again after approval",
        hint=SENTENCES[Reason.APPROVAL_PENDING],
        request=request.id,
        rule=request.draft.decision.rule,
        retry_after=retry_after,
    )


def edited(request: ApprovalRequest, successor: ApprovalRequest, retry_after: int) -> Refusal:
    """A reviewer proposes another text: the agent is shown it, and runs it itself once somebody else approved it."""
    text = successor.draft.command.text.decode("utf-8", "backslashreplace")
    author = successor.author_handle or "a reviewer"
    return Refusal(
        Reason.APPROVAL_EDITED,
        f"edited by {author} as {successor.id}: run this instead after approval: {one_line(text, 2000)}",
        hint=SENTENCES[Reason.APPROVAL_EDITED],
        request=successor.id,
        rule=request.draft.decision.rule,
        retry_after=retry_after,
        text=text,
    )


def settled(request: ApprovalRequest) -> Refusal:
    """Return the refusal for a request that ended in anything but an approval that was consumed."""
    reason = {
        State.DENIED: Reason.DENIED_BY_REVIEWER,
        State.EXPIRED: Reason.APPROVAL_EXPIRED,
        State.LAPSED: Reason.APPROVAL_EXPIRED,
        State.CANCELLED: Reason.APPROVAL_CANCELLED,
        State.SUPERSEDED: Reason.APPROVAL_CANCELLED,
    }.get(request.state, Reason.APPROVAL_REVOKED)
    message = SENTENCES[reason]
    if reason is Reason.DENIED_BY_REVIEWER:
        said = [v for v in request.votes if v.verdict is VoteVerdict.DENY]
        who = ", ".join(v.reviewer_handle for v in said) or "a reviewer"
        why = "; ".join(one_line(v.reason) for v in said if v.reason)
        message = f"denied by {who}" + (f": {why}" if why else "")
    return Refusal(reason, message, SENTENCES[reason], request.id, request.draft.decision.rule)
