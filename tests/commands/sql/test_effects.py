"""The facts an effect carries: objects, filters, limits, columns, details, and the session's names."""

from __future__ import annotations

import pickle

import pytest

from interlock.commands.model import SQL_VERBS, Analysis, Effect, NameAction
from interlock.commands.sql.analysis import context_key, depends_on_names, may_change_catalog
from interlock.commands.sql.catalog import Catalog

from .conftest import Ask, reasons, shown


def only(ask: Ask, text: str, verb: str, **context: object) -> Effect:
    found = [effect for effect in ask(text, **context).effects if effect.verb == verb]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "WHERE true",
        "WHERE 1 = 1",
        "WHERE 2 > 1",
        "WHERE 'a' = 'a'",
        "WHERE id = id",
        "WHERE t.id = t.id",
        "WHERE id >= id",
        "WHERE id IS NOT DISTINCT FROM id",
        "WHERE id = 1 OR true",
        "WHERE id = 1 OR id = id",
        "WHERE true AND 1 = 1",
        "WHERE NOT false",
        "WHERE NOT (1 = 2)",
        "WHERE id = 1 OR NOT id = 1",
        "WHERE id IS NULL OR id IS NOT NULL",
        "WHERE name LIKE '%'",
        "WHERE name ILIKE '%%'",
        "WHERE id IN (id)",
        "WHERE id BETWEEN id AND id",
        "WHERE now() > 'epoch'",
        "WHERE $1 = $1",
        "WHERE $1",
        "WHERE (true)::bool",
        "WHERE 1 IS NOT NULL",
        "WHERE EXISTS (SELECT 1)",
        "WHERE (true) IS TRUE",
    ],
)
def test_a_condition_that_is_always_true_is_no_filter(ask: Ask, condition: str) -> None:
    assert not only(ask, f"DELETE FROM t {condition}", "delete").filtered
    assert not only(ask, f"UPDATE t SET id = 1 {condition}", "update").filtered
    assert not only(ask, f"SELECT * FROM t {condition}", "select").filtered


@pytest.mark.parametrize(
    "condition",
    [
        "id = 1",
        "id = $1",
        "name LIKE 'a%'",
        "id IN (1, 2)",
        "1 = 2",
        "false",
        "id = 1 AND true",
        "NOT name = 'x'",
        "id = 1 OR id = 2",
    ],
)
def test_a_condition_that_leaves_rows_out_is_a_filter(ask: Ask, condition: str) -> None:
    assert only(ask, f"DELETE FROM t WHERE {condition}", "delete").filtered
    assert only(ask, f"SELECT * FROM t WHERE {condition}", "select").filtered


@pytest.mark.parametrize(
    ("text", "unfiltered"),
    [
        ("SELECT t.* FROM t, s WHERE s.id = 1", ["public.t"]),
        ("SELECT * FROM t, s WHERE t.id = s.t_id", ["public.t", "public.s"]),
        ("SELECT * FROM t JOIN s ON t.id = s.t_id", ["public.t", "public.s"]),
        ("SELECT * FROM t JOIN s ON t.id = s.t_id WHERE s.id = 1", []),
        ("SELECT * FROM t JOIN s ON t.id = s.t_id WHERE note = 'x'", []),
        ("SELECT * FROM t JOIN s USING (id) WHERE s.id = 1", []),
        ("SELECT * FROM t CROSS JOIN s WHERE s.id = 1", ["public.t"]),
        ("SELECT * FROM t JOIN s ON true WHERE s.id = 1", ["public.t"]),
        ("SELECT * FROM t LEFT JOIN s ON t.id = 1", ["public.t", "public.s"]),
        ("SELECT * FROM t JOIN unnest($1::int[]) x ON x = t.id", []),
        ("SELECT * FROM t, generate_series(1, 9) g WHERE g = 1", ["public.t"]),
        ("SELECT * FROM t, s WHERE t.id = 1 OR s.id = 1", ["public.t", "public.s"]),
        ("SELECT t.* FROM t JOIN (SELECT max(t_id) AS m FROM s) x ON x.m = t.id", ["public.s"]),
        ("WITH x AS (SELECT t_id FROM s WHERE id = 1) SELECT * FROM t JOIN x ON x.t_id = t.id", []),
        ("WITH x AS (SELECT 1) SELECT * FROM t, x", ["public.t"]),
        ("SELECT * FROM (SELECT * FROM t) x WHERE id = 1", ["public.t"]),
    ],
)
def test_a_condition_counts_for_the_relations_it_restricts(ask: Ask, text: str, unfiltered: list[str]) -> None:
    assert [e.object for e in ask(text).effects if e.verb == "select" and not e.filtered] == unfiltered


