"""Adaptive Cards for a request. Pure: a request and its viewer in, JSON out.

Text is always a TextRun inside a RichTextBlock: Teams reads Markdown in TextBlocks, FactSets and the titles of choices, and
a command is data (threats.md §4.4). What the request says in words comes from `approvals.portrait`; here it only gets its
place. A card whose display had to be cut, or whose rule asks for a personal proof, has no approve button.

Schema: https://adaptivecards.io/explorer, version 1.5; universal actions: `Action.Execute` and `refresh`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from interlock.approvals import desk
from interlock.approvals.channels.teams.viewers import ANYBODY, Stance, View
from interlock.approvals.model import ApprovalRequest, Scope, State, VoteVerdict
from interlock.approvals.portrait import Portrait, chat_portrait
from interlock.approvals.wording import one_line
from interlock.clock import rfc3339
from interlock.commands.display import Display, inline
from interlock.policy.model import StepUp

CONTENT_TYPE = "application/vnd.microsoft.card.adaptive"

MAX_CARD = 26 * 1024
"""Bytes of a card as ASCII JSON. Teams refuses a message of about 28 KB."""

MAX_CONTENT = 18 * 1024
"""What the texts of a request may take of it; the rest is for the viewer's own line and the ids of viewers."""

MAX_IDS = 60
"""Viewers that one card may be refreshed for, Microsoft's limit."""

MAX_IDS_BYTES = 6 * 1024
MAX_REASON = 1000
LAST_LINES = 4
LAST_WIDTH = 120
MAX_MINUTES = 24 * 60
DEFAULT_MINUTES = 15

