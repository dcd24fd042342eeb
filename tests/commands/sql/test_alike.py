"""Texts that differ in plain values alone: what is taken for alike is analysed the same, and what values decide is not taken.

The families here are asked in the analyzer's way: whatever they know of a text must be what its own analysis says.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.model import Analysis, Kind, SqlContext
from interlock.commands.sql import alike
from interlock.commands.sql.alike import Families
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.catalog import Catalog


class Reader:
    """Reads texts as the analyzer does, with families of its own."""

    def __init__(self, catalog: Catalog) -> None:
        self.families = Families()
        self._context = SqlContext(catalog=catalog)

    def analyse(self, text: bytes) -> Analysis:
        return analyze_sql(text, self._context, Kind.QUERY)

    def known(self, text: str | bytes) -> Analysis | None:
        text = text.encode() if isinstance(text, str) else text
        found = self.families.find(text, "here")
        return None if found is None else found.of(text)

    def read(self, *texts: str | bytes) -> None:
        for text in texts:
            raw = text.encode() if isinstance(text, str) else text
            if self.known(raw) is None:
                self.families.learn(raw, "here", self.analyse(raw), self.analyse)


@pytest.fixture
def reader(catalog: Catalog) -> Reader:
    return Reader(catalog)


ALIKE = [
    ("SELECT name FROM t WHERE id = {};", "1", "2", "999999999"),
    ("select * from t where id={} and name = {}", "1 'a'", "0 'it is \"another\" --'", "7 ''"),
    ("SELECT name FROM t WHERE id IN ({}, {})", "1 2", "3 3", "0 9"),
    ("SELECT name FROM t WHERE id BETWEEN {} AND {}", "1 2", "9 3", "0 0"),
    ("INSERT INTO t (id, name) VALUES ({}, {}), ({}, NULL)", "1 'a' 2", "3 '/* */' 4", "5 '%' 6"),
    ("UPDATE t SET total = total + -{}, name = {} WHERE id = {}", "1 'a' 2", "7 'b' 3", "1 'c' 0"),
    ("DELETE FROM t WHERE id = {} AND total <= {}", "1 2", "2 2", "3 4"),
    ("SELECT name FROM t WHERE id = {} LIMIT 10", "1", "2", "3"),
]


@pytest.mark.parametrize(("form", "first", "second", "third"), ALIKE)
def test_statements_of_every_day_are_alike(reader: Reader, form: str, first: str, second: str, third: str) -> None:
    texts = [form.format(*re.findall(r"'[^']*'|\d+", values)) for values in (first, second, third)]
    reader.read(*texts[:2])
    assert reader.known(texts[2]) == reader.analyse(texts[2].encode())
    assert reader.known(texts[2]) is not None


DIFFERENT = [
    ("SELECT name FROM t WHERE id = 1 LIMIT 10", "SELECT name FROM t WHERE id = 1 LIMIT 999999"),
    ("SELECT name FROM t WHERE 1 = 2", "SELECT name FROM t WHERE 1 = 1"),
    ("SELECT name FROM t WHERE id = 1 AND 1 = 2", "SELECT name FROM t WHERE id = 1 AND 1 = 1"),
    ("DELETE FROM t WHERE id = 1 OR NOT id = 2", "DELETE FROM t WHERE id = 1 OR NOT id = 1"),
    ("DELETE FROM t WHERE id = 3 AND (id = 1 OR NOT id = 2)", "DELETE FROM t WHERE id = 3 AND (id = 1 OR NOT id = 1)"),
    ("SELECT name FROM t WHERE name LIKE 'a'", "SELECT name FROM t WHERE name LIKE '%'"),
    ("SELECT name FROM t WHERE name ~~ 'a'", "SELECT name FROM t WHERE name ~~ '%'"),
    ("SELECT name FROM t WHERE 0 IN (1, 2)", "SELECT name FROM t WHERE 0 IN (1, 0)"),
    ("SELECT set_config('work_mem', '1MB', false)", "SELECT set_config('role', 'admin', false)"),
    ("SELECT set_config(name, 'on', false) FROM pg_settings WHERE name = 'work_mem'",
     "SELECT set_config(name, 'on', false) FROM pg_settings WHERE name = 'role'"),
    ("SET statement_timeout = 5", "SET statement_timeout = 0"),
    ("SET search_path = 'public'", "SET search_path = 'shadow'"),
    ("SELECT pg_notify('a', 'x')", "SELECT pg_notify('b', 'x')"),
    ("SELECT name FROM t WHERE id = 1\x01", "SELECT name FROM t WHERE id = \x01"),
    ("SELECT name FROM t WHERE id = 1", "SELECT name FROM t WHERE id = \x01"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = '\x01"),
    ("SELECT name FROM t WHERE id = 1", "SELECT name FROM t WHERE id = 01"),
    ("SELECT name FROM t WHERE id = 1", "SELECT name FROM t WHERE id = 1_000"),
    ("SELECT name FROM t WHERE id = 1", "SELECT name FROM t WHERE id = 0x1F"),
    ("SELECT name FROM t WHERE id = 1", "SELECT name FROM t WHERE id = 1.5"),
    ("SELECT name FROM t WHERE id = 1", "SELECT name FROM t WHERE id = 12345678901"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = 'a''; DROP TABLE t; --'"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = 'a'; DROP TABLE t; --'"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = E'a\\'; DROP TABLE t; --'"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = 'a\\'"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = U&'a' UESCAPE '!'"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = 'a\u200b'"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = 'a\n'"),
    ("SELECT name FROM t WHERE name = 'a'", "SELECT name FROM t WHERE name = 1"),
    ("SELECT t.name FROM t WHERE id = 1 AND 'a' = 'b'", "SELECT t.name FROM t WHERE id = 1 AND 'a' = 'a'"),
    ("SELECT \"name\" FROM t /* 1 */ WHERE id = 1", "SELECT \"name\" FROM t /* 1 */ UNION SELECT 1 -- WHERE id = 1"),
    ("SELECT name FROM t WHERE id = 1 -- 2", "SELECT name FROM t WHERE id = 1 OR 2"),
    ("SELECT $a$ 1 $a$ FROM t WHERE id = 1", "SELECT $a$ 1 $a$, 2 FROM t WHERE id = 1"),
    ("UPDATE t SET total = float4 '1' WHERE id = 1", "UPDATE t SET total = float8 '1' WHERE id = 1"),
]  # fmt: skip
"""Pairs of which the second is something else, although some reading of them differs in values alone."""


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_where_values_decide_nothing_is_taken_for_alike(reader: Reader, first: str, second: str) -> None:
    reader.read(first, first, first)
    found = reader.known(second)
    assert found is None or found == reader.analyse(second.encode())


LITERALS = st.one_of(
    st.integers(0, 10**12).map(str),
    st.sampled_from(
        ["0", "1", "2", "007", "1_0", "0x1", "1e5", "1.5", ".5", "-1", "$1", "NULL", "'%'", "''", "''''", "E'\\''", "'role'"]
    ),
    st.text(st.characters(min_codepoint=1, max_codepoint=0x250), max_size=6).map(lambda text: f"'{text}'"),
    st.text(st.sampled_from(" '\"\\$-/*01aEU&;%\n"), max_size=6),
)  # fmt: skip
FORMS = st.sampled_from(
    [
        "SELECT name FROM t WHERE id = {}",
        "SELECT name FROM t WHERE id = {} AND name = {}",
        "SELECT name FROM t WHERE id = {} OR id = {}",
        "SELECT name FROM t WHERE NOT id = {} AND total < {}",
        "SELECT name FROM t WHERE id IN ({}, {})",
        "SELECT name FROM t WHERE name LIKE {} AND id = {}",
        "SELECT name, {} FROM t WHERE id = {}",
        "SELECT name FROM t WHERE id = {} LIMIT {}",
        "SELECT count(*) FROM t WHERE id BETWEEN {} AND {}",
        "SELECT upper({}) FROM t WHERE id = {}",
        "SELECT set_config({}, {}, false)",
        "SELECT set_config(name, {}, false) FROM pg_settings WHERE name = {}",
        "SELECT t.name FROM t JOIN s ON t.id = {} WHERE s.id = {}",
        "SELECT name FROM t WHERE id = (SELECT id FROM s WHERE id = {}) AND id = {}",
        "INSERT INTO t VALUES ({}, {})",
        "INSERT INTO t (id) VALUES ({}) ON CONFLICT (id) DO UPDATE SET total = {}",
        "UPDATE t SET total = {} WHERE id = {}",
        "UPDATE t SET total = total + {} WHERE {} = id",
        "DELETE FROM t WHERE id = {} AND ({} = 1)",
        'SELECT "a {}" FROM t WHERE id = {}',
        "SELECT /* {} */ name FROM t WHERE id = {}",
        "SET statement_timeout = {}; SELECT {}",
    ]
)


@given(FORMS, st.lists(st.tuples(LITERALS, LITERALS), min_size=3, max_size=5))
def test_what_is_known_of_a_text_is_what_its_own_analysis_says(
    catalog: Catalog, form: str, values: list[tuple[str, str]]
) -> None:
    reader = Reader(catalog)
    places = form.count("{}")
    for pair in (values[0], *values):
        text = form.format(*pair[:places]).encode()
        found = reader.known(text)
        assert found is None or found == reader.analyse(text)
        reader.read(text)


def test_what_else_an_analysis_depends_on_keeps_families_apart(reader: Reader) -> None:
    text = b"SELECT name FROM t WHERE id = 1"
    reader.read(text, text)
    assert reader.families.find(text, "here") is not None
    assert reader.families.find(text, "elsewhere") is None


def test_families_are_bounded(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "FAMILIES", 8)
    monkeypatch.setattr(alike, "VARIANTS", 2)
    for number in range(20):
        for _ in range(2):
            reader.read(f"SELECT name AS n{number} FROM t WHERE id = 1")
    assert len(reader.families._families) == 8
    for limit in range(5):
        for _ in range(3):
            reader.read(f"SELECT name FROM t WHERE id = 1 LIMIT {limit}")
    assert [reader.known(f"SELECT name FROM t WHERE id = 1 LIMIT {limit}") is not None for limit in range(5)].count(True) == 2


def test_a_member_that_turns_out_otherwise_closes_the_family(reader: Reader) -> None:
    """Should the walk ever come to look at a value that is thought to be idle, the probes see it."""
    text = b"SELECT name FROM t WHERE id = 5"
    honest = reader.analyse(text)

    def looking(probe: bytes) -> Analysis:
        return reader.analyse(probe.replace(b"WHERE", b"WHERE true OR") if b"= 0" in probe else probe)

    for _ in range(3):
        reader.families.learn(text, "here", honest, looking)
    assert reader.known(text) is None


def test_a_literal_elsewhere_is_compared_as_it_stands(reader: Reader) -> None:
    texts = [f"SELECT name FROM t WHERE id = {number} LIMIT 10" for number in (1, 2)]
    reader.read(*texts)
    assert reader.known("SELECT name FROM t WHERE id = 3 LIMIT 10") is not None
    assert reader.known("SELECT name FROM t WHERE id = 3 LIMIT 999999") is None


def test_only_conditions_joined_by_and_are_idle() -> None:
    assert alike._active(b"DELETE FROM t WHERE id = 1 OR NOT id = 2") is None
    assert alike._active(b"DELETE FROM t WHERE id = 3 AND (id = 1 OR NOT id = 2)") is None
    assert alike._active(b"DELETE FROM t WHERE id = 3 AND (id = 1 AND total = 2)") == ()


def test_a_mark_in_a_text_is_no_value(reader: Reader) -> None:
    reader.read("SELECT name FROM t WHERE id = 1", "SELECT name FROM t WHERE id = 2")
    assert reader.known("SELECT name FROM t WHERE id = 3") is not None
    assert reader.known("SELECT name FROM t WHERE id = \x01") is None
