"""A request as one row of a list: who, where, the first line, where it stands, and whether this person can answer.

Made for 10,000 of them: nothing here reads a whole text. What it says of who may answer is a hint for the eye; the desk
judges each answer itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from interlock.approvals.model import ApprovalRequest, Presence, State, VoteVerdict
from interlock.commands.display import display
from interlock.commands.wording import sentences, unknowns
from interlock.web.console.guard import Person

FIRST = 240
"""Bytes of a line that a row shows."""

COMMENTS = 20
"""Lines of a text that a row looks at."""

EFFECTS = 64
"""More effects than these are counted, not told."""

_COMMENT = (b"--", b"#")


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
    skipped: bool  # comments stand before the line: the agent's words are not what the list shows
    more: bool
    deceptive: bool
    effect: str  # the gravest thing that it would do
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
    line, skipped, more, deceptive = first_line(draft.command.text)
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
        skipped=skipped,
        more=more,
        deceptive=deceptive,
        effect=_effect(request),
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


def first_line(text: bytes) -> tuple[str, bool, bool, bool]:
    """Return the first line that is no comment, whether some were skipped, whether there is more, and whether it deceives.

    Looks at the first lines only. A text of comments alone shows its first one.
    """
    lines = text.lstrip().split(b"\n", COMMENTS)
    at = next((i for i, line in enumerate(lines[:COMMENTS]) if line.strip() and not line.lstrip().startswith(_COMMENT)), 0)
    line = lines[at].strip()
    cut = line if len(line) <= FIRST else _whole_characters(line[:FIRST])
    view = display(cut)
    more = len(cut) < len(line) or any(rest.strip() for rest in lines[at + 1 :])
    return (view.lines[0] if view.lines else ""), at > 0, more, bool(view.deceptions)


def _whole_characters(cut: bytes) -> bytes:
    """Drop the beginning of a character that a cut has split, at most three bytes; other bytes stay."""
    for back in range(1, 4):
        if cut[-back] & 0xC0 == 0xC0:
            return cut[:-back]
        if cut[-back] & 0xC0 != 0x80:
            break
    return cut


def _effect(request: ApprovalRequest) -> str:
    draft = request.draft
    if len(draft.analysis.effects) > EFFECTS:
        return f"does {len(draft.analysis.effects)} things"
    found = [*sentences(draft.analysis, draft.command.wire), *unknowns(draft.analysis)]
    return "" if not found else found[0] + (f"; and {len(found) - 1} more" if len(found) > 1 else "")


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
