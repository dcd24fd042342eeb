"""How an approval request is shown outside: the one JSON shape of interface.md, for API, CLI, console and channels."""

from __future__ import annotations

import base64
from typing import Any

from interlock.approvals.model import ApprovalRequest, Vote
from interlock.clock import rfc3339
from interlock.commands.display import display
from interlock.commands.model import BindValue


def shown(request: ApprovalRequest) -> dict[str, Any]:
    """Return the request as data. `text` is the exact text, `display` the form that can't deceive."""
    draft = request.draft
    view = display(draft.command.text)
    principal, target = draft.principal, draft.target
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
        "display": {
            "lines": list(view.lines),
            "deceptions": list(view.deceptions),
            "cut": view.cut,
            "length": view.length,
        },
        "stdin": _stdin(request),
        "binds": [_bind(value) for value in draft.command.binds],
        "effects": [effect.to_json() for effect in draft.analysis.effects],
        "opaque": [opaque.to_json() for opaque in draft.analysis.opaque],
        "notes": list(draft.analysis.notes),
        "rule": draft.decision.rule,
        "reason": draft.decision.reason,
        "risk": str(draft.terms.risk),
        "policy": draft.decision.policy,
        "created": rfc3339(request.created),
        "expires": rfc3339(request.expires),
        "groups": list(draft.terms.groups),
        "quorum": draft.terms.quorum,
        "step_up": str(draft.terms.step_up),
        "votes": [_vote(vote) for vote in request.votes],
    }


def _vote(vote: Vote) -> dict[str, Any]:
    return {
        "reviewer": vote.reviewer_handle,
        "identity": str(vote.reviewer),
        "channel": vote.channel,
        "verdict": str(vote.verdict),
        "scope": vote.scope,
        "proof": str(vote.proof),
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
