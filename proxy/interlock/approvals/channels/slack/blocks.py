"""Messages and forms for Slack. Pure: a request in, Block Kit JSON out.

What people or agents wrote is always a text of a rich text block: Slack reads its markup (`<!channel>`, `<url|words>`,
`*bold*`, `:emoji:`) in mrkdwn, and a command is data (threats.md §4.4). A message that can't hold everything has no
approve button, and neither has one whose rule asks for a personal proof: those are answered on the page.

Limits: 50 blocks, 3000 characters a text, 150 a header, 75 a button, 24 a form's title; and, undocumented, about 13,200
characters of JSON a message (slackapi/bolt-js#2509). https://docs.slack.dev/reference/block-kit/blocks/rich-text-block
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from interlock.approvals.desk import lacking
from interlock.approvals.model import ApprovalRequest, Scope, State
from interlock.approvals.portrait import Portrait, chat_portrait, title

Block = dict[str, Any]

PAPER = 8_000
"""Characters of JSON that what must be seen whole may take; frame, votes and buttons have the rest."""

MAX_TEXT = 3_000
MAX_ITEMS = 30
MAX_VOTES = 6
SHORT = 240

APPROVE, CHOOSE, DENY, LINK, OPEN = "approve", "choose", "deny", "link", "open"
"""Buttons: approve at once, approve by a form, deny by a form, link an account, open a page."""

_NOT_ALL = "This is not all of it. See everything on the page, and answer there."


class _Paper:
    """Holds texts until it is full. `whole` tells that nothing was left out or cut."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.whole = True

    def put(self, text: str) -> str:
        """Return the text, or as much of it as there is room for."""
        kept = _fitting(text, max(0, self._left))
        self.whole = self.whole and kept == text
        self._left -= _size(kept) + 60  # the JSON around it
        return kept or " "  # Slack refuses an empty text

    def items(self, texts: Sequence[str]) -> list[str]:
        shown = []
        for text in texts[:MAX_ITEMS]:
            if self._left <= 0:
                break
            shown.append(self.put(text))
        self.whole = self.whole and len(shown) == len(texts)
        return shown


def approvable(request: ApprovalRequest) -> bool:
    """Whether a message may offer the approve button. The same at every moment of a request's life."""
    view = chat_portrait(request)
    return _offered(view, whole=_body(view)[1])


def message(request: ApprovalRequest, *, link: str) -> list[Block]:
    """Return the message for the request's present state. Its buttons carry only the request's id and nonce."""
    view = chat_portrait(request)
    body, whole = _body(view)
    out: list[Block] = [{"type": "header", "text": plain(view.title[:150])}]
    if request.state is State.PENDING and request.escalated_at is not None:
        out.append(_rich(_line("Nobody has answered so far, so more people are told.")))
    out += body
    if not whole:
        out.append(_rich(_line(_NOT_ALL, bold=True)))
    out.append(_rich(*_standing(request, view)))
    actions = _actions(request, view, link, offer=_offered(view, whole=whole))
    return [*out, {"type": "actions", "block_id": "answers", "elements": actions}] if actions else out


def summary(request: ApprovalRequest) -> str:
    """The notification line on a locked phone: who and where, never the command."""
    where = f"{request.draft.principal.handle} waits for an answer at {request.draft.target.name}"
    if request.state is not State.PENDING:
        where = f"{title(request)}: {request.draft.principal.handle} at {request.draft.target.name}"
    return _fitting(where, SHORT)


def note(text: str, *, link: str = "", words: str = "Open", action: str = OPEN, value: str = "") -> list[Block]:
    """Return what one person alone is told, with at most one button: a link, or an action that carries `value`."""
    out = [_rich(_line(_fitting(text, MAX_TEXT)))]
    button = _button(action, words, value=value, url=link)
    return [*out, {"type": "actions", "elements": [button]}] if link or action != OPEN else out


def said(heading: str, texts: Sequence[str]) -> Block:
    """Return a heading with its points, for the top of a form."""
    head = _line(_fitting(heading, MAX_TEXT), bold=True)
    return _rich(head, _list([_fitting(text, MAX_TEXT) for text in texts])) if texts else _rich(head)


def plain(text: str) -> Block:
    """Return words of ours. Never people's: Slack reads entities in them."""
    return {"type": "plain_text", "text": text, "emoji": False}


def value_of(request: ApprovalRequest) -> str:
    return f"{request.id} {request.nonce}"


def _offered(view: Portrait, *, whole: bool) -> bool:
    """Whether a click may approve: all of it was seen, nothing asks for more than a click, and there is a scope to choose."""
    return whole and view.chat_approvable and bool(view.scopes)


# -- parts -------------------------------------------------------------------------------------------------------------


