"""Against a real PostgreSQL: the catalog queries, the threats that they answer, and the built-in names we trust."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from postgast import parse

from harness.postgres_server import ADMIN, running_server
from interlock.commands.model import Kind, SqlContext
from interlock.commands.sql.advice import MOST, advice
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.builtins import OPERATORS, OTHER_FUNCTIONS, SAFE_FUNCTIONS, SYSTEM_RELATIONS, TYPES
from interlock.commands.sql.catalog import CATALOG_QUERIES, Catalog, CatalogError

from .conftest import DATA, Ask, reasons, shown

pytestmark = pytest.mark.interop

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def server() -> Iterator[Connection]:
    with running_server() as running, psycopg.connect(running.dsn(ADMIN), autocommit=True) as connection:
        connection.execute((DATA / "sql" / "schema.sql").read_text())
        yield connection


def loaded(connection: Connection) -> Catalog:
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return Catalog.from_rows({name: connection.execute(sql).fetchall() for name, sql in CATALOG_QUERIES.items()})


def test_the_recorded_catalog_is_what_a_server_says(server: Connection, catalog: Catalog) -> None:
    found = loaded(server)
    assert found.relations == catalog.relations
    assert found.functions == catalog.functions
    assert found.operators == catalog.operators
    assert found.types == catalog.types
    assert found.casts == catalog.casts
    assert loaded(server).version == found.version


def test_every_change_of_meaning_changes_the_version(server: Connection) -> None:
    before = loaded(server).version
    server.execute("CREATE OR REPLACE VIEW public.v AS SELECT id, lower(name) AS name FROM public.t WHERE id > 0")
    between = loaded(server).version
    server.execute("CREATE OR REPLACE VIEW public.v AS SELECT id, upper(name) AS name FROM public.t WHERE id > 0")
    assert before != between
    assert loaded(server).version == before


def test_rows_read_with_a_search_path_are_refused(server: Connection) -> None:
    with pytest.raises(CatalogError):
        Catalog.from_rows({name: server.execute(sql).fetchall() for name, sql in CATALOG_QUERIES.items()})
    with pytest.raises(CatalogError):
        Catalog.from_rows({})


@pytest.mark.parametrize(
    ("setup", "text", "proof"),
    [
        # functional notation calls functions without parentheses
        ("", "SELECT ('/etc/hostname'::text).pg_read_file", None),
        ("", "SELECT x.pg_read_file FROM unnest(ARRAY['/etc/hostname']) x", None),
        # a view runs what its definition calls
        ("", "SELECT * FROM calling_view LIMIT 1", "SELECT count(*) FROM t"),
        # a better match in the path wins over the built-in function
        ("SET search_path = public, shadow", "SELECT lower(1)", None),
        # an operator in the path is a function
        ("SET search_path = public, shadow", "SELECT 'x'::text = 1", None),
    ],
)
def test_the_threats_are_real_and_seen(server: Connection, setup: str, text: str, proof: str | None) -> None:
    server.execute("RESET ALL; TRUNCATE t CASCADE")
    if "calling_view" in text:
        server.execute("INSERT INTO t VALUES (2)")
    if setup:
        server.execute(setup)
    before = server.execute(proof).fetchall() if proof else None
    assert server.execute(text).fetchall(), "the server runs it without an error"
    if proof:
        assert server.execute(proof).fetchall() != before, "and it changed something"
    server.execute("RESET ALL")
    path = ("public", "shadow", "pg_temp") if setup else ("public", "pg_temp")
    found = analyze_sql(text.encode(), SqlContext(catalog=loaded(server), search_path=path), Kind.QUERY)
    assert not found.static or any(effect.verb == "function" for effect in found.effects)


def test_planning_runs_functions(server: Connection) -> None:
    server.execute("TRUNCATE t CASCADE")
    server.execute(
        """CREATE FUNCTION public.lying() RETURNS int IMMUTABLE LANGUAGE plpgsql
        AS $$ BEGIN PERFORM public.writes(); RETURN 1; END $$"""
    )
    server.execute("EXPLAIN SELECT lying()")
    assert server.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
    found = analyze_sql(b"EXPLAIN SELECT lying()", SqlContext(catalog=loaded(server)), Kind.QUERY)
    assert ("function", "public.lying") in shown(found)
    server.execute("DROP FUNCTION public.lying()")


def test_an_extension_on_the_list_is_trusted_and_others_are_not(server: Connection) -> None:
    known = {str(row[0]) for row in server.execute("SELECT name FROM pg_available_extensions").fetchall()}
    if not {"citext", "dblink"} <= known:
        pytest.skip("the contrib extensions are not installed")
    server.execute("CREATE EXTENSION citext; CREATE EXTENSION dblink; CREATE TABLE public.mail (address citext)")
    context = SqlContext(catalog=loaded(server))
    assert analyze_sql(b"SELECT address FROM mail WHERE address = 'a' AND 1 = 1", context, Kind.QUERY).static
    assert analyze_sql(b"SELECT 'a'::citext", context, Kind.QUERY).static
    dblink = analyze_sql(b"SELECT * FROM dblink('host=x', 'select 1') AS t(a int)", context, Kind.QUERY)
    assert ("function", "public.dblink") in shown(dblink)
    server.execute("DROP TABLE public.mail; DROP EXTENSION citext; DROP EXTENSION dblink")


def test_a_foreign_table_behind_a_view_is_seen(server: Connection) -> None:
    known = {str(row[0]) for row in server.execute("SELECT name FROM pg_available_extensions").fetchall()}
    if "file_fdw" not in known:
        pytest.skip("the contrib extensions are not installed")
    server.execute(
        """CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
        CREATE FOREIGN TABLE public.passwd (line text) SERVER files OPTIONS (filename '/etc/passwd');
        CREATE VIEW public.innocent AS SELECT * FROM public.passwd"""
    )
    found = analyze_sql(b"SELECT * FROM innocent LIMIT 1", SqlContext(catalog=loaded(server)), Kind.QUERY)
    assert ("foreign", "public.passwd") in [(effect.relation_kind, effect.object) for effect in found.effects]
    server.execute("DROP EXTENSION file_fdw CASCADE")


def test_a_policy_and_a_function_made_later_are_seen_after_a_reload(server: Connection) -> None:
    context = SqlContext(catalog=loaded(server))
    assert analyze_sql(b"SELECT upper(name) FROM t WHERE id = 1", context, Kind.QUERY).static
    server.execute("CREATE FUNCTION public.upper(text) RETURNS text LANGUAGE sql AS 'select 1::text'")
    changed = analyze_sql(b"SELECT upper(name) FROM t WHERE id = 1", SqlContext(catalog=loaded(server)), Kind.QUERY)
    assert ("function", "public.upper") in shown(changed)
    server.execute("DROP FUNCTION public.upper(text)")
    assert reasons(analyze_sql(b"SELECT later(1)", SqlContext(catalog=loaded(server)), Kind.QUERY)) == ["unknown-function"]


DANGEROUS = """SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.oid < 16384 AND p.provolatile = 'v'"""
TELLING = frozenset(
    """clock_timestamp current_query currval gen_random_uuid lastval random timeofday txid_status pg_xact_status
    pg_blocking_pids pg_collation_actual_version pg_database_collation_actual_version pg_database_size pg_indexes_size
    pg_is_in_recovery pg_is_wal_replay_paused pg_isolation_test_session_is_blocked pg_jit_available pg_last_committed_xact
    pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status pg_notification_queue_usage
    pg_partition_ancestors pg_partition_tree pg_prepared_xact pg_relation_size pg_safe_snapshot_blocking_pids
    pg_sequence_last_value pg_show_replication_origin_status pg_table_size pg_tablespace_size pg_total_relation_size
    pg_xact_commit_timestamp pg_current_wal_lsn pg_current_wal_flush_lsn pg_current_wal_insert_lsn""".split()
)


def test_the_allow_list_holds_no_volatile_function_but_those_that_only_tell(server: Connection) -> None:
    volatile = {str(row[0]) for row in server.execute(DANGEROUS).fetchall()}
    assert {name for name in volatile & SAFE_FUNCTIONS if not name.startswith("pg_stat_get_")} <= TELLING


def test_the_lists_know_everything_the_server_has(server: Connection) -> None:
    def column(sql: str) -> set[str]:
        return {str(row[0]) for row in server.execute(sql).fetchall()}

    system = "= 'pg_catalog'::regnamespace"
    assert column(f"SELECT proname FROM pg_proc WHERE pronamespace {system} AND oid < 16384") <= SAFE_FUNCTIONS | OTHER_FUNCTIONS
    assert not SAFE_FUNCTIONS & OTHER_FUNCTIONS
    assert column(f"SELECT oprname FROM pg_operator WHERE oprnamespace {system} AND oid < 16384") <= OPERATORS
    assert column(f"SELECT relname FROM pg_class WHERE relnamespace {system} AND relkind IN ('r', 'v')") <= SYSTEM_RELATIONS
    assert column("SELECT unnest(ARRAY['int4', 'text', 'jsonb', 'timestamptz', 'uuid'])") <= TYPES


def test_operators_of_the_server_run_nothing_volatile(server: Connection) -> None:
    assert not server.execute(
        """SELECT oprname FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
        WHERE o.oid < 16384 AND p.provolatile = 'v'"""
    ).fetchall()


STRONGEST = """SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = %s::regclass
    ORDER BY array_position(ARRAY['AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock',
        'ShareUpdateExclusiveLock', 'RowExclusiveLock', 'RowShareLock', 'AccessShareLock'], mode) LIMIT 1"""


@pytest.mark.parametrize(
    ("text", "lock", "rewritten"),
    [
        ("ALTER TABLE advised ADD COLUMN more int", "AccessExclusiveLock", False),
        ("ALTER TABLE advised ADD COLUMN more int DEFAULT 3", "AccessExclusiveLock", False),
        ("ALTER TABLE advised ADD COLUMN more float DEFAULT random()", "AccessExclusiveLock", True),
        ("ALTER TABLE advised ADD COLUMN more int GENERATED ALWAYS AS (id * 2) STORED", "AccessExclusiveLock", True),
        ("ALTER TABLE advised ADD COLUMN more int GENERATED ALWAYS AS IDENTITY", "AccessExclusiveLock", True),
        ("ALTER TABLE advised ALTER COLUMN id TYPE bigint", "AccessExclusiveLock", True),
        ("ALTER TABLE advised SET UNLOGGED", "AccessExclusiveLock", True),
        ("ALTER TABLE advised DROP COLUMN id", "AccessExclusiveLock", False),
        ("ALTER TABLE advised ALTER COLUMN id SET NOT NULL", "AccessExclusiveLock", False),
        ("ALTER TABLE advised ADD CHECK (id > 0)", "AccessExclusiveLock", False),
        ("ALTER TABLE advised ADD PRIMARY KEY (id)", "AccessExclusiveLock", False),
        ("ALTER TABLE advised ADD FOREIGN KEY (id) REFERENCES t", "ShareRowExclusiveLock", False),
        ("ALTER TABLE advised DISABLE TRIGGER ALL", "ShareRowExclusiveLock", False),
        ("ALTER TABLE advised ALTER COLUMN id SET STATISTICS 10", "ShareUpdateExclusiveLock", False),
        ("ALTER TABLE advised SET (fillfactor = 70)", "ShareUpdateExclusiveLock", False),
        ("CREATE INDEX ON advised (id)", "ShareLock", False),
        ("DROP INDEX advised_by", "AccessExclusiveLock", False),
        ("TRUNCATE advised", "AccessExclusiveLock", True),
        ("CLUSTER advised USING advised_by", "AccessExclusiveLock", True),
        ("REINDEX TABLE advised", "ShareLock", False),
        ("CREATE TRIGGER x AFTER INSERT ON advised FOR EACH ROW EXECUTE FUNCTION tg()", "ShareRowExclusiveLock", False),
        ("INSERT INTO advised VALUES (3)", "RowExclusiveLock", False),
    ],
)
def test_what_reviewers_are_told_of_locks_and_rewrites_is_so(server: Connection, text: str, lock: str, rewritten: bool) -> None:
    told = advice(parse(text).stmts[0].stmt)
    server.execute("CREATE TABLE public.advised (id int); CREATE INDEX advised_by ON public.advised (id)")
    try:
        with server.transaction(force_rollback=True):
            file = server.execute("SELECT relfilenode FROM pg_class WHERE oid = 'public.advised'::regclass").fetchall()
            server.execute(text)  # type: ignore[arg-type]  # a literal of the table above
            assert server.execute(STRONGEST, ["public.advised"]).fetchall() == [(lock,)]
            after = server.execute("SELECT relfilenode FROM pg_class WHERE oid = 'public.advised'::regclass").fetchall()
            assert (file != after) is rewritten
    finally:
        server.execute("DROP TABLE public.advised")
    words = " ".join(told)
    assert ("ACCESS EXCLUSIVE" in words) is (lock == "AccessExclusiveLock")
    assert ("nobody writes to" in words) is (lock in ("ShareRowExclusiveLock", "ShareLock"))
    assert ("anew" in words) is (rewritten and not text.startswith("TRUNCATE"))
    assert all("PostgreSQL documentation, " in sentence and len(sentence) < 200 for sentence in told)
    assert bool(told) is (lock not in ("ShareUpdateExclusiveLock", "RowExclusiveLock"))


def test_remarks_on_one_statement_are_few() -> None:
    told = advice(parse("TRUNCATE " + ", ".join(f"t{n}" for n in range(500))).stmts[0].stmt)
    assert len(told) == MOST + 1 and told[-1] == f"{500 - MOST} more such remarks are left out"
    assert advice(parse("SELECT 1").stmts[0].stmt) == ()


def test_a_reviewer_gets_the_remarks_as_notes_and_policy_does_not(ask: Ask) -> None:
    found = ask("CREATE INDEX ON t (id)")
    assert found.static and any("CONCURRENTLY would let them" in note for note in found.notes)
    assert not any("CONCURRENTLY" in effect.detail for effect in found.effects)
