"""What the record says of each step of the path: what is plain and what is committed to (evidence.md §1, rule 2).

Texts, objects, values and sentences are committed to; codes, counts and references are plain. A command that comes again
has the same events but for their places and salts, so what they share is encoded once (evidence.forms).

Knows: the words of commands, policy and approvals. Must not know: sockets, chains, why something was decided.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from typing import TypeVar

from interlock.approvals.model import ApprovalRequest, State, Vote, VoteVerdict
from interlock.approvals.portable import request_form
from interlock.approvals.proof import recorded
from interlock.approvals.wording import Refusal
from interlock.clock import rfc3339
from interlock.commands.model import Analysis, BindValue, Command
from interlock.evidence import disclosure, jcs
from interlock.evidence.disclosure import encoded_tail
from interlock.evidence.events import Draft, EventDraft, Json
from interlock.evidence.forms import BEFORE, Form, FormedDraft
from interlock.identity.principal import Principal
from interlock.policy.model import Decision, Target

MAX_KEPT = 8192
"""Bytes of what a command commits to that are kept encoded; longer ones hardly repeat."""
KEPT = 1024
"""Commands, and as many decisions and forms, that are kept."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_EXACT = Form("forward", {"sent": "exact"}, refers=True).draft(BEFORE)
_RENDERED = Form("forward", {"sent": "rendered"}, refers=True)


class Recurring:
    """A command that is allowed, encoded but for its values and its place: it may come again. Made by `Drafts`."""

    __slots__ = ("_asked", "_decided", "_made_of", "_sent", "_tails", "_without_values", "size")

    def __init__(
        self, asked: Form, tails: tuple[bytes, ...], decided: FormedDraft, sent: FormedDraft, made_of: tuple[Analysis, Decision]
    ) -> None:
        self._asked = asked
        self._tails = tails
        self._decided = decided
        self._sent = sent
        # Held, so that the ids by which this is found can't come to mean other objects.
        self._made_of = made_of
        self._without_values = asked.draft(None, tails), decided, sent
        self.size = sum(map(len, tails))

    def drafts(self, values: bytes = b"") -> tuple[Draft, Draft, Draft]:
        """Return the command, its decision and its release. Append them together: each refers to the one before.

        `values` is the canonical array of its values (postgres/wire/given.py), if it has any.
        """
        if not values:
            return self._without_values
        return FormedDraft(self._asked, None, (*self._tails, encoded_tail(b'"binds"', values))), self._decided, self._sent


class RecurringText:
    """The same for texts that are alike: encoded but for the text. It is sent as it came. Made by `Drafts`."""

    __slots__ = ("_asked", "_decided", "_tails")

    def __init__(self, asked: Form, tails: tuple[bytes, ...], decided: FormedDraft) -> None:
        self._asked = asked
        self._tails = tails
        self._decided = decided

    def drafts(self, text: bytes) -> tuple[Draft, Draft, Draft]:
        """Return the command, its decision and its release. Append them together: each refers to the one before."""
        given = (encoded_tail(b'"text"', jcs.encode_text(text)), *self._tails)
        return FormedDraft(self._asked, None, given), self._decided, _EXACT


class Drafts:
    """Makes the events of commands that are allowed. One a gate; remembers what comes again."""

    def __init__(self) -> None:
        self._recurring: OrderedDict[tuple[int, int, int, bytes, bytes], Recurring] = OrderedDict()
        self._decisions: OrderedDict[int, tuple[Decision, FormedDraft]] = OrderedDict()
        self._forms: OrderedDict[tuple[object, ...], Form] = OrderedDict()

    def allowed(self, command: Command, analysis: Analysis, decision: Decision, payload: bytes) -> tuple[Draft, Draft, Draft]:
        """Return the command, its decision and its release. Append them together: each refers to the one before."""
        if command.env or command.stdin is not None:
            return described(command, analysis), self._decided(decision), _sent(command, payload)
        return self.recurring(command, analysis, decision, payload).drafts(_listed(command.binds))

    def recurring(self, command: Command, analysis: Analysis, decision: Decision, payload: bytes) -> Recurring:
        """Return what `command` has in common with its like; of a command with neither environment nor held input."""
        key = (id(analysis), id(decision), id(command.kind), command.text, payload)
        known = self._recurring.get(key)
        if known is None:
            tails = tuple(disclosure.tail(name, value) for name, value in _committed(command, analysis).items())
            known = Recurring(
                self._form(command, analysis), tails, self._decided(decision), _sent(command, payload), (analysis, decision)
            )
            if known.size <= MAX_KEPT:
                _keep(self._recurring, key, known)
        return known

    def recurring_text(self, command: Command, analysis: Analysis, decision: Decision) -> RecurringText:
        """Return what `command`, sent as it came, has in common with those that differ from it in their texts alone."""
        secret = _committed(command, analysis)
        del secret["text"]
        tails = tuple(disclosure.tail(name, value) for name, value in secret.items())
        return RecurringText(self._form(command, analysis), tails, self._decided(decision))

    def _form(self, command: Command, analysis: Analysis) -> Form:
        """Return the form of all commands that differ in what they commit to alone: it fits ever new texts."""
        fields = _plain(command, analysis)
        key = (command.kind, *(tuple(value) if isinstance(value, list) else value for value in fields.values()))
        form = self._forms.get(key)
        if form is None:
            form = Form(str(command.kind), fields)
            _keep(self._forms, key, form)
        return form

    def _decided(self, decision: Decision) -> FormedDraft:
        known = self._decisions.get(id(decision))
        if known is None:
            form = Form("decision", _answer(decision), {"reason": decision.reason}, refers=True)
            known = (decision, form.draft(BEFORE))
            _keep(self._decisions, id(decision), known)
        return known[1]


