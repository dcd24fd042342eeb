"""The index that is kept up to date equals the one that is built whole from all rows, whatever changed."""

from __future__ import annotations

import random  # noqa: TID251  walks that repeat
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from harness.plain_directory import applied, plainly
from interlock.identity.index import Index, indexed
from interlock.identity.rows import KINDS, Rows, rows_of
from interlock.store.principals import (
    IdpGroupsRow,
    LinkRow,
    MembershipRow,
    PasskeyRow,
    PrincipalRow,
    Row,
    ScimMemberRow,
    ScimUserRow,
    ScramRow,
    SlackRow,
    Snapshot,
    SshKeyRow,
    TeamsRow,
    TokenRow,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = [f"n{number}" for number in range(8)]
OUTSIDE = [("https://idp.example", f"sub-{number}") for number in range(4)]


def principal(walk: random.Random, name: str, agents: list[str]) -> PrincipalRow:
    owner = walk.choice(NAMES) if name in agents else None
    return PrincipalRow(
        "local", name, f"{name}-{walk.randrange(3)}", "agent" if owner else walk.choice(["human", "human", "service"]), NOW,
        NOW + timedelta(seconds=walk.randrange(9)), "local" if owner else None, owner, walk.random() < 0.2,
        walk.choice([None, "phc"]), "", walk.choice([None, NOW + timedelta(seconds=5)]),
    )  # fmt: skip


def hanging(walk: random.Random, name: str) -> Row:
    """A row of somebody. Its key holds whose it is: the store gives no row to another."""
    number = f"{name}/{walk.randrange(3)}"
    other = walk.choice([("local", walk.choice(NAMES)), walk.choice(OUTSIDE)])
    made: list[Callable[[], Row]] = [
        lambda: SshKeyRow("SHA256:" + number, "local", name, number.encode(), NOW),
        lambda: TokenRow("tok_" + number, "local", name, NOW, number.encode()),
        lambda: ScramRow("pwd_" + number, "local", name, NOW + timedelta(seconds=walk.randrange(3)), b"", 4096, b"", b""),
        lambda: MembershipRow("local", name, walk.choice("xyz"), NOW),
        lambda: LinkRow("local", name, *other, NOW + timedelta(seconds=walk.randrange(3))),
        lambda: LinkRow("local", name, *other, NOW),
        lambda: TeamsRow("tenant", number, "local", name, NOW),
        lambda: SlackRow("team", number, "local", name, NOW),
        lambda: PasskeyRow("key-" + number, "local", name, b"", walk.randrange(9), "k", NOW),
        lambda: IdpGroupsRow("local", name, walk.choice("ab"), walk.choice(["[]", '["dba"]']), NOW),
        lambda: ScimUserRow("usr-" + number, "local", name, number, "", "", walk.random() < 0.7, NOW, NOW),
        lambda: ScimMemberRow("local", name, walk.choice("gh"), walk.choice("xyz"), NOW),
    ]
    return walk.choice(made)()


def check(index: Index, snapshot: Snapshot) -> None:
    assert {kind: list(index.rows.all(kind)) for kind in KINDS} == {
        kind: [row for row in rows_of(snapshot) if type(row) is kind] for kind in KINDS
    }
    for name, plain in plainly(snapshot).items():
        assert getattr(index, name) == plain, name


def change(walk: random.Random, snapshot: Snapshot, agents: list[str]) -> tuple[list[Row], list[Row]]:
    there = {row.subject for row in snapshot.principals}
    handles = {row.handle for row in snapshot.principals}
    put: list[Row] = []
    drop: list[Row] = []
    for _ in range(walk.choice([1, 1, 2, 4])):
        name = walk.choice(NAMES)
        if walk.random() < 0.3:
            made = principal(walk, name, agents)
            same = next((row for row in snapshot.principals if row.subject == name), None)
            if made.handle not in handles or (same is not None and same.handle == made.handle):
                put.append(made)
                there.add(name)
                handles.add(made.handle)
        elif name in there and walk.random() < 0.75:
            put.append(hanging(walk, name))
    rows = rows_of(snapshot)
    while rows and walk.random() < 0.3:
        drop.append(walk.choice(rows))
    gone = {row.subject for row in drop if isinstance(row, PrincipalRow)} - {
        r.subject for r in put if isinstance(r, PrincipalRow)
    }
    return [row for row in put if row.subject not in gone], drop


@pytest.mark.parametrize("seed", range(25))
def test_whatever_changes_it_equals_the_one_that_is_built_whole(seed: int) -> None:
    walk = random.Random(seed)
    agents = walk.sample(NAMES, 3)
    snapshot, index = Snapshot(), Index()
    for _ in range(120):
        put, drop = change(walk, snapshot, agents)
        before, was = index, plainly(snapshot)
        snapshot, index = applied(snapshot, put=put, drop=drop), index.after(put=put, drop=drop)
        check(index, snapshot)
        assert all(getattr(before, name) == plain for name, plain in was.items())  # a reader of before sees before
    check(indexed(snapshot), snapshot)
    end = index.after(drop=[row for row in rows_of(snapshot) if isinstance(row, PrincipalRow)])
    assert not any(len(getattr(end.rows, part.name).get(PrincipalRow, ())) for part in fields(Rows)[:2])
    assert not end.rows._inward and not end.rows._owned and not end.by_identity and not end.by_foreign


def test_what_is_not_affected_is_not_built_anew() -> None:
    people = [PrincipalRow("local", name, name, "human", NOW, NOW) for name in NAMES]
    tokens = [TokenRow("tok_" + name, "local", name, NOW, name.encode()) for name in NAMES]
    before = Index().after(put=[*people, *tokens])
    after = before.after(put=[replace(people[3], changed=NOW + timedelta(1))])
    for identity, entry in after.by_identity.items():
        assert (entry is before.by_identity[identity]) == (identity.subject != NAMES[3])
    assert after.by_teams is before.by_teams and after.by_ssh_key is before.by_ssh_key
    assert after.rows._tables[TokenRow] is before.rows._tables[TokenRow]