_COLOR: dict[State, str] = {
    State.PENDING: "default",
    State.APPROVED: "good",
    State.CONSUMED: "good",
    State.DENIED: "attention",
}
_CHOICES = {
    Scope.ONCE: "Only this once",
    Scope.EXACT: "Exactly this, for some minutes",
    Scope.RULE_IN_SESSION: "What this rule holds in this session",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a request: where its page is, who sees their own view of the card, what an edit replaced."""

    link: str = ""
    viewers: Sequence[str] = ()  # Teams ids, most needed first
    longest_grant: float = 3600.0
    original: ApprovalRequest | None = None  # of an edited request
    previous: ApprovalRequest | None = None  # the last one of its kind that was approved


@dataclass(frozen=True, slots=True)
class _Room:
    """How much of each kind of text there is room for."""

    lines: int
    width: int
    text: int
    items: int


_ROOMS = (_Room(1000, 4000, 2000, 40), _Room(30, 200, 300, 12), _Room(10, 120, 150, 5), _Room(3, 60, 60, 2))
"""Tried in this order until the card fits. The first leaves nothing out that the portrait has."""


def approvable(request: ApprovalRequest, frame: Frame) -> bool:
    """Whether chat may offer the approve button: everything fits into the card, and no personal proof is asked for."""
    shown = chat_portrait(request, longest=frame.longest_grant)
    return _in_chat(request, shown) and not _fitted(request, shown, frame).cut


def card(request: ApprovalRequest, frame: Frame = Frame(), view: View = ANYBODY) -> dict[str, Any]:
    """Return the card for the request's present state. Answers carry only its id and nonce (property 12)."""
    shown = chat_portrait(request, longest=frame.longest_grant)
    body = _fitted(request, shown, frame)
    if view.sentence:
        color = "attention" if view.stance is Stance.BARRED else "accent"
        body.blocks.append(_text(one_line(view.sentence, 600), weight="Bolder", color=color))
    approve = view.approve and not body.cut and _in_chat(request, shown)
    drawn: dict[str, Any] = {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.5",
        "body": body.blocks,
        "actions": _actions(request, shown, frame, view, approve=approve),
    }
    if request.state in (State.PENDING, State.APPROVED):
        drawn["refresh"] = _refresh(request, frame.viewers)
    return drawn


def summary(request: ApprovalRequest) -> str:
    """The notification line on a locked phone: who and where, never the command."""
    who, where = inline(request.draft.principal.handle, 80), inline(request.draft.target.name, 80)
    if request.state is State.PENDING:
        return f"{who} waits for an answer at {where}"
    return f"{who} at {where}: {request.state}"


def notice(title: str, lines: Iterable[str], *, link: str = "", color: str = "default") -> dict[str, Any]:
    """Return a card that says something and asks nothing."""
    actions = [{"type": "Action.OpenUrl", "title": "See everything", "url": link}] if link else []
    return {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.5",
        "body": [_text(one_line(title), size="Medium", weight="Bolder", color=color), *(_text(one_line(t, 600)) for t in lines)],
        "actions": actions,
    }


def size(drawn: object) -> int:
    """Return the bytes of a card in the form that takes the most: every character that is not ASCII escaped."""
    return len(json.dumps(drawn, separators=(",", ":")))


# -- the body -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Body:
    """The blocks of a card as they are put together. `cut` is whether anything of what is answered was left out."""

    room: _Room
    blocks: list[dict[str, Any]] = field(default_factory=list)
    cut: bool = False

    def say(self, text: str, **style: str) -> None:
        self.cut = self.cut or len(text) > self.room.text
        self.blocks.append(_text(_clipped(text, self.room.text), **style))

    def fact(self, name: str, value: str) -> None:
        self.cut = self.cut or len(value) > self.room.text
        runs = [_run(f"{name}  ", isSubtle=True), _run(_clipped(value, self.room.text))]
        self.blocks.append({"type": "RichTextBlock", "inlines": runs})

    def items(self, heading: str, texts: Sequence[str], *, mark: str = "• ", code: bool = False) -> None:
        """A heading and a list that is part of what is answered."""
        if not texts:
            return
        self.blocks.append(_text(heading, weight="Bolder"))
        draw = _code if code else _text
        for text in texts[: self.room.items]:
            self.cut = self.cut or len(text) > self.room.text
            self.blocks.append(draw(mark + _clipped(text, self.room.text)))
        self.left_out(len(texts) - self.room.items)

    def code(self, heading: str, view: Display) -> None:
        """Numbered lines of a text that would run."""
        self.blocks.append(_text(heading, weight="Bolder"))
        for number, line in enumerate(view.lines[: self.room.lines], 1):
            self.cut = self.cut or len(line) > self.room.width
            self.blocks.append(_code(f"{number:>3}  {_clipped(line, self.room.width)}"))
        self.left_out(len(view.lines) - self.room.lines)
        self.cut = self.cut or view.cut

    def left_out(self, count: int) -> None:
        if count > 0:
            self.cut = True
            self.blocks.append(_text(f"… and {count} more", color="attention"))


def _fitted(request: ApprovalRequest, shown: Portrait, frame: Frame) -> _Body:
    """Return the largest body that fits, whoever looks: a viewer's own view never shows less than another's."""
    for room in _ROOMS:
        body = _body(request, shown, frame, room)
        if size(body.blocks) + size(_actions(request, shown, frame, ANYBODY, approve=True)) <= MAX_CONTENT:
            break
    if body.cut or not shown.complete:
        body.say("This is not all of it. Open the page to see and answer it.", color="attention", weight="Bolder")
    return body


def _body(request: ApprovalRequest, shown: Portrait, frame: Frame, room: _Room) -> _Body:
    body = _Body(room)
    body.say(shown.title, size="Medium", weight="Bolder", color=_COLOR.get(request.state, "warning"))
    for banner in banners(request, shown):
        body.say(banner, weight="Bolder", color="attention")
    if request.state is State.PENDING:
        body.say(progress(request), weight="Bolder")
    body.fact("Who", shown.who)
    body.fact("Where", shown.place)
    body.fact("Held by", shown.held_by)
    if request.state is State.PENDING:
        body.fact("Expires", rfc3339(request.expires)[:16].replace("T", " ") + " UTC")
    body.code("Command" if not request.edited_from else "Command, as edited", shown.command)
    if frame.original is not None:
        _edited(body, request, frame.original)
    elif frame.previous is not None and request.state is State.PENDING:
        _last_time(body, request, frame.previous)
    if shown.stdin is not None:
        body.code("Its input", shown.stdin)
    body.items("Its values", shown.binds, mark="", code=True)
    body.items("Its surroundings", shown.surroundings)
    body.items("What it would do", shown.effects)
    body.items("Not known", shown.opaque)
    body.items("Found out", shown.facts)
    for note in shown.notes[: room.items]:
        body.say(note, color="warning")
    body.left_out(len(shown.notes) - room.items)
    _said(body, shown)
    body.left_out(len(shown.votes) - room.items)
    for vote in shown.votes[-room.items :]:
        body.say(vote)
    return body


def _edited(body: _Body, request: ApprovalRequest, original: ApprovalRequest) -> None:
    author = inline(request.author_handle) or "A reviewer"
    body.say(f"{author} edited it and can't answer it. The agent itself had sent:", color="warning")
    body.code("Command, as the agent sent it", chat_portrait(original).command)


def _last_time(body: _Body, request: ApprovalRequest, previous: ApprovalRequest) -> None:
    """What was approved last time. It is not what is answered, so it takes little room and costs no button."""
    now, then = request.draft.command, previous.draft.command
    if (now.text, now.stdin, now.binds) == (then.text, then.stdin, then.binds):
        body.say("Exactly this was approved last time.")
        return
    body.say("Another text was approved last time, for the same rule at the same place:")
    lines = chat_portrait(previous).command.lines
    body.blocks += [_code(f"     {_clipped(line, LAST_WIDTH)}") for line in lines[:LAST_LINES]]
    if len(lines) > LAST_LINES:
        body.blocks.append(_text("…"))


def _said(body: _Body, shown: Portrait) -> None:
    """What only the agent wrote: set apart, and labelled."""
    texts = [shown.said] if shown.said else []
    texts += shown.remarks
    if texts:
        lines = [_text(_clipped(text, body.room.text)) for text in texts[: body.room.items]]
        label = _text("Written by the agent, not checked", isSubtle=True, weight="Bolder")
        body.blocks.append({"type": "Container", "style": "emphasis", "items": [label, *lines]})


def banners(request: ApprovalRequest, shown: Portrait | None = None) -> list[str]:
    """Say what is out of the ordinary about a request."""
    answers = (shown or chat_portrait(request)).votes
    told = [f"GLASS BROKEN: {told}" for vote, told in zip(request.votes, answers, strict=True) if vote.break_glass]
    if request.escalated_at is not None and request.state is State.PENDING:
        told.append(f"Escalated at {rfc3339(request.escalated_at)[11:16]} UTC: nobody had decided")
    return told


def progress(request: ApprovalRequest) -> str:
    """Say who approved so far and who is still needed."""
    people = [inline(v.reviewer_handle) for v in request.votes if v.verdict is VoteVerdict.APPROVE]
    lacking = "; ".join(
        f"{'one' if need.quorum <= 1 else need.quorum} of {' or '.join(inline(g) for g in need.groups) or 'nobody'}"
        for need in desk.lacking(request)
    )
    if not people:
        return f"Needed: {lacking}"
    return f"{len(people)} of {request.draft.terms.people}: {', '.join(people)} approved; still needed: {lacking}"


# -- the actions ----------------------------------------------------------------------------------------------------------


def _actions(request: ApprovalRequest, shown: Portrait, frame: Frame, view: View, *, approve: bool) -> list[dict[str, Any]]:
    actions: list[dict[str, Any]] = []
    data = {"request": request.id, "nonce": request.nonce}
    if request.state is State.PENDING and approve:
        actions.append(_execute("Approve once", "approve", data, style="positive", associatedInputs="none"))
    if request.state in (State.PENDING, State.APPROVED) and view.deny:
        title = "Deny" if request.state is State.PENDING else "Take back"
        actions.append(_execute(title, "deny", data, style="destructive", associatedInputs="none"))
        if request.state is State.PENDING:
            actions.append(_with_reason(title, data))
    if request.state is State.PENDING and approve and len(shown.scopes) > 1:
        actions.append(_wider(shown, frame, data))
    if frame.link:
        actions.append({"type": "Action.OpenUrl", "title": _link_title(request, view, approve=approve), "url": frame.link})
    return actions


def _link_title(request: ApprovalRequest, view: View, *, approve: bool) -> str:
    if request.state is not State.PENDING or approve or not view.approve:
        return "See everything"
    return "Review and sign" if request.draft.terms.critical else "See everything and answer"


def _with_reason(title: str, data: dict[str, str]) -> dict[str, Any]:
    said = {
        "type": "Input.Text",
        "id": "reason",
        "label": "Why? The agent is told.",
        "isMultiline": True,
        "maxLength": MAX_REASON,
    }
    return _unfold(f"{title}, and say why", [said], [_execute(title, "deny", data, style="destructive")])


def _wider(shown: Portrait, frame: Frame, data: dict[str, str]) -> dict[str, Any]:
    """Offer the scopes of the rule, each in the words that it means. Titles of choices are ours: Teams reads Markdown there."""
    longest = max(1, min(MAX_MINUTES, int(frame.longest_grant) // 60))
    told = [_text(f"{_CHOICES[scope]}: {_clipped(words, 400)}") for scope, words in shown.scopes if scope is not Scope.ONCE]
    choices = [{"title": _CHOICES[scope], "value": str(scope)} for scope, _ in shown.scopes]
    pick = {
        "type": "Input.ChoiceSet", "id": "scope", "label": "What do you approve?", "style": "expanded",
        "value": str(Scope.ONCE), "choices": choices,
    }  # fmt: skip
    minutes = {
        "type": "Input.Number", "id": "minutes", "label": f"For how many minutes, at most {longest}?", "min": 1, "max": longest,
        "value": min(DEFAULT_MINUTES, longest),
    }  # fmt: skip
    return _unfold("Approve more than once", [*told, pick, minutes], [_execute("Approve", "grant", data, style="positive")])


def _execute(title: str, verb: str, data: dict[str, str], **more: str) -> dict[str, Any]:
    """A button, and the same for clients that don't know Action.Execute: they send it as a message with a value."""
    fallback = {"type": "Action.Submit", "title": title, "data": {**data, "verb": verb}, **more}
    return {"type": "Action.Execute", "title": title, "verb": verb, "data": data, **more, "fallback": fallback}


def _unfold(title: str, body: list[dict[str, Any]], actions: list[dict[str, Any]]) -> dict[str, Any]:
    inner = {"type": "AdaptiveCard", "version": "1.5", "body": body, "actions": actions}
    return {"type": "Action.ShowCard", "title": title, "card": inner}


def _refresh(request: ApprovalRequest, viewers: Sequence[str]) -> dict[str, Any]:
    """Let each viewer's client ask for their own view. Without ids Teams asks for everybody in a small conversation."""
    data = {"request": request.id, "nonce": request.nonce}
    refresh: dict[str, Any] = {"action": {"type": "Action.Execute", "title": "Refresh", "verb": "refresh", "data": data}}
    ids: list[str] = []
    left = MAX_IDS_BYTES
    for ident in viewers[:MAX_IDS]:
        left -= len(json.dumps(ident)) + 1
        if left < 0:
            break
        ids.append(ident)
    return {**refresh, "userIds": ids} if ids else refresh


def _in_chat(request: ApprovalRequest, shown: Portrait) -> bool:
    terms = request.draft.terms
    return shown.chat_approvable and not terms.critical and terms.step_up is StepUp.NONE


# -- text -----------------------------------------------------------------------------------------------------------------


def _clipped(text: str, limit: int) -> str:
    """Cut, and nothing else: the portrait's texts are safe as they stand, and two blanks stay two."""
    return text if len(text) <= limit else text[:limit] + "…"


def _run(text: str, **style: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **style}


def _text(text: str, **style: Any) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [_run(text, **style)]}


def _code(text: str) -> dict[str, Any]:
    return _text(text, fontType="Monospace")