def _keep(cache: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    cache[key] = value
    if len(cache) > KEPT:
        cache.popitem(last=False)


def who(principal: Principal) -> dict[str, Json]:
    """Everything that a rule could read of a principal: what was decided can be decided again (policy/history.py)."""
    behind: list[Json] = [
        {"principal": str(one.identity), "handle": one.handle, "kind": str(one.kind), "groups": sorted(one.groups)}
        for one in principal.behind
    ]
    return {
        "principal": str(principal.identity),
        "handle": principal.handle,
        "kind": str(principal.kind),
        "owner": str(principal.owner) if principal.owner else None,
        "acting_for": [str(i) for i in principal.acting_for],
        "credential": {"kind": str(principal.credential.kind), "ident": principal.credential.ident},
        "groups": sorted(principal.groups),
        "assurance": {"acr": principal.assurance.acr, "amr": list(principal.assurance.amr)},
        **({"behind": behind} if behind else {}),
    }


def where(target: Target) -> dict[str, Json]:
    """Everything that a rule could read of a target."""
    return {
        "target": target.name,
        "protocol": target.protocol,
        "account": target.account,
        "role": target.role,
        "database": target.database,
        "labels": dict(target.labels),
    }


def described(command: Command, analysis: Analysis) -> EventDraft:
    """What was asked and what it would do. Texts, objects and reasons' texts are committed to, codes are plain."""
    secret = {**_committed(command, analysis), **_given(command)}
    return EventDraft(str(command.kind), _plain(command, analysis), secret)


def _plain(command: Command, analysis: Analysis) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "parser": analysis.parser,
        "status": "unreadable" if analysis.unreadable else "opaque" if analysis.opaque else "static",
        "verbs": sorted({e.verb for e in analysis.effects}),
        "opaque": sorted({o.reason for o in analysis.opaque}),
        "statements": analysis.statements,
        "stdin": str(analysis.stdin),
    }
    if command.env:
        fields["env"] = dict(command.env)
    if analysis.secrets:
        fields["secret_binds"] = list(analysis.secrets)
    if analysis.concealed:
        fields["secret_literals"] = len(analysis.concealed)
    return fields


def _committed(command: Command, analysis: Analysis) -> dict[str, Json]:
    """What follows from the text alone."""
    secret: dict[str, Json] = {}
    try:
        secret["text"] = command.text.decode("utf-8")
    except UnicodeDecodeError:
        secret["text"] = command.text.decode("utf-8", "backslashreplace")
        secret["text_base64"] = base64.b64encode(command.text).decode()
    secret["effects"] = [e.to_json() for e in analysis.effects]
    if analysis.opaque:
        secret["opaque_texts"] = [o.to_json() for o in analysis.opaque]
    return secret


def _given(command: Command) -> dict[str, Json]:
    """What came beside the text."""
    secret: dict[str, Json] = {}
    if command.binds:
        secret["binds"] = [_bind(value) for value in command.binds]
    if command.stdin is not None:
        secret["stdin"] = base64.b64encode(command.stdin.data).decode()
    return secret


def _bind(value: BindValue) -> dict[str, Json]:
    raw = None if value.raw is None else base64.b64encode(value.raw).decode()
    return {"format": value.format, "raw": raw, "shown": value.shown, "type": value.type_oid}


