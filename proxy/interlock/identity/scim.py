"""SCIM 2.0 as text and shapes: filters, patches and what a user or group says (RFC 7643, RFC 7644). Pure.

Reads strictly what it uses and leaves the rest of a resource alone: identity providers send dozens of attributes, and a few
send booleans as words. Must not know the directory, HTTP or who calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interlock.errors import InterlockError, Reason

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"

MAX_TEXT = 255
MAX_GROUP = 127
MAX_OPERATIONS = 500
MAX_MEMBERS = 10_000
MAX_PAGE = 200

_FILTER = re.compile(r'\s*([A-Za-z][A-Za-z0-9.]{0,63})\s+([A-Za-z]{2})\s+("(?:[^"\\]|\\.){0,600}")\s*\Z')
_MEMBER = re.compile(r'members\[\s*value\s+eq\s+("(?:[^"\\]|\\.){0,128}")\s*\]\Z', re.IGNORECASE)


class ScimError(InterlockError):
    """A request that can't be done. `kind` is the scimType of RFC 7644 §3.12."""

    reason = Reason.CONFIG_INVALID

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message, reason=Reason.NOT_FOUND if status == 404 else Reason.CONFIG_INVALID)
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class User:
    """What is used of a user."""

    user_name: str
    external_id: str = ""
    display: str = ""
    active: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """What is used of a group. `members` are SCIM ids of users."""

    display: str
    external_id: str = ""
    members: frozenset[str] = frozenset()


def bad(message: str, kind: str = "invalidValue") -> ScimError:
    return ScimError(400, kind, message)


def user(body: Any, before: User | None = None) -> User:
    """Read a whole user. One who was stopped `before` stays so where nothing else is said. Raise ScimError."""
    given = _object(body, "a user")
    active = _member(given, "active", before.active if before is not None else True)
    name = _member(given, "name")
    display = _text(given, "displayName") or (_text(name, "formatted") if isinstance(name, dict) else "")
    return User(_text(given, "userName", needed=True), _text(given, "externalId"), display, _flag(active))


def group(body: Any) -> Group:
    """Read a whole group. Raise ScimError."""
    given = _object(body, "a group")
    return Group(
        _text(given, "displayName", needed=True, longest=MAX_GROUP),
        _text(given, "externalId"),
        _members(_member(given, "members", [])),
    )


def patched_user(before: User, body: Any) -> User:
    """Apply a PATCH to a user. Raise ScimError; then nothing is changed."""
    after = before
    for op, path, value in _operations(body):
        if op == "remove":
            if path.lower() in ("username", "active"):
                raise bad(f"{path} can't be removed", "mutability")
            changes: dict[str, Any] = {path: ""}
        elif path:
            changes = {path: value}
        else:
            changes = _object(value, "the value of an operation without a path")
        for name, given in changes.items():
            after = _changed_user(after, name, given)
    return after


def patched_group(before: Group, body: Any) -> Group:
    """Apply a PATCH to a group. Raise ScimError; then nothing is changed."""
    after = before
    for op, path, value in _operations(body):
        one = _MEMBER.match(path)
        if one is not None:
            if op != "remove":
                raise bad("a single member can only be removed by its path", "invalidPath")
            after = replace(after, members=after.members - {_string(one[1])})
            continue
        changes = {path: value} if path else _object(value, "the value of an operation without a path")
        for name, given in changes.items():
            after = _changed_group(after, op, name, given)
    if len(after.members) > MAX_MEMBERS:
        raise bad(f"a group has at most {MAX_MEMBERS} members")
    return after


