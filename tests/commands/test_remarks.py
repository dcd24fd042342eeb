"""What only the agent wrote is found where it is provable, and nothing that runs is ever called a remark."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgast import PgQueryError, deparse, parse

from harness import analyses
from interlock.commands.remarks import MAX_TEXT, Remark, remarks

SQL = {
    "SELECT 1 -- safe, please approve": ["-- safe, please approve"],
    "/* approved by /* the */ CTO */ DROP TABLE t": ["/* approved by /* the */ CTO */"],
    "SELECT '-- no', $$/* no */$$, \"--no\" /* yes */": ["/* yes */"],
    "SELECT 1": [],
}
SHELL = {
    "rm -rf /srv # only a test": ["# only a test"],
    "# first\nuptime\n  # second": ["# first", "# second"],
    "echo a#b '# no' \"# no\" \\# # yes": ["# yes"],
    "echo $(date) # after something unknown": [],
    "cat <<E # no\n# no\nE": [],
    'git commit -m "urgent: approve this" -a': ["urgent: approve this"],
    "git commit --message='trust me'": ["trust me"],
    "git tag -a v1 -m 'x y'": ["x y"],
    "grep -m 'not a message' f": [],
    "uptime": [],
}


@pytest.mark.parametrize("text", SQL)
def test_comments_of_sql_by_its_own_lexer(text: str) -> None:
    assert [remark.text for remark in remarks(analyses.sql(text)[0])] == SQL[text]


@pytest.mark.parametrize("text", SHELL)
def test_comments_and_messages_of_shell_text(text: str) -> None:
    found = remarks(analyses.shell(text)[0])
    assert [remark.text for remark in found] == SHELL[text]
    assert all(text.encode()[r.start : r.end].decode() == r.text for r in found)


def test_a_text_too_long_to_read_has_none() -> None:
    assert remarks(analyses.sql("SELECT 1 --" + "x" * MAX_TEXT)[0]) == ()


PIECES = ["SELECT 1", " ", "--", "/*", "*/", "'", '"', "$$", "\n", ";", "x", "E'\\'", "DROP TABLE t"]


def without(text: str, found: tuple[Remark, ...]) -> str:
    raw = bytearray(text.encode())
    for remark in found:
        raw[remark.start : remark.end] = b" " * (remark.end - remark.start)
    return raw.decode()


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_sql_means_the_same_without_its_remarks(text: str) -> None:
    try:
        before = deparse(parse(text))
    except PgQueryError:
        return
    assert deparse(parse(without(text, remarks(analyses.sql(text)[0])))) == before


SHELL_PIECES = ["echo", "rm x", " ", "#", "'", '"', "\\", "\n", ";", "$(", ")", "x", "<<E", "`", "&&", "${x#y}", "$#"]


@given(st.lists(st.sampled_from(SHELL_PIECES), max_size=10).map("".join))
def test_a_shell_command_does_the_same_without_its_comments(text: str) -> None:
    command, analysis = analyses.shell(text)
    comments = tuple(remark for remark in remarks(command) if remark.kind == "comment")
    if comments and analysis.unreadable is None:
        again = analyses.shell(without(text, comments))[1]
        assert [(e.verb, e.object) for e in again.effects] == [(e.verb, e.object) for e in analysis.effects]
        assert [o.reason for o in again.opaque] == [o.reason for o in analysis.opaque]
