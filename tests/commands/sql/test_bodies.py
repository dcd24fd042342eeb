"""Code blocks are opened, and nothing hides in one: every position of every statement, names, types, and a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuzz.sql_claims import violations
from fuzz.sql_world import PATHS, World, running_world
from interlock.commands.model import Kind, SqlContext
from interlock.commands.sql.analysis import analyze_sql, in_process

from .conftest import Ask, reasons, shown

SPY = "pg_sleep(0)"
"""A function that is not on the allow-list: wherever it is called, the effects must say so."""

POSITIONS = (
    "DECLARE a float8 := (SELECT 1 FROM {}); BEGIN END",
    "DECLARE a CONSTANT text NOT NULL DEFAULT {}::text; BEGIN END",
    "BEGIN PERFORM {}; END",
    "BEGIN PERFORM 1 FROM {}; END",
    "DECLARE a text; BEGIN a := {}; END",
    "DECLARE a text; BEGIN a = {}; END",
    "DECLARE a int[]; BEGIN a[length({}::text)] := 1; END",
    "DECLARE r record; BEGIN r.x := {}; END",
    "DECLARE a text; BEGIN SELECT {} INTO a; END",
    "DECLARE a text; BEGIN SELECT 1 INTO STRICT a FROM {}; END",
    "BEGIN IF {} IS NULL THEN END IF; END",
    "BEGIN IF false THEN ELSIF {} IS NULL THEN END IF; END",
    "BEGIN IF false THEN PERFORM {}; END IF; END",
    "BEGIN IF false THEN ELSIF false THEN PERFORM {}; END IF; END",
    "BEGIN IF false THEN ELSE PERFORM {}; END IF; END",
    "BEGIN CASE {}::text WHEN 'a' THEN NULL; END CASE; END",
    "BEGIN CASE 'b' WHEN 'a', {}::text THEN NULL; END CASE; END",
    "BEGIN CASE WHEN {} IS NULL THEN NULL; END CASE; END",
    "BEGIN CASE WHEN true THEN PERFORM {}; END CASE; END",
    "BEGIN CASE WHEN true THEN NULL; ELSE PERFORM {}; END CASE; END",
    "BEGIN LOOP PERFORM {}; EXIT; END LOOP; END",
    "BEGIN LOOP EXIT WHEN {} IS NULL; END LOOP; END",
    "BEGIN <<l>> LOOP CONTINUE l WHEN {} IS NULL; EXIT l; END LOOP; END",
    "BEGIN WHILE {} IS NULL LOOP NULL; END LOOP; END",
    "BEGIN WHILE false LOOP PERFORM {}; END LOOP; END",
    "BEGIN FOR i IN length({}::text)..2 LOOP NULL; END LOOP; END",
    "BEGIN FOR i IN 1..length({}::text) LOOP NULL; END LOOP; END",
    "BEGIN FOR i IN REVERSE 2..1 BY length({}::text) LOOP NULL; END LOOP; END",
    "BEGIN FOR i IN 1..2 LOOP PERFORM {}; END LOOP; END",
    "DECLARE r record; BEGIN FOR r IN SELECT {} LOOP NULL; END LOOP; END",
    "DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP PERFORM {}; END LOOP; END",
    "DECLARE a text; BEGIN FOREACH a IN ARRAY ARRAY[{}::text] LOOP NULL; END LOOP; END",
    "DECLARE a text; BEGIN FOREACH a IN ARRAY ARRAY['x'] LOOP PERFORM {}; END LOOP; END",
    "BEGIN RAISE NOTICE '%', {}; END",
    "BEGIN RAISE EXCEPTION 'x' USING HINT = {}::text; END",
    "BEGIN ASSERT {} IS NULL; END",
    "BEGIN ASSERT true, {}::text; END",
    "BEGIN DECLARE b text := {}::text; BEGIN NULL; END; END",
    "BEGIN BEGIN BEGIN PERFORM {}; END; END; END",
    "BEGIN NULL; EXCEPTION WHEN others THEN PERFORM {}; END",
    "BEGIN NULL; EXCEPTION WHEN division_by_zero OR SQLSTATE '22012' THEN NULL; WHEN others THEN PERFORM {}; END",
    "BEGIN BEGIN NULL; EXCEPTION WHEN others THEN RAISE NOTICE '%', {}; END; END",
    "BEGIN INSERT INTO public.t (name) VALUES ({}::text); END",
    "BEGIN INSERT INTO public.t (name) SELECT 'x' FROM {}; EXCEPTION WHEN others THEN NULL; END",
)


def block(body: str) -> str:
    return f"DO $$ {body} $$"


@pytest.mark.parametrize("body", POSITIONS)
def test_a_call_is_found_wherever_it_stands(ask: Ask, body: str) -> None:
    spied = ask(block(body.format(SPY)))
    assert ("function", "pg_catalog.pg_sleep") in shown(spied)
    assert ("do", "") in shown(spied)
    assert all(effect.via == ("do",) for effect in spied.effects[1:])
    assert spied.static, spied.opaque


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("BEGIN EXECUTE 'DELETE FROM t'; END", "dynamic-statement"),
        ("DECLARE a text; BEGIN EXECUTE 'x' INTO a USING 1; END", "dynamic-statement"),
        ("DECLARE r record; BEGIN FOR r IN EXECUTE 'x' LOOP NULL; END LOOP; END", "dynamic-statement"),
        ("BEGIN IF false THEN EXECUTE 'x'; END IF; END", "dynamic-statement"),
        ("BEGIN NULL; EXCEPTION WHEN others THEN EXECUTE 'x'; END", "dynamic-statement"),
        ("BEGIN COMMIT; END", "code-block"),
        ("BEGIN ROLLBACK AND CHAIN; END", "code-block"),
        ("BEGIN SET search_path = shadow; END", "code-block"),
        ("BEGIN RESET ALL; END", "code-block"),
        ("BEGIN CALL public.chore(1); END", "code-block"),
        ("BEGIN DO 'begin end'; END", "code-block"),
        ("BEGIN CREATE TEMP TABLE t (id int); END", "code-block"),
        ("BEGIN PERFORM set_config('search_path', 'shadow', false); END", "code-block"),
        ("BEGIN LISTEN x; END", "code-block"),
        ("BEGIN COPY t TO '/tmp/x'; END", "code-block"),
        ("DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; END", "code-block"),
        ("DECLARE c refcursor; BEGIN OPEN c FOR SELECT 1; END", "code-block"),
        ("DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE 'x'; END", "code-block"),
        ("DECLARE c CURSOR (k int) FOR SELECT k; BEGIN FOR r IN c(1) LOOP NULL; END LOOP; END", "code-block"),
        ("DECLARE a public.evil_domain; BEGIN a := 1; END", "code-block"),
        ("DECLARE a evil_domain; b record; BEGIN a := 1; END", "code-block"),
        ("DECLARE a evil_domain; BEGIN PERFORM 1 AS a, 'a record;'; a := 1; END", "code-block"),
        ("DECLARE s text := '\n\n\n\n'; a evil_domain; BEGIN PERFORM '\n'; END", "code-block"),
        ("DECLARE a t%ROWTYPE; BEGIN NULL; END", "code-block"),
        ("DECLARE a t.id%TYPE; BEGIN NULL; END", "code-block"),
        ("DECLARE a shadow.unheard_of; BEGIN NULL; END", "code-block"),
        ("DECLARE a record := public.writes(); BEGIN NULL; END", "code-block"),
        ("DECLARE a int; b ALIAS FOR a; BEGIN DELETE FROM t WHERE b = 1; END", "code-block"),
        ("\n#variable_conflict use_variable\nDECLARE id int; BEGIN DELETE FROM t WHERE id = id; END", "code-block"),
        ("/* x */ -- y\n #variable_conflict use_column\nBEGIN END", "code-block"),
        ("DECLARE id int; BEGIN DELETE FROM public.t WHERE id = id; END", "ambiguous-name"),
        ("DECLARE t record; BEGIN DELETE FROM public.t WHERE t.id = 1; END", "ambiguous-name"),
        ("<<t>> DECLARE id int; BEGIN DELETE FROM public.t WHERE t.id = 1; END", "ambiguous-name"),
        ("BEGIN PERFORM 1_000; END", "numeral-of-newer-grammar"),
        ("BEGIN DELETE FROM nobody WHERE id = 1; END", "unknown-relation"),
        ("BEGIN PERFORM unheard_of(1); END", "unknown-function"),
        ("BEGIN PERFORM 1::evil_domain; END", "user-type"),
        ("BEGIN DELETE FROM t WHERE CURRENT OF c; END", "unknown-cursor"),
        ("BEGIN this is not it END", "code-block"),
        ("BEGIN " * 40 + "NULL;" + " END;" * 39 + " END", "code-block"),
        ("BEGIN " + "PERFORM 1;" * 2000 + " END", "code-block"),
        ("", "code-block"),
    ],
)
def test_what_can_not_be_known_stays_opaque(ask: Ask, body: str, reason: str) -> None:
    found = ask(block(body))
    assert reason in reasons(found)
    assert found.sent is None
    assert found.effects[0].verb == "do"


@pytest.mark.parametrize(
    "text",
    [
        "DO LANGUAGE plpython3u $$ import os $$",
        "DO LANGUAGE sql $$ SELECT 1 $$",
        "DO LANGUAGE 'PLPGSQL' $$ BEGIN END $$",
        "DO $$ BEGIN END $$ LANGUAGE plperl",
        "DO $$ BEGIN END $$ $$ BEGIN END $$",
        r"DO E'BEGIN PERFORM \x31; END'",
        "DO U&'BEGIN PERFORM \\0031; END'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$",
    ],
)
def test_other_languages_and_forms_stay_opaque(ask: Ask, text: str) -> None:
    assert not ask(text).static


def test_a_loop_limits_nothing_and_a_variable_filters_nothing(ask: Ask) -> None:
    found = ask(block("BEGIN FOR i IN 0..9 LOOP PERFORM name FROM public.t ORDER BY id OFFSET i LIMIT 1; END LOOP; END"))
    assert found.static
    assert [(e.object, e.limited) for e in found.effects if e.verb == "select"] == [("public.t", False)]
    for condition in ("sure", "x = 3", "r.y = 1", "lab.x = 1", "NOT sure", "sure OR id = 1", "inline_code_block.x = 1"):
        found = ask(
            block(f"<<lab>> DECLARE sure bool := true; x int; r record; BEGIN DELETE FROM public.t WHERE {condition}; END")
        )
        assert [effect.filtered for effect in found.effects if effect.verb == "delete"] == [False], condition
    kept = ask(block("DECLARE r record; BEGIN FOR r IN SELECT 7 AS n LOOP DELETE FROM public.t WHERE id = r.n; END LOOP; END"))
    assert kept.static
    assert [effect.filtered for effect in kept.effects if effect.verb == "delete"] == [True]


def test_what_denies_sees_into_opaque_blocks(ask: Ask) -> None:
    found = ask(block("BEGIN SET ROLE postgres; EXECUTE 'x' USING pg_read_file('/etc/passwd'); END"))
    assert ("set", "role") in shown(found)
    assert ("function", "pg_catalog.pg_read_file") in shown(found)


def test_names_after_a_block_are_as_unsure_as_before(ask: Ask) -> None:
    assert "tainted-name" in reasons(ask("DO $$ BEGIN END $$; SELECT * FROM t"))
    assert "tainted-name" in reasons(ask(block("BEGIN PERFORM 1 FROM t; END"), tainted=True))


def test_a_block_is_read_in_a_child(ask: Ask) -> None:
    for text in (b"DO $$ BEGIN END $$", b"SELECT 1;dO'begin end'", b"DO/**/LANGUAGE plpgsql ''", b"DO\nE'begin end'"):
        assert not in_process(text)
    assert in_process(b"INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING")
    assert in_process(b"INSERT INTO t VALUES (1) ON CONFLICT (id) DO  UPDATE SET do_it = 1")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


RUN = (
    "BEGIN DELETE FROM mix WHERE id = 1; END",
    "BEGIN UPDATE diary SET total = 1; END",
    "BEGIN PERFORM token FROM mix; END",
    "DECLARE a int; BEGIN SELECT count(*) INTO a FROM diary; INSERT INTO trail VALUES (a, 'x'); END",
    "DECLARE a int := (SELECT max(total) FROM mix); BEGIN NULL; END",
    "DECLARE sure bool := true; BEGIN DELETE FROM mix WHERE sure; END",
    "DECLARE r record; BEGIN FOR r IN SELECT * FROM t LOOP DELETE FROM mix WHERE id = r.total; END LOOP; END",
    "DECLARE r record; BEGIN FOR r IN DELETE FROM diary WHERE id = 9 RETURNING token LOOP RAISE LOG '%', r.token; END LOOP; END",
    "BEGIN IF (SELECT count(*) FROM mix) > 3 THEN DELETE FROM diary WHERE id = 1; ELSE DELETE FROM mix WHERE id = 1; END IF; END",
    "BEGIN IF false THEN NULL; ELSIF EXISTS (SELECT 1 FROM t) THEN UPDATE t SET name = 'y' WHERE id = 2; END IF; END",
    "BEGIN CASE (SELECT 1) WHEN 1, 2 THEN INSERT INTO trail VALUES (1, 'c'); ELSE NULL; END CASE; END",
    "BEGIN CASE WHEN true THEN UPDATE mix SET ok = true WHERE id = 9; END CASE; END",
    "BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN DELETE FROM mix WHERE id = 9; END",
    "BEGIN PERFORM 1 / 0; EXCEPTION WHEN others THEN INSERT INTO trail VALUES (7, sqlerrm); END",
    "BEGIN BEGIN PERFORM 1 / 0; EXCEPTION WHEN SQLSTATE '22012' THEN NULL; END; DELETE FROM t WHERE id = 1; END",
    "BEGIN FOR i IN 1..3 LOOP INSERT INTO trail VALUES (i, 'loop'); END LOOP; END",
    "BEGIN FOR i IN REVERSE 3..1 BY 2 LOOP DELETE FROM s WHERE s.id = i; END LOOP; END",
    "DECLARE a int; BEGIN FOREACH a IN ARRAY ARRAY(SELECT id FROM t) LOOP DELETE FROM leaf WHERE id = a; END LOOP; END",
    "DECLARE n int := 0; BEGIN WHILE n < 2 LOOP n := n + 1; UPDATE mix SET total = n WHERE id = 1; END LOOP; END",
    "DECLARE n int := 0; BEGIN LOOP n = n + (SELECT count(*) FROM diary); EXIT WHEN n > 10; END LOOP; END",
    "DECLARE a int[]; BEGIN a[(SELECT min(id) FROM t)] := 1; END",
    "DECLARE a text; BEGIN INSERT INTO t VALUES (60, 'x') RETURNING name INTO a; RAISE LOG '%', (SELECT 1 FROM mix LIMIT 1); END",
    "BEGIN ASSERT (SELECT count(*) FROM diary) > 0, 'none'; END",
    "BEGIN RAISE NOTICE 'x' USING HINT = (SELECT token FROM mix LIMIT 1); END",
    "DECLARE n int; BEGIN DELETE FROM mix WHERE id = 1; GET DIAGNOSTICS n = ROW_COUNT; INSERT INTO trail VALUES (n, 'n'); END",
    "BEGIN MERGE INTO mix m USING diary o ON m.id = o.id WHEN MATCHED THEN DELETE; END",
    "BEGIN UPDATE t SET id = 50 WHERE id = 2; END",
    "BEGIN DELETE FROM t_view WHERE id = 3; END",
    "BEGIN INSERT INTO triggered VALUES (2, 'y'); END",
    "BEGIN INSERT INTO orders (t_id) VALUES (1); END",
    "BEGIN PERFORM id FROM mix WHERE id = 1 FOR UPDATE; END",
    "BEGIN PERFORM nextval('tickets'); END",
    "BEGIN PERFORM pg_advisory_xact_lock(5); END",
    "BEGIN PERFORM pg_ls_dir('.'); END",
    "BEGIN INSERT INTO indexed VALUES (5, 'i'); END",
    "BEGIN PERFORM * FROM wide_view; END",
    "<<o>> DECLARE x int := 1; BEGIN DECLARE x int := 9; BEGIN DELETE FROM mix WHERE mix.id = o.x; END; END",
)
OPAQUE = (
    "BEGIN PERFORM writes(); END",
    "DECLARE a evil_domain; BEGIN a := 5; END",
    "DECLARE j json; BEGIN j := 'a'::mood; END",
    "DECLARE j json; BEGIN SELECT m INTO j FROM typed; END",
    "BEGIN INSERT INTO ruled VALUES (1, 'r'); END",
    "BEGIN PERFORM liar() FROM t; END",
)


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_what_a_block_did_on_a_server_was_predicted(world: World) -> None:
    """Every block of RUN is static and does what is observed, on both sets of values; those of OPAQUE are judged where static."""
    silent: list[str] = []
    for body in (*RUN, *OPAQUE):
        text = block(body)
        found = analyze_sql(text.encode(), SqlContext(catalog=world.catalog, search_path=PATHS[0]), Kind.QUERY)
        if not found.static:
            assert body in OPAQUE, (body, found.opaque)
            continue
        observed = world.run(text, PATHS[0])
        wrong = list(violations(found, observed, world.structure))
        assert not wrong, (body, wrong, found.effects)
        if not observed.anything:
            silent.append(body)
    assert not silent, "a block of this list does something that is observed"