def _body(view: Portrait) -> tuple[list[Block], bool]:
    """Return what must be seen whole before anybody approves, and whether it was."""
    paper = _Paper(PAPER)
    out = [
        _rich(
            _fact("Who", paper.put(view.who)),
            _fact("Where", paper.put(view.place)),
            _fact("Held by", paper.put(view.held_by)),
        ),
        _rich(_line("Command", bold=True), _code(paper.put(_numbered(view.command.lines)))),
    ]
    if view.stdin is not None:
        out.append(_rich(_line("Its input", bold=True), _code(paper.put(_numbered(view.stdin.lines)))))
    for name, texts in (("Its values", view.binds), ("Around it", view.surroundings)):
        if texts:
            out.append(_rich(_line(name, bold=True), _code("\n".join(paper.items(texts)))))
    # Every warning of ours before anything that the agent could fill the paper with.
    for name, texts in (
        ("Take care", view.notes),
        ("What it would do", (*view.effects, *view.opaque)),
        ("Found out", view.facts),
    ):
        if texts:
            out.append(_rich(_line(name, bold=True), _list(paper.items(texts))))
    written = [text for text in (view.said, *view.remarks) if text]
    if written:
        label = _line("Written by the agent, checked by nobody", bold=True)
        out.append(_rich(label, {"type": "rich_text_quote", "elements": _texts("\n".join(paper.items(written)))}))
    return out, paper.whole and view.complete


def _standing(request: ApprovalRequest, view: Portrait) -> list[Block]:
    """Who must answer, who has, and until when."""
    needs = "; ".join(view.needs)
    out = [_fact("Wanted", _fitting(needs, 2 * SHORT) or " ")]
    people = request.draft.terms.people
    if request.state is State.PENDING and people > 1:
        still = sum(need.quorum for need in lacking(request))
        out.append(_fact("So far", f"{people - still} of {people} approvals"))
    # An instant, not what is left: nobody updates a message while nothing happens.
    if request.state is State.PENDING:
        out.append(_fact("Open until", _moment(request.expires)))
    elif request.state is State.APPROVED and request.valid_until is not None:
        out.append(_fact("To be used until", _moment(request.valid_until)))
    if len(view.votes) > MAX_VOTES:
        out.append(_line(f"{len(view.votes) - MAX_VOTES} earlier answers are on the page."))
    out += [_line(_fitting(vote, SHORT)) for vote in view.votes[-MAX_VOTES:]]
    out.append(_fact("Request", request.id))
    return out


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M} UTC"


def _actions(request: ApprovalRequest, view: Portrait, link: str, *, offer: bool) -> list[Block]:
    actions = []
    value = value_of(request)
    if request.state is State.PENDING and offer:
        if [scope for scope, _ in view.scopes] == [Scope.ONCE]:
            actions.append(_button(APPROVE, "Approve once", value=value, style="primary"))
        else:
            actions.append(_button(CHOOSE, "Approve…", value=value, style="primary"))
    if request.state in (State.PENDING, State.APPROVED):
        words = "Deny…" if request.state is State.PENDING else "Deny after all…"
        actions.append(_button(DENY, words, value=value, style="danger"))
    if link:
        signing = request.state is State.PENDING and request.draft.terms.critical
        actions.append(_button(OPEN, "Review and sign" if signing else "See everything", url=link))
    return actions


def _numbered(lines: Iterable[str]) -> str:
    return "\n".join(f"{number:>3}  {line}" for number, line in enumerate(lines, 1))


def _fitting(text: str, room: int) -> str:
    """Return as much of a text as its JSON has room for; what was cut says so."""
    if _size(text) <= room:
        return text
    mark = "… (cut)"
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _size(text[:middle] + mark) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low] + mark if low else ""


def _size(text: str) -> int:
    return len(json.dumps(text))  # with every character that is not ASCII escaped: no less than Slack can count


def _rich(*elements: Block) -> Block:
    return {"type": "rich_text", "elements": list(elements)}


def _texts(text: str, **style: bool) -> list[Block]:
    styled = {"style": style} if style else {}
    pieces = [text[start : start + MAX_TEXT] for start in range(0, len(text), MAX_TEXT)] or [" "]
    return [{"type": "text", "text": piece, **styled} for piece in pieces]


def _line(text: str, *, bold: bool = False) -> Block:
    return {"type": "rich_text_section", "elements": _texts(f"{text}\n", bold=True) if bold else _texts(f"{text}\n")}


def _fact(name: str, value: str) -> Block:
    return {"type": "rich_text_section", "elements": [*_texts(f"{name}  ", bold=True), *_texts(f"{value}\n")]}


def _code(text: str) -> Block:
    return {"type": "rich_text_preformatted", "elements": _texts(text)}


def _list(texts: Sequence[str]) -> Block:
    items = [{"type": "rich_text_section", "elements": _texts(text)} for text in texts] or [
        {"type": "rich_text_section", "elements": _texts(" ")}
    ]
    return {"type": "rich_text_list", "style": "bullet", "elements": items}


def _button(action: str, words: str, *, value: str = "", url: str = "", style: str = "") -> Block:
    button: Block = {"type": "button", "action_id": action, "text": plain(words)}
    for key, given in (("value", value), ("url", url), ("style", style)):
        if given:
            button[key] = given
    return button
