"""The strict gate of what claims to come from Slack: signature, window, workspace, app, and a shape that is understood.

Pure. Authenticates the *delivery* only: who the actor is and whether they may answer, the directory and the desk say. A
delivery over HTTP is authenticated by its signature over the raw body; one over Socket Mode by the connection that we
opened ourselves with the app's token. Slack's own check accepts a replay inside its window, so every delivery has
`idents`, which the replay table takes once.
https://docs.slack.dev/authentication/verifying-requests-from-slack, https://docs.slack.dev/interactivity/handling-user-interaction
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

from interlock.config import Secret
from interlock.errors import AuthenticationError, Reason

MAX_BODY = 256 * 1024
WINDOW_S = 300
FORM = "application/x-www-form-urlencoded"

_SIGNATURE = re.compile(r"v0=[0-9a-f]{64}\Z")
_DIGITS = re.compile(r"[0-9]{1,12}\Z")
_USER = re.compile(r"[UW][A-Z0-9]{1,30}\Z")
_CONVERSATION = re.compile(r"[CGD][A-Z0-9]{1,30}\Z")
_MESSAGE = re.compile(r"[0-9]{1,16}\.[0-9]{1,10}\Z")


@dataclass(frozen=True, slots=True)
class Expected:
    """The one workspace and the one app that are believed."""

    team: str
    app: str


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, by the only name that means anything: workspace and user id."""

    team: str
    user: str

    def __str__(self) -> str:
        return f"{self.team}/{self.user}"


@dataclass(frozen=True, slots=True)
class Click:
    """Somebody pressed a button of a message. `value` is what the button carried."""

    actor: Actor
    action: str
    value: str
    conversation: str
    message: str
    trigger: str


