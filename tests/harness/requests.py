"""Requests as the gate would submit them: every field can be changed by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from harness.people import agent
from interlock.approvals.model import RequestDraft
from interlock.commands.model import Analysis, BindValue, Command, Effect, HeldInput, Kind, Opaque, ShellContext, SqlContext, Wire
from interlock.policy.model import Decision, ReviewTerms, Target, Verdict

START = datetime(2026, 1, 2, 2, 13, tzinfo=UTC)

SHELL = Command(
    wire=Wire.SSH,
    kind=Kind.EXEC,
    text=b"sudo rm -rf /var/lib/pg",
    stdin=HeldInput(b"yes\n"),
    env=(("LANG", "C.UTF-8"),),
    context=ShellContext("bash", utf8_locale=True),
)
SQL = Command(
    wire=Wire.POSTGRES,
    kind=Kind.BIND,
    text=b"DELETE FROM orders WHERE id = $1",
    binds=(BindValue(b"\x00\x00\x00\x07", 1, 23, "7"), BindValue(None)),
    settings=(("standard_conforming_strings", "on"),),
    context=SqlContext(catalog=object(), prepared={"p": "SELECT 1"}, cursors={"c": "SELECT 2"}),
)
ANALYSIS = Analysis(
    effects=(Effect("delete", "/var/lib/pg", program="rm", argv=("rm", "-rf", "/var/lib/pg"), via=("sudo",), recursive=True),),
    opaque=(Opaque("command-substitution", "$(x)", 3, 7),),
    parser="shfmt 3.12",
    notes=("the target is in production",),
)
TERMS = ReviewTerms(groups=("sre",), expires=900, hold=60)


def draft(command: Command = SHELL, *, terms: ReviewTerms = TERMS, **changes: Any) -> RequestDraft:
    """Return the draft of the agent's `command` at web-1; `changes` replace fields of the draft."""
    whole = RequestDraft(
        principal=agent(),
        target=Target("web-1", "ssh", {"env": "prod"}, account="deploy"),
        command=command,
        analysis=ANALYSIS,
        decision=Decision(Verdict.REVIEW, "linux/recursive-delete", "It deletes a tree.", "sha256:" + "0" * 64, review=terms),
        terms=terms,
        session="01SESSION",
        client="192.0.2.7",
    )
    return replace(whole, **changes)
