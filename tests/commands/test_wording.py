"""Every effect has a sentence that a person understands, and no name in it can pretend to be something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interlock.commands.model import SHELL_VERBS, SQL_VERBS, Analysis, Effect, Kind, Opaque, SqlContext, Stdin, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.commands.unknowns import WORDS
from interlock.commands.wording import sentence, sentences, unknown, unknowns

DOCS = Path(__file__).parents[2] / "docs"

SHELL = {
    "rm -rf /srv/cache": ["deletes /srv/cache and everything below it, by force"],
    "sudo rm -r /var/lib/pg": ["deletes /var/lib/pg and everything below it, as root"],
    "sudo -u postgres rm /var/lib/pg/x": ["deletes /var/lib/pg/x, as postgres"],
    "timeout 5 rm a": ["deletes a, through timeout"],
    "sudo systemctl restart nginx": ["restarts the service nginx, as root"],
    "kubectl exec web-1 -- rm /x": ["deletes /x, inside pod web-1, through kubectl"],
    "cat /etc/shadow": ["shows credentials or other secrets: /etc/shadow", "reads /etc/shadow"],
    "echo hi": ["only works on its own arguments"],
    "echo hi; rm x; echo ho": ["deletes x", "only works on its own arguments"],
    "sudo rm a; sudo -u bob rm b": ["deletes a, as root or bob", "deletes b, as root or bob"],
    "kill -9 -1": ["signals every process that it may, killing them at once"],
    "shutdown -h now": ["stops or restarts the whole machine"],
    "cat < /etc/hosts > /tmp/x": ["writes /tmp/x", "reads /etc/hosts", "reads its standard input"],
}
SQL = {
    "UPDATE public.orders SET total = 0": ["changes every row of public.orders (no WHERE that leaves any out)"],
    "DELETE FROM public.orders WHERE id = 1": ["deletes rows that its condition selects of public.orders"],
    "TRUNCATE public.orders": ["empties public.orders at once: every row is gone"],
    "SELECT 1": ["computes a result without reading any table"],
    "DROP TABLE public.orders": ["drops table public.orders, with what is in it"],
    "DO $$begin end$$": ["runs a block of code (language plpgsql)"],
    "COPY public.orders TO PROGRAM 'sh'": ["runs a program on the database server: sh"],
    "BEGIN": ["opens a transaction"],
    "PREPARE p AS DELETE FROM public.orders": [
        "deletes every row of public.orders (no WHERE that leaves any out), prepared only: it runs when somebody executes it",
    ],
    "": ["does nothing: there is no statement in it"],
}


@pytest.mark.parametrize("text", SHELL)
def test_shell_commands_in_words(analyse: object, text: str) -> None:
    assert callable(analyse)
    told = sentences(analyse(text), Wire.SSH)
    assert [line for line in SHELL[text] if line not in told] == []
    assert told[0] == SHELL[text][0]


@pytest.mark.parametrize("text", SQL)
def test_sql_in_words(text: str) -> None:
    told = sentences(analyze_sql(text.encode(), SqlContext(assume_tables=True), Kind.QUERY), Wire.POSTGRES)
    assert [line for line in SQL[text] if line not in told] == []
    assert told[0] == SQL[text][0]


@pytest.mark.parametrize(
    ("wire", "verb"), [(Wire.SSH, v) for v in sorted(SHELL_VERBS)] + [(Wire.POSTGRES, v) for v in sorted(SQL_VERBS)]
)
def test_every_verb_has_its_words(wire: Wire, verb: str) -> None:
    """Each flag of the model changes the sentence where it changes what happens; the raw verb is never the sentence."""
    plain = sentence(Effect(verb, "thing"), wire)
    assert "no words here" not in plain
    assert "_" not in plain
    assert not plain.startswith(verb + " ")
    assert verb in ("nothing", "select", "do", "kernel", "explain") or "thing" in plain or verb == "transaction"


def test_every_flag_is_told() -> None:
    assert "everything below" in sentence(Effect("delete", "/a", "rm", recursive=True), Wire.SSH)
    assert "by force" in sentence(Effect("delete", "/a", "rm", force=True), Wire.SSH)
    assert "every row" in sentence(Effect("delete", "t", filtered=False), Wire.POSTGRES)
    assert "however many" in sentence(Effect("select", "t", limited=False), Wire.POSTGRES)
    assert "inside container db" in sentence(Effect("read", "/a", "cat", origin="remote", host="container:db"), Wire.SSH)
    assert "public.audit" in sentence(Effect("insert", "t", functions=("public.audit",)), Wire.POSTGRES)


@pytest.mark.parametrize("page", ["commands.md", "sql.md"])
def test_every_reason_of_an_opaque_part_has_its_words(page: str) -> None:
    section = (DOCS / page).read_text("utf-8").partition("## Opaque")[2].partition("\n## ")[0]
    reasons = {
        word
        for line in section.splitlines()
        if line.startswith("|")
        for word in re.findall(r"`([a-z][a-z-]+)`", line.split("|")[1])
    }
    assert len(reasons) > 15
    assert {reason for reason in reasons if reason not in WORDS} == set()


def test_what_is_not_known_is_said() -> None:
    assert unknown(Opaque("command-substitution", "$(id)")) == "can't be known: it depends on what another command prints: $(id)"
    assert unknown(Opaque("redirection-glob", "*")).endswith("is not known: it depends on which files are there: *")
    assert unknown(Opaque("not-a-reason", "x")) == "can't be known: it was not understood: x"
    assert unknowns(Analysis(opaque=(Opaque("glob", "*"), Opaque("glob", "*")))) == (
        "can't be known: it depends on which files are there: *",
    )


def test_names_can_not_pretend() -> None:
    told = sentence(Effect("delete", "/tmp/x\nreads /tmp/y\u202e", "rm"), Wire.SSH)
    assert told.splitlines() == [told]
    assert "\u202e" not in told
    assert "⟦new line⟧" in told


def test_what_changes_every_row_comes_first() -> None:
    found = Analysis(
        (Effect("select", "a"), Effect("drop", "b", detail="table"), Effect("update", "c", filtered=False)), stdin=Stdin.NONE
    )
    assert sentences(found, Wire.POSTGRES)[0].startswith("changes every row of c")
