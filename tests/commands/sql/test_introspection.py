"""What clients and tools send by themselves passes without a human: psql, pg_dump -s, drivers, object mappers, pgcli.

tests/data/sql/introspection.jsonl was recorded by a PostgreSQL 15 with log_statement=all that had schema.sql: psql 15 (60
backslash commands), pg_dump 15 -s (twice; "all kinds" with the extensions citext and hstore), asyncpg 0.32, psycopg 3.3,
SQLAlchemy 2.1 over asyncpg and psycopg, the JDBC driver 42.5 (every method of DatabaseMetaData, and what a connection does by
itself), Django 5.2 (inspectdb and its introspection) and pgcli 4.7 (its completion and twenty backslash commands).

Left out by hand: Django's `SELECT * FROM x LIMIT 1` but for three relations (it is a read of whatever x is), and pg_dump's
question for the options of user mappings, which are credentials and so a review, in databases that have foreign servers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from harness.people import agent
from interlock.commands.model import Analysis, Command, Kind, SqlContext, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog
from interlock.policy import packs
from interlock.policy.loader import load
from interlock.policy.model import Target, Verdict
from interlock.policy.question import decide

from .conftest import DATA

ROWS: list[dict[str, Any]] = [json.loads(line) for line in (DATA / "sql" / "introspection.jsonl").read_text().splitlines()]
LEAST = {"asyncpg": 10, "django": 90, "jdbc": 30, "pg_dump": 180, "pgcli": 45, "psql": 100, "psycopg": 10, "sqlalchemy": 50}
HARMLESS = frozenset(("select", "set", "reset", "transaction", "prepare", "execute", "cursor", "fetch", "lock", "listen"))
SETTINGS = frozenset(
    """search_path datestyle intervalstyle extra_float_digits synchronize_seqscans statement_timeout lock_timeout jit
    idle_in_transaction_session_timeout row_security restrict_nonsystem_relation_kind transaction_isolation
    transaction_read_only default_transaction_isolation default_transaction_read_only application_name client_encoding
    timezone *""".split()
)


def analysed(catalog: Catalog) -> Iterator[tuple[dict[str, Any], SqlContext, Kind, Analysis]]:
    """Yield each row as its session would be: with what the client has prepared and declared before."""
    client = ""
    prepared: dict[str, str] = {}
    cursors: dict[str, str] = {}
    for row in ROWS:
        if row["client"] != client:
            client, prepared, cursors = row["client"], dict(prepared), dict(cursors)
        # pg_dump empties the search_path first and qualifies every name from then on.
        path = () if client.startswith("pg_dump") else ("public", "pg_temp")
        context = SqlContext(catalog=catalog, search_path=path, prepared=dict(prepared), cursors=dict(cursors))
        kind = Kind.QUERY if row["kind"] == "query" else Kind.PARSE
        found = analyze_sql(row["text"].encode(), context, kind)
        for action in found.names:
            if action.kind in ("prepare", "declare"):
                (prepared if action.kind == "prepare" else cursors)[action.name] = action.text
        yield row, context, kind, found


def test_the_recording_is_of_all_clients() -> None:
    clients = Counter(row["client"].split()[0] for row in ROWS)
    assert clients.keys() == LEAST.keys()
    assert all(clients[name] >= least for name, least in LEAST.items()), clients


def test_every_statement_is_static_and_harmless(catalog: Catalog) -> None:
    for row, _, _, found in analysed(catalog):
        assert found.static, (row["id"], row["client"], found.opaque, found.unreadable)
        for effect in found.effects:
            if effect.verb == "function":
                assert effect.object == "pg_catalog.pg_advisory_unlock_all", (row["id"], effect)
                continue
            assert effect.verb in HARMLESS, (row["id"], effect)
            if effect.verb == "select":
                assert effect.relation_kind in ("system", "") or effect.limited, (row["id"], effect)
                assert "secret" not in effect.detail, (row["id"], effect)
            if effect.verb in ("set", "reset"):
                assert effect.object in SETTINGS, (row["id"], effect)
            if effect.verb == "lock":
                assert effect.detail == "access share", (row["id"], effect)


TARGETS = [Target(name, "postgres", {"env": name}, role="app", database="orders") for name in ("prod", "dev")]
MORNING = datetime(2026, 1, 5, 10, tzinfo=UTC)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_shipped_packs_let_every_statement_pass(catalog: Catalog, target: Target) -> None:
    policy = load([packs.shipped()])
    others = []
    for row, context, kind, found in analysed(catalog):
        command = Command(Wire.POSTGRES, kind, row["text"].encode(), context=context)
        decision = decide(policy, agent(), target, command, found, MORNING)
        if decision.verdict is not Verdict.ALLOW:
            others.append((row["id"], row["client"], decision.rule, row["text"][:90]))
    print(f"\n{len(ROWS)} statements of clients on {target.name}: {len(ROWS) - len(others)} allowed")
    assert not others
