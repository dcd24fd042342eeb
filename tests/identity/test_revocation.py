"""The kill switch: what each kind of revocation reaches, that it is in force before it is on disk, and outlives a restart."""

from __future__ import annotations

import pytest

from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from interlock.errors import AuthenticationError, ConfigError, EvidenceError, NotFoundError, Reason, StoreError
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.entries import OPERATOR
from interlock.identity.principal import Credential, CredentialKind, Kind, Principal
from interlock.identity.revocation import Revocation, Revocations, Revoked
from interlock.store.engine import Store


@pytest.fixture
async def team(directory: Directory) -> Directory:
    await directory.add("alice", Kind.HUMAN)
    await directory.add("bob", Kind.HUMAN)
    await directory.add("claude", Kind.AGENT, owner="alice")
    await directory.add("other", Kind.AGENT, owner="bob")
    return directory


def opened(store: Store, team: Directory, clock: ManualClock, journal: Journal) -> Revocations:
    return Revocations(store.revocations, team, clock=clock, entropy=seeded("r"), journal=journal)


@pytest.fixture
async def revocations(team: Directory, store: Store, clock: ManualClock, journal: Journal) -> Revocations:
    return opened(store, team, clock, journal)


def who(team: Directory, handle: str, ident: str = "key") -> Principal:
    entry = team.by_handle(handle)
    assert entry is not None
    return entry.principal(Credential(CredentialKind.TOKEN, ident))


async def stopped(revocations: Revocations, team: Directory, kind: Revoked, value: str) -> set[tuple[str, str]]:
    """Return who may not be where, of everybody with either of two credentials at either of two targets."""
    made = await revocations.revoke(kind, value, by=OPERATOR, why="test")
    found = {
        (f"{handle}/{ident}", target)
        for handle in ("alice", "bob", "claude", "other")
        for ident in ("k1", "k2")
        for target in ("web-1", "orders")
        if revocations.stops(who(team, handle, ident), target)
    }
    await revocations.lift(made.id, by=OPERATOR)
    return found


async def test_what_each_kind_reaches(revocations: Revocations, team: Directory) -> None:
    both = ("web-1", "orders")

    def all_of(*handles: str) -> set[tuple[str, str]]:
        return {(f"{handle}/{ident}", target) for handle in handles for ident in ("k1", "k2") for target in both}

    alice = str(who(team, "alice").identity)
    everybody = ("alice", "bob", "claude", "other")
    assert await stopped(revocations, team, Revoked.CREDENTIAL, "k1") == {
        (f"{handle}/k1", target) for handle in everybody for target in both
    }
    assert await stopped(revocations, team, Revoked.SUBJECT, alice) == all_of("alice", "claude")
    assert await stopped(revocations, team, Revoked.AGENT, "claude") == all_of("claude")
    assert await stopped(revocations, team, Revoked.TARGET, "web-1") == {
        (who, target) for who, target in all_of(*everybody) if target == "web-1"
    }
    assert await stopped(revocations, team, Revoked.EVERYTHING, "") == all_of(*everybody)
    assert not any(revocations.stops(who(team, handle), "web-1") for handle in everybody)


async def test_a_revoked_token_logs_in_nowhere_and_administration_stays_open(
    revocations: Revocations, team: Directory, clock: ManualClock, journal: Journal
) -> None:
    house = Authenticator(team, clock=clock, journal=journal, revocations=revocations)
    token = await team.issue_token("claude")
    for kind, value in ((Revoked.CREDENTIAL, token.id), (Revoked.AGENT, "claude")):
        made = await revocations.revoke(kind, value, by=OPERATOR, why="")
        with pytest.raises(AuthenticationError) as caught:
            await house.token(token.secret.reveal())
        assert caught.value.code is Reason.CREDENTIAL_REVOKED
        await revocations.lift(made.id, by=OPERATOR)
        assert (await house.token(token.secret.reveal())).handle == "claude"
    await revocations.revoke(Revoked.EVERYTHING, "", by=OPERATOR, why="")
    assert (await house.token(token.secret.reveal())).handle == "claude"  # or nobody could lift it
    await house.close()


async def test_it_is_in_force_although_neither_disk_nor_store_can_be_written(
    revocations: Revocations, team: Directory, store: Store, journal: Journal
) -> None:
    told: list[Revocation] = []
    revocations.subscribe(told.append)
    journal.broken = True
    with pytest.raises(EvidenceError):
        await revocations.revoke(Revoked.TARGET, "web-1", by=OPERATOR, why="")
    await store.close()
    with pytest.raises(StoreError):
        await revocations.revoke(Revoked.TARGET, "orders", by=OPERATOR, why="")
    assert [one.value for one in told] == ["web-1", "orders"]
    assert revocations.stops(who(team, "bob"), "web-1") and revocations.stops(who(team, "bob"), "orders")
    with pytest.raises(EvidenceError):
        await revocations.lift(told[0].id, by=OPERATOR)
    assert revocations.stops(who(team, "bob"), "web-1")


async def test_it_outlives_a_restart_and_who_can_not_read_it_does_not_start(
    revocations: Revocations, team: Directory, store: Store, clock: ManualClock, journal: Journal
) -> None:
    made = await revocations.revoke(Revoked.AGENT, "claude", by=OPERATOR, why="looks odd")
    again = opened(store, team, clock, journal)
    await again.load()
    assert again.standing() == (made,)
    assert again.stops(who(team, "claude"), "web-1") and not again.stops(who(team, "other"), "web-1")
    await again.lift(made.id, by=OPERATOR)
    third = opened(store, team, clock, journal)
    await third.load()
    assert third.standing() == ()
    await store.close()
    with pytest.raises(StoreError):
        await third.load()


async def test_a_deaf_subscriber_keeps_nobody_alive(revocations: Revocations, team: Directory) -> None:
    def deaf(_: Revocation) -> None:
        raise RuntimeError

    told: list[Revocation] = []
    revocations.subscribe(deaf)
    revocations.subscribe(told.append)
    await revocations.revoke(Revoked.EVERYTHING, "", by=OPERATOR, why="")
    assert len(told) == 1


async def test_what_can_not_be_meant(revocations: Revocations, journal: Journal) -> None:
    before = len(journal.events)
    for kind, value in (
        (Revoked.EVERYTHING, "x"), (Revoked.TARGET, ""), (Revoked.CREDENTIAL, "x" * 513), (Revoked.SUBJECT, "a\nb"),
        (Revoked.AGENT, "alice"), (Revoked.AGENT, "nobody"),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            await revocations.revoke(kind, value, by=OPERATOR, why="")
    with pytest.raises(NotFoundError):
        await revocations.lift("rvk_none", by=OPERATOR)
    assert (revocations.standing(), len(journal.events)) == ((), before)


def test_a_subject_may_have_colons_and_so_may_its_issuer(clock: ManualClock) -> None:
    made = Revocation("r", Revoked.SUBJECT, "https://i.example:repo:acme/app", clock.now(), "", "")
    assert ("https://i.example", "repo:acme/app") in {(one.issuer, one.subject) for one in made.identities}
