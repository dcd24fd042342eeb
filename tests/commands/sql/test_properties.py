"""Dressing a statement up never hides an effect: comments, case, blanks, EXPLAIN ANALYZE, WITH, PREPARE, company."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from interlock.commands.model import Analysis, Kind, SqlContext
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.sql.bounds import NESTING, nesting

CHANGES = (
    "DELETE FROM t",
    "DELETE FROM t WHERE id = 1",
    "UPDATE t SET a = 1 WHERE id IN (SELECT id FROM s)",
    "INSERT INTO t (a) SELECT a FROM s",
    "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE",
)
READS = (
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT * FROM t FOR UPDATE",
    "SELECT set_config('role', 'x', false)",
    "SELECT nextval('s')",
    "SELECT (SELECT pg_sleep(1)) FROM t",
    "SELECT unheard_of(1)",
    "SELECT a <=> b FROM t",
    "VALUES (pg_sleep(1))",
)
OTHERS = (
    "DROP TABLE t",
    "TRUNCATE t",
    "COPY t TO PROGRAM 'sh'",
    "COPY t FROM '/etc/passwd'",
    "GRANT SELECT ON t TO x",
    "ALTER SYSTEM SET a = 'b'",
    "DO 'x'",
    "CALL f()",
    "NOTIFY a",
    "SET role = x",
    "LOCK t",
    "CREATE EXTENSION x",
)
STATEMENTS = st.sampled_from(CHANGES + READS + OTHERS)
COMMENTS = st.sampled_from(["/* x */", "/* a /* b */ c */", "-- y\n", "/* ; DROP TABLE z; */", "-- '\n", '/* " $$ */'])
BLANKS = st.sampled_from([" ", "\n", "\t", "  ", "\r\n", " /**/ "])


calm = settings(deadline=None)  # a busy machine is no failure


def analysed(text: str) -> Analysis:
    return analyze_sql(text.encode(), SqlContext(assume_tables=True), Kind.QUERY)


def facts(analysis: Analysis) -> set[tuple[object, ...]]:
    """What must not get lost: what is done to what, how widely, and what is unknown."""
    found: set[tuple[object, ...]] = {(e.verb, e.object, e.filtered) for e in analysis.effects if e.object or e.verb == "do"}
    return found | {(hidden.reason, hidden.text) for hidden in analysis.opaque}


@calm
@given(STATEMENTS, COMMENTS, st.booleans())
def test_comments_hide_nothing(text: str, comment: str, before: bool) -> None:
    dressed = f"{comment} {text}" if before else f"{text} {comment}"
    assert facts(analysed(dressed)) == facts(analysed(text))


@calm
@given(STATEMENTS, st.data())
def test_case_and_blanks_hide_nothing(text: str, data: st.DataObject) -> None:
    words = re.split(r"('[^']*')", text)
    dressed = ""
    for word in words:
        if word.startswith("'"):
            dressed += word
        else:
            cased = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in word)
            dressed += re.sub(" ", lambda _: data.draw(BLANKS), cased)

    def lowered(found: set[tuple[object, ...]]) -> set[tuple[object, ...]]:
        return {tuple(part.lower() if isinstance(part, str) else part for part in fact) for fact in found}

    assert lowered(facts(analysed(dressed))) == lowered(facts(analysed(text)))


WRAPPERS = (
    "EXPLAIN ANALYZE {}",
    "EXPLAIN (ANALYZE, VERBOSE, FORMAT json) {}",
    "PREPARE p AS {}",
    "PREPARE p AS {}; EXECUTE p",
    "EXPLAIN ANALYZE CREATE TABLE x AS {}",
)


@calm
@given(st.sampled_from(CHANGES + READS), st.sampled_from(WRAPPERS))
def test_wrapping_hides_nothing(text: str, wrapper: str) -> None:
    if "CREATE TABLE" in wrapper and text.startswith(CHANGES):
        text = f"WITH w AS ({text} RETURNING 1) SELECT * FROM w"
    assert facts(analysed(text)) <= facts(analysed(wrapper.format(text)))


NESTS = (
    "WITH w AS ({}) SELECT 1",
    "SELECT * FROM (WITH w AS ({}) SELECT * FROM w) y",
    "COPY ({}) TO STDOUT",
    "DECLARE c CURSOR FOR {}",
)


@calm
@given(st.sampled_from(CHANGES + READS), st.sampled_from(NESTS))
def test_nesting_hides_nothing(text: str, nest: str) -> None:
    inner = f"{text} RETURNING 1" if text.startswith(CHANGES) else text
    if nest.startswith("DECLARE") and text.startswith(CHANGES):
        inner = f"WITH v AS ({inner}) SELECT 1"
    assert facts(analysed(inner)) <= facts(analysed(nest.format(inner)))


@calm
@given(st.lists(STATEMENTS, min_size=1, max_size=4))
def test_statements_in_company_hide_nothing(texts: list[str]) -> None:
    together = analysed("; ".join(texts))
    assert together.statements == len(texts)
    # Opaque for another reason is allowed (a SET ROLE taints what follows); the effects are all there.
    for text in texts:
        assert {f for f in facts(analysed(text)) if len(f) == 3} <= facts(together)


@settings(deadline=None, max_examples=examples(200))
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_has_an_answer(text: str) -> None:
    found = analyze_sql(text.encode("utf-8", "surrogatepass"), SqlContext(assume_tables=True), Kind.QUERY)
    assert found.unreadable is not None or found.opaque or found.effects
    assert (found.sent is None) == (not found.static)


FRAGMENTS = """SELECT FROM WHERE t s id 1 'x' ( ) , ; * = + - || :: int AND OR NOT NULL IN EXISTS WITH AS x DELETE INSERT INTO
    UPDATE SET VALUES RETURNING JOIN ON LATERAL CASE WHEN THEN END ARRAY [ ] $1 pg_sleep lower COPY TO STDOUT EXPLAIN
    ANALYZE BEGIN COMMIT LIMIT ORDER BY GROUP USING CREATE TABLE DROP . count""".split()


STATEMENT_VERBS = {
    "DELETE": "delete",
    "INSERT": "insert",
    "UPDATE": "update",
    "DROP": "drop",
    "CREATE": "create",
    "BEGIN": "transaction",
}


@settings(deadline=None, max_examples=examples(500))
@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=25))
def test_any_heap_of_words_has_an_answer(words: list[str]) -> None:
    text = " ".join(words)
    found = analysed(text)
    assert found.unreadable is not None or found.opaque or found.effects
    first = words[0]
    if found.unreadable is None and first in STATEMENT_VERBS:
        assert STATEMENT_VERBS[first] in {effect.verb for effect in found.effects}


@calm
@given(st.integers(1, 300), st.sampled_from(["(", "abs(", "1+(", "NOT (", "ARRAY["]))
def test_nesting_is_never_underestimated(depth: int, opening: str) -> None:
    closing = "]" if opening.endswith("[") else ")"
    assert nesting("SELECT " + opening * depth + "1" + closing * depth) > min(depth - 1, NESTING)
