"""What may be asked of the planner, and what its answer means: the pure part of an estimate."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import analyses
from interlock.commands.model import Command, Kind, SqlContext, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog, ForeignKey, Operator, Relation
from interlock.postgres import plan
from interlock.postgres.wire import requests

ORDERS = Relation("public", "orders", "table", frozenset(("id", "v")))
NOTHING: Any = MappingProxyType({})
CATALOG = Catalog(
    MappingProxyType({("public", "orders"): ORDERS}),
    NOTHING,
    NOTHING,
    NOTHING,
    (),
    server_version=160000,
    superuser=False,
    version="v1",
)


def asked(text: str, catalog: Catalog | None = CATALOG, kind: Kind = Kind.QUERY, **context: Any) -> plan.Question | None:
    where = SqlContext(catalog=catalog, search_path=("public", "pg_temp"), **context)
    command = Command(Wire.POSTGRES, kind, text.encode(), context=where)
    return plan.question(command, analyze_sql(command.text, where, kind))


def changed(**changes: Any) -> Catalog:
    return replace(CATALOG, relations=MappingProxyType({("public", "orders"): replace(ORDERS, **changes)}))


def test_a_plain_change_is_asked() -> None:
    found = asked("DELETE FROM orders WHERE id = 1")
    assert found == plan.Question(b"EXPLAIN (FORMAT JSON) DELETE FROM orders WHERE id = 1", "delete", "public", "orders")


def test_what_foreign_keys_delete_besides_is_no_part_of_the_plan() -> None:
    itself = replace(ORDERS, referenced_by=(ForeignKey("public", "orders", "c", "a", frozenset(("id",))),))
    catalog = replace(CATALOG, relations=MappingProxyType({("public", "orders"): itself}))
    found = asked("DELETE FROM orders WHERE id = 1", catalog)
    assert found is not None and found.table == "orders"


NOT_ASKED = {
    "reads only": asked("SELECT * FROM orders"),
    "a Parse": asked("DELETE FROM orders", kind=Kind.PARSE),
    "no catalog": asked("DELETE FROM public.orders", None),
    "names may have changed": asked("DELETE FROM public.orders", tainted=True),
    "a table that is not known": asked("DELETE FROM others"),
    "a built-in function that does something": asked("DELETE FROM orders WHERE pg_sleep(1) IS NULL"),
    "text that is too long": asked("DELETE FROM orders WHERE v = '" + "x" * plan.MAX_TEXT + "'"),
    "an operator of somebody": asked(
        "DELETE FROM orders WHERE id = 1",
        replace(CATALOG, operators=MappingProxyType({"=": (Operator("public", "=", "public.eq", trusted=True),)})),
    ),
    "a cast of somebody": asked(
        "DELETE FROM orders WHERE id = 1", replace(CATALOG, casts=(("text", "other", "i", "public.evil"),))
    ),
    "a foreign table": asked("DELETE FROM orders", changed(kind="foreign")),
    "a foreign child": asked("DELETE FROM orders", changed(foreign_children=True)),
    "row security": asked("DELETE FROM orders", changed(row_security=True)),
    "a rule": asked("DELETE FROM orders", changed(rules=True)),
    "a function that reading runs": asked("DELETE FROM orders", changed(read_calls=("public.f",))),
    "a function that writing runs": asked("DELETE FROM orders", changed(write_calls=("public.f",))),
    "a shell command": plan.question(*analyses.shell("rm x")),
}


@pytest.mark.parametrize("why", NOT_ASKED)
def test_whatever_is_not_surely_harmless_is_not_asked(why: str) -> None:
    assert NOT_ASKED[why] is None


def test_what_the_plan_says_is_read() -> None:
    fed = {"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Plan Rows": 12345}
    other = {"Node Type": "Result", "Parent Relationship": "InitPlan", "Plan Rows": 99}
    found = json.dumps([{"Plan": {"Node Type": "ModifyTable", "Plan Rows": 0, "Plans": [fed, other]}}])
    assert plan.estimated(found) == 12345
    assert plan.estimated(json.dumps([{"Plan": fed}])) is None


NAMES = st.sampled_from(["Plan", "Plans", "Node Type", "Parent Relationship", "Plan Rows"])
LEAF = st.none() | st.integers() | st.sampled_from(["ModifyTable", "Outer", ""])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)


@given(st.recursive(LEAF, nested, max_leaves=20))
def test_an_answer_of_any_shape_is_a_number_or_nothing(answer: Any) -> None:
    found = plan.estimated(json.dumps(answer))
    assert found is None or found >= 0


def test_the_estimate_in_words() -> None:
    delete = plan.Question(b"", "delete", "public", "orders")
    assert (
        plan.words(delete, 12_345, 49_876)
        == "The planner estimates that it deletes about 12,300 of 49,900 rows of public.orders."
    )
    assert plan.words(delete, 7, None) == "The planner estimates that it deletes about 7 rows of public.orders."
    assert plan.words(delete, 7, 3) == "The planner estimates that it deletes about 7 rows of public.orders."
    assert plan.words(replace(delete, verb="insert"), 7, 9) == "The planner estimates that it adds about 7 rows to public.orders."


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.none() | st.binary(max_size=20)), max_size=5))
def test_a_bind_is_read_back_as_it_was_written(values: list[tuple[int, bytes | None]]) -> None:
    bound = requests.Bind("p", "s", tuple(code for code, _ in values), tuple(raw for _, raw in values), ())
    assert requests.bind(requests.encode_bind(bound)) == bound
