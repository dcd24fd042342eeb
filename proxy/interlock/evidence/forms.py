"""Events that recur: what they have in common is encoded once. Pure.

A select that runs a thousand times gives a thousand events that differ in their places in the chain, in the event they
refer to, and in the salts of what they commit to. A `Form` holds the rest as it will stand in the file. It gives the same
bytes as `jcs` (tests/evidence/test_forms.py holds one against the other); it only gives them sooner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from interlock.errors import EvidenceError
from interlock.evidence import disclosure, jcs
from interlock.evidence.events import TYPES, EventDraft, Json, reserved

VERSION = 1
"""`v` of every event."""

_NOTHING: Mapping[str, Json] = {}


class Place(NamedTuple):
    """Where events stand: what all events of one append share. `session` and `ts` are plain ASCII without escapes."""

    session: bytes
    ts: bytes
    mono_us: int


class Form:
    """The constant part of an event: `fields` but for `ref`, and the values in `secret`, which are committed to.

    `refers`: each event has a `ref`. Raise NotCanonicalError or EvidenceError when no event may have such fields.
    """

    __slots__ = ("_after", "_before", "fields", "policy", "refers", "secret", "tails", "type")

    def __init__(
        self, kind: str, fields: Mapping[str, Json], secret: Mapping[str, Json] = _NOTHING, *, refers: bool = False
    ) -> None:
        if kind not in TYPES:
            raise EvidenceError(f"{kind} is not a type of event")
        if reserved(fields) or (refers and "ref" in fields):
            raise EvidenceError(f"a field of {kind} has a name that every event has")
        self.type = kind
        self.fields = fields
        self.secret = secret
        self.refers = refers
        policy = fields.get("policy")
        self.policy = policy if type(policy) is str else None
        self.tails = tuple(disclosure.tail(name, value) for name, value in secret.items())
        self._before, self._after = _template(kind, fields, refers=refers)

    def draft(self, ref: int | None = None, secret: Mapping[str, Json] = _NOTHING) -> EventDraft:
        """Return one event of this form. `secret` holds what this one commits to beside the form's own."""
        if secret and not self.secret.keys().isdisjoint(secret):
            raise EvidenceError(f"{self.type} commits to one name twice")
        fields = self.fields if ref is None else {"ref": ref, **self.fields}
        return EventDraft(self.type, fields, {**self.secret, **secret} if secret else self.secret, self)

    def encode(self, place: Place, seq: int, prev: bytes, ref: Json, digests: list[bytes] | None) -> bytes:
        """Return the line of one event without its newline. `digests` are sorted; `ref` is used when the form refers."""
        before = b'{"_sd":["%b"],%b' % (b'","'.join(digests), self._before) if digests else b"{" + self._before
        if self.refers:
            middle = self._after % (place.mono_us, prev, ref, seq, place.session, place.ts)
        else:
            middle = self._after % (place.mono_us, prev, seq, place.session, place.ts)
        return before + middle


_VARYING = {"mono_us": b"%d", "prev": b'"%b"', "ref": b"%d", "seq": b"%d", "session": b'"%b"', "ts": b'"%b"'}
"""What differs from event to event, in the order of `encode`, which is the canonical one."""


def _template(kind: str, fields: Mapping[str, Json], *, refers: bool) -> tuple[bytes, bytes]:
    """Return the members before the first varying one, and the rest with places for them, in canonical order."""
    names = sorted([*fields, "type", "v", *(name for name in _VARYING if refers or name != "ref")])
    if not all(name.isascii() and name[0].isalpha() for name in names):
        raise EvidenceError(f"a field of {kind} has a name that does not sort behind _sd")
    whole: dict[str, Json] = {**fields, "type": kind, "v": VERSION}
    before, after = b"", b""
    for name in names:
        comma = b"," if name != names[-1] else b"}"
        key = jcs.encode(name)
        if name in _VARYING and name not in fields:
            after += key + b":" + _VARYING[name] + comma
        elif after:
            after += (key + b":" + jcs.encode(whole[name]) + comma).replace(b"%", b"%%")
        else:
            before += key + b":" + jcs.encode(whole[name]) + comma
    return before, after
