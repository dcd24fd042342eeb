"""What reaches a reviewer's terminal, whoever sent it: also a daemon that lies."""

from __future__ import annotations

from typing import Any

from interlock.cli.description import describe, safe, table
from interlock.cli.documents import Request

HOSTILE = "a\x1b[2J\x07\x9b1m\u202e\u200b\u2028\r\n\udc9b\xa0b"


def lying(value: Any) -> Any:
    """The same shape, every text hostile."""
    match value:
        case str():
            return HOSTILE
        case list():
            return [lying(item) for item in value]
        case dict():
            return {key: lying(item) for key, item in value.items()}
        case _:
            return value


def request() -> dict[str, Any]:
    """A request in which every part that is shown is there."""
    vote = {
        "reviewer": "bob", "identity": "local:bob", "channel": "cli", "verdict": "deny", "scope": "once", "valid_until": None,
        "proof": "personal", "signed": {"kind": "sshsig", "key": "SHA256:x"}, "break_glass": True, "groups": ["sre"],
        "reason": "no", "at": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    return {
        "v": 1, "id": "req_1", "state": "denied", "presence": "held", "digest": "d", "match": "m", "principal": "claude",
        "kind": "agent", "acting_for": ["alice"], "owner": "alice", "target": "web-1", "account": "deploy", "database": "d",
        "session": "s", "text": "ls", "first": "ls", "effects": [], "rule": "r", "reason": "why", "risk": "high",
        "critical": False, "policy": "p", "created": "c", "expires": "e", "valid_until": None, "escalated": None,
        "groups": ["sre"], "quorum": 1, "needs": [], "people": 1, "step_up": "none", "edited_from": "req_0",
        "author": "local:bob", "successor": "req_2", "grant": "grt_1", "votes": [vote], "title": "Denied",
        "display": {"lines": ["ls"], "deceptions": ["x"], "cut": False, "length": 2},
        "stdin": {"sha256": "x", "bytes": 3, "base64": "x", "lines": ["in"], "deceptions": [], "cut": False},
        "binds": [{"shown": "7", "format": 1, "type": 23, "base64": "Nw=="}, {"shown": None, "format": 1, "type": 17,
        "base64": "Nw=="}, {"shown": None, "format": 0, "type": 0, "base64": None}], "surroundings": ["w"], "words": ["e"],
        "opaque": [], "notes": ["n"], "facts": ["f"], "said": "s", "remarks": ["m"], "must": ["one person of sre"],
        "scopes": [{"scope": "once", "words": "once"}],
    }  # fmt: skip


def test_the_request_of_this_test_is_one() -> None:
    Request.model_validate(request())


def test_every_part_is_shown_and_none_reaches_the_terminal_as_it_is() -> None:
    shown = describe(request())
    for word in ("alice", "deploy", "warning: x", "$2 = base64 Nw==", "$3 = NULL", "SHA256:x", "breaking the glass", "grt_1"):
        assert any(word in line for line in shown), word
    lies = [*describe(lying(request())), *(cell for row in table([lying(request())]) for cell in row)]
    for line in lies:
        assert all(" " <= c <= "~" or c in "⟦⟧…" for c in line), ascii(line)
    assert any("U+001B" in line for line in lies)


def test_what_is_safe_stays_as_it_is() -> None:
    assert safe("rm -rf ⟦U+202E⟧ /srv…") == "rm -rf ⟦U+202E⟧ /srv…"
    assert safe(None) == "None"
