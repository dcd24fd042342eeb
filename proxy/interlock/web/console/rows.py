"""A request as one row of a list: who, where, the first line, where it stands, and whether this person can answer.

Made for 10,000 of them: nothing here reads a whole text. What it says of who may answer is a hint for the eye; the desk
judges each answer itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from interlock.approvals.model import ApprovalRequest, Presence, State, VoteVerdict
from interlock.commands.display import display
from interlock.web.console.guard import Person

FIRST = 240
"""Bytes of a command that a row looks at."""


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    state: State
    held: bool
    who: str
    acting_for: tuple[str, ...]
    owner: str
    target: str
    line: str
    more: bool
    deceptive: bool
    rule: str
    critical: bool
    edited: bool
    created: datetime
    expires: datetime
    decided: datetime | None
    by: tuple[str, ...]
    channels: tuple[str, ...]
    proofs: tuple[str, ...]
    approvals: int
    people: int
    hindrance: str


def row(request: ApprovalRequest, person: Person) -> Row:
    draft = request.draft
    line, more, deceptive = first_line(draft.command.text)
    votes = request.votes
    return Row(
        id=request.id,
        state=request.state,
        held=request.presence is Presence.HELD,
        who=draft.principal.handle,
        acting_for=acting_for(request),
        owner=draft.principal.owner_handle,
        target=draft.target.name,
        line=line,
        more=more,
        deceptive=deceptive,
        rule=draft.decision.rule,
        critical=draft.terms.critical,
        edited=bool(request.edited_from),
        created=request.created,
        expires=request.expires,
        decided=request.decided_at,
        by=tuple(dict.fromkeys(vote.reviewer_handle or str(vote.reviewer) for vote in votes)),
        channels=tuple(dict.fromkeys(vote.channel for vote in votes)),
        proofs=tuple(dict.fromkeys(str(vote.proof) for vote in votes)),
        approvals=approvals(request),
        people=draft.terms.people,
        hindrance=hindrance(request, person),
    )


def approvals(request: ApprovalRequest) -> int:
    return sum(vote.verdict is VoteVerdict.APPROVE for vote in request.votes)


def acting_for(request: ApprovalRequest) -> tuple[str, ...]:
    principal = request.draft.principal
    return principal.acting_for_handles or tuple(str(identity) for identity in principal.acting_for)


def first_line(text: bytes) -> tuple[str, bool, bool]:
    """Return the first line that says something, whether there is more, and whether something in it deceives."""
    first, _, rest = text.lstrip().partition(b"\n")
    cut = first[:FIRST]
    if len(first) > FIRST:
        cut = cut.decode("utf-8", "ignore").encode() if _is_utf8(first) else cut
    view = display(cut)
    return (view.lines[0] if view.lines else ""), len(first) > FIRST or bool(rest.strip()), bool(view.deceptions)


def _is_utf8(text: bytes) -> bool:
    try:
        text[: FIRST - 4].decode()
    except UnicodeDecodeError as error:
        return error.start > FIRST - 8
    return True


def hindrance(request: ApprovalRequest, person: Person) -> str:
    """Say why this person's answer would not count, or nothing."""
    myself = {person.identity, *person.entry.linked}
    if request.author is not None and request.author in myself:
        return "You wrote this text, so somebody else answers."
    if myself & request.excluded:
        return "You stand behind whoever asks, so somebody else answers."
    if any(vote.reviewer in myself for vote in request.votes):
        return "You have answered."
    groups = request.draft.terms.all_groups
    if not person.entry.groups.intersection(groups):
        return f"People of {' or '.join(groups) or 'no group'} answer this."
    return ""