def _listed(binds: tuple[BindValue, ...]) -> bytes:
    return jcs.encode([_bind(value) for value in binds]) if binds else b""


def decided(decision: Decision, command_seq: int) -> EventDraft:
    return EventDraft("decision", {"ref": command_seq, **_answer(decision)}, {"reason": decision.reason})


def _answer(decision: Decision) -> dict[str, Json]:
    fields: dict[str, Json] = {"verdict": str(decision.verdict), "rule": decision.rule, "policy": decision.policy}
    if decision.observed:
        fields["observed"] = list(decision.observed)
    if decision.errors:
        fields["errors"] = list(decision.errors)
    return fields


def forwarded(decision_seq: int, command: Command, payload: bytes) -> EventDraft:
    """The release. The re-rendering is in the record when it differs from the text."""
    if payload == command.text:
        return EventDraft("forward", {"ref": decision_seq, "sent": "exact"})
    return EventDraft(
        "forward", {"ref": decision_seq, "sent": "rendered"}, {"sent_text": payload.decode("utf-8", "backslashreplace")}
    )


def _sent(command: Command, payload: bytes) -> FormedDraft:
    """Like `forwarded`, for an append in which the decision stands before it."""
    if payload == command.text:
        return _EXACT
    return _RENDERED.draft(BEFORE, (disclosure.tail("sent_text", payload.decode("utf-8", "backslashreplace")),))


def blocked(decision_seq: int, refusal: Refusal) -> EventDraft:
    return EventDraft(
        "block", {"ref": decision_seq, "reason": str(refusal.reason), "request": refusal.request}, {"message": refusal.message}
    )


def requested(decision_seq: int, request: ApprovalRequest) -> EventDraft:
    """Who is asked about which digest. `quorum` is how many people, `needs` says of which groups when there are several.

    The bytes behind the digest are committed to: they are what ties the answer to this command (verify/form.py).
    """
    terms = request.draft.terms
    fields: dict[str, Json] = {
        "ref": decision_seq, "request": request.id, "digest": request.digest, "match": request.match,
        "groups": list(terms.all_groups), "quorum": sum(need.quorum for need in terms.needs),
        "expires": rfc3339(request.expires), "excluded": sorted(str(i) for i in request.excluded),
        "critical": terms.critical,
    }  # fmt: skip
    if terms.also:
        fields["needs"] = [{"groups": list(need.groups), "quorum": need.quorum} for need in terms.needs]
    if request.grant:
        fields["grant"] = request.grant
    if request.author is not None:
        fields |= {"edited_from": request.edited_from, "author": str(request.author)}
    secret: dict[str, Json] = {"form": request_form(request).decode()}
    if request.draft.said:
        secret["said"] = request.draft.said
    return EventDraft("approval.request", fields, secret)


def answered(request: ApprovalRequest) -> EventDraft:
    """What became of a request, with every answer. Under a grant the answers are those that gave it, with their own digest."""
    verdict = "approve" if request.state in (State.APPROVED, State.CONSUMED) else str(request.state)
    reasons: list[Json] = [v.reason for v in request.votes if v.verdict is VoteVerdict.DENY or v.reason]
    fields: dict[str, Json] = {
        "request": request.id, "digest": request.digest, "state": str(request.state), "verdict": verdict,
        "votes": [_vote(vote) for vote in request.votes],
    }  # fmt: skip
    if request.grant:
        fields["grant"] = request.grant
    if request.successor:
        fields["successor"] = request.successor
    secret: dict[str, Json] = {"reasons": reasons} if any(reasons) else {}
    signed = [vote.signed for vote in request.votes]
    if any(signed):
        # The nonce is in there: with it in clear, whoever holds the digest could guess the command.
        secret["statements"] = [None if s is None else s.statement.decode() for s in signed]
    return EventDraft("approval.response", fields, secret)


def _vote(vote: Vote) -> Json:
    fields: dict[str, Json] = {
        "reviewer": str(vote.reviewer), "handle": vote.reviewer_handle, "channel": vote.channel, "actor": vote.channel_actor,
        "verdict": str(vote.verdict), "scope": vote.scope, "proof": str(vote.proof), "digest": vote.digest,
        "at": rfc3339(vote.at), "groups": list(vote.groups),
    }  # fmt: skip
    if vote.valid_until is not None:
        fields["valid_until"] = rfc3339(vote.valid_until)
    if vote.break_glass:
        fields["break_glass"] = True
    if vote.signed is not None:
        fields["signed"] = recorded(vote.signed)
    return fields
