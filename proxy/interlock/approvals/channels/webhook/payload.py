"""What a message says of a request. Pure.

A receiver keeps messages in logs and queues that were not built for secrets. So a message carries the text as chat may show it
(`approvals.redaction`), and neither input nor values: of the input its hash and length, of a value its type and length, for a
hash of a short value is the value. `digest` covers the exact bytes all the same: whoever needs to see them follows `link`.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from interlock.approvals.model import ApprovalRequest, Vote
from interlock.approvals.redaction import Redaction, redacted
from interlock.approvals.wording import one_line
from interlock.clock import rfc3339
from interlock.commands.display import MAX_LINE, MAX_LINES


def body(request: ApprovalRequest, kind: str, at: datetime, link: str) -> bytes:
    """Return the body: type, time and data, as Standard Webhooks proposes. ASCII, so that no decoder can differ."""
    message = {"type": f"approval.{kind}", "timestamp": rfc3339(at), "data": told(request, link)}
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()


def told(request: ApprovalRequest, link: str) -> dict[str, Any]:
    """Return the request as it is now, without what a receiver should not keep."""
    draft = request.draft
    principal, target, terms = draft.principal, draft.target, draft.terms
    cleaned = redacted(draft)
    return {
        "v": 1,
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
        **_text(cleaned),
        "stdin": None if draft.command.stdin is None else _size(draft.command.stdin.sha256, draft.command.stdin.data),
        "binds": [
            {"format": value.format, "type": value.type_oid, "bytes": None if value.raw is None else len(value.raw)}
            for value in draft.command.binds
        ],
        "effects": _cleaned([effect.to_json() for effect in draft.analysis.effects], cleaned),
        "said": cleaned.shown(draft.said),
        "rule": draft.decision.rule,
        "reason": draft.decision.reason,
        "risk": str(terms.risk),
        "policy": draft.decision.policy,
        "created": rfc3339(request.created),
        "expires": rfc3339(request.expires),
        "escalated": None if request.escalated_at is None else rfc3339(request.escalated_at),
        "needs": [{"groups": list(need.groups), "quorum": need.quorum} for need in terms.needs],
        "edited_from": request.edited_from or None,
        "successor": request.successor or None,
        "grant": request.grant or None,
        "votes": [_vote(vote) for vote in request.votes],
        "link": link or None,
    }


def _text(cleaned: Redaction) -> dict[str, Any]:
    """The text with every invisible character made visible and every secret hidden."""
    view = cleaned.text.display(MAX_LINES, MAX_LINE)
    return {
        "text": "\n".join(view.lines), "deceptions": list(view.deceptions), "cut": view.cut, "redacted": list(cleaned.notes),
    }  # fmt: skip


def _cleaned(value: Any, cleaned: Redaction) -> Any:
    """Return data that was made from the request with every secret in its texts hidden."""
    match value:
        case str():
            return cleaned.shown(value)
        case list() | tuple():
            return [_cleaned(item, cleaned) for item in value]
        case dict():
            return {name: _cleaned(item, cleaned) for name, item in value.items()}
        case _:
            return value


def _size(sha256: str, data: bytes) -> dict[str, Any]:
    return {"sha256": sha256, "bytes": len(data)}


def _vote(vote: Vote) -> dict[str, Any]:
    return {
        "reviewer": vote.reviewer_handle, "identity": str(vote.reviewer), "channel": vote.channel,
        "verdict": str(vote.verdict), "scope": str(vote.scope), "proof": str(vote.proof), "break_glass": vote.break_glass,
        "reason": one_line(vote.reason), "at": rfc3339(vote.at),
    }  # fmt: skip
