"""Both forms of the inner loop of the transcript, against each other and against what a line is."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.evidence import chain, disclosure
from interlock.evidence.chain import MOST_TAILS, Chained, chained, chained_plain
from interlock.evidence.forms import BEFORE, Form, FormedDraft

compiled = pytest.mark.skipif(not chain.COMPILED, reason="no compiler at build time")
FORMS = [chained_plain, pytest.param(chained, marks=compiled)]

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VALUES = st.one_of(TEXTS, st.integers(-(2**53) + 1, 2**53 - 1), st.none(), st.lists(TEXTS, max_size=2))
MADE = st.builds(
    lambda fields, secret, given, refers, ref: Form("decision", fields, secret, refers=refers).draft(
        ref if refers else None, tuple(disclosure.tail(name, value) for name, value in given.items())
    ),
    st.dictionaries(st.sampled_from(["a%", "rule", "z"]), VALUES, max_size=3),
    st.dictionaries(TEXTS, VALUES, max_size=3),
    st.dictionaries(TEXTS, VALUES, max_size=3),
    st.booleans(),
    st.sampled_from([0, 7, 2**40, BEFORE]),
)
PREV = b"ab" * 32


def run(form: object, drafts: tuple[FormedDraft, ...], seq: int = 3, available: int = 64) -> tuple[Chained, int]:
    left = disclosure.beginnings(b"".join(number.to_bytes(disclosure.DRAWN, "big") for number in range(available)))
    return form(drafts, seq, PREV, 12345, b"S1", b"2026-01-02T03:04:05.000006Z", left), len(left)  # type: ignore[operator]


@compiled
@given(st.lists(MADE, max_size=5).map(tuple), st.sampled_from([0, 1, 9, 2**40]))
def test_both_forms_give_the_same(drafts: tuple[FormedDraft, ...], seq: int) -> None:
    assert run(chained, drafts, seq) == run(chained_plain, drafts, seq)


@pytest.mark.parametrize("form", FORMS)
def test_a_line_hashes_the_one_before_and_commits_to_its_disclosures(form: object) -> None:
    asked = Form("pg.bind", {"parser": "p"}).draft(None, (disclosure.tail("text", "SELECT 1"), disclosure.tail("binds", [])))
    decided = Form("decision", {"verdict": "allow"}, {"reason": "%d\0"}, refers=True).draft(BEFORE)
    (lines, secrets, prev), left = run(form, (asked, decided))
    first, second = (json.loads(line) for line in lines.splitlines())
    assert first["prev"] == PREV.decode()
    assert second["prev"] == sha256(b"\0" + lines.splitlines()[0]).hexdigest()
    assert prev.decode() == sha256(b"\0" + lines.splitlines()[1]).hexdigest()
    assert (first["seq"], second["seq"], second["ref"]) == (3, 4, 3)
    told = [disclosure.parse_line(line + b"\n") for line in secrets.splitlines()]
    assert [(each.seq, each.name) for each in told] == [(3, "text"), (3, "binds"), (4, "reason")]
    assert first["_sd"] == sorted(each.digest for each in told[:2])
    assert second["_sd"] == [told[2].digest]
    assert left == 61


@pytest.mark.parametrize("form", FORMS)
def test_no_salt_is_used_twice_and_none_is_taken_for_nothing(form: object) -> None:
    draft = Form("decision", {}, {"reason": "r"}, refers=True).draft(0)
    (_, secrets, _), left = run(form, (draft,) * 5, available=5)
    assert left == 0
    assert len({line[6:38] for line in secrets.splitlines()}) == 5
    with pytest.raises(IndexError):
        run(form, (draft,) * 6, available=5)
    with pytest.raises(IndexError):
        run(form, (draft.form.draft(0, (b"x",) * MOST_TAILS),), available=64)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_gives_nothing(form: object) -> None:
    assert run(form, ()) == ((b"", b"", PREV), 64)


@pytest.mark.parametrize("form", FORMS)
def test_long_values_are_whole(form: object) -> None:
    draft = Form("pg.query", {"parser": "p" * 100_000}).draft(None, (disclosure.tail("text", "x" * 3_000_000),))
    (lines, secrets, _), _ = run(form, (draft,))
    assert len(json.loads(lines)["parser"]) == 100_000
    assert disclosure.parse_line(secrets).value == "x" * 3_000_000


class Odd:
    form = given = ref = None


@compiled
@pytest.mark.parametrize(
    "wrong",
    [
        (), ((),) * 6, ([], 0, PREV, 0, b"", b"", []), ((), "0", PREV, 0, b"", b"", []), ((), 0, b"ab", 0, b"", b"", []),
        ((), 0, PREV, 2**70, b"", b"", []), ((), 0, PREV, 0, "", b"", []), ((), 0, PREV, 0, b"", b"", ()),
        ((None,), 0, PREV, 0, b"", b"", []), ((Odd(),), 0, PREV, 0, b"", b"", []),
        ((Form("decision", {}, {"r": 1}).draft(),), 0, PREV, 0, b"", b"", [b"short"]),
        ((Form("decision", {}, refers=True).draft(None),), 0, PREV, 0, b"", b"", []),
    ],
)  # fmt: skip
def test_the_compiled_form_refuses_what_is_not_its_own(wrong: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, AttributeError, OverflowError)):
        chained(*wrong)  # type: ignore[arg-type]