def test_joined_writes(ask: Ask) -> None:
    assert not only(ask, "DELETE FROM t USING s WHERE s.id = 1", "delete").filtered
    assert only(ask, "DELETE FROM t USING s WHERE s.id = 1 AND s.t_id = t.id", "delete").filtered
    assert not only(ask, "UPDATE t SET name = s.note FROM s WHERE s.id = 1", "update").filtered
    assert only(ask, "UPDATE t SET name = s.note FROM s WHERE s.t_id = t.id AND s.id = 1", "update").filtered
    assert not only(ask, "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", "delete").filtered


@pytest.mark.parametrize(
    ("text", "limited"),
    [
        ("SELECT * FROM t LIMIT 10", True),
        ("SELECT * FROM t FETCH FIRST 10 ROWS ONLY", True),
        ("SELECT * FROM t FETCH FIRST 10 ROWS WITH TIES", False),
        ("SELECT * FROM t LIMIT ALL", False),
        ("SELECT * FROM t LIMIT NULL", False),
        ("SELECT * FROM t LIMIT $1", False),
        ("SELECT * FROM t LIMIT 1000000", False),
        ("SELECT * FROM t OFFSET 10", False),
        ("SELECT * FROM (SELECT * FROM t) x LIMIT 10", True),
        ("WITH x AS (SELECT * FROM t) SELECT * FROM x LIMIT 10", True),
        ("SELECT count(*) FROM t", True),
        ("SELECT count(*), max(id) + 1 FROM t", True),
        ("SELECT count(*) FROM (SELECT * FROM t) x", True),
        ("SELECT name, count(*) FROM t GROUP BY name", False),
        ("SELECT sum(id) OVER () FROM t", False),
        ("SELECT max(id), name FROM t", False),
        ("SELECT json_agg(t) FROM t LIMIT 1", False),
        ("SELECT json_agg(x) FROM (SELECT * FROM t) x LIMIT 1", False),
        ("SELECT string_agg(name, ',') FROM t", False),
        ("SELECT array_agg(id) FROM (SELECT id FROM t LIMIT 10) x", True),
        ("SELECT JSON_ARRAYAGG(name) FROM t LIMIT 1", False),
        ("SELECT ARRAY(SELECT name FROM t) LIMIT 1", False),
        ("SELECT 1 WHERE EXISTS (SELECT * FROM t)", True),
        ("SELECT (SELECT name FROM t)", True),
        ("SELECT * FROM t UNION ALL SELECT * FROM t LIMIT 10", True),
    ],
)
def test_limits(ask: Ask, text: str, limited: bool) -> None:
    assert all(effect.limited is limited for effect in ask(text).effects if effect.verb == "select" and effect.object)


def test_copy_of_a_query_is_as_filtered_as_the_query(ask: Ask) -> None:
    assert not only(ask, "COPY (SELECT * FROM t) TO STDOUT", "copy_out").filtered
    assert only(ask, "COPY (SELECT * FROM t WHERE id = 1) TO STDOUT", "copy_out").filtered
    assert only(ask, "COPY (SELECT * FROM t LIMIT 5) TO STDOUT", "copy_out").limited
    assert not only(ask, "COPY t TO STDOUT", "copy_out").filtered
    assert only(ask, "COPY t (id) FROM STDIN", "copy_in").columns == ("id",)


def test_columns_and_kinds(ask: Ask) -> None:
    assert only(ask, "SELECT id, upper(name) FROM t WHERE total > 1", "select").columns == ("id", "name", "total")
    joined = ask("SELECT t.id, s.note FROM t JOIN s ON s.t_id = t.id").effects
    assert [effect.columns for effect in joined] == [("id",), ("note", "t_id")]
    assert only(ask, "SELECT * FROM v", "select").relation_kind == "view"
    assert only(ask, "SELECT * FROM nested_view", "select").relation_kind == "view"
    assert only(ask, "SELECT * FROM mv", "select").relation_kind == "matview"
    assert only(ask, "SELECT * FROM pg_class", "select").relation_kind == "system"
    assert only(ask, "SELECT * FROM orders_id_seq", "select").detail == "sequence"
    assert only(ask, "SELECT * FROM policed", "select").detail == "row security"
    assert only(ask, "SELECT count(*), lower(name) FROM t", "select").functions == ("count", "lower")


