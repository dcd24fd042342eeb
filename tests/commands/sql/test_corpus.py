"""The labelled corpus: nothing that needs a human, a denial or a refusal passes for a plain read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.people import agent
from interlock.commands.model import Analysis, Command, Kind, SqlContext, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.policy import packs
from interlock.policy.loader import load
from interlock.policy.model import Target, Verdict
from interlock.policy.question import decide

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "corpora" / "sql_statements.jsonl").read_text().splitlines()
]
HARMLESS = frozenset(("select", "explain", "transaction", "nothing"))
VERBS = {
    "InsertStmt": "insert",
    "UpdateStmt": "update",
    "DeleteStmt": "delete",
    "MergeStmt": "merge",
    "TruncateStmt": "truncate",
    "ExplainStmt": "explain",
    "TransactionStmt": "transaction",
    "DropStmt": "drop",
    "DropdbStmt": "drop",
    "DoStmt": "do",
    "CallStmt": "call",
    "FetchStmt": "fetch",
    "DeclareCursorStmt": "cursor",
    "ListenStmt": "listen",
    "NotifyStmt": "notify",
    "AlterRoleStmt": "alter",
    "AlterTableStmt": "alter",
    "CreateExtensionStmt": "create",
    "CreateFunctionStmt": "create",
    "CreateForeignServerStmt": "create",
    "RuleStmt": "create",
    "VariableSetStmt": "set",
}


def analysed(text: str) -> Analysis:
    return analyze_sql(text.encode(), SqlContext(assume_tables=True), Kind.QUERY)


def reads_only(analysis: Analysis) -> bool:
    """Nothing but reading, planning, and the beginning and end of transactions."""
    return all(
        effect.verb in HARMLESS and (effect.verb != "transaction" or effect.detail in ("begin", "commit", "rollback"))
        for effect in analysis.effects
    )


def harmless(analysis: Analysis) -> bool:
    """A plain static read, as a rule that allows reading would see it."""
    return analysis.static and reads_only(analysis) and all(e.filtered or e.limited or not e.object for e in analysis.effects)


@pytest.mark.parametrize("row", [r for r in ROWS if r["expected"]["need"] != "read"], ids=lambda r: r["id"])
def test_what_needs_somebody_is_never_a_plain_read(row: dict[str, object]) -> None:
    found = analysed(str(row["text"]))
    assert not (found.static and reads_only(found))
    assert found.static == (found.sent is not None)


def test_reads_are_static() -> None:
    reads = [r for r in ROWS if r["expected"]["need"] == "read"]
    static = [r["id"] for r in reads if (a := analysed(r["text"])).static and reads_only(a)]
    assert len(reads) == 11
    assert static == [r["id"] for r in reads], "every read of the corpus is static"
    # Two read whole tables: static, and still for the export rule to see.
    assert [r["id"] for r in reads if not harmless(analysed(r["text"]))] == ["sql-049", "sql-053"]


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r["expected"]["need"] == "reject" and r["category"] != "deep"], ids=lambda r: r["id"]
)
def test_what_can_not_be_read_is_refused(row: dict[str, object]) -> None:
    assert analysed(str(row["text"])).unreadable is not None


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["id"])
def test_each_statement_of_a_row_is_reported(row: dict[str, dict[str, list[str]]]) -> None:
    found = analysed(str(row["text"]))
    if not found.static:
        return
    verbs = {effect.verb for effect in found.effects}
    for kind in row["expected"]["kinds"]:
        if kind in VERBS:
            assert VERBS[kind] in verbs, kind


@pytest.mark.parametrize("row", [r for r in ROWS if r["expected"]["flags"]], ids=lambda r: r["id"])
def test_flags_show_in_the_facts(row: dict[str, dict[str, list[str]]]) -> None:
    found = analysed(str(row["text"]))
    for flag in row["expected"]["flags"]:
        match flag.split(":"):
            case ["no-where" | "trivial-where"]:
                assert any(not effect.filtered for effect in found.effects)
            case ["function", name] if name != "set_config":
                assert any(name in effect.object for effect in found.effects) or any(name in o.text for o in found.opaque)
            case ["set", name] if name != "transaction":
                assert any(effect.verb == "set" and effect.object == name for effect in found.effects)
            case ["copy-program" | "copy-file" as verb]:
                assert any(effect.verb == verb.replace("-", "_") for effect in found.effects)
            case ["code-block"]:
                assert not found.static


WHOLE_TABLES = {
    "sql-049": "postgres/data-export",  # SELECT (t).total FROM t: every row of a table
    "sql-053": "postgres/data-export",  # SELECT * FROM innocuous_view: every row of a view
}
"""The reads of the corpus that the shipped packs do not allow, and the rule that asks."""


def test_no_unsafe_row_is_allowed_and_reads_are_by_the_shipped_packs() -> None:
    policy = load([packs.shipped()])
    target = Target("orders", "postgres", {"env": "prod"}, role="app", database="orders")
    unsafe, asked = [], {}
    for row in ROWS:
        text = str(row["text"]).encode("utf-8", "surrogatepass")
        command = Command(Wire.POSTGRES, Kind.QUERY, text, context=SqlContext(assume_tables=True))
        found = analysed(row["text"])
        decision = decide(policy, agent(), target, command, found, datetime(2026, 1, 5, 10, tzinfo=UTC))
        if row["expected"]["need"] == "read":
            if decision.verdict is not Verdict.ALLOW:
                asked[row["id"]] = decision.rule
        elif decision.verdict is Verdict.ALLOW:
            unsafe.append(row["id"])
    print(f"\n{len(ROWS)} labelled statements: {len(unsafe)} unsafe ones allowed; reads that are not allowed: {asked}")
    assert not unsafe
    assert asked == WHOLE_TABLES
