"""What a reviewer was asked, read from the bytes that the digest is of, and held against what the record says ran.

A reviewer answers a digest. Without the bytes behind it nothing ties it to a command: these bytes are the one place where
the node can't say one thing to the reviewer and another to the record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from interlock.verify.strict import MalformedError, parse_object

VERSION = 1
PLACE = (("target", "name"), ("protocol", "protocol"), ("account", "account"), ("role", "role"), ("database", "database"))
"""How `session.open` and the form call the parts of a target."""


class Form:
    """One disclosed form. Raise MalformedError, KeyError, TypeError or ValueError when it is none."""

    def __init__(self, text: str) -> None:
        self.digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        outer = parse_object(text.encode())
        if set(outer) != {"v", "request"} or outer["v"] != VERSION:
            raise MalformedError("not a request of a version that is known")
        self._request: dict[str, Any] = outer["request"]
        self._draft: dict[str, Any] = self._request["draft"]
        self.nonce: str = self._request["nonce"]
        self.session: str = self._draft["session"]

    def disagreements(
        self, event: dict[str, Any], opened: dict[str, Any], command: dict[str, Any], given: dict[str, Any], *, whole: bool
    ) -> list[str]:
        """Return what of a request's event, the session and the command is not what the reviewer was asked.

        `given` are the command's texts; `whole`: all of them are there, so what is absent was never given.
        """
        return [*self._of_request(event), *self._of_session(opened), *self._of_command(command, given, whole=whole)]

    def _of_request(self, event: dict[str, Any]) -> list[str]:
        request, terms = self._request, self._draft["terms"]
        author = request.get("author")
        facts = {
            "digest": self.digest == event["digest"],
            "request": request["id"] == event["request"],
            "match": request["match"] == event["match"],
            "grant": request.get("grant", "") == event.get("grant", ""),
            "end": datetime.fromisoformat(request["expires"]) == datetime.fromisoformat(event["expires"]),
            "excluded": sorted(map(_identity, request["excluded"])) == sorted(event["excluded"]),
            "author": (None if author is None else _identity(author)) == event.get("author"),
            "needs": [_need(n) for n in (terms, *terms["also"])] == [_need(n) for n in needs(event)],
            "critical": (terms["risk"] == "critical" or terms["step_up"] == "passkey") is event.get("critical", False),
        }
        return [name for name, same in facts.items() if not same]

    def _of_session(self, opened: dict[str, Any]) -> list[str]:
        principal, target = self._draft["principal"], self._draft["target"]
        facts = {
            "principal": _identity(principal["identity"]) == opened.get("principal"),
            "acting_for": [_identity(i) for i in principal["acting_for"]] == opened.get("acting_for"),
            **{name: target[held] == opened.get(name) for name, held in PLACE},
        }
        return [name for name, same in facts.items() if not same]

    def _of_command(self, event: dict[str, Any], given: dict[str, Any], *, whole: bool) -> list[str]:
        asked = self._draft["command"]
        stdin, binds = asked["stdin"], [(b["raw"], b["format"], b["type_oid"], b["shown"]) for b in asked["binds"]]
        wrong = [] if asked["kind"] == event["type"] else ["kind"]
        if dict(asked["env"]) != event.get("env", {}):
            wrong.append("env")
        if (whole or "text" in given) and _text(given) != _bytes(asked["text"]):
            wrong.append("text")
        if (whole or "stdin" in given) and given.get("stdin") != (None if stdin is None else stdin["data"]):
            wrong.append("stdin")
        shown = [(b["raw"], b["format"], b["type"], b["shown"]) for b in given.get("binds", ())]
        if (whole or "binds" in given) and shown != binds:
            wrong.append("binds")
        return wrong


def needs(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return who must answer by a request's event: one list of groups has the whole quorum where no `needs` are named."""
    return list(event.get("needs") or [{"groups": event["groups"], "quorum": event["quorum"]}])


def _need(plain: Mapping[str, Any]) -> tuple[list[str], int]:
    return list(plain["groups"]), plain["quorum"]


def _identity(plain: dict[str, str]) -> str:
    return f"{plain['issuer']}:{plain['subject']}"


def _text(given: dict[str, Any]) -> bytes | None:
    """Return the command's bytes; None when what is shown of them is not what they are."""
    text, exact = given.get("text"), given.get("text_base64")
    if not isinstance(text, str):
        return None
    if exact is None:
        return text.encode()
    data = _bytes(exact)
    return data if data.decode("utf-8", "backslashreplace") == text else None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise MalformedError("not base64") from None