def test_what_writing_would_run(ask: Ask) -> None:
    assert only(ask, "INSERT INTO triggered VALUES (1)", "insert").detail == "triggers"
    assert only(ask, "INSERT INTO triggered VALUES (1)", "insert").functions == ("public.tg",)
    assert only(ask, "INSERT INTO parted VALUES (1)", "insert").functions == ("public.tg",), "a partition's trigger"
    assert only(ask, "INSERT INTO defaulting DEFAULT VALUES", "insert").functions == ("public.writes",)
    assert only(ask, "INSERT INTO t VALUES (1)", "insert").detail == ""


def test_secrets_are_marked_where_they_are_read(ask: Ask) -> None:
    for text in (
        "SELECT * FROM pg_authid",
        "SELECT rolpassword FROM pg_authid",
        "SELECT a FROM pg_authid a",
        "SELECT x FROM (SELECT * FROM pg_authid) x",
        "SELECT c FROM pg_authid a(a, b, c, d, e, f, g, h, i, j, k, l)",
        "SELECT passwd FROM pg_shadow",
        "SELECT most_common_vals FROM pg_stats",
        "SELECT * FROM hashes_view",
    ):
        assert any("secret" in effect.detail for effect in ask(text).effects), text
    assert only(ask, "SELECT rolname FROM pg_authid", "select").detail == ""


def test_a_view_is_opened(ask: Ask) -> None:
    assert ask("SELECT * FROM v").static
    assert ask("SELECT * FROM nested_view WHERE id = 1").static
    assert ("select", "pg_catalog.pg_authid") in shown(ask("SELECT * FROM hashes_view"))


def test_columns_win_over_functions_of_the_same_name(ask: Ask) -> None:
    assert shown(ask("SELECT t.total, (t).total FROM t LIMIT 1")) == [("select", "public.t")]
    assert shown(ask("UPDATE t SET name = '' WHERE t.total = 1")) == [("update", "public.t")]
    assert ("function", "public.total") in shown(ask("SELECT x.total FROM (SELECT 1) x"))


def test_types(ask: Ask) -> None:
    assert ask("SELECT 'a'::mood, 1::positive, '{1}'::int[], 'x'::varchar(3)").static
    assert reasons(ask("SELECT ROW(1)::part1")) == ["user-type"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BEGIN", [NameAction("begin")]),
        ("COMMIT", [NameAction("commit")]),
        ("ROLLBACK", [NameAction("rollback")]),
        ("SAVEPOINT a", [NameAction("savepoint", "a")]),
        ("ROLLBACK TO a", [NameAction("rollback", "a")]),
        ("PREPARE p AS SELECT 1", [NameAction("prepare", "p", "PREPARE p AS SELECT 1")]),
        ("DEALLOCATE p", [NameAction("deallocate", "p")]),
        ("DEALLOCATE ALL", [NameAction("deallocate", "")]),
        ("DECLARE c CURSOR FOR SELECT 1", [NameAction("declare", "c", "DECLARE c CURSOR FOR SELECT 1")]),
        ("CLOSE c", [NameAction("close", "c")]),
        ("CLOSE ALL", [NameAction("close", "")]),
        ("DISCARD ALL", [NameAction("reset"), NameAction("discard", "all")]),
        ("SET search_path = a, b", [NameAction("set", "search_path", "a, b")]),
        ("SET LOCAL search_path TO ''", [NameAction("set", "search_path", "")]),
        ("SELECT set_config('Search_Path', '', false)", [NameAction("set", "search_path", "")]),
        ("SET NAMES 'GBK'", [NameAction("set", "client_encoding", "GBK")]),
        ("SET TIME ZONE 'UTC'", [NameAction("set", "timezone", "UTC")]),
        ("RESET search_path", [NameAction("reset", "search_path")]),
        ("SET search_path TO DEFAULT", [NameAction("reset", "search_path")]),
        ("RESET ALL", [NameAction("reset")]),
        ("CREATE TEMP TABLE x (a int)", [NameAction("temp-ddl", "x")]),
        ("CREATE TEMP VIEW x AS SELECT 1", [NameAction("temp-ddl", "x")]),
        ("CREATE TABLE pg_temp.x (a int)", [NameAction("temp-ddl", "x")]),
        ("CREATE TEMP TABLE x AS SELECT 1", [NameAction("temp-ddl", "x")]),
        ("SELECT 1 INTO TEMP x", [NameAction("temp-ddl", "x")]),
        ("CREATE TEMP SEQUENCE x", [NameAction("temp-ddl", "x")]),
        ("CREATE TYPE pg_temp.x AS ENUM ('a')", [NameAction("temp-ddl")]),
        ("SELECT writes()", [NameAction("temp-ddl")]),
        ("SELECT definer()", []),
        ("EXPLAIN SELECT set_config('role', 'x', false)", []),
        ("SELECT 1", []),
    ],
)
def test_names(ask: Ask, text: str, expected: list[NameAction]) -> None:
    assert list(ask(text).names) == expected