@dataclass(frozen=True, slots=True)
class Submission:
    """Somebody sent a form of ours. `metadata` is what we put into it, come back; `values` what was typed and chosen."""

    actor: Actor
    form: str
    metadata: str
    values: Mapping[str, str] = field(repr=False)
    trigger: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An authenticated delivery, reduced to what is used. `said` is None for kinds that we take no notice of."""

    idents: tuple[str, ...]
    said: Click | Submission | None


def refuse(why: str) -> AuthenticationError:
    return AuthenticationError(f"the delivery was refused: {why}", reason=Reason.DELIVERY_REJECTED)


def admit(headers: Mapping[str, str], body: bytes, *, secret: Secret, expected: Expected, now: datetime) -> Delivery:
    """Check a delivery over HTTP whole, its signature first. Raise AuthenticationError."""
    if len(body) > MAX_BODY:
        raise refuse("the body is larger than 256 KiB")
    signature = _verified(headers, body, secret, now)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise refuse("its content type is not that of an interaction")
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=1)
    except ValueError:
        raise refuse("the body is not a form of one field") from None
    if len(pairs) != 1 or pairs[0][0] != "payload":
        raise refuse("the body is not a form of one field")
    try:
        payload = json.loads(pairs[0][1])
    except (ValueError, RecursionError):
        raise refuse("the payload is not JSON") from None
    return interaction(payload, ident=f"signature {signature}", expected=expected)


def stamped(headers: Mapping[str, str], now: datetime) -> tuple[str, str]:
    """Return timestamp and signature as they are claimed. Cheap: asked before anything of the body is read."""
    stamp, given = headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", "")
    if not _DIGITS.match(stamp) or abs(now.timestamp() - int(stamp)) > WINDOW_S:
        raise refuse("its timestamp is not within five minutes of now")
    if not _SIGNATURE.match(given):
        raise refuse("it carries no signature")
    return stamp, given


def _verified(headers: Mapping[str, str], body: bytes, secret: Secret, now: datetime) -> str:
    """Return the signature, which names this very delivery: it is over the moment and every byte."""
    stamp, given = stamped(headers, now)
    computed = "v0=" + hmac.new(secret.reveal().encode(), b"v0:" + stamp.encode() + b":" + body, sha256).hexdigest()
    if not hmac.compare_digest(computed.encode(), given.encode()):
        raise refuse("its signature does not verify")
    return computed


def interaction(payload: object, *, ident: str, expected: Expected) -> Delivery:
    """Reduce the payload of an interaction. Raise AuthenticationError for another workspace or app, or a bent shape."""
    whole = _mapping(payload, "the payload")
    if whole.get("api_app_id") != expected.app:
        raise refuse("it is for another app")
    # Of an app that a whole organisation installed, the team may be missing: then nobody knows whose the user is.
    if _mapping(whole.get("team"), "its workspace").get("id") != expected.team:
        raise refuse("it is from another workspace")
    user = _mapping(whole.get("user"), "its user")
    if user.get("team_id", expected.team) != expected.team:
        raise refuse("its user is of another workspace")
    actor = Actor(expected.team, _matching(user.get("id"), _USER, "its user"))
    trigger = _text(whole.get("trigger_id"), "its trigger", 255)
    # The same interaction in a second envelope, or signed anew, still has the trigger of the first.
    idents = (ident, f"trigger {trigger}") if trigger else (ident,)
    match whole.get("type"):
        case "block_actions":
            return Delivery(idents, _click(whole, actor, trigger))
        case "view_submission":
            return Delivery(idents, _submission(_mapping(whole.get("view"), "its form"), actor, trigger, expected))
        case _:
            return Delivery(idents, None)


def _click(whole: Mapping[str, Any], actor: Actor, trigger: str) -> Click | None:
    container = _mapping(whole.get("container"), "its container")
    if container.get("type") == "view":
        return None  # something was chosen in a form that is not sent yet
    if container.get("type") != "message":
        raise refuse("the button is not in a message of ours")
    actions = whole.get("actions")
    if not isinstance(actions, list) or len(actions) != 1:
        raise refuse("it is not one action")
    action = _mapping(actions[0], "its action")
    conversation = _matching(container.get("channel_id"), _CONVERSATION, "its conversation")
    message = _matching(container.get("message_ts"), _MESSAGE, "its message")
    for part, key, same in (("channel", "id", conversation), ("message", "ts", message)):
        stated = whole.get(part)
        if stated is not None and _mapping(stated, f"its {part}").get(key) != same:
            raise refuse(f"its {part} is not the one of its container")
    return Click(
        actor=actor,
        action=_text(action.get("action_id"), "its action", 255),
        value=_text(action.get("value"), "its value", 2000),
        conversation=conversation,
        message=message,
        trigger=trigger,
    )


def _submission(view: Mapping[str, Any], actor: Actor, trigger: str, expected: Expected) -> Submission:
    if view.get("app_id", expected.app) != expected.app or view.get("team_id", expected.team) != expected.team:
        raise refuse("its form is not one of ours")
    values: dict[str, str] = {}
    blocks = _mapping(_mapping(view.get("state"), "its answers").get("values"), "its answers")
    for elements in blocks.values():
        for name, element in _mapping(elements, "its answers").items():
            answer = _mapping(element, "its answers")
            chosen = answer.get("selected_option")
            given = chosen.get("value") if isinstance(chosen, dict) else answer.get("value")
            values[_text(name, "its answers", 255)] = _text(given, "its answers", 3000)
    return Submission(
        actor=actor,
        form=_text(view.get("callback_id"), "its form", 255),
        metadata=_text(view.get("private_metadata"), "its form", 3000),
        values=values,
        trigger=trigger,
    )


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise refuse(f"{what} is missing")
    return value


def _matching(value: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not form.match(value):
        raise refuse(f"{what} is missing")
    return value


def _text(value: object, what: str, limit: int) -> str:
    """Return bounded text; nothing at all is an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit:
        raise refuse(f"{what} is malformed")
    return value.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair
