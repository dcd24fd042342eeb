"""Needs and the people who meet them: every seat by a person of its own."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.approvals.quorum import met, missing
from interlock.policy.model import Need

SRE, DBA, LEAD = (frozenset((name,)) for name in ("sre", "dba", "lead"))
BOTH = SRE | DBA


@pytest.mark.parametrize(
    ("needs", "people", "enough"),
    [
        ([Need(("sre",))], [SRE], True),
        ([Need(("sre",))], [], False),
        ([Need(("sre",))], [DBA], False),
        ([Need(("sre",), 2)], [SRE], False),
        ([Need(("sre",), 0)], [], False),  # nobody is never enough
        ([Need(())], [SRE, DBA], False),
        ([Need(("sre", "dba"), 2)], [SRE, DBA], True),
        ([Need(("sre",)), Need(("dba",))], [BOTH], False),  # one person of two groups is one person
        ([Need(("sre",)), Need(("dba",))], [SRE, SRE], False),
        ([Need(("sre",)), Need(("dba",))], [BOTH, SRE], True),  # whoever came first steps aside
        ([Need(("sre",)), Need(("dba",))], [SRE, BOTH], True),
        ([Need(("sre", "dba"), 2), Need(("dba",), 1)], [BOTH, SRE, DBA], True),
        ([Need(("sre", "dba"), 2), Need(("dba",), 2)], [BOTH, SRE, DBA], False),
    ],
)
def test_enough_people(needs: list[Need], people: list[frozenset[str]], enough: bool) -> None:
    assert met(needs, people) is enough


def test_what_is_missing_names_the_groups() -> None:
    needs = [Need(("sre",), 2), Need(("dba", "lead"))]
    assert missing(needs, [SRE]) == (Need(("sre",), 1), Need(("dba", "lead"), 1))
    assert missing(needs, [SRE, SRE]) == (Need(("dba", "lead"), 1),)
    assert missing(needs, [SRE, SRE, LEAD]) == ()


_GROUPS = st.sets(st.sampled_from("abc"), min_size=1).map(frozenset)


@given(
    needs=st.lists(st.builds(lambda g, n: Need(tuple(sorted(g)), n), _GROUPS, st.integers(1, 2)), min_size=1, max_size=2),
    people=st.lists(_GROUPS, max_size=5),
)
def test_it_is_the_same_as_trying_every_seating(needs: list[Need], people: list[frozenset[str]]) -> None:
    seats = [frozenset(need.groups) for need in needs for _ in range(need.quorum)]
    tried = any(
        all(person & seat for person, seat in zip(seating, seats, strict=False)) for seating in permutations(people, len(seats))
    )
    assert met(needs, people) == tried