@pytest.mark.parametrize(
    ("text", "verb", "name", "detail"),
    [
        ("CREATE EXTENSION hstore", "create", "hstore", "extension"),
        ("CREATE SERVER s FOREIGN DATA WRAPPER w", "create", "s", "server"),
        ("ALTER SYSTEM SET work_mem = '1GB'", "alter", "work_mem", "system 1GB"),
        ("LOAD 'x'", "do", "x", "load"),
        ("ALTER ROLE a SUPERUSER", "alter", "a", "role superuser"),
        ("CREATE ROLE a LOGIN PASSWORD 'hunter2'", "create", "a", "role canlogin"),
        ("DROP TABLE t, s", "drop", "public.t", "table"),
        ("DROP DATABASE d", "drop", "d", "database"),
        ("DROP TRIGGER x ON triggered", "drop", "public.triggered.x", "trigger"),
        ("DROP SCHEMA shadow", "drop", "shadow", "schema"),
        ("DROP FUNCTION writes()", "drop", "public.writes", "function"),
        ("COMMENT ON TABLE t IS 'x'", "alter", "public.t", "comment"),
        ("ALTER TABLE t RENAME TO u", "alter", "public.t", "table renamed to u"),
        ("ALTER TABLE t DROP COLUMN name, ADD COLUMN x int", "alter", "public.t", "table add column drop column"),
        ("GRANT SELECT ON t TO app", "grant", "public.t", "select on table to app"),
        ("REVOKE ALL ON t FROM public", "revoke", "public.t", "all on table from public"),
        ("GRANT admin TO app", "grant", "admin", "role to app"),
        ("CREATE INDEX CONCURRENTLY i ON t (id)", "create", "public.i", "index on public.t concurrently"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE C AS 'x'", "create", "public.f", "function language c"),
        ("DO LANGUAGE plpython3u $$x$$", "do", "", "language plpython3u"),
        ("TRUNCATE t CASCADE", "truncate", "public.t", ""),
        ("VACUUM t", "vacuum", "public.t", "vacuum"),
        ("REINDEX DATABASE app", "vacuum", "app", "reindex"),
        ("CHECKPOINT", "vacuum", "*", "checkpoint"),
        ("LOCK TABLE t IN SHARE MODE", "lock", "public.t", "share"),
        ("PREPARE TRANSACTION 'x'", "transaction", "x", "prepare transaction"),
        ("SHOW work_mem", "select", "pg_catalog.pg_settings", "show"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "set", "default_transaction_read_only", "off"),
        ("CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p", "replication", "s", "subscription"),
        ("CALL chore(1)", "call", "public.chore", "volatile sql"),
    ],
)
def test_definitions(ask: Ask, text: str, verb: str, name: str, detail: str) -> None:
    assert (verb, name, detail) in [(effect.verb, effect.object, effect.detail) for effect in ask(text).effects]


def test_passwords_of_roles_are_in_no_effect(ask: Ask) -> None:
    assert "hunter2" not in repr(ask("ALTER ROLE a PASSWORD 'hunter2'").effects)


def test_verbs_are_a_closed_set(ask: Ask) -> None:
    for text in ("SELECT 1", "", "CREATE TABLE x (a int)", "NOTIFY a", "UNLISTEN *", "SET CONSTRAINTS ALL DEFERRED"):
        assert {effect.verb for effect in ask(text).effects} <= SQL_VERBS


def test_nothing(ask: Ask) -> None:
    for text in ("", " ", ";", ";;", "-- a", "/* a /* b */ */"):
        found = ask(text)
        assert shown(found) == [("nothing", "")] and found.static and found.sent == text


def test_what_may_be_cached(ask: Ask, catalog: Catalog) -> None:
    assert not depends_on_names(ask("SELECT 1"))
    for text in ("EXECUTE p", "FETCH c", "EXPLAIN EXECUTE p", "DELETE FROM t WHERE CURRENT OF c", "CREATE TABLE x AS EXECUTE p"):
        assert depends_on_names(ask(text, prepared={"p": "SELECT 1"}, cursors={"c": "SELECT 1"})), text
    from interlock.commands.model import SqlContext

    assert context_key(SqlContext(catalog=catalog)) == context_key(SqlContext(catalog=catalog, prepared={"a": "b"}))
    assert context_key(SqlContext(catalog=catalog)) != context_key(SqlContext(catalog=catalog, tainted=True))
    assert may_change_catalog(ask("CREATE TABLE x (a int)")) and not may_change_catalog(ask("SELECT * FROM t"))


def test_a_catalog_travels_to_a_child(catalog: Catalog) -> None:
    copy = pickle.loads(pickle.dumps(catalog))
    assert copy.version == catalog.version and copy.relations == dict(catalog.relations)


def test_the_white_list_names_nodes_that_exist() -> None:
    from postgast import pg_query_pb2 as pb

    from interlock.commands.sql.walk import HANDLERS, LEAVES, TRANSPARENT

    nodes = {field.name for field in pb.Node.DESCRIPTOR.fields}
    assert set(HANDLERS) | TRANSPARENT | LEAVES <= nodes
    assert not set(HANDLERS) & (TRANSPARENT | LEAVES)
    # Nodes of a planned query never come out of the parser; if one did, it would be opaque.
    assert {"query", "func_expr", "op_expr", "var", "sub_plan", "aggref"} <= nodes - set(HANDLERS) - TRANSPARENT - LEAVES
    # Every statement of the grammar has a handler.
    statements = {name for name in nodes if name.endswith("_stmt")} - {"raw_stmt", "set_operation_stmt", "return_stmt"}
    assert statements - {"plassign_stmt", "replica_identity_stmt"} <= set(HANDLERS)


def changes(found: Analysis) -> list[tuple[str, str, bool, tuple[str, ...]]]:
    return [(e.verb, e.object, e.filtered, e.via) for e in found.effects if e.verb in ("insert", "update", "delete", "truncate")]


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("DELETE FROM orders WHERE id = 1", [("delete", "public.lines", True)]),
        ("DELETE FROM orders", [("delete", "public.lines", False)]),
        ("DELETE FROM s WHERE id = 1", [("update", "public.lines", True)]),
        ("UPDATE s SET id = 7 WHERE id = 1", [("update", "public.lines", True)]),
        ("UPDATE s SET note = 'x' WHERE id = 1", []),
        ("UPDATE orders SET id = 7 WHERE id = 1", []),
        ("EXPLAIN DELETE FROM orders WHERE id = 1", []),
        ("WITH w AS (DELETE FROM orders WHERE id = 1 RETURNING *) SELECT count(*) FROM w", [("delete", "public.lines", True)]),
        ("MERGE INTO orders o USING s ON s.id = o.id WHEN MATCHED THEN DELETE", [("delete", "public.lines", True)]),
        ("INSERT INTO s VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 9", [("update", "public.lines", True)]),
        ("TRUNCATE orders CASCADE", [("truncate", "public.lines", False)]),
        ("TRUNCATE orders", []),
    ],
)  # fmt: skip
def test_what_foreign_keys_do_to_other_tables_is_an_effect(ask: Ask, text: str, follows: list[object]) -> None:
    assert [(verb, name, filtered) for verb, name, filtered, via in changes(ask(text)) if "foreign key" in via] == follows


