"""The comparison itself: a difference is seen, an explanation is matched by name, nothing is the same by being absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from compat.results import compare, explanations, tally


def test_what_is_the_same_is_no_difference() -> None:
    found = compare("suite", "1", {"a": "passed", "b": "failed"}, {"a": "passed", "b": "failed"}, {})
    assert not found.differences
    assert (
        found.summary()
        == "suite 1: direct 1 failed, 1 passed; through 1 failed, 1 passed; 2 the same, 0 differ, 0 of them not explained"
    )


def test_a_test_that_did_not_run_on_one_way_is_a_difference() -> None:
    found = compare("suite", "1", {"a": "passed", "b": "passed"}, {"a": "passed"}, {})
    assert [one.name for one in found.unexplained] == ["b"]


def test_an_explanation_is_for_the_names_that_it_matches() -> None:
    found = compare(
        "suite", "1", {"x::one": "passed", "y::two": "passed"}, {"x::one": "failed", "y::two": "failed"}, {"x::*": "known"}
    )
    assert [one.why for one in found.differences] == ["known", ""]
    assert [one.name for one in found.unexplained] == ["y::two"]


def test_a_difference_shows_both_texts() -> None:
    (difference,) = compare("psql", "15", {"step": "one\ntwo"}, {"step": "one\nthree"}, {}).differences
    assert "-two" in difference.shown()
    assert "+three" in difference.shown()
    assert "NOT EXPLAINED" in difference.shown()


@pytest.mark.parametrize(("outcomes", "words"), [({}, "nothing"), ({"a": "passed", "b": "some text"}, "1 passed, 1 texts")])
def test_the_tally(outcomes: dict[str, str], words: str) -> None:
    assert tally(outcomes) == words


def test_every_explanation_belongs_to_a_check_and_says_something() -> None:
    from compat.checks import ALL

    for check, table in explanations(Path(__file__).with_name("explained.toml")).items():
        assert check in ALL
        assert all(len(reason) > 20 for reason in table.values())
