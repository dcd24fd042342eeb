"""Requests and votes as plain JSON and back, strictly: what the store keeps and what a digest is taken of. Pure.

Theory of operation: one walk over type hints in each direction. A dataclass is an object with exactly its fields, an
absent or an unknown field is an error, bytes are base64, instants RFC 3339, sets and mappings sorted lists (so that
equal values give equal bytes), and one of several dataclasses carries its name under `is`. Nothing is converted,
guessed or defaulted on the way in: a form that another version wrote is refused, by number.

Knows shapes. Must not know what a state means, nor where the bytes are kept. The catalog of a SqlContext is left out: it
is a snapshot of the target taken by ourselves, not a part of what was asked.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import types
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from interlock.approvals.model import ApprovalRequest, Vote
from interlock.errors import StoreError
from interlock.evidence import jcs
from interlock.evidence.events import Json

VERSION = 1
TAG = "is"

_FROZEN = ("id", "nonce", "match", "draft", "created", "expires", "excluded")
"""The fields of a request that never change after it was opened. The digest covers these and nothing else."""


class FormError(StoreError):
    """A stored form that this version did not write, or that somebody changed."""


def request_form(request: ApprovalRequest) -> bytes:
    """Return the canonical bytes (RFC 8785) of all that never changes in a request, the digest itself excepted."""
    hints = _hints(ApprovalRequest)
    plain = {name: _plain(hints[name], getattr(request, name)) for name in _FROZEN}
    return jcs.encode({"v": VERSION, "request": plain})


def read_request(form: bytes, digest: str) -> ApprovalRequest:
    """Read `request_form` back into a pending, held request without votes. Raise FormError."""
    plain = _members(_open(form, "request"), frozenset(_FROZEN), "request")
    hints = _hints(ApprovalRequest)
    values = {name: _value(hints[name], plain[name], name) for name in _FROZEN}
    return ApprovalRequest(digest=digest, **values)


def vote_form(vote: Vote) -> bytes:
    return jcs.encode({"v": VERSION, "vote": _plain(Vote, vote)})


def read_vote(form: bytes) -> Vote:
    """Read `vote_form` back. Raise FormError."""
    return cast(Vote, _value(Vote, _open(form, "vote"), "vote"))


def plain(value: Any) -> Json:
    """Return any dataclass of the domain as JSON: what `approvals.digest` builds a match of."""
    return _plain(type(value), value)


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


def _members(value: Any, names: frozenset[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != names:
        raise FormError(f"a stored form does not have the fields of {where}")
    return value


# -- the walk, both ways ----------------------------------------------------------------------------------------------


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """Return the hints of the fields that are kept: `Any` marks what is not a part of the value (the catalog)."""
    return {name: hint for name, hint in get_type_hints(kind).items() if hint is not Any}


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or nothing."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def _plain(hint: Any, value: Any) -> Json:
    if options := _options(hint):
        if value is None:
            return None
        kinds = [o for o in options if o is not types.NoneType]
        if len(kinds) == 1:
            return _plain(kinds[0], value)
        kind = type(value)
        return {TAG: kind.__name__, "value": _plain(kind, value)}
    if _is_dataclass(hint):
        return {name: _plain(inner, getattr(value, name)) for name, inner in _hints(hint).items()}
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        inner = args[:1] * len(value) if args[-1] is Ellipsis else args
        return [_plain(i, v) for i, v in zip(inner, value, strict=True)]
    if origin is frozenset:
        return sorted((_plain(args[0], v) for v in value), key=jcs.encode)
    if origin is Mapping:
        # Pairs, not an object: names that people choose never become keys of ours.
        return [[_plain(args[0], k), _plain(args[1], v)] for k, v in sorted(value.items())]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, (str, int)):
        return value
    raise FormError(f"a {type(value).__name__} has no stored form")


def _value(hint: Any, plain: Any, where: str) -> Any:
    if options := _options(hint):
        if plain is None and types.NoneType in options:
            return None
        kinds = {o.__name__: o for o in options if o is not types.NoneType}
        if len(kinds) == 1:
            return _value(next(iter(kinds.values())), plain, where)
        tagged = _members(plain, frozenset((TAG, "value")), where)
        if tagged[TAG] not in kinds:
            raise FormError(f"a stored form names an unknown kind at {where}")
        return _value(kinds[tagged[TAG]], tagged["value"], where)
    if _is_dataclass(hint):
        hints = _hints(hint)
        members = _members(plain, frozenset(hints), where)
        return hint(**{name: _value(inner, members[name], f"{where}.{name}") for name, inner in hints.items()})
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        items = _list(plain, where)
        inner = args[:1] * len(items) if args[-1] is Ellipsis else args
        if len(inner) != len(items):
            raise FormError(f"a stored form has a list of another length at {where}")
        return tuple(_value(i, v, where) for i, v in zip(inner, items, strict=True))
    if origin is frozenset:
        return frozenset(_value(args[0], v, where) for v in _list(plain, where))
    if origin is Mapping:
        return dict(_pair(args, pair, where) for pair in _list(plain, where))
    return _leaf(hint, plain, where)


def _pair(hints: tuple[Any, ...], plain: Any, where: str) -> tuple[Any, Any]:
    match _list(plain, where):
        case [key, value]:
            return _value(hints[0], key, where), _value(hints[1], value, where)
    raise FormError(f"a stored form has no pair at {where}")


def _leaf(hint: Any, plain: Any, where: str) -> Any:
    try:
        if hint is bytes and type(plain) is str:
            return base64.b64decode(plain, validate=True)
        if hint is datetime and type(plain) is str:
            moment = datetime.fromisoformat(plain)
            if moment.utcoffset() is not None:
                return moment
        elif isinstance(hint, type) and issubclass(hint, StrEnum) and type(plain) is str:
            return hint(plain)
        elif hint in (str, int, bool) and type(plain) is hint:
            return plain
    except (ValueError, binascii.Error):
        pass  # said below, without the value
    raise FormError(f"a stored form has another type at {where}")


def _list(plain: Any, where: str) -> list[Any]:
    if not isinstance(plain, list):
        raise FormError(f"a stored form has no list at {where}")
    return plain
