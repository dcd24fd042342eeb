"""Rows of the directory: whole reads, changes in one transaction, nobody's key taken over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from interlock.errors import StoreError
from interlock.store.engine import Store, open_store
from interlock.store.principals import (
    LinkRow,
    MembershipRow,
    PrincipalRow,
    ScramRow,
    Snapshot,
    SshKeyRow,
    TeamsRow,
    TokenRow,
)

T = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
ALICE = PrincipalRow("local", "alice", "alice", "human", T, T, passphrase="$argon2id$secret")
AGENT = PrincipalRow("local", "c", "claude-ci", "agent", T, T, owner_issuer="local", owner_subject="alice")
KEY = SshKeyRow("SHA256:abc", "local", "c", b"\0blob", T, "ci")
TOKEN = TokenRow("t1", "local", "c", T, b"hash", T + timedelta(minutes=15))
SCRAM = ScramRow("s1", "local", "c", T, b"salt", 4096, b"stored", b"server")
GROUP = MembershipRow("local", "alice", "sre", T)
LINK = LinkRow("local", "alice", "https://idp", "00u1", T)
TEAMS = TeamsRow("tenant", "oid", "local", "alice", T)
ALL = (ALICE, AGENT, KEY, TOKEN, SCRAM, GROUP, LINK, TEAMS)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store("sqlite:///interlock.db", tmp_path)
    yield opened
    await opened.close()


async def test_rows_come_back_as_they_went_in(store: Store) -> None:
    await store.principals.change(put=ALL)
    assert await store.principals.load_all() == Snapshot((ALICE, AGENT), (KEY,), (TOKEN,), (SCRAM,), (GROUP,), (LINK,), (TEAMS,))


async def test_putting_again_replaces(store: Store) -> None:
    await store.principals.change(put=ALL)
    disabled = replace(ALICE, disabled=True, passphrase=None)
    await store.principals.change(put=[disabled, GROUP])
    snapshot = await store.principals.load_all()
    assert snapshot.principals == (disabled, AGENT)
    assert snapshot.memberships == (GROUP,)


async def test_dropping_a_principal_drops_what_hangs_on_it_and_nothing_else(store: Store) -> None:
    await store.principals.change(put=ALL)
    await store.principals.change(drop=[AGENT])
    assert await store.principals.load_all() == Snapshot((ALICE,), memberships=(GROUP,), links=(LINK,), teams=(TEAMS,))


@pytest.mark.parametrize(
    "thief",
    [
        replace(AGENT, subject="mallory"),  # the handle
        replace(KEY, subject="alice"),
        replace(TOKEN, subject="alice"),
        replace(TOKEN, id="t2"),  # the same secret under another id
        replace(SCRAM, subject="alice"),
        replace(TEAMS, subject="c"),
    ],
    ids=["handle", "ssh-key", "token", "token-hash", "scram", "teams"],
)
async def test_nobody_takes_over_what_belongs_to_another(store: Store, thief: SshKeyRow) -> None:
    await store.principals.change(put=ALL)
    before = await store.principals.load_all()
    with pytest.raises(StoreError):
        await store.principals.change(put=[replace(GROUP, name="admins"), thief])
    assert await store.principals.load_all() == before


async def test_a_key_of_nobody_is_refused(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.principals.change(put=[KEY])


def test_no_secret_shows() -> None:
    shown = "".join(map(repr, ALL))
    for secret in ("argon2id", "b'hash'", "stored", "server", "b'salt'"):
        assert secret not in shown
