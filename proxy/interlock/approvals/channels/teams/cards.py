"""Adaptive Cards for a request. Pure: a request in, JSON out.

Text is always a TextRun inside a RichTextBlock: Teams reads Markdown in TextBlocks and FactSets, and a command is data
(threats.md §4.4). A card whose display had to be cut, or whose rule asks for a personal proof, has no approve button.
Schema: https://adaptivecards.io/explorer, version 1.5; universal actions: `Action.Execute`.
"""

from __future__ import annotations

from typing import Any

from interlock.approvals.model import ApprovalRequest, State
from interlock.approvals.wording import one_line
from interlock.clock import rfc3339
from interlock.commands.display import Display, display
from interlock.policy.model import StepUp

MAX_LINES = 30
MAX_EFFECTS = 12
CONTENT_TYPE = "application/vnd.microsoft.card.adaptive"

_OUTCOME: dict[State, tuple[str, str]] = {
    State.APPROVED: ("Approved", "good"),
    State.CONSUMED: ("Approved, and the command was released", "good"),
    State.DENIED: ("Denied", "attention"),
    State.EXPIRED: ("Expired: nobody answered in time", "warning"),
    State.CANCELLED: ("Cancelled", "warning"),
    State.SUPERSEDED: ("Superseded", "warning"),
    State.LAPSED: ("Lapsed: approved, but never run", "warning"),
    State.REVOKED: ("Revoked before the command ran", "warning"),
}


def approvable(request: ApprovalRequest) -> bool:
    """Whether chat may offer the approve button: everything is shown whole and no personal proof is asked for."""
    return request.draft.terms.step_up is StepUp.NONE and not _views_cut(request)


def card(request: ApprovalRequest, link: str) -> dict[str, Any]:
    """Return the card for the request's present state. Answers carry only its id and nonce (property 12)."""
    draft = request.draft
    who = draft.principal.handle
    if draft.principal.acting_for_handles:
        who += " for " + ", ".join(draft.principal.acting_for_handles)
    if draft.principal.owner_handle:
        who += f" (owned by {draft.principal.owner_handle})"
    place = f"{draft.target.name} as {draft.target.account or draft.target.role}"
    body = [
        _text(_title(request), size="Medium", weight="Bolder", color=_color(request)),
        _fact("Who", who),
        _fact("Where", place),
        _fact("Held by", f"{draft.decision.rule}: {one_line(draft.decision.reason)}"),
        _fact("Expires", rfc3339(request.expires)),
        _text("Command", weight="Bolder"),
        *_lines(display(draft.command.text)),
    ]
    if draft.command.stdin is not None and draft.command.stdin.data:
        body += [_text("Its input", weight="Bolder"), *_lines(display(draft.command.stdin.data))]
    if draft.command.binds:
        body += [_text("Its values", weight="Bolder")]
        body += [_code(f"${n} = {_bind(b.shown, b.raw)}") for n, b in enumerate(draft.command.binds[:MAX_LINES], 1)]
    body.append(_text("What it would do", weight="Bolder"))
    effects = [f"{e.verb} {e.object}".strip() for e in draft.analysis.effects]
    effects += [f"not known: {o.reason}" for o in draft.analysis.opaque]
    body += [_text("• " + one_line(line)) for line in effects[:MAX_EFFECTS]]
    if len(effects) > MAX_EFFECTS:
        body.append(_text(f"… and {len(effects) - MAX_EFFECTS} more", color="warning"))
    body += [
        _text(f"{v.reviewer_handle} answered {v.verdict}" + (f": {one_line(v.reason)}" if v.reason else ""))
        for v in request.votes
    ]
    return {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.5",
        "body": body,
        "actions": _actions(request, link),
    }


def summary(request: ApprovalRequest) -> str:
    """The notification line on a locked phone: who and where, never the command."""
    return f"{request.draft.principal.handle} waits for an answer at {request.draft.target.name}"


def _actions(request: ApprovalRequest, link: str) -> list[dict[str, Any]]:
    actions: list[dict[str, Any]] = []
    if request.state is State.PENDING:
        data = {"request": request.id, "nonce": request.nonce}
        if approvable(request):
            actions.append(
                {"type": "Action.Execute", "title": "Approve once", "verb": "approve", "data": data, "style": "positive"}
            )
        actions.append({"type": "Action.Execute", "title": "Deny", "verb": "deny", "data": data, "style": "destructive"})
    if link:
        actions.append({"type": "Action.OpenUrl", "title": "See everything", "url": link})
    return actions


def _title(request: ApprovalRequest) -> str:
    if request.state is State.PENDING:
        return "A command waits for you" if request.presence == "held" else "The agent has left; it will run this again"
    return _OUTCOME[request.state][0]


def _color(request: ApprovalRequest) -> str:
    return "default" if request.state is State.PENDING else _OUTCOME[request.state][1]


def _views_cut(request: ApprovalRequest) -> bool:
    command = request.draft.command
    views = [display(command.text)] + ([display(command.stdin.data)] if command.stdin is not None else [])
    return (
        any(view.cut or len(view.lines) > MAX_LINES for view in views)
        or len(command.binds) > MAX_LINES
        or any(value.raw is not None and value.shown is None for value in command.binds)
    )


def _bind(shown: str | None, raw: bytes | None) -> str:
    if raw is None:
        return "NULL"
    return " ".join(display(shown.encode()).lines) if shown is not None else f"({len(raw)} bytes that can't be shown)"


def _lines(view: Display) -> list[dict[str, Any]]:
    rows = [_code(f"{number:>3}  {line}") for number, line in enumerate(view.lines[:MAX_LINES], 1)]
    if view.cut or len(view.lines) > MAX_LINES:
        rows.append(_text("This is not all of it. Open the page to see and answer it.", color="attention", weight="Bolder"))
    rows += [_text(f"Warning: {deception}", color="attention") for deception in view.deceptions]
    return rows


def _fact(name: str, value: str) -> dict[str, Any]:
    return {
        "type": "RichTextBlock",
        "inlines": [
            {"type": "TextRun", "text": f"{name}  ", "isSubtle": True},
            {"type": "TextRun", "text": value},
        ],
    }


def _text(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def _code(text: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, "fontType": "Monospace"}]}
