"""Events that recur: what they have in common is encoded once. Pure.

A select that runs a thousand times gives a thousand events that differ in their places in the chain, in the event they
refer to, and in the salts of what they commit to. A `Form` holds the rest as it will stand in the file. It gives the same
bytes as `jcs` (tests/evidence/test_forms.py holds one against the other); it only gives them sooner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from interlock.errors import EvidenceError
from interlock.evidence import disclosure, jcs
from interlock.evidence.events import TYPES, EventDraft, Json, reserved

__all__ = ["BEFORE", "VARYING", "VERSION", "Form", "FormedDraft", "PlainDraft", "PlainShape"]

VERSION = 1
"""`v` of every event."""

BEFORE = -1
"""`ref` of an event that refers to the one before it in the same append."""

_NOTHING: Mapping[str, Json] = {}


class PlainShape:
    """What of a form is read for every event. The compiled one is a C struct."""

    __slots__ = ("bare", "committing", "refers", "tails")
    bare: tuple[bytes, ...]
    """The line of an event that commits to nothing, cut at the places of VARYING; `ref` only when the form refers."""
    committing: tuple[bytes, ...]
    """The same with a place for the joined digests before them."""
    tails: tuple[bytes, ...]
    refers: bool


class PlainDraft:
    """One event of a form: what it refers to, and what it commits to beside the form's own (`disclosure.tail`)."""

    __slots__ = ("form", "given", "ref")

    def __init__(self, form: Form, ref: int | None, given: tuple[bytes, ...], /) -> None:
        self.form = form
        self.ref = ref
        self.given = given

    def placed(self, seq: int, /) -> EventDraft:
        return self.form.placed(self.ref, self.given, seq)


if TYPE_CHECKING:
    from interlock.evidence._chain import FormedDraft, Shape
else:
    try:
        from interlock.evidence._chain import FormedDraft, Shape
    except ImportError:
        FormedDraft, Shape = PlainDraft, PlainShape


class Form(Shape):
    """The constant part of an event: `fields` but for `ref`, and the values in `secret`, which are committed to.

    `refers`: each event has a `ref`. Raise NotCanonicalError or EvidenceError when no event may have such fields.
    """

    __slots__ = ("committing_template", "fields", "policy", "template", "type")

    def __init__(
        self, kind: str, fields: Mapping[str, Json], secret: Mapping[str, Json] = _NOTHING, *, refers: bool = False
    ) -> None:
        if kind not in TYPES:
            raise EvidenceError(f"{kind} is not a type of event")
        if reserved(fields) or (refers and "ref" in fields):
            raise EvidenceError(f"a field of {kind} has a name that every event has")
        self.type = kind
        self.fields = fields
        self.refers = refers
        policy = fields.get("policy")
        self.policy = policy if type(policy) is str else None
        self.tails = tuple(disclosure.tail(name, value) for name, value in secret.items())
        members = _members(kind, fields, refers=refers)
        self.bare = tuple((b"{" + members).split(_PLACE))
        self.committing = tuple((b'{"_sd":["' + _PLACE + b'"],' + members).split(_PLACE))
        kinds = [kind for name, kind in _KINDS.items() if refers or name != "ref"]
        self.template = _template(self.bare, kinds)
        self.committing_template = _template(self.committing, [b"%b", *kinds])
        """Both as templates of bytes."""

    def draft(self, ref: int | None = None, given: tuple[bytes, ...] = ()) -> FormedDraft:
        """Return one event of this form. `given` holds what this one commits to beside the form's own (`disclosure.tail`)."""
        return FormedDraft(self, ref, given)

    def placed(self, ref: int | None, given: tuple[bytes, ...], seq: int) -> EventDraft:
        """Return such a draft in plain values, as it is when it gets this `seq`."""
        fields: Mapping[str, Json] = self.fields
        if self.refers:
            fields = {"ref": seq - 1 if ref == BEFORE else ref, **fields}
        return EventDraft(self.type, fields, dict(map(disclosure.read_tail, (*self.tails, *given))))


_PLACE = b"\0"
"""Stands in no JSON text."""
_KINDS = {"mono_us": b"%d", "prev": b"%b", "ref": b"%d", "seq": b"%d", "session": b"%b", "ts": b"%b"}
VARYING = {name: _PLACE if kind == b"%d" else b'"' + _PLACE + b'"' for name, kind in _KINDS.items()}
"""What differs from event to event, in canonical order. `session` and `ts` are plain ASCII without escapes."""


def _template(pieces: tuple[bytes, ...], kinds: list[bytes]) -> bytes:
    escaped = [piece.replace(b"%", b"%%") for piece in pieces]
    return escaped[0] + b"".join(kind + piece for kind, piece in zip(kinds, escaped[1:], strict=True))


def _members(kind: str, fields: Mapping[str, Json], *, refers: bool) -> bytes:
    """Return all members but `_sd`, in canonical order, with places for the varying ones."""
    names = sorted([*fields, "type", "v", *(name for name in VARYING if refers or name != "ref")])
    if not all(name.isascii() and name[:1].islower() for name in names):
        raise EvidenceError(f"a field of {kind} has a name that does not sort behind _sd")
    whole: dict[str, Json] = {**fields, "type": kind, "v": VERSION}
    members = [
        jcs.encode(name) + b":" + VARYING[name]
        if name in VARYING and name not in fields
        else jcs.encode(name) + b":" + jcs.encode(whole[name])
        for name in names
    ]
    return b",".join(members) + b"}"
