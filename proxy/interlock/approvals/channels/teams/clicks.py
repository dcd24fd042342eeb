"""What a person did to a card, read from an authenticated delivery. Pure.

Of a card only the id, the nonce and the pressed button come back, and what the person typed (property 12). Whatever else is
in a delivery is not read. A click can come as an Action.Execute (an invoke) or, from clients that don't know it, as an
Action.Submit (a message with a value); both become the same `Click`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from interlock.approvals.channels.teams.transport import Delivery
from interlock.approvals.model import Scope
from interlock.approvals.wording import one_line
from interlock.errors import Reason, VoteError

MAX_MINUTES = 24 * 60
MAX_REASON = 1000


class Verb(StrEnum):
    REFRESH = "refresh"  # shows, and changes nothing
    APPROVE = "approve"  # once
    GRANT = "grant"  # approve with the scope that was picked
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Click:
    """`minutes` is how long a scope of `exact` lasts, 0 for no time."""

    verb: Verb
    request: str
    nonce: str
    scope: Scope = Scope.ONCE
    minutes: int = 0
    reason: str = ""


def read(delivery: Delivery) -> Click | None:
    """Return the click of a delivery, None when it is something else. Raise VoteError when it is malformed."""
    if delivery.kind == "invoke" and delivery.name == "adaptiveCard/action":
        action = delivery.value.get("action")
        data = action.get("data") if isinstance(action, dict) else None
        if not isinstance(action, dict) or not isinstance(data, dict):
            raise _malformed("the card's action is malformed")
        return _click(action.get("verb"), data)
    if delivery.kind == "message" and "verb" in delivery.value:
        return _click(delivery.value.get("verb"), delivery.value)
    return None


def _click(said: object, data: Mapping[str, Any]) -> Click:
    try:
        verb = Verb(str(said))
    except ValueError:
        raise _malformed("the card has no such action") from None
    request, nonce = data.get("request"), data.get("nonce")
    if not isinstance(request, str) or not isinstance(nonce, str) or not request or not nonce:
        raise _malformed("the card names no request")
    reason = data.get("reason")
    reason = one_line(reason, MAX_REASON) if isinstance(reason, str) else ""
    if verb is not Verb.GRANT:
        return Click(verb, request, nonce, reason=reason)
    scope = _scope(data.get("scope", Scope.ONCE))
    return Click(verb, request, nonce, scope, _minutes(data.get("minutes")) if scope is Scope.EXACT else 0, reason)


def _scope(said: object) -> Scope:
    try:
        return Scope(str(said))
    except ValueError:
        raise VoteError("the card has no such scope", reason=Reason.SCOPE_NOT_OFFERED) from None


def _minutes(said: object) -> int:
    """Read what an Input.Number sends: a number, or its text."""
    text = str(int(said)) if isinstance(said, int | float) and not isinstance(said, bool) and said == said // 1 else said
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_MINUTES:
        return int(text)
    raise VoteError("say for how many whole minutes", reason=Reason.SCOPE_NOT_OFFERED)


def _malformed(why: str) -> VoteError:
    return VoteError(why, reason=Reason.DELIVERY_REJECTED)