def equality(text: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Read a filter `attribute eq "value"`; return the field that `names` gives the attribute, and the value."""
    found = _FILTER.match(text)
    if found is None or found[2].lower() != "eq":
        raise bad('filters are of the form: userName eq "value"', "invalidFilter")
    field = names.get(found[1].lower())
    if field is None:
        raise bad(f"there is no filter by {found[1]}", "invalidFilter")
    return field, _string(found[3])


def page(start: str, count: str) -> tuple[int, int]:
    """Read startIndex and count (RFC 7644 §3.4.2.4): from 1 on, at most MAX_PAGE."""
    try:
        first, many = int(start or "1"), int(count or str(MAX_PAGE))
    except ValueError:
        raise bad("startIndex and count are numbers") from None
    return max(1, first), max(0, min(MAX_PAGE, many))


# -- parts ---------------------------------------------------------------------------------------------------------------


def _operations(body: Any) -> list[tuple[str, str, Any]]:
    given = _object(body, "a patch")
    listed = _member(given, "Operations")
    if PATCH not in _listed(_member(given, "schemas")) or not isinstance(listed, list) or not 0 < len(listed) <= MAX_OPERATIONS:
        raise bad(f"a patch has the schema {PATCH} and 1 to {MAX_OPERATIONS} Operations", "invalidSyntax")
    read = []
    for one in listed:
        operation = _object(one, "an operation")
        op, path = _member(operation, "op"), _member(operation, "path", "")
        if not isinstance(op, str) or op.lower() not in ("add", "replace", "remove") or not isinstance(path, str):
            raise bad("an operation has op add, replace or remove, and a path", "invalidSyntax")
        if op.lower() == "remove" and not path:
            raise ScimError(400, "noTarget", "remove needs a path")
        read.append((op.lower(), path.removeprefix(USER + ":").removeprefix(GROUP + ":"), _member(operation, "value")))
    return read


def _changed_user(before: User, name: str, value: Any) -> User:
    match name.lower():
        case "username":
            return replace(before, user_name=_checked(value, "userName", needed=True))
        case "externalid":
            return replace(before, external_id=_checked(value, "externalId"))
        case "displayname":
            return replace(before, display=_checked(value, "displayName"))
        case "active":
            return replace(before, active=_flag(value))
        case _:
            return before  # an attribute that is not used here


def _changed_group(before: Group, op: str, name: str, value: Any) -> Group:
    match name.lower():
        case "displayname" if op != "remove":
            return replace(before, display=_checked(value, "displayName", needed=True, longest=MAX_GROUP))
        case "externalid":
            return replace(before, external_id="" if op == "remove" else _checked(value, "externalId"))
        case "members":
            given = _members(value) if value is not None else None
            if op == "remove":
                return replace(before, members=before.members - given if given is not None else frozenset())
            if given is None:
                raise bad("members is a list of {value}")
            return replace(before, members=before.members | given if op == "add" else given)
        case "id" | "schemas" | "meta":
            return before
        case _:
            raise bad(f"a group has no {name[:40]}", "invalidPath")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"{what} is an object", "invalidSyntax")
    folded = [name.lower() for name in value]
    if len(set(folded)) != len(folded):
        raise bad(f"{what} has an attribute twice", "invalidSyntax")  # RFC 7643 §2.1: their names ignore case
    return value


def _member(value: Mapping[str, Any], name: str, default: Any = None) -> Any:
    found = next((given for key, given in value.items() if key.lower() == name.lower()), default)
    return default if found is None else found


def _text(value: Mapping[str, Any], name: str, *, needed: bool = False, longest: int = MAX_TEXT) -> str:
    return _checked(_member(value, name, ""), name, needed=needed, longest=longest)


def _checked(value: Any, name: str, *, needed: bool = False, longest: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > longest or not value.isprintable() or (needed and not value.strip()):
        raise bad(f"{name} is a text of {'1' if needed else '0'} to {longest} printable characters")
    return value


def _flag(value: Any) -> bool:
    """Read a boolean. Entra sends it as a word."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise bad("active is true or false")


def _members(value: Any) -> frozenset[str]:
    listed = value if isinstance(value, list) else [value]
    if len(listed) > MAX_MEMBERS:
        raise bad(f"a group has at most {MAX_MEMBERS} members")
    return frozenset(_checked(_member(_object(one, "a member"), "value", ""), "members.value", needed=True) for one in listed)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _string(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        raise bad("a value in a filter is a JSON string", "invalidFilter") from None
