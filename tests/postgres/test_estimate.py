"""The planner's estimate for a held statement: told, recorded before it is asked, and never a way to run anybody's code."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.people import BOB
from harness.postgres_server import PostgresServer
from interlock.approvals.model import ApprovalRequest

pytestmark = pytest.mark.interop

REVIEWED = frozenset({"delete", "update", "insert", "function"})
SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, v text);
INSERT INTO orders SELECT i, 'x' FROM generate_series(1, 50000) i;
ANALYZE orders;
CREATE TABLE guarded (id int, v text); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON guarded USING (v = 'x');
CREATE VIEW seen AS SELECT * FROM orders;
CREATE TABLE indexed (id int, v text);
CREATE TABLE watched (id int, v text);
CREATE FUNCTION evil(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'evil ran'; RETURN true; END $$;
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'evil ran'; RETURN NEW; END $$;
CREATE TABLE measured (id int, v text);
CREATE STATISTICS measured_s ON (CASE WHEN evil(1) THEN id END), v FROM measured;
INSERT INTO measured VALUES (1, 'x'); ANALYZE measured;
CREATE INDEX ON indexed (id) WHERE evil(1);
CREATE TRIGGER watch BEFORE DELETE ON watched FOR EACH ROW EXECUTE FUNCTION watch();
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
"""


@pytest.fixture(scope="module")
def shop(server: PostgresServer) -> Iterator[PostgresServer]:
    server.run(SCHEMA)
    yield server
    server.run("DROP VIEW seen; DROP TABLE orders, guarded, indexed, measured, watched; DROP FUNCTION evil, watch")


