"""What psql, pg_dump -s, asyncpg, psycopg and SQLAlchemy send by themselves passes without a human.

tests/data/sql/introspection.jsonl was recorded by a PostgreSQL 15 with log_statement=all that had schema.sql: psql 15
(60 backslash commands), pg_dump 15 -s, asyncpg 0.32, psycopg 3.3, SQLAlchemy 2.1 over asyncpg and psycopg.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from interlock.commands.model import Kind, SqlContext
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog

from .conftest import DATA

ROWS: list[dict[str, Any]] = [json.loads(line) for line in (DATA / "sql" / "introspection.jsonl").read_text().splitlines()]
HARMLESS = frozenset(("select", "set", "reset", "transaction", "prepare", "execute", "cursor", "fetch", "lock", "listen"))
SETTINGS = frozenset(
    """search_path datestyle intervalstyle extra_float_digits synchronize_seqscans statement_timeout lock_timeout jit
    idle_in_transaction_session_timeout row_security restrict_nonsystem_relation_kind transaction_isolation
    transaction_read_only *""".split()
)


def test_the_recording_is_of_all_clients() -> None:
    clients = Counter(row["client"].split()[0] for row in ROWS)
    assert {
        name: count >= least for (name, count), least in zip(sorted(clients.items()), (10, 100, 100, 10, 50), strict=True)
    } == {
        "asyncpg": True,
        "pg_dump": True,
        "psql": True,
        "psycopg": True,
        "sqlalchemy": True,
    }


def test_every_statement_is_static_and_harmless(catalog: Catalog) -> None:
    prepared: dict[str, str] = {}
    cursors: dict[str, str] = {}
    for row in ROWS:
        # pg_dump empties the search_path first and qualifies every name from then on.
        path = () if row["client"].startswith("pg_dump") else ("public", "pg_temp")
        context = SqlContext(catalog=catalog, search_path=path, prepared=prepared, cursors=cursors)
        found = analyze_sql(row["text"].encode(), context, Kind.QUERY if row["kind"] == "query" else Kind.PARSE)
        for action in found.names:
            if action.kind in ("prepare", "declare"):
                (prepared if action.kind == "prepare" else cursors)[action.name] = action.text
        assert found.static, (row["id"], row["client"], found.opaque, found.unreadable)
        for effect in found.effects:
            if effect.verb == "function":
                assert effect.object == "pg_catalog.pg_advisory_unlock_all", (row["id"], effect)
                continue
            assert effect.verb in HARMLESS, (row["id"], effect)
            if effect.verb == "select":
                assert effect.relation_kind in ("system", ""), (row["id"], effect)
                assert "secret" not in effect.detail, (row["id"], effect)
            if effect.verb in ("set", "reset"):
                assert effect.object in SETTINGS, (row["id"], effect)
            if effect.verb == "lock":
                assert effect.detail == "access share", (row["id"], effect)
