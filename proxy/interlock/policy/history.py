"""What was recorded, as facts that a policy can decide again.

Reads the events of one session in order, with the values that their disclosures reveal (evidence.md). The facts are those
of then: what the data path had understood of a command is in the record, so nothing is parsed anew and no catalog is
needed. What the record does not hold is never guessed: such a command is `Unknown`, with a reason that can be counted.

Pure. Knows the words of record.py; no files, no decisions.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from interlock.commands.model import Analysis, Command, Effect, Kind, Opaque, Stdin, Wire
from interlock.identity import principal as who
from interlock.policy.model import Facts, SessionFacts, Target, Verdict

Event = Mapping[str, Any]

COMMANDS = frozenset(str(kind) for kind in Kind)
NOT_BY_POLICY = ("interlock/session", "interlock/unreadable")
"""Rules of refusals that no policy changes: the session ended, or the text can't be read at all."""

REASONS = {
    "text-not-readable": "the text or what it would do is not disclosed here any more",
    "not-understood": "the record is not of a form that this version knows",
    "groups-not-recorded": "the policy reads groups, and the record of that time has none",
    "labels-not-recorded": "the policy reads labels of targets, and the record of that time has none",
    "assurance-not-recorded": "the policy reads how strongly somebody was known, and the record of that time does not say",
    "stdin-not-recorded": "the policy reads what a command does with its input, and the record of that time does not say",
    "session-not-readable": "the transcript can't be read",
}
"""Why something can't be decided again."""


