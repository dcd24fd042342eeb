"""How an approval request is shown outside: the one JSON shape of interface.md, for API, CLI and console.

`text` is the exact text; everything else that somebody may read went through `approvals.portrait` and can't deceive. A row of a
list leaves out what makes a request large.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from typing import Any

from interlock.approvals.model import ApprovalRequest, Vote
from interlock.approvals.portrait import Portrait, moved_on, portrait
from interlock.clock import rfc3339
from interlock.commands.display import display
from interlock.commands.model import BindValue

FIRST_LINE = 200
"""Characters of the text that a row shows."""


ROW_EFFECTS = 50
"""Effects that a row shows; the whole view has them all."""

REMEMBERED = 64
"""Requests whose portrait is kept: what follows from the text alone is drawn once for all the states that it goes through."""


class Shown:
    """`longest` is the longest life of a grant here, in seconds: the words of a scope name it."""

    def __init__(self, longest: float = 3600.0) -> None:
        self.longest = longest
        self._drawn: OrderedDict[str, Portrait] = OrderedDict()

    def row(self, request: ApprovalRequest) -> dict[str, Any]:
        """Return what a list shows: who, where, what, and how it stands. Cheap, however large the request is."""
        draft = request.draft
        principal, target, terms = draft.principal, draft.target, draft.terms
        return {
            "id": request.id,
            "state": str(request.state),
            "presence": str(request.presence),
            "digest": request.digest,
            "match": request.match,
            "principal": principal.handle,
            "kind": str(principal.kind),
            "acting_for": list(principal.acting_for_handles) or [str(i) for i in principal.acting_for],
            "owner": principal.owner_handle or (str(principal.owner) if principal.owner else None),
            "target": target.name,
            "account": target.account or target.role,
            "database": target.database,
            "session": draft.session,
            "text": draft.command.text.decode("utf-8", "backslashreplace"),
            "first": first_line(draft.command.text),
            "effects": [effect.to_json() for effect in draft.analysis.effects[:ROW_EFFECTS]],
            "rule": draft.decision.rule,
            "reason": draft.decision.reason,
            "risk": str(terms.risk),
            "critical": terms.critical,
            "policy": draft.decision.policy,
            "created": rfc3339(request.created),
            "expires": rfc3339(request.expires),
            "valid_until": _moment(request.valid_until),
            "escalated": _moment(request.escalated_at),
            "groups": list(terms.all_groups),
            "quorum": terms.quorum,
            "needs": [{"groups": list(need.groups), "quorum": need.quorum} for need in terms.needs],
            "people": terms.people,
            "step_up": str(terms.step_up),
            "edited_from": request.edited_from or None,
            "author": None if request.author is None else str(request.author),
            "successor": request.successor or None,
            "grant": request.grant or None,
            "votes": [_vote(vote) for vote in request.votes],
        }

    def whole(self, request: ApprovalRequest) -> dict[str, Any]:
        """Return everything. `words` are the effects in sentences, `remarks` and `said` what only the agent wrote."""
        draft = request.draft
        view = self._portrait(request)
        return {
            **self.row(request),
            "effects": [effect.to_json() for effect in draft.analysis.effects],
            "title": view.title,
            "display": {
                "lines": list(view.command.lines),
                "deceptions": list(view.command.deceptions),
                "cut": view.command.cut,
                "length": view.command.length,
            },
            "stdin": _stdin(request),
            "binds": [_bind(value) for value in draft.command.binds],
            "surroundings": list(view.surroundings),
            "words": [*view.effects, *view.opaque],
            "opaque": [opaque.to_json() for opaque in draft.analysis.opaque],
            "notes": list(view.notes),
            "facts": list(view.facts),
            "said": view.said,
            "remarks": list(view.remarks),
            "must": list(view.needs),
            "scopes": [{"scope": str(scope), "words": words} for scope, words in view.scopes],
        }

    def _portrait(self, request: ApprovalRequest) -> Portrait:
        known = self._drawn.get(request.digest)
        view = portrait(request, longest=self.longest) if known is None else moved_on(known, request)
        self._drawn[request.digest] = view
        self._drawn.move_to_end(request.digest)
        if len(self._drawn) > REMEMBERED:
            self._drawn.popitem(last=False)
        return view


def first_line(text: bytes) -> str:
    """Return the beginning of a text, safe to print, with a mark when there is more."""
    beginning = text[: 4 * FIRST_LINE]
    line, more, _ = beginning.partition(b"\n")
    shown = (display(line, lines=1, width=10 * FIRST_LINE).lines or ("",))[0]
    cut = bool(more) or len(beginning) < len(text) or len(shown) > FIRST_LINE
    return shown[:FIRST_LINE] + "…" if cut else shown


def _moment(moment: Any) -> str | None:
    return None if moment is None else rfc3339(moment)


def _vote(vote: Vote) -> dict[str, Any]:
    return {
        "reviewer": vote.reviewer_handle,
        "identity": str(vote.reviewer),
        "channel": vote.channel,
        "verdict": str(vote.verdict),
        "scope": str(vote.scope),
        "valid_until": _moment(vote.valid_until),
        "proof": str(vote.proof),
        "signed": None if vote.signed is None else {"kind": vote.signed.kind, "key": vote.signed.key},
        "break_glass": vote.break_glass,
        "groups": list(vote.groups),
        "reason": vote.reason,
        "at": rfc3339(vote.at),
    }


def _stdin(request: ApprovalRequest) -> dict[str, Any] | None:
    held = request.draft.command.stdin
    if held is None:
        return None
    view = display(held.data)
    return {
        "sha256": held.sha256,
        "bytes": len(held.data),
        "base64": base64.b64encode(held.data).decode(),
        "lines": list(view.lines),
        "deceptions": list(view.deceptions),
        "cut": view.cut,
    }


def _bind(value: BindValue) -> dict[str, Any]:
    raw = None if value.raw is None else base64.b64encode(value.raw).decode()
    return {"shown": value.shown, "format": value.format, "type": value.type_oid, "base64": raw}
