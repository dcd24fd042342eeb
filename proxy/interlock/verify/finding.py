"""What verification finds: problems, released commands, and the report of one bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MAX_PROBLEMS = 50
"""More are counted and not kept: a broken file would repeat itself."""


class Severity(StrEnum):
    INVALID = "invalid"  # the evidence contradicts itself, its seal or the rules
    INCOMPLETE = "incomplete"  # something is missing that nobody explained


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `seq` is the event it was met at."""

    severity: Severity
    check: str
    message: str
    seq: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"severity": str(self.severity), "check": self.check, "message": self.message, "seq": self.seq}


@dataclass(frozen=True, slots=True)
class Released:
    """A command whose bytes went to the target. `text` is None when its disclosure is missing.

    `sent` is what was sent in its place when that differs (the re-rendering of an allowed command).
    """

    seq: int
    type: str
    text: str | None
    sent: str | None
    verdict: str
    rule: str
    request: str | None = None
    approved_by: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "type": self.type,
            "text": self.text,
            "sent": self.sent,
            "verdict": self.verdict,
            "rule": self.rule,
            "request": self.request,
            "approved_by": list(self.approved_by),
        }


@dataclass(slots=True)
class Report:
    """The findings of one bundle."""

    bundle: str
    session: str = ""
    kind: str = ""
    status: str = "unsealed"
    node: str = ""
    agent: str | None = None
    target: str | None = None
    opened: str = ""
    closed: str = ""
    sync: str = ""
    events: int = 0
    checks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    released: list[Released] = field(default_factory=list)
    dropped: int = 0
    continues: tuple[str, int, str] | None = None
    leaves: list[str] | None = None  # of a journal: the hash of each line, for the journal after it

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def result(self) -> str:
        """`verified`, `aborted` (verified, but the node died), `incomplete` or `failed`."""
        if any(p.severity is Severity.INVALID for p in self.problems):
            return "failed"
        if self.problems:
            return "incomplete"
        return "aborted" if self.status == "aborted" else "verified"

    def problem(self, check: str, message: str, seq: int | None = None, *, incomplete: bool = False) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            self.dropped += 1
            return
        severity = Severity.INCOMPLETE if incomplete else Severity.INVALID
        self.problems.append(Problem(severity, check, message, seq))

    def to_json(self) -> dict[str, Any]:
        return {
            "bundle": self.bundle, "ok": self.ok, "result": self.result, "session": self.session, "kind": self.kind,
            "status": self.status, "node": self.node, "agent": self.agent, "target": self.target, "opened": self.opened,
            "closed": self.closed, "sync": self.sync, "events": self.events, "checks": self.checks, "notes": self.notes,
            "problems": [p.to_json() for p in self.problems], "problems_not_shown": self.dropped,
            "released": [r.to_json() for r in self.released],
        }  # fmt: skip