def test_a_change_through_a_view_names_what_it_changes(ask: Ask) -> None:
    found = ask("INSERT INTO triggered_view VALUES (1)")
    assert [(verb, name, via) for verb, name, _, via in changes(found)] == [
        ("insert", "public.triggered_view", ()),
        ("insert", "public.triggered", ("view",)),
    ]
    assert found.effects[1].functions == ("public.tg",) and found.effects[1].detail == "triggers"


@pytest.mark.parametrize(
    ("text", "verb", "name", "detail"),
    [
        ("DROP INDEX lines_by_s", "drop", "public.lines_by_s", "index on public.lines"),
        ("DROP TYPE mood", "drop", "public.mood", "type"),
        ("CREATE TABLE t (id int)", "create", "shadow.t", "table"),
        ("CREATE TABLE x (id int REFERENCES public.t)", "create", "shadow.x", "table with public.t"),
        ("CREATE TABLE x PARTITION OF parted DEFAULT", "create", "shadow.x", "table with public.parted"),
        ("ALTER TABLE s ADD FOREIGN KEY (id) REFERENCES orders", "alter", "public.s", "table add constraint with public.orders"),
        ("ALTER TABLE s SET SCHEMA shadow", "alter", "public.s", "table moved to shadow"),
        ("CREATE SCHEMA n CREATE TABLE x (a int)", "create", "n.x", "table"),
        ("CREATE INDEX ON s (id)", "create", "public.s", "index on public.s"),
        ("COMMENT ON COLUMN s.id IS 'x'", "alter", "public.s.id", "comment"),
        ("CREATE CAST (mood AS text) WITH INOUT", "create", "mood as text", "cast"),
    ],
)
def test_definitions_name_the_object_in_the_schema_it_stands_in(ask: Ask, text: str, verb: str, name: str, detail: str) -> None:
    found = ask(text, search_path=("shadow", "public", "pg_temp"))
    assert (verb, name, detail) in [(effect.verb, effect.object, effect.detail) for effect in found.effects]