@dataclass(frozen=True, slots=True)
class Past:
    """A command that was decided: the facts of then, the answer of then, and what the record does not say of it.

    `lacks` names facts by their reason; they matter only to a policy that reads them.
    """

    seq: int
    facts: Facts
    verdict: Verdict
    rule: str
    lacks: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        return self.facts.command.text.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Asked:
    """People were asked about the decision at `seq`: so many of each of these groups."""

    seq: int
    needs: tuple[tuple[tuple[str, ...], int], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that was decided and can't be decided again."""

    seq: int
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """A refusal that no policy changes."""

    seq: int
    at: datetime


class NotReadableError(Exception):
    """A part of the record is missing or not of its form; the message is one of REASONS."""


def read(events: Iterable[tuple[Event, Event]]) -> Iterator[Past | Asked | Unknown | Fixed]:
    """Yield what was decided in one session, in order. `events` are pairs of an event and its disclosed values."""
    opened: Event = {}
    waiting: dict[int, tuple[Event, Event]] = {}
    for event, disclosed in events:
        kind = event.get("type")
        if kind == "session.open":
            opened = event
        elif kind in COMMANDS:
            waiting[int(event["seq"])] = (event, disclosed)
        elif kind == "decision":
            command = waiting.pop(int(event.get("ref", -1)), None)
            if command is not None:
                yield _decided(opened, *command, event)
        elif kind == "approval.request":
            asked = _asked(event)
            if asked is not None:
                yield asked


def _decided(opened: Event, event: Event, disclosed: Event, decision: Event) -> Past | Unknown | Fixed:
    seq, at = int(decision["seq"]), datetime.fromisoformat(event["ts"])
    if decision.get("rule") in NOT_BY_POLICY:
        return Fixed(seq, at)
    try:
        principal, target, lacks = _circumstances(opened)
        analysis = _analysis(event, disclosed)
        command = Command(Wire(target.protocol), Kind(event["type"]), _text(disclosed))
        session = SessionFacts(str(event["session"]), str(opened.get("client", "")))
        verdict = Verdict(decision["verdict"])
    except NotReadableError as error:
        return Unknown(seq, at, str(error))
    except (KeyError, TypeError, ValueError, AttributeError):
        return Unknown(seq, at, "not-understood")
    if "stdin" not in event:
        lacks |= {"stdin-not-recorded"}
    return Past(seq, Facts(principal, target, command, analysis, session, at), verdict, str(decision["rule"]), lacks)


def _circumstances(opened: Event) -> tuple[who.Principal, Target, frozenset[str]]:
    credential = opened["credential"]
    assurance = opened.get("assurance", {})
    principal = who.Principal(
        identity=_identity(opened["principal"]), handle=_str(opened["handle"]), kind=who.Kind(opened["kind"]),
        credential=who.Credential(who.CredentialKind(credential["kind"]), _str(credential["ident"])),
        groups=frozenset(_texts(opened.get("groups", []))),
        owner=_identity(opened["owner"]) if opened.get("owner") else None,
        acting_for=tuple(_identity(one) for one in _texts(opened["acting_for"])),
        assurance=who.Assurance(_str(assurance.get("acr", "")), _texts(assurance.get("amr", []))),
        behind=tuple(
            who.Authority(
                _identity(one["principal"]), _str(one["handle"]), who.Kind(one["kind"]), frozenset(_texts(one["groups"]))
            )
            for one in opened.get("behind", [])
        ),
    )  # fmt: skip
    labels = {_str(name): _str(value) for name, value in opened.get("labels", {}).items()}
    target = Target(
        _str(opened["target"]), _str(opened["protocol"]), labels, account=_str(opened["account"]), role=_str(opened["role"]),
        database=_str(opened["database"]),
    )  # fmt: skip
    return (
        principal,
        target,
        frozenset(f"{name}-not-recorded" for name in ("groups", "labels", "assurance") if name not in opened),
    )


def _identity(written: str) -> who.Identity:
    """Rules read an identity as `issuer:subject` only, so where it is cut does not matter."""
    issuer, _, subject = _str(written).rpartition(":")
    return who.Identity(issuer, subject)


def _analysis(event: Event, disclosed: Event) -> Analysis:
    """Raise NotReadableError when a value that the event commits to is not there, or does not fit the event."""
    if "effects" not in disclosed or (event["opaque"] and "opaque_texts" not in disclosed):
        raise NotReadableError("text-not-readable")
    effects = tuple(_made(Effect, one) for one in disclosed["effects"])
    opaque = tuple(_made(Opaque, one) for one in disclosed.get("opaque_texts", ()))
    if sorted({e.verb for e in effects}) != list(event["verbs"]) or sorted({o.reason for o in opaque}) != list(event["opaque"]):
        raise NotReadableError("not-understood")
    return Analysis(effects, opaque, statements=int(event["statements"]), stdin=Stdin(event.get("stdin", Stdin.IGNORED)))


def _text(disclosed: Event) -> bytes:
    if "text_base64" in disclosed:
        try:
            return base64.b64decode(disclosed["text_base64"], validate=True)
        except binascii.Error:
            raise NotReadableError("not-understood") from None
    if "text" not in disclosed:
        raise NotReadableError("text-not-readable")
    return _str(disclosed["text"]).encode()


def _made(what: type[Any], written: Event) -> Any:
    """Undo `to_json` of an effect or an opaque part. A name that this version does not know is a fact it would lose."""
    known = {field.name: field.default for field in fields(what)}
    if not set(written) <= set(known):
        raise NotReadableError("not-understood")
    values: dict[str, Any] = {}
    for name, value in written.items():
        default = known[name]
        plain = _texts(value) if isinstance(default, tuple) else value
        if not isinstance(plain, type(default) if name not in _NEEDED else str) or isinstance(plain, bool) != isinstance(
            default, bool
        ):
            raise NotReadableError("not-understood")
        values[name] = plain
    return what(**values)


_NEEDED = frozenset(("verb", "reason"))
"""Fields without a default; texts both."""


def _asked(event: Event) -> Asked | None:
    try:
        if "needs" in event:
            needs = tuple((_texts(need["groups"]), int(need["quorum"])) for need in event["needs"])
        else:
            needs = ((_texts(event["groups"]), int(event["quorum"])),)
        return Asked(int(event["ref"]), needs)
    except (KeyError, TypeError, ValueError, NotReadableError):
        return None


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise NotReadableError("not-understood")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise NotReadableError("not-understood")
    return tuple(_str(one) for one in value)
