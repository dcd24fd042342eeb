"""Credentials that were exchanged, across restarts: who still holds one, and what ended stays ended however the node died."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import timedelta

import pytest

from harness.change_journal import seeded
from harness.clock import ManualClock
from interlock.errors import AuthenticationError, Reason, StoreError
from interlock.identity import passport
from interlock.identity.delegation import acting
from interlock.identity.directory import Directory
from interlock.identity.exchanged import ExchangedCredentials
from interlock.identity.principal import Assurance, Credential, CredentialKind, Identity, Kind, Origin, Principal
from interlock.identity.tokens import Issued
from interlock.store.engine import Store
from interlock.store.exchanged import ExchangedRows

IDP = "https://idp.example"


class Dying(ExchangedRows):
    """The rows of a node that dies before anything is taken out of them."""

    async def drop(self, idents: Collection[str]) -> None:
        pass


@pytest.fixture
async def team(directory: Directory) -> Directory:
    await directory.add("yves", Kind.HUMAN, groups=["sre"])
    await directory.link("yves", Identity(IDP, "sub-yves"))
    await directory.add("zoe", Kind.HUMAN)
    await directory.add("bob", Kind.HUMAN)
    await directory.add("claude", Kind.AGENT, owner="zoe", groups=["agents"])
    return directory


@pytest.fixture
def rows(store: Store) -> ExchangedRows:
    return Dying(store.exchanged._database)


def credentials(team: Directory, clock: ManualClock, rows: ExchangedRows, seed: str = "x") -> ExchangedCredentials:
    return ExchangedCredentials(team, clock=clock, entropy=seeded(seed), rows=rows)


def delegated(team: Directory, clock: ManualClock) -> Principal:
    """Claude, of Zoe, for Yves; each with a token of an issuer."""
    origin = Origin(IDP, ("sub-yves",), "s1", clock.now())
    made = Credential(CredentialKind.EXCHANGED, "", clock.now() + timedelta(minutes=10), (origin,))
    agent, person = team.by_handle("claude"), team.by_handle("yves")
    assert agent is not None and person is not None
    return acting(agent.principal(made), person.principal(made, Assurance("aal2", ("pwd", "otp"), clock.now())), made)


async def given(held: ExchangedCredentials, principal: Principal, *parents: str) -> Issued:
    assert principal.credential.expires is not None
    issued = held.token(principal, principal.credential.expires, frozenset(parents))
    await held.write(issued.id)
    return issued


async def after_a_restart(
    team: Directory, clock: ManualClock, rows: ExchangedRows, lives: Callable[[str], bool] = lambda _: True
) -> ExchangedCredentials:
    again = credentials(team, clock, rows, "again")
    await again.load(lives)
    return again


async def test_a_restart_takes_nobody_s_credential(team: Directory, clock: ManualClock, rows: ExchangedRows) -> None:
    held = credentials(team, clock, rows)
    wanted = delegated(team, clock)
    token = await given(held, wanted, "j1")
    password = held.password(wanted, clock.now() + timedelta(minutes=5))
    await held.write(password.id)
    again = await after_a_restart(team, clock, rows)
    found = again.by_token(token.secret.reveal())
    assert found == held.by_token(token.secret.reveal())  # the whole chain, with what each may do
    assert (found.acting_for_handles, found.owner_handle, found.assurance.acr) == (("yves",), "zoe", "aal2")
    assert again.by_password(password.id).credential.origins == wanted.credential.origins
    stored = team.scram("claude")
    assert [one.id for one in again.beside(stored, "claude").verifiers] == [
        one.id for one in held.beside(stored, "claude").verifiers
    ]
    clock.advance(5 * 60)
    with pytest.raises(AuthenticationError):
        again.by_password(password.id)
    assert again.by_token(token.secret.reveal())
    clock.advance(5 * 60)
    with pytest.raises(AuthenticationError):
        (await after_a_restart(team, clock, rows)).by_token(token.secret.reveal())


async def test_neither_token_nor_password_is_in_the_store(
    team: Directory, clock: ManualClock, store: Store, rows: ExchangedRows
) -> None:
    held = credentials(team, clock, rows)
    token = await given(held, delegated(team, clock))
    password = held.password(delegated(team, clock), clock.now() + timedelta(minutes=5))
    await held.write(password.id)
    kept = repr([(row, row.key, row.stored_key, row.server_key) for row in await store.exchanged.load(clock.now())])
    assert token.id in kept and password.id in kept
    assert token.secret.reveal() not in kept and password.secret.reveal() not in kept


async def _disabled(team: Directory) -> None:
    await team.set_disabled("yves", True)


async def _owner_disabled(team: Directory) -> None:
    await team.set_disabled("zoe", True)


async def _agent_removed(team: Directory) -> None:
    await team.remove("claude")


async def _regrouped(team: Directory) -> None:
    await team.set_groups("yves", [])


async def _unlinked(team: Directory) -> None:
    await team.unlink("yves", Identity(IDP, "sub-yves"))


async def _linked(team: Directory) -> None:
    await team.link("yves", Identity(IDP, "another"))


async def _given_away(team: Directory) -> None:
    await team.set_owner("claude", "bob")


WAYS = [_disabled, _owner_disabled, _agent_removed, _regrouped, _unlinked, _linked, _given_away]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
async def test_what_ended_stays_ended_although_the_node_died_before_the_store_knew(
    team: Directory, clock: ManualClock, store: Store, rows: ExchangedRows, way: Callable[[Directory], Awaitable[None]]
) -> None:
    held = credentials(team, clock, rows)
    token = await given(held, delegated(team, clock))
    await way(team)
    with pytest.raises(AuthenticationError):
        held.by_token(token.secret.reveal())
    await held.close()
    assert [row.id for row in await store.exchanged.load(clock.now())] == [token.id]  # the node died first
    again = await after_a_restart(team, clock, rows)
    with pytest.raises(AuthenticationError):
        again.by_token(token.secret.reveal())


async def test_what_it_was_given_for_is_asked_about(team: Directory, clock: ManualClock, rows: ExchangedRows) -> None:
    held = credentials(team, clock, rows)
    token = await given(held, delegated(team, clock), "log_1", "j1")
    again = await after_a_restart(team, clock, rows, lambda ident: ident != "log_1")
    with pytest.raises(AuthenticationError):
        again.by_token(token.secret.reveal())


async def test_one_that_ends_while_it_is_written_is_given_to_nobody(
    team: Directory, clock: ManualClock, store: Store, rows: ExchangedRows
) -> None:
    class Slow(ExchangedRows):
        """Somebody logs out just then."""

        async def add(self, row: object, now: object) -> None:
            await store.exchanged.add(row, now)  # type: ignore[arg-type]
            held.revoke(idents=("j1",))

    held = credentials(team, clock, Slow(store.exchanged._database))
    principal = delegated(team, clock)
    issued = held.token(principal, clock.now() + timedelta(minutes=1), frozenset({"j1"}))
    with pytest.raises(AuthenticationError) as caught:
        await held.write(issued.id)
    assert caught.value.code is Reason.LOGIN_ENDED
    await held.close()
    assert await store.exchanged.load(clock.now()) == ()


async def test_whoever_keeps_sessions_is_told_and_one_deaf_listener_keeps_nobody_alive(
    team: Directory, clock: ManualClock, rows: ExchangedRows
) -> None:
    def deaf(_: frozenset[str]) -> None:
        raise RuntimeError

    told: list[frozenset[str]] = []
    held = credentials(team, clock, rows)
    held.subscribe(deaf)
    held.subscribe(told.append)
    token = await given(held, delegated(team, clock), "tok_1")
    child = await given(held, delegated(team, clock), token.id)
    held.revoke(idents=("tok_1",))  # what a token was exchanged for ends all that came of it
    assert told == [frozenset({token.id, child.id})]
    await held.close()


async def test_what_was_changed_in_the_store_is_nobody(
    team: Directory, clock: ManualClock, store: Store, rows: ExchangedRows
) -> None:
    held = credentials(team, clock, rows)
    token = await given(held, delegated(team, clock))
    (row,) = await store.exchanged.load(clock.now())
    await store.exchanged.drop([row.id])
    await store.exchanged.add(replace(row, holder=row.holder.replace('"kind":"agent"', '"kind":"deity"')), clock.now())
    again = await after_a_restart(team, clock, rows)
    with pytest.raises(AuthenticationError):
        again.by_token(token.secret.reveal())
    for text in ("", "[]", "{}", "null", passport.written(delegated(team, clock))[:-1]):
        with pytest.raises(StoreError):
            passport.read(text)