def test_an_object_that_several_schemas_may_have_is_opaque(ask: Ask) -> None:
    assert reasons(ask("DROP COLLATION c", search_path=("shadow", "public"))) == ["ambiguous-name"]
    assert ask("DROP COLLATION c").static and ask("DROP COLLATION public.c", search_path=("shadow", "public")).static


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE t DROP COLUMN name CASCADE",
        "DROP TABLE t CASCADE",
        "REVOKE ALL ON t FROM x CASCADE",
        "DROP OWNED BY x CASCADE",
    ],
)
def test_cascade_is_told(ask: Ask, text: str) -> None:
    assert [effect.recursive for effect in ask(text).effects] == [True]
    assert [effect.recursive for effect in ask(text.removesuffix(" CASCADE")).effects] == [False]


def test_for_update_reaches_into_subqueries(ask: Ask) -> None:
    assert ("lock", "public.t") in shown(ask("SELECT * FROM (SELECT * FROM t WHERE id = 1) q FOR UPDATE"))
    assert ("lock", "public.t") not in shown(ask("SELECT * FROM s, (SELECT * FROM t WHERE id = 1) q FOR UPDATE OF s"))


@pytest.mark.parametrize(
    ("condition", "filtered"),
    [
        ("EXISTS (SELECT 1 FROM s)", False),
        ("EXISTS (SELECT 1 FROM s WHERE s.id = 1)", False),
        ("(SELECT count(*) FROM s) > 0", False),
        ("NOT EXISTS (SELECT 1 FROM s t WHERE t.id = 1)", False),
        ("EXISTS (SELECT 1 FROM s WHERE s.t_id = t.id)", True),
        ("id IN (SELECT t_id FROM s)", True),
        ("NOT (now() < 'epoch')", False),
        ("2 > 1 AND id = 1 OR NOT id = 1", False),
        ("(SELECT true) AND id IS NULL OR id IS NOT NULL", False),
        ("EXISTS (SELECT t.id FROM s ORDER BY t.id)", False),
        ("EXISTS (SELECT 1 FROM s WHERE EXISTS (SELECT t.id FROM orders))", False),
        ("EXISTS (SELECT 1 FROM s JOIN orders o ON o.id = t.id)", True),
        ("id = (SELECT max(id) FROM s)", True),
        ("EXISTS (SELECT 1 FROM s WHERE s.id = 1 UNION SELECT 1 FROM s WHERE s.id = t.id)", True),
        ("NOT NOT id = 1 OR NOT id = 1", False),
        ("total > 0 AND total > 0 OR NOT total > 0", False),
        ("id = 1 AND name = 'a' OR NOT id = 1 OR NOT name = 'a'", False),
        ("id = 1 AND name = 'a' OR NOT id = 1", True),
        ("NOT (id = 1 AND NOT id = 1)", False),
        ("id = 1 OR id = 2 OR id = 3 OR id = 4 OR id = 5 OR id = 6 OR NOT id = 1", True),  # more than a table is made of
        ("NOT $1", False),
        ("false IS NOT TRUE", False),
        ("NOT (NULL IS NOT NULL)", False),
        ("NOT ('a' = 'b')", False),
        ("NOT true", True),
        ("$1 AND id = 1", True),
        ("$1 OR id = 1", False),
        ("EXISTS (SELECT t.id = 1)", False),
        ("total IS NULL IS TRUE OR total IS NULL IS NOT TRUE", False),
    ],
)
def test_what_is_the_same_for_every_row_filters_nothing(ask: Ask, condition: str, filtered: bool) -> None:
    assert only(ask, f"DELETE FROM t WHERE {condition}", "delete").filtered is filtered
