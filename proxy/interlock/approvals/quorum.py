"""Whether enough people answered: each need by people of its own. Pure.

One person counts for one need, also when a member of groups of several: who stands in for whom is found by augmenting
paths (Kuhn's algorithm; at most 8 needs of 20 people), so no order of clicks can waste somebody who was needed elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from interlock.policy.model import Need


def met(needs: Sequence[Need], people: Sequence[frozenset[str]]) -> bool:
    """Whether every need is met. `people` are the groups of each distinct person who approved."""
    return not missing(needs, people)


def missing(needs: Sequence[Need], people: Sequence[frozenset[str]]) -> tuple[Need, ...]:
    """Return what is still needed, as needs with the number of people that they lack."""
    seats = [place for place, need in enumerate(needs) for _ in range(max(1, need.quorum))]
    wanted = [frozenset(needs[place].groups) for place in seats]
    taken: dict[int, int] = {}  # person → seat
    for seat in range(len(seats)):
        _seat(seat, wanted, people, taken, set())
    free = [place for seat, place in enumerate(seats) if seat not in taken.values()]
    return tuple(Need(need.groups, free.count(place)) for place, need in enumerate(needs) if place in free)


def _seat(
    seat: int, wanted: Sequence[frozenset[str]], people: Sequence[frozenset[str]], taken: dict[int, int], asked: set[int]
) -> bool:
    for person, groups in enumerate(people):
        if person in asked or not groups & wanted[seat]:
            continue
        asked.add(person)
        if person not in taken or _seat(taken[person], wanted, people, taken, asked):
            taken[person] = seat
            return True
    return False
