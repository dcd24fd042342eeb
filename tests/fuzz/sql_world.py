"""A scratch database that tells what a text really did, and forgets it again.

Each text runs as a role that owns the objects of tests/data/sql/world.sql and may do nothing outside of its database, inside of a
transaction that is rolled back; a text that ends the transaction costs the database its life: a copy of the template follows.
What the server saw is asked before and after: rows touched and scanned (pg_stat_xact), functions entered (track_functions),
changed settings, locks, sequences, prepared statements and cursors, every row that was written in the system catalogs, and
what event triggers recorded of definitions. Built-in functions that are not on the allow-list may not be executed by
anybody, so that calling one is an error that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from harness.postgres_server import ADMIN, PostgresServer, running_server
from interlock.commands.sql.builtins import OTHER_FUNCTIONS
from interlock.commands.sql.catalog import CATALOG_QUERIES, Catalog

DATA = Path(__file__).parents[1] / "data" / "sql"
ROLE = "fuzz"
SETTINGS = """
track_functions=all
autovacuum=off
max_prepared_transactions=0
temp_file_limit='50MB'
log_statement=none
log_min_messages=fatal
"""
SEEN_OTHERWISE = frozenset(("nextval", "setval", "currval", "lastval", "set_config", "pg_notify")) | frozenset(
    name for name in OTHER_FUNCTIONS if "advisory" in name
)
"""What has an effect that the observer sees, so that it may run."""
RENEWED = 2_000
"""Texts after which the database is made anew: rolled back definitions leave dead rows in the system catalogs."""
PATHS: tuple[tuple[str, ...], ...] = (("public", "pg_temp"), ("shadow", "public", "pg_temp"), ("public", "shadow", "pg_temp"))

OTHER_VALUES = "; ".join(
    f"UPDATE public.{table} SET id = -id - 5, name = '~' || name, total = -total, ok = NOT ok, token = '!' || token"
    for table in ("mix", "diary")
)
"""What holds for all rows before and after this is in the text and not in the data."""

_DENIED = re.compile(r"permission denied for (?:function|table|view|materialized view|sequence|relation) (\S+)")
_TOKENS = re.compile(rb"\b(?:mx|dy)[0-9][0-9]\b")


@dataclass(frozen=True, slots=True)
class Structure:
    """What stands behind relations, as the server itself says: read once, for judging what explains an observation."""

    views: Mapping[str, frozenset[str]]
    parents: Mapping[str, frozenset[str]]
    references: tuple[tuple[str, str], ...]
    """Foreign keys: (referencing, referenced)."""
    sequences: Mapping[str, str]
    """Sequence → the table that owns it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What one text did. `failed` is the server's message, empty when it ran to its end."""

    tables: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)  # scans, inserted, updated, deleted
    functions: frozenset[str] = frozenset()
    locks: frozenset[tuple[str, str]] = frozenset()
    settings: frozenset[str] = frozenset()
    sequences: frozenset[str] = frozenset()
    prepared: frozenset[str] = frozenset()
    cursors: frozenset[str] = frozenset()
    ddl: tuple[Mapping[str, Any], ...] = ()
    catalog_rows: int = 0
    advisory: bool = False
    denied: frozenset[str] = frozenset()
    rows: frozenset[str] = frozenset()
    """Tokens of rows of mix and diary that came back to the client."""
    failed: str = ""

    @property
    def anything(self) -> bool:
        return bool(
            self.tables or self.functions or self.locks or self.settings or self.sequences or self.prepared or self.cursors
            or self.ddl or self.catalog_rows or self.advisory or self.denied or self.rows
        )  # fmt: skip