@pytest.fixture(scope="module")
def proxy(shop: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("estimates")
    with running_proxy(configuration(shop, folder), folder, VerbPolicy(review=REVIEWED)) as running:
        yield running


def held(proxy: Proxy, sql: str, values: tuple[Any, ...] = (), *, before: str = "") -> ApprovalRequest:
    """Let a statement wait, look at its request, and have an operator withdraw it: the agent's own would lock it in time."""
    with psycopg.connect(proxy.dsn(), autocommit=True) as opened, ThreadPoolExecutor(1) as pool:
        if before:
            opened.execute(before)  # type: ignore[arg-type]
        running = pool.submit(opened.execute, sql, values)  # type: ignore[arg-type]
        request = proxy.pending()
        proxy.run(proxy.desk.inbox.withdraw_request(request.id, by=BOB, why="seen enough"))
        assert running.exception(15) is not None
    return request


ESTIMATES = {
    "DELETE FROM orders": "The planner estimates that it deletes about 50,000 of 50,000 rows of public.orders.",
    "DELETE FROM orders WHERE id = 7": "The planner estimates that it deletes about 1 of 50,000 rows of public.orders.",
    "UPDATE orders SET v = upper(v)": "The planner estimates that it changes about 50,000 of 50,000 rows of public.orders.",
    "INSERT INTO orders SELECT id + 100000, v FROM orders": (
        "The planner estimates that it adds about 50,000 rows to public.orders."
    ),
}


@pytest.mark.parametrize("sql", ESTIMATES)
def test_the_reviewer_is_told_how_many_rows_it_is_about(proxy: Proxy, sql: str) -> None:
    assert held(proxy, sql).draft.facts == (ESTIMATES[sql],)


def test_values_of_a_bind_count(proxy: Proxy) -> None:
    fact = held(proxy, "DELETE FROM orders WHERE id < %s", (101,)).draft.facts[-1]
    assert fact.startswith("The planner estimates that it deletes about ")
    assert int(fact.split("about ")[1].split(" ")[0].replace(",", "")) < 1000


def test_nothing_is_changed_by_asking(proxy: Proxy, shop: PostgresServer) -> None:
    held(proxy, "DELETE FROM orders")
    assert shop.run("SELECT count(*) FROM orders").strip() == "50000"


def test_the_estimate_is_decided_and_recorded_before_it_is_asked(proxy: Proxy) -> None:
    request = held(proxy, "DELETE FROM orders WHERE v = 'recorded'")
    events = list(proxy.events())
    texts = [event.get("disclosed", {}).get("text", "") for event in events]
    asked = texts.index("EXPLAIN (FORMAT JSON) DELETE FROM orders WHERE v = 'recorded'")
    decision, forward, result, request_event = events[asked + 1 : asked + 5]
    assert (decision["type"], decision["verdict"], decision["ref"]) == ("decision", "allow", events[asked]["seq"])
    assert (forward["type"], forward["ref"]) == ("forward", decision["seq"])
    assert (result["type"], result["tag"], result["ref"]) == ("pg.result", "EXPLAIN", decision["seq"])
    assert result["estimated"] >= 0
    assert (request_event["type"], request_event["request"]) == ("approval.request", request.id)


NOT_ASKED = {
    "a user's function in the condition": "DELETE FROM orders WHERE evil(id)",
    "a user's function of a constant": "DELETE FROM orders WHERE evil(1)",
    "a volatile function": "DELETE FROM orders WHERE id = (random() * 10)::int AND pg_sleep(0) IS NULL",
    "row security": "DELETE FROM guarded WHERE id = 1",
    "a view": "UPDATE seen SET v = 'y' WHERE id = 1",
    "a user's function in an index": "DELETE FROM indexed WHERE id = 1",
    "a user's function in extended statistics": "DELETE FROM measured WHERE id = 1",
    "a trigger": "DELETE FROM watched WHERE id = 1",
    "two statements": "DELETE FROM orders WHERE id = 1; DELETE FROM orders WHERE id = 2",
    "two changes in one": "WITH gone AS (DELETE FROM orders RETURNING id) UPDATE orders SET v = 'y'",
}


@pytest.mark.parametrize("why", NOT_ASKED)
def test_what_may_run_somebodys_code_is_not_planned(proxy: Proxy, shop: PostgresServer, why: str) -> None:
    before = len(shop.log)
    assert held(proxy, NOT_ASKED[why]).draft.facts == ()
    said = shop.log[before:]
    assert "EXPLAIN" not in said
    assert "evil ran" not in said
    assert NOT_ASKED[why] not in said


def test_a_temporary_table_in_place_of_the_real_one_is_not_planned(proxy: Proxy, shop: PostgresServer) -> None:
    before = len(shop.log)
    held(proxy, "DELETE FROM orders WHERE id = 1", before="CREATE TEMP TABLE orders (id int)")
    assert "EXPLAIN" not in shop.log[before:]


def test_a_statement_that_waits_for_a_lock_gives_no_estimate(proxy: Proxy, shop: PostgresServer) -> None:
    with psycopg.connect(shop.dsn(), autocommit=False) as other:
        other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        assert held(proxy, "DELETE FROM orders WHERE id = 8").draft.facts == ()
    failed = [event for event in proxy.of("pg.result") if event.get("sqlstate") == "55P03"]
    assert len(failed) == 1


def test_an_open_transaction_is_told_before_the_estimate(proxy: Proxy) -> None:
    facts = held(proxy, "DELETE FROM orders WHERE id = 9", before="BEGIN").draft.facts
    assert facts[0] == "A transaction is open: it keeps its locks while you think."
    assert facts[1].startswith("The planner estimates")


def test_a_policy_that_does_not_allow_explain_allows_no_estimate(shop: PostgresServer, folder: Path) -> None:
    for policy in (VerbPolicy(review=REVIEWED, deny=frozenset({"explain"})), VerbPolicy(review=REVIEWED | {"explain"})):
        inside = folder / str(len(policy.deny))
        inside.mkdir()
        before = len(shop.log)
        with running_proxy(configuration(shop, inside), inside, policy) as own:
            assert held(own, "DELETE FROM orders WHERE id = 10").draft.facts == ()
            assert len(own.of("decision")) == 1
        assert "EXPLAIN" not in shop.log[before:]
