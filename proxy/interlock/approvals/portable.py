"""Requests and votes as plain JSON and back, strictly: what the store keeps and what a digest is taken of. Pure.

Theory of operation: one walk over type hints in each direction. A dataclass is an object with exactly its fields, an
absent or an unknown field is an error, bytes are base64, instants RFC 3339, sets and mappings sorted lists (so that
equal values give equal bytes), and one of several dataclasses carries its name under `is`. Nothing is converted or
guessed on the way in: a form of another version is refused, by number. A field that came to a dataclass later may be absent in
an older form and then has its default.

Knows shapes. Must not know what a state means, nor where the bytes are kept. The catalog of a SqlContext is left out: it
is a snapshot of the target taken by ourselves, not a part of what was asked.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import types
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from interlock.approvals.grants import Grant
from interlock.approvals.model import ApprovalRequest, Vote
from interlock.errors import StoreError
from interlock.evidence import jcs
from interlock.evidence.events import Json

VERSION = 1
TAG = "is"

_FROZEN = ("id", "nonce", "match", "draft", "created", "expires", "excluded", "grant", "edited_from", "author", "author_handle")
"""The fields of a request that never change after it was opened. The digest covers these and nothing else."""


class FormError(StoreError):
    """A stored form that this version did not write, or that somebody changed."""


def request_form(request: ApprovalRequest) -> bytes:
    """Return the canonical bytes (RFC 8785) of all that never changes in a request, the digest itself excepted."""
    hints = _hints(ApprovalRequest)
    shown = {name: _writer(hints[name])(getattr(request, name)) for name in _FROZEN}
    return jcs.encode({"v": VERSION, "request": shown})


def read_request(form: bytes, digest: str) -> ApprovalRequest:
    """Read `request_form` back into a pending, held request without votes. Raise FormError."""
    members = _members(_open(form, "request"), frozenset(_FROZEN), "request", _optional(ApprovalRequest))
    hints = _hints(ApprovalRequest)
    values = {name: _reader(hints[name])(value, name) for name, value in members.items()}
    return ApprovalRequest(digest=digest, **values)


def vote_form(vote: Vote) -> bytes:
    return jcs.encode({"v": VERSION, "vote": _writer(Vote)(vote)})


def read_vote(form: bytes) -> Vote:
    """Read `vote_form` back. Raise FormError."""
    return cast(Vote, _reader(Vote)(_open(form, "vote"), "vote"))


def grant_form(grant: Grant) -> bytes:
    return jcs.encode({"v": VERSION, "grant": _writer(Grant)(grant)})


def read_grant(form: bytes) -> Grant:
    """Read `grant_form` back. Raise FormError."""
    return cast(Grant, _reader(Grant)(_open(form, "grant"), "grant"))


def plain(value: Any) -> Json:
    """Return any dataclass of the domain as JSON: what `approvals.digest` builds a match of."""
    return _tell(value)


def _open(form: bytes, name: str) -> Any:
    try:
        outer = json.loads(form, object_pairs_hook=_once, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError):
        raise FormError(f"a stored {name} is not JSON") from None
    if not isinstance(outer, dict) or outer.get("v") != VERSION or isinstance(outer.get("v"), bool):
        raise FormError(f"a stored {name} was written by another version; this one reads {VERSION}")
    return _members(outer, frozenset(("v", name)), name)[name]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_float(_: str) -> Any:
    raise ValueError("there are no floats")


def _members(value: Any, names: frozenset[str], where: str, absent: frozenset[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(value, dict) or not names - absent <= value.keys() <= names:
        raise FormError(f"a stored form does not have the fields of {where}")
    return value


# -- the walk, both ways: a hint is turned into a function once, and the functions walk the values ------------------------

Write = Callable[[Any], Json]
Read = Callable[[Any, str], Any]


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """Return the hints of the fields that are kept: `Any` marks what is not a part of the value (the catalog)."""
    return {name: hint for name, hint in get_type_hints(kind).items() if hint is not Any}


@cache
def _optional(kind: type) -> frozenset[str]:
    """Return the fields that have a default."""
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(kind) if f.default is not missing or f.default_factory is not missing)


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or nothing."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def _tell(value: Any) -> Json:
    kind: Any = type(value)
    return _writer(kind)(value)


def _as_is(value: Any) -> Json:
    return cast(Json, value)


@cache
def _writer(hint: Any) -> Write:
    """Return the function that turns a value of this hint into JSON."""
    if options := _options(hint):
        kinds = [o for o in options if o is not types.NoneType]
        if len(kinds) == 1:
            inner = _writer(kinds[0])
            return lambda value: None if value is None else inner(value)
        return lambda value: {TAG: type(value).__name__, "value": _tell(value)}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        fields = [(name, _writer(inner)) for name, inner in _hints(hint).items()]
        return lambda value: {name: write(getattr(value, name)) for name, write in fields}
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and args[-1] is Ellipsis:
        item = _writer(args[0])
        return lambda value: [item(v) for v in value]
    if origin is tuple:
        items = [_writer(a) for a in args]
        return lambda value: [write(v) for write, v in zip(items, value, strict=True)]
    if origin is frozenset:
        member = _writer(args[0])
        return lambda value: sorted((member(v) for v in value), key=jcs.encode)
    if origin is Mapping:
        # Pairs, not an object: names that people choose never become keys of ours.
        key, held = _writer(args[0]), _writer(args[1])
        return lambda value: [[key(k), held(v)] for k, v in sorted(value.items())]
    if hint is bytes:
        return lambda value: base64.b64encode(value).decode()
    if hint is datetime:
        return lambda value: cast(str, value.isoformat(timespec="microseconds"))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda value: cast(str, value.value)
    if hint in (str, int, bool):
        return _as_is
    raise TypeError(f"{hint} has no stored form; give one here")


@cache
def _reader(hint: Any) -> Read:
    """Return the function that reads a value of this hint strictly; it raises FormError with the place."""
    if options := _options(hint):
        return _option_reader({o.__name__: o for o in options if o is not types.NoneType}, types.NoneType in options)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass_reader(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and args[-1] is Ellipsis:
        item = _reader(args[0])
        return lambda plain, where: tuple([item(v, where) for v in _list(plain, where)])
    if origin is tuple:
        items = [_reader(a) for a in args]
        return lambda plain, where: tuple(
            [read(v, where) for read, v in zip(items, _list(plain, where, len(items)), strict=True)]
        )
    if origin is frozenset:
        member = _reader(args[0])
        return lambda plain, where: frozenset([member(v, where) for v in _list(plain, where)])
    if origin is Mapping:
        pair = _reader(tuple[args])  # type: ignore[valid-type]  # built at run time from the hint
        return lambda plain, where: dict([pair(v, where) for v in _list(plain, where)])
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        members = {m.value: m for m in hint}
        return lambda plain, where: members[plain] if type(plain) is str and plain in members else _wrong(where)
    if hint in (str, int, bool):
        return lambda plain, where: plain if type(plain) is hint else _wrong(where)
    return {bytes: _bytes, datetime: _datetime}[hint]


def _option_reader(kinds: Mapping[str, Any], optional: bool) -> Read:
    if len(kinds) == 1:
        inner = _reader(next(iter(kinds.values())))
        return lambda plain, where: None if plain is None and optional else inner(plain, where)

    def read(plain: Any, where: str) -> Any:
        tagged = _members(plain, frozenset((TAG, "value")), where)
        name = tagged[TAG]
        return _reader(kinds[name])(tagged["value"], where) if type(name) is str and name in kinds else _wrong(where)

    return read


def _dataclass_reader(kind: type) -> Read:
    fields = {name: (_reader(inner), f"{kind.__name__}.{name}") for name, inner in _hints(kind).items()}
    names, absent = frozenset(fields), _optional(kind)

    def read(plain: Any, where: str) -> Any:
        members = _members(plain, names, where, absent)
        return kind(**{name: fields[name][0](value, fields[name][1]) for name, value in members.items()})

    return read


def _bytes(plain: Any, where: str) -> bytes:
    try:
        return base64.b64decode(plain, validate=True) if type(plain) is str else cast(bytes, _wrong(where))
    except ValueError:
        return cast(bytes, _wrong(where))


def _datetime(plain: Any, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(plain) if type(plain) is str else None
    except ValueError:
        moment = None
    return cast(datetime, _wrong(where)) if moment is None or moment.utcoffset() is None else moment


def _list(plain: Any, where: str, length: int | None = None) -> list[Any]:
    if type(plain) is not list or (length is not None and len(plain) != length):
        _wrong(where)
    return cast("list[Any]", plain)


def _wrong(where: str) -> Any:
    """Refuse, naming the place and never the value."""
    raise FormError(f"a stored form has something else at {where}") from None