class World:
    """The database, and one connection of the unprivileged role."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._admin = psycopg.connect(server.dsn(ADMIN, "postgres"), autocommit=True)
        self._connection: psycopg.Connection[Any] | None = None
        self._ran = 0
        self._build()
        self.renew()
        self.catalog = self._load()
        self.structure = self._structure()

    def close(self) -> None:
        self._leave()
        self._admin.close()

    def run(self, text: str, path: tuple[str, ...], *, other: bool = False) -> Observed:
        """Run one text and return what it did; nothing of it remains. `other`: over other values in the same tables."""
        self._ran += 1
        if self._ran % RENEWED == 0 or self._connection is None or self._connection.closed:
            self.renew()
        self._ask(f"SET search_path = {', '.join(path)}")
        self._ask("BEGIN")
        if other:
            self._ask(OTHER_VALUES)
        before = self._observe()
        assert before is not None
        self._ask("SAVEPOINT before")
        output, failed = self._send(text.encode())
        if self._connection is None or self._connection.closed:
            return Observed(failed=failed or "the connection ended")
        if self._status is TransactionStatus.INERROR:
            self._ask("ROLLBACK TO SAVEPOINT before", tolerant=True)
        ended = self._status is not TransactionStatus.INTRANS
        if ended:
            self._ask("ROLLBACK", tolerant=True)
            self._ask("BEGIN")
        after = self._observe()
        if after is None:  # the text has set a timeout, or a role that may ask nothing
            self.renew()
            return Observed(failed=failed or "nothing could be observed")
        ended = ended or after["xid"] != before["xid"]
        self._ask("ROLLBACK")
        if ended:
            self.renew()
        else:
            self._ask("DISCARD ALL")
            self._ask("SET statement_timeout = 5000")
        return _difference(before, after, output, failed)

    def renew(self) -> None:
        """Throw the scratch database away and copy the template."""
        self._leave()
        self._admin.execute("DROP DATABASE IF EXISTS scratch WITH (FORCE)")
        self._admin.execute(f"CREATE DATABASE scratch TEMPLATE world OWNER {ROLE}")
        self._connection = psycopg.connect(self._server.dsn(ROLE, "scratch"), autocommit=True)
        self._ask("SET statement_timeout = 5000")

    # -- the connection ---------------------------------------------------------------------------------------------------

    @property
    def _status(self) -> TransactionStatus:
        assert self._connection is not None
        return TransactionStatus(self._connection.pgconn.transaction_status)

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, text: str, *, tolerant: bool = False) -> None:
        _, failed = self._send(text.encode())
        assert tolerant or not failed, (text, failed)

    def _send(self, text: bytes) -> tuple[bytes, str]:
        """Send a simple query, as psql does; return all that came back, and the first error."""
        assert self._connection is not None
        wire = self._connection.pgconn
        wire.send_query(text)
        output: list[bytes] = []
        failed = ""
        while (result := wire.get_result()) is not None:
            match result.status:
                case ExecStatus.TUPLES_OK:
                    output.extend(
                        result.get_value(row, column) or b"" for row in range(result.ntuples) for column in range(result.nfields)
                    )
                case ExecStatus.COPY_OUT:
                    while (chunk := wire.get_copy_data(0))[0] > 0:
                        output.append(bytes(chunk[1]))
                case ExecStatus.COPY_IN:
                    wire.put_copy_end()
                case ExecStatus.FATAL_ERROR:
                    failed = failed or result.error_message.decode(errors="replace").strip()
        return b"\n".join(output), failed

    def _observe(self) -> dict[str, Any] | None:
        found, failed = self._send(b"SELECT audit.observe()")
        return None if failed else dict(json.loads(found))

    # -- making it --------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self._server.password}'")  # type: ignore[arg-type]  # ours
        self._admin.execute(f"CREATE DATABASE world OWNER {ROLE}")
        with psycopg.connect(self._server.dsn(ROLE, "world"), autocommit=True) as owner:
            owner.execute((DATA / "world.sql").read_text())  # type: ignore[arg-type]
        with psycopg.connect(self._server.dsn(ADMIN, "world"), autocommit=True) as admin:
            admin.execute("VACUUM ANALYZE")
            admin.execute((DATA / "audit.sql").read_text())
            loud = admin.execute(
                """SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
                AND p.oid < 16384 AND p.proname = ANY (%s) AND NOT EXISTS (SELECT 1 FROM pg_type t
                    WHERE p.oid IN (t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout))""",
                [sorted(OTHER_FUNCTIONS - SEEN_OTHERWISE)],
            ).fetchall()
            admin.execute(f"REVOKE EXECUTE ON ROUTINE {', '.join(row[0] for row in loud)} FROM PUBLIC")  # type: ignore[arg-type]
            admin.execute("TRUNCATE audit.ddl")

    def _load(self) -> Catalog:
        assert self._connection is not None
        with self._connection.transaction():
            return Catalog.from_rows({name: self._connection.execute(sql).fetchall() for name, sql in CATALOG_QUERIES.items()})  # type: ignore[arg-type]

    def _structure(self) -> Structure:
        assert self._connection is not None

        def pairs(sql: str) -> list[tuple[str, str]]:
            return [(str(a), str(b)) for a, b in self._connection.execute(sql).fetchall()]  # type: ignore[union-attr, arg-type]

        name = """(SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = {})"""
        views = _closure(
            pairs(
                f"""SELECT {name.format("r.ev_class")}, {name.format("d.refobjid")} FROM pg_rewrite r JOIN pg_depend d
                ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
                WHERE r.ev_type = '1' AND r.ev_class >= 16384 AND d.refobjid >= 16384 AND d.refobjid <> r.ev_class"""
            )
        )
        parents = _closure(pairs(f"SELECT {name.format('inhrelid')}, {name.format('inhparent')} FROM pg_inherits"))
        references = pairs(f"SELECT {name.format('conrelid')}, {name.format('confrelid')} FROM pg_constraint WHERE contype = 'f'")
        sequences = pairs(
            f"""SELECT {name.format("d.objid")}, {name.format("d.refobjid")} FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
            WHERE d.classid = 'pg_class'::regclass AND c.relkind = 'S' AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0"""
        )
        return Structure(views, parents, tuple(references), dict(sequences))


def _closure(edges: list[tuple[str, str]]) -> dict[str, frozenset[str]]:
    reached: dict[str, set[str]] = {}
    for one, other in edges:
        reached.setdefault(one, set()).add(other)
    for _ in reached:
        for found in reached.values():
            found.update(*(reached.get(below, ()) for below in list(found)))
    return {one: frozenset(found) for one, found in reached.items()}


def _difference(before: dict[str, Any], after: dict[str, Any], output: bytes, failed: str) -> Observed:
    def more(what: str) -> dict[str, Any]:
        was, now = before[what] or {}, after[what] or {}
        return {name: value for name, value in now.items() if was.get(name) != value}

    tables = {}
    for oid, (name, *counts) in more("tables").items():
        _, *was = (before["tables"] or {}).get(oid, [name, 0, 0, 0, 0])
        tables[name] = tuple(max(0, new - old) for new, old in zip(counts, was, strict=True))
    settings = set(more("settings")) | {name for name in before["settings"] or {} if name not in (after["settings"] or {})}
    return Observed(
        tables={name: counts for name, counts in tables.items() if any(counts)},
        functions=frozenset(
            name for oid, (name, calls) in more("functions").items() if calls != (before["functions"] or {}).get(oid, ["", 0])[1]
        ),
        locks=frozenset((name, mode) for name, mode in after["locks"] or () if [name, mode] not in (before["locks"] or ())),
        settings=frozenset(settings),
        sequences=frozenset(set(more("sequences")) & set(before["sequences"] or ())),
        prepared=frozenset(after["prepared"] or ()),
        cursors=frozenset(after["cursors"] or ()),
        ddl=tuple(after["ddl"] or ()),
        catalog_rows=max(0, (after["catalog"] or 0) - (before["catalog"] or 0)),
        advisory=bool(after["advisory"]),
        denied=frozenset(_DENIED.findall(failed)),
        rows=frozenset(token.decode() for token in _TOKENS.findall(output)),
        failed=failed,
    )


@contextmanager
def running_world() -> Iterator[World]:
    """Start a server with the world in it; end and remove both."""
    with running_server(SETTINGS) as server:
        world = World(server)
        try:
            yield world
        finally:
            world.close()
