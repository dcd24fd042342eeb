"""The forms behind the buttons: how far an approval goes, and why something is denied. Pure.

A form comes back with the metadata that we put into it. It is not believed for being there: it is sealed with a key of
ours, names the request by id and nonce, the message it was opened from, and the one account it was opened for; whoever
sends it is compared with that, and everything is looked up again. So a form outlives a restart and reaches any node.
https://docs.slack.dev/surfaces/modals
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from typing import Any

from interlock.approvals.channels.slack.blocks import Block, plain, said
from interlock.approvals.channels.slack.inbound import Actor, Click, Submission
from interlock.approvals.model import Scope
from interlock.config import Secret
from interlock.errors import Reason, VoteError

APPROVE_FORM, DENY_FORM = "interlock_approve", "interlock_deny"
MAX_REASON = 2_000
USUAL_MINUTES = 15

_NAMES = {Scope.ONCE: "Once", Scope.EXACT: "Exactly this, again", Scope.RULE_IN_SESSION: "This rule, in this session"}


@dataclass(frozen=True, slots=True)
class Question:
    """What a form answers: a request, shown in a message, for one account. `value` is the button's: id and nonce."""

    form: str
    value: str
    conversation: str
    message: str
    team: str
    user: str

    @staticmethod
    def of(click: Click, form: str) -> Question:
        return Question(form, click.value, click.conversation, click.message, click.actor.team, click.actor.user)


class Seal:
    """Marks metadata as ours. The key follows from the bot's token, so that every node has the same one."""

    def __init__(self, token: Secret) -> None:
        self._key = hmac.new(token.reveal().encode(), b"interlock slack forms v1", sha256).digest()

    def __repr__(self) -> str:
        return "Seal(…)"

    def close(self, question: Question) -> str:
        content = json.dumps(astuple(question), separators=(",", ":"))
        return f"{self._mac(content)} {content}"

    def open(self, submission: Submission) -> Question:
        """Return what the form answers. Raise VoteError when it is none of ours, or another account sends it."""
        mac, _, content = submission.metadata.partition(" ")
        if not hmac.compare_digest(mac.encode(), self._mac(content).encode()):
            raise VoteError("the form is not one that was shown", reason=Reason.DELIVERY_REJECTED)
        question = Question(*json.loads(content))
        if question.form != submission.form or Actor(question.team, question.user) != submission.actor:
            raise VoteError("the form was opened for somebody else, or for something else", reason=Reason.DELIVERY_REJECTED)
        return question

    def _mac(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """A form's content, checked. `minutes` is None for an approval that goes once."""

    scope: Scope = Scope.ONCE
    minutes: int | None = None
    reason: str = ""


def approve_form(metadata: str, heading: str, scopes: Sequence[tuple[Scope, str]], longest: int) -> Block:
    """Return the form that asks how far an approval goes. `longest` is in minutes."""
    options = [{"text": plain(_NAMES[scope]), "value": str(scope)} for scope, _ in scopes]
    minutes = {
        "type": "number_input", "action_id": "minutes", "is_decimal_allowed": False, "min_value": "1",
        "max_value": str(longest), "initial_value": str(min(USUAL_MINUTES, longest)),
    }  # fmt: skip
    choice = {"type": "static_select", "action_id": "scope", "options": options, "initial_option": options[0]}
    return _form(
        APPROVE_FORM, metadata, "Approve", "Approve",
        [
            said(heading, [f"{_NAMES[scope]}: {words}" for scope, words in scopes]),
            _input("scope", "How far", choice),
            _input("minutes", "For how many minutes, if more than once", minutes, optional=True),
            _input("reason", "Reason (the agent reads it)", _typed(), optional=True),
        ],
    )  # fmt: skip


def deny_form(metadata: str, heading: str) -> Block:
    """Return the form that asks why something is denied."""
    body = [said(heading, []), _input("reason", "Reason (the agent reads it)", _typed(), optional=True)]
    return _form(DENY_FORM, metadata, "Deny", "Deny", body)


def read(submission: Submission, longest: int) -> Answer | dict[str, str]:
    """Return the checked content of a form, or for each field that is wrong a sentence to show beside it."""
    values = submission.values
    reason = values.get("reason", "")[:MAX_REASON]
    if submission.form == DENY_FORM:
        return Answer(reason=reason)
    scope = values.get("scope", str(Scope.ONCE))
    if scope not in tuple(Scope):
        return {"scope": "Choose one of these."}
    if scope == Scope.ONCE:
        return Answer(reason=reason)
    minutes = values.get("minutes", "")
    if not (minutes.isascii() and minutes.isdigit() and len(minutes) <= 6 and 1 <= int(minutes) <= longest):
        return {"minutes": f"Say for how many minutes: 1 to {longest}."}
    return Answer(Scope(scope), int(minutes), reason)


def _form(ident: str, metadata: str, title: str, submit: str, body: list[Block]) -> Block:
    return {
        "type": "modal", "callback_id": ident, "private_metadata": metadata, "title": plain(title),
        "submit": plain(submit), "close": plain("Back"), "blocks": body,
    }  # fmt: skip


def _input(name: str, label: str, element: Mapping[str, Any], *, optional: bool = False) -> Block:
    return {"type": "input", "block_id": name, "label": plain(label), "element": dict(element), "optional": optional}


def _typed() -> Block:
    return {"type": "plain_text_input", "action_id": "reason", "multiline": True, "max_length": MAX_REASON}
