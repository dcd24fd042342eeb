"""Attempts to hide an effect. Each was tried, or is from threats.md; none may look like a plain read."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from interlock.commands.model import Kind, SqlContext
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog
from interlock.commands.sql_child import SqlChild
from interlock.errors import Reason

from .conftest import Ask, reasons, shown


@pytest.mark.parametrize(
    ("text", "verb", "name"),
    [
        ("SELECT 1; DELETE FROM t", "delete", "public.t"),
        ("SELECT 1 -- x\n; DELETE FROM t", "delete", "public.t"),
        ("SELECT 1 /* a /* b */ */; DELETE FROM t", "delete", "public.t"),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", "delete", "public.t"),
        ("SELECT * FROM (WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x) y", "delete", "public.t"),
        ("WITH a AS (WITH b AS (UPDATE t SET id = 1 RETURNING 1) SELECT * FROM b) SELECT * FROM a", "update", "public.t"),
        ("EXPLAIN ANALYZE DELETE FROM t", "delete", "public.t"),
        ("EXPLAIN (ANALYZE) DELETE FROM t", "delete", "public.t"),
        ("EXPLAIN (ANALYZE off, ANALYZE on) DELETE FROM t", "delete", "public.t"),
        ("EXPLAIN (VERBOSE, ANALYZE 1) DELETE FROM t", "delete", "public.t"),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "delete", "public.t"),
        ("COPY (SELECT * FROM t) TO PROGRAM 'sh'", "copy_program", "sh"),
        ("PREPARE p AS DELETE FROM t", "delete", "public.t"),
        ("PREPARE p AS DELETE FROM t; EXECUTE p", "delete", "public.t"),
        ("DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE", "lock", "public.t"),
        ("CREATE TABLE x AS WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "delete", "public.t"),
        ("SELECT * INTO x FROM t", "create", "public.x"),
        ("SELECT * FROM t FOR UPDATE", "lock", "public.t"),
        ("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", "delete", "public.t"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2", "update", "public.t"),
        ("UPDATE pg_settings SET setting = 'x' WHERE name = 'role'", "set", "*"),
        ("SELECT set_config('role', 'postgres', false)", "set", "role"),
        ("SELECT pg_catalog.set_config('ROLE', 'postgres', false)", "set", "role"),
        ("SELECT 1 WHERE set_config('role', 'postgres', false) = ''", "set", "role"),
        ("SELECT 1 ORDER BY pg_sleep(1)", "function", "pg_catalog.pg_sleep"),
        ("SELECT 1 LIMIT pg_sleep(1)::text::int", "function", "pg_catalog.pg_sleep"),
        ("SELECT count(*) FILTER (WHERE pg_sleep(1) IS NULL)", "function", "pg_catalog.pg_sleep"),
        ("SELECT sum(1) OVER (PARTITION BY pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT sum(1) OVER w FROM t WINDOW w AS (ORDER BY pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT string_agg('a', 'b' ORDER BY pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT * FROM pg_sleep(1)", "function", "pg_catalog.pg_sleep"),
        ("SELECT * FROM ROWS FROM (pg_sleep(1), pg_ls_dir('/'))", "function", "pg_catalog.pg_ls_dir"),
        ("SELECT * FROM t, LATERAL pg_read_file(name)", "function", "pg_catalog.pg_read_file"),
        ("VALUES (pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT ARRAY[pg_sleep(1)]", "function", "pg_catalog.pg_sleep"),
        ("SELECT CASE WHEN true THEN pg_sleep(1) END", "function", "pg_catalog.pg_sleep"),
        ("SELECT COALESCE(NULL, pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT JSON_OBJECT('a': pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT xmlelement(name a, pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT (SELECT pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT 1 WHERE EXISTS (SELECT pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("SELECT 1 GROUP BY GROUPING SETS ((pg_sleep(1)))", "function", "pg_catalog.pg_sleep"),
        ("SELECT DISTINCT ON (pg_sleep(1)) 1", "function", "pg_catalog.pg_sleep"),
        ("SELECT * FROM t TABLESAMPLE system (length(pg_read_file('x')))", "function", "pg_catalog.pg_read_file"),
        ("EXECUTE p(pg_sleep(1))", "function", "pg_catalog.pg_sleep"),
        ("EXPLAIN SELECT pg_read_file('x')", "function", "pg_catalog.pg_read_file"),
        ("CALL chore(pg_sleep(1)::text::int)", "function", "pg_catalog.pg_sleep"),
        ("CREATE INDEX ON t ((pg_sleep(1)))", "function", "pg_catalog.pg_sleep"),
        ("CREATE TABLE x (a int DEFAULT length(pg_read_file('x')))", "function", "pg_catalog.pg_read_file"),
        ("CREATE VIEW x AS SELECT pg_read_file('x')", "function", "pg_catalog.pg_read_file"),
        ("SELECT ('/etc/hostname'::text).pg_read_file", "function", "pg_catalog.pg_read_file"),
        ("SELECT x.pg_read_file FROM unnest(ARRAY['/etc/hostname']) x", "function", "pg_catalog.pg_read_file"),
        ("SELECT (t).extra FROM t", "function", "public.extra"),
        ("SELECT t.extra FROM t", "function", "public.extra"),
        ("SELECT a.extra FROM t a", "function", "public.extra"),
        ("SELECT U&\"\\0070g_read_file\"('/etc/passwd')", "function", "pg_catalog.pg_read_file"),
        ("SELECT query_to_xml('delete from t', true, true, '')", "function", "pg_catalog.query_to_xml"),
        ("SELECT table_to_xml('t', true, true, '')", "function", "pg_catalog.table_to_xml"),
        ("SELECT ts_stat('delete from t')", "function", "pg_catalog.ts_stat"),
        ("SELECT nextval('orders_id_seq')", "function", "pg_catalog.nextval"),
        ("SELECT pg_notify('a', 'b')", "notify", "a"),
        ("SELECT pg_advisory_lock(1)", "lock", "pg_catalog.pg_advisory_lock"),
        ("SELECT writes()", "function", "public.writes"),
        ("SELECT * FROM dblink('host=x', 'drop table t') AS x (a int)", "function", "dblink"),
        ("SELECT ext.dblink_exec('drop table t')", "function", "ext.dblink_exec"),
        ("SELECT public.definer()", "function", "public.definer"),
        ("BEGIN READ WRITE", "set", "transaction_read_only"),
        ("COPY t TO '/tmp/x'", "copy_file", "/tmp/x"),
        ("TABLE pg_authid", "select", "pg_catalog.pg_authid"),
    ],
)
def test_the_effect_is_seen(ask: Ask, text: str, verb: str, name: str) -> None:
    assert (verb, name) in shown(ask(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT unheard_of(1)", "unknown-function"),
        ("SELECT pg_temp.f()", "unknown-function"),
        ("SELECT evil.lower('x')", "unknown-function"),
        ("SELECT 1 OPERATOR(evil.+) 2", "unknown-operator"),
        ("SELECT 1 <=> 2", "unknown-operator"),
        ("SELECT * FROM t ORDER BY id USING OPERATOR(evil.<)", "unknown-operator"),
        ("SELECT 1 = ANY (SELECT 1) OR 1 OPERATOR(evil.=) ANY (SELECT 1)", "unknown-operator"),
        ("SELECT * FROM nothere", "unknown-relation"),
        ("SELECT * FROM pg_temp.t", "unknown-relation"),
        ("DELETE FROM ruled WHERE id = 1", "rule-on-relation"),
        ("UPDATE pg_settings SET setting = 'x'", "rule-on-relation"),
        ("SELECT * FROM calling_view", "view-calls-function"),
        ("SELECT * FROM calling_view_below", "view-calls-function"),
        ("SELECT * FROM file_view", "view-calls-function"),
        ("SELECT * FROM policed_by_function", "relation-calls-function"),
        ("SELECT * FROM policed_by_built_in", "row-policy-calls-function"),
        ("SELECT * FROM moody", "relation-calls-function"),
        ("SELECT 1::evil_domain", "user-type"),
        ("SELECT 'x'::unheard_of", "unknown-type"),
        ("SELECT 'x'::shadow.unheard_of", "unknown-type"),
        ("SELECT m::json FROM moody", "user-cast"),
        ("SELECT set_config('ro' || 'le', 'x', false)", "dynamic-setting"),
        ("SELECT set_config('role', $1, false)", "dynamic-setting"),
        ("SELECT set_config(name, 'x', false) FROM pg_settings", "dynamic-setting"),
        ("SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'a' OR true", "dynamic-setting"),
        ("SELECT pg_notify(current_user, 'x')", "dynamic-channel"),
        ("EXECUTE nobody", "unknown-prepared-statement"),
        ("FETCH ALL FROM nobody", "unknown-cursor"),
        ("DELETE FROM t WHERE CURRENT OF nobody", "unknown-cursor"),
        ("DO $$ BEGIN COMMIT; END $$", "code-block"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'", "function-body"),
        ("CREATE EXTENSION hstore", "runs-scripts"),
        ("REFRESH MATERIALIZED VIEW mv", "stored-query"),
        ("VACUUM", "every-relation"),
        ("SELECT 1_000", "numeral-of-newer-grammar"),
        ("SELECT 0x1F", "numeral-of-newer-grammar"),
        ("SELECT * FROM t TABLESAMPLE evil (1)", "unknown-sampling-method"),
        ("CREATE TEMP TABLE t (id int); SELECT * FROM t", "tainted-name"),
        ("SET search_path = shadow; SELECT * FROM t", "tainted-name"),
        ("SET search_path = shadow; SELECT lower(1)", "tainted-name"),
        ("SET ROLE x; SELECT * FROM t", "tainted-name"),
        ("SELECT set_config('search_path', 'shadow', false); DELETE FROM t", "tainted-name"),
        ("RESET ALL; SELECT * FROM t", "tainted-name"),
        ("DO $$ BEGIN END $$; SELECT * FROM t", "tainted-name"),
        ("CALL chore(1); SELECT * FROM t", "tainted-name"),
    ],
)
def test_what_can_not_be_known_is_opaque(ask: Ask, text: str, reason: str) -> None:
    found = ask(text)
    assert reason in reasons(found)
    assert found.sent is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"SELECT 1\x00; DROP TABLE t", Reason.DECEPTIVE_TEXT),
        ("SELECT\u00a01".encode(), Reason.DECEPTIVE_TEXT),
        ("SELECT '\u202e'".encode(), Reason.DECEPTIVE_TEXT),
        ("SELECT '\u200b'".encode(), Reason.DECEPTIVE_TEXT),
        ("SELECT '\ufeff'".encode(), Reason.DECEPTIVE_TEXT),
        ("SELECT '\U000e0041'".encode(), Reason.DECEPTIVE_TEXT),
        ("SELECT '\u2028'".encode(), Reason.DECEPTIVE_TEXT),
        ("SELECT '\x85'".encode(), Reason.DECEPTIVE_TEXT),
        (b"SELECT '\x1b[2J'", Reason.DECEPTIVE_TEXT),
        (b"SELECT 1 -- \rDROP TABLE t", Reason.DECEPTIVE_TEXT),
        (b"SELECT 1\x0b", Reason.DECEPTIVE_TEXT),
        (b"SELECT '\xff'", Reason.NOT_UTF8),
        (b"SELECT '\xed\xa0\x80'", Reason.NOT_UTF8),
        (b"SELECT '\xc0\x80'", Reason.NOT_UTF8),
        (b"SELEC 1", Reason.SYNTAX_ERROR),
        (b"SELECT 'open", Reason.SYNTAX_ERROR),
        (b"SELECT 1; DROP TABL t; DELETE FROM t", Reason.SYNTAX_ERROR),
        (b"START_REPLICATION SLOT s LOGICAL 0/0", Reason.SYNTAX_ERROR),
        (b"SELECT '" + b"x" * (1 << 20) + b"'", Reason.TOO_LARGE),
    ],
)
def test_unreadable(ask: Ask, text: bytes, reason: Reason) -> None:
    found = ask(text)
    assert found.unreadable is not None
    assert found.unreadable.reason is reason
    assert found.effects == () and found.sent is None


def test_blanks_are_data_inside_of_literals(ask: Ask) -> None:
    assert ask("SELECT 'a\u00a0b' -- c\u00a0d").static
    assert ask("SELECT $$a\u00a0b$$").static
    assert ask('SELECT 1 AS "a\u00a0b"').unreadable is not None
    assert ask("SELECT 'Grüße', '日本'\r\n").static


@pytest.mark.parametrize("kind", [Kind.PARSE, Kind.BIND])
def test_one_statement_in_the_extended_protocol(ask: Ask, kind: Kind) -> None:
    assert ask("SELECT 1", kind).static
    assert ask("SELECT 1;", kind).static
    refused = ask("SELECT 1; SELECT 2", kind)
    assert refused.unreadable is not None and refused.unreadable.reason is Reason.SYNTAX_ERROR


DEEP = [
    "SELECT " + "1+" * 60_000 + "1",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT " + "- " * 30_000 + "1",
    "SELECT " + "NOT " * 15_000 + "true",
    "SELECT 1" + "::int" * 12_000,
    "SELECT " + "abs(" * 10_000 + "1" + ")" * 10_000,
    "SELECT " + "CASE WHEN true THEN 1 ELSE " * 2_000 + "1" + " END" * 2_000,
    "SELECT * FROM " + "(SELECT * FROM " * 3_000 + "t" + ") x" * 3_000,
    "SELECT 1" + " UNION SELECT 1" * 4_000,
    "SELECT 1, 2" + " UNION SELECT 1, 2" * 3_000,
    "SELECT * FROM t" + " JOIN t ON a AND b" * 900,
    "SELECT " + "CASE WHEN a AND b THEN 1 ELSE " * 1_500 + "1" + " END" * 1_500,
    "SELECT * FROM t" + " CROSS JOIN t" * 4_000,
    "SELECT " + "ARRAY[" * 5_000 + "]" * 5_000,
    "SELECT '\\', E'\\'', " + "1+" * 30_000 + "1",
    "SELECT " + " OR ".join(f"id = {n}" for n in range(3_000)) + " FROM t",
    "SELECT 'a' COLLATE \"C\"" + ' COLLATE "C"' * 5_000,
    "SELECT " + "(" * 60_000,
    "SELECT 1+" * 900,
    "SELECT " + "1+" * 900 + "1",
]
FLAT = [  # long, and no deeper than a short one
    "SELECT a" + ".b" * 30_000,
    "SELECT x" + "[1]" * 15_000,
    "SELECT " + "(" * 900 + "1" + ")" * 900,
    "WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(3_000)) + " SELECT 1",
    "SELECT " + ", ".join("1" for _ in range(30_000)),
    "SELECT 1 WHERE 1 IN (" + ", ".join("1" for _ in range(30_000)) + ")",
]


@pytest.mark.parametrize("text", DEEP + FLAT, ids=lambda text: f"{text[:24]}…{len(text)}")
def test_deep_and_long_texts_answer_quickly_and_kill_nothing(text: str) -> None:
    started = time.process_time()  # of this process: the machine may be busy with others
    found = analyze_sql(text.encode(), SqlContext(assume_tables=True), Kind.QUERY)
    assert time.process_time() - started < 1.0
    if text in DEEP:
        assert not found.static
        assert reasons(found) in ([], ["nested-too-deep"], ["too-long-to-classify"])


def test_a_bulk_insert_of_constants_is_static_up_to_a_mebibyte(ask: Ask) -> None:
    rows = ", ".join(f"({n}, 'text of {n}', NULL)" for n in range(30_000))
    text = f"INSERT INTO t (id, name, total) VALUES {rows}"
    assert 64 * 1024 < len(text) < 1 << 20
    found = ask(text)
    assert found.static and shown(found) == [("insert", "public.t")]
    hidden = ask(f"INSERT INTO t (id, name, total) VALUES {rows}, (1, pg_read_file('x'), 2)")
    assert reasons(hidden) == ["too-long-to-classify"]
    assert reasons(ask(text + "; DROP TABLE t")) == ["too-long-to-classify"]


def test_without_a_catalog_only_the_system_is_known(ask: Ask) -> None:
    assert reasons(ask("SELECT * FROM t", catalog=None)) == ["no-catalog"]
    assert reasons(ask("SELECT lower('x')", catalog=None)) == ["no-catalog"]
    assert ask("SELECT relname FROM pg_class", catalog=None).static
    assert ask("SELECT pg_catalog.lower('x'), 1 OPERATOR(pg_catalog.+) 2 FROM pg_catalog.pg_class", catalog=None).static
    assumed = ask("SELECT lower(name) FROM t, app.u", catalog=None, assume_tables=True)
    assert assumed.static and assumed.assumed == ("public.t", "app.u")


def test_tainted_sessions_know_only_qualified_names(ask: Ask) -> None:
    assert "tainted-name" in reasons(ask("SELECT * FROM t", tainted=True))
    assert "tainted-name" in reasons(ask("SELECT * FROM pg_class", tainted=True))
    assert "tainted-name" in reasons(ask("SELECT lower('x')", tainted=True))
    assert "tainted-name" in reasons(ask("SELECT 1 = 1", tainted=True))
    assert "tainted-name" in reasons(ask("SELECT 1 + 1", tainted=True, catalog=None, assume_tables=True))
    # No schema has a user's `+` or `upper`, and pg_temp is never searched for functions and operators.
    assert ask("SELECT 1 + 1, upper('x')", tainted=True).static
    assert "tainted-name" in reasons(ask("DO 'x'; SELECT upper('x')"))
    assert ("function", "pg_catalog.pg_read_file") in shown(ask("SET search_path = x; SELECT pg_read_file('x')"))
    assert "tainted-name" in reasons(ask("DROP TABLE t", tainted=True))
    assert ask("SELECT pg_catalog.lower(name) FROM public.t WHERE id OPERATOR(pg_catalog.=) 1", tainted=True).static


def test_another_search_path_alone_hides_no_system_relation(ask: Ask) -> None:
    assert ask("SELECT relname FROM pg_class", tainted=True, temporary=False).static
    assert reasons(ask("SELECT * FROM t", tainted=True, temporary=False)) == ["tainted-name"]
    assert reasons(ask("SET search_path = x; CREATE TEMP TABLE pg_class (a int); SELECT relname FROM pg_class")) == [
        "tainted-name"
    ]
    assert ask("SET search_path = x; SELECT relname FROM pg_class").static
    assert reasons(ask("DO 'x'; SELECT relname FROM pg_class"))[1:] == ["tainted-name"]


def test_names_follow_the_search_path(ask: Ask) -> None:
    assert shown(ask("SELECT id FROM t LIMIT 1", search_path=("shadow", "public"))) == [("select", "shadow.t")]
    shadowed = ask("SELECT lower('x')", search_path=("public", "shadow", "pg_temp"))
    assert ("function", "shadow.lower") in shown(shadowed)
    operator = ask("SELECT * FROM t WHERE id = 1", search_path=("public", "shadow", "pg_temp"))
    assert ("function", "shadow.equal") in shown(operator)
    for hidden in (
        "SELECT * FROM t JOIN s USING (id)",
        "SELECT 1 IN (SELECT 1)",
        "SELECT CASE 1 WHEN 2 THEN 3 END",
        "SELECT NULLIF(1, 2)",
    ):
        assert ("function", "shadow.equal") in shown(ask(hidden, search_path=("public", "shadow", "pg_temp"))), hidden


def test_prepared_text_is_walked_where_it_is_executed(ask: Ask) -> None:
    assert ("delete", "public.t") in shown(ask("EXECUTE p", prepared={"p": "DELETE FROM t"}))
    assert ("delete", "public.t") in shown(ask("EXECUTE p", prepared={"p": "PREPARE p AS DELETE FROM t"}))
    assert ("delete", "public.t") in shown(ask("EXPLAIN ANALYZE EXECUTE p", prepared={"p": "DELETE FROM t"}))
    assert ("delete", "public.t") in shown(ask("CREATE TABLE x AS EXECUTE p", prepared={"p": "DELETE FROM t RETURNING *"}))
    assert reasons(ask("EXECUTE p", prepared={"p": "EXECUTE p"})) == ["refers-to-itself"]
    assert reasons(ask("EXECUTE p", prepared={"p": "SELEC"})) == ["unreadable-text"]
    assert reasons(ask("EXECUTE p", prepared={"p": "SELECT " + "1+" * 3_000 + "1"})) == ["too-long-to-classify"]
    assert ("function", "pg_catalog.pg_read_file") in shown(ask("FETCH c", cursors={"c": "SELECT pg_read_file('x')"}))


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("SELECT * FROM calling_view_below", "calling_view_below"),
        ('SELECT * FROM "public".calling_view', '"public".calling_view'),
        ("SELECT unheard_of(1)", "unheard_of"),
        ("SELECT 1 <=> 2", "<=>"),
    ],
)
def test_what_is_opaque_is_marked_where_it_is_written(ask: Ask, text: str, marked: str) -> None:
    (part,) = ask(text).opaque
    assert text[part.start : part.end] == marked


MONSTERS = {
    "120 KB of 1+1": b"SELECT " + b"1+" * 60_000 + b"1",
    "60 KB of 1+1": b"SELECT " + b"1+" * 30_000 + b"1",
    "5,000 parentheses": b"SELECT " + b"(" * 5_000 + b"1" + b")" * 5_000,
    "5,000 calls": b"SELECT " + b"abs(" * 5_000 + b"1" + b")" * 5_000,
    "1 MB of one literal": b"SELECT '" + b"x" * ((1 << 20) - 20) + b"'",
    "1 MB of rows": b"INSERT INTO t VALUES " + b", ".join(b"(1)" for _ in range(200_000)),
    "1 MB of names": b"SELECT " + b", ".join(b"a" for _ in range(300_000)),
    "60 KB of statements": b"SELECT 1;" * 6_500,
    "60 KB of commas": b"SELECT " + b"," * 60_000,
}


async def test_monsters_leave_the_child_alive_and_small(catalog: Catalog) -> None:
    """Not a second each on a quiet machine (printed); what is asserted is that it ends, and what it takes."""
    child = SqlChild(wall=60)
    context = SqlContext(catalog=catalog)
    try:
        await child.analyze(b"SELECT 1", context, Kind.QUERY)
        first = child._child._process
        assert first is not None
        for name, text in MONSTERS.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            started = time.monotonic()
            found = await child.analyze(text, context, Kind.QUERY)
            print(f"{name}: {time.monotonic() - started:.2f} s, {reasons(found) or found.unreadable or 'static'}")
            assert reasons(found) not in (["parser-crash"], ["parser-limit"])
            assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 1.0, "the proxy itself does next to nothing"
            assert (await child.analyze(b"SELECT 1", context, Kind.QUERY)).static
        assert child._child._process is first, "no text has killed it"
        status = Path(f"/proc/{first.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0])
        print(f"the child took {peak >> 10} MB at most")
        assert peak < 512 * 1024
    finally:
        await child.close()
