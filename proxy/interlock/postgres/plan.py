"""How many rows a statement would change, as far as the planner knows: what may be asked, and what its answer says. Pure.

Planning runs code: the planner computes immutable and stable functions of constants, asks foreign servers, expands views
and row security (threats.md, A4). So a statement is only planned for a reviewer when everything in it is PostgreSQL's own
and on the allow-list of commands.sql: no function, operator or cast of a user, also not of an extension; ordinary tables
only; nothing opaque; names that can't mean another table. Whatever is not surely so is not asked: that costs the reviewer a
number.

Knows: analyses, the catalog's words, EXPLAIN (FORMAT JSON). Must not know: connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from interlock.commands.model import Analysis, Command, Kind, SqlContext, Wire
from interlock.commands.sql.catalog import Catalog

EXPLAIN = b"EXPLAIN (FORMAT JSON) "
CHANGES = {"update": "changes", "delete": "deletes", "insert": "adds", "merge": "merges"}
_INTO = {"insert": "to", "merge": "into"}
MAX_TEXT = 8 * 1024
"""Bytes of a statement that is planned for a reviewer: a longer one is classified elsewhere, and takes longer to plan."""
MAX_NODES = 10_000

ROWS_IN = """SELECT c.reltuples::int8 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r' AND c.reltuples >= 0"""
"""How many rows a table has by its statistics; no row when nothing is known. Takes the names of its schema and itself."""


@dataclass(frozen=True, slots=True)
class Question:
    """A statement that may be planned. `text` is what is sent; `schema` and `table` are what it changes."""

    text: bytes
    verb: str
    schema: str
    table: str


def question(command: Command, analysis: Analysis) -> Question | None:
    """Return what to ask the planner about a command, or None when planning it might run somebody's code."""
    context = command.context
    if command.wire is not Wire.POSTGRES or command.kind is Kind.PARSE or len(command.text) > MAX_TEXT:
        return None
    if not isinstance(context, SqlContext) or context.tainted or not isinstance(context.catalog, Catalog):
        return None
    if not analysis.static or analysis.assumed or analysis.names or analysis.statements != 1:
        return None
    planned = [
        effect for effect in analysis.effects if "foreign key" not in effect.via
    ]  # what follows is planned when it happens
    changes = [effect for effect in planned if effect.verb in CHANGES]
    if len(changes) != 1 or any(effect.verb not in CHANGES and effect.verb != "select" for effect in planned):
        return None
    if not all(_plain(effect.schema, effect.object, context.catalog) for effect in planned if effect.object):
        return None
    # Built-in functions are noted by their bare name, all others with their schema.
    if any("." in name for effect in analysis.effects for name in effect.functions):
        return None
    if not _only_built_in(context.catalog, context.search_path):
        return None
    change = changes[0]
    return Question(EXPLAIN + command.text, change.verb, change.schema, change.object.removeprefix(f"{change.schema}."))


def _plain(schema: str, qualified: str, catalog: Catalog) -> bool:
    """Whether a relation is an ordinary table whose planning asks nobody: no view, policy, foreign child or user's code."""
    found = catalog.relations.get((schema, qualified.removeprefix(f"{schema}.")))
    return (
        found is not None
        and found.kind == "table"
        and not (found.rules or found.row_security or found.foreign_children or found.read_calls or found.write_calls)
    )


def _only_built_in(catalog: Catalog, path: tuple[str, ...]) -> bool:
    """Whether every operator and cast that a statement could mean is PostgreSQL's own, whatever the types of its columns."""
    return not catalog.casts and not any(o.schema in path for found in catalog.operators.values() for o in found)


def estimated(plan: str) -> int | None:
    """Read how many rows the one node that changes rows gets. None when the plan does not say. Never raises."""
    try:
        (top,) = json.loads(plan)
        changing = [node for node in _nodes(top["Plan"]) if node["Node Type"] == "ModifyTable"]
        if len(changing) != 1:
            return None
        fed = [child for child in changing[0]["Plans"] if child["Parent Relationship"] in ("Outer", "Member")]
        rows = sum(int(child["Plan Rows"]) for child in fed)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return rows if fed and rows >= 0 else None


def _nodes(top: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pending, seen = [top], 0
    while pending and seen < MAX_NODES:
        node = pending.pop()
        seen += 1
        yield node
        pending.extend(node.get("Plans", ()))


def words(asked: Question, rows: int, of: int | None) -> str:
    """Say the estimate as a person would. `of` is how many rows the table has, where that is known."""
    table = f"{asked.schema}.{asked.table}"
    about = f"about {_rounded(rows):,}"
    if asked.verb in _INTO:
        return f"The planner estimates that it {CHANGES[asked.verb]} {about} rows {_INTO[asked.verb]} {table}."
    whole = f" of {_rounded(of):,}" if of is not None and of >= rows else ""
    return f"The planner estimates that it {CHANGES[asked.verb]} {about}{whole} rows of {table}."


def _rounded(rows: int) -> int:
    """Three digits: more would pretend to know."""
    size = max(0, len(str(rows)) - 3)
    return round(rows, -size) if size else rows
