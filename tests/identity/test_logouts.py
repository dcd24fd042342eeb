"""Logouts at an identity provider and the tokens it issued before: which of them are over, for how long, and across restarts."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from harness.change_journal import Journal
from harness.clock import ManualClock
from interlock.errors import AuthenticationError, InterlockError, Reason, StoreError
from interlock.identity import logouts as rules
from interlock.identity.idtoken import LoggedOut
from interlock.identity.logouts import Logout, Logouts
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Origin, Principal
from interlock.store.engine import Store

IDP, HOUR = "https://idp.example", 3600.0


def opened(store: Store, clock: ManualClock, journal: Journal) -> Logouts:
    return Logouts(store.logouts, oldest={IDP: 8 * HOUR}, clock=clock, journal=journal)


@pytest.fixture
def logouts(store: Store, clock: ManualClock, journal: Journal) -> Logouts:
    return opened(store, clock, journal)


def holder(*origins: Origin) -> Principal:
    credential = Credential(CredentialKind.JWT, "j1", None, origins)
    return Principal(Identity(IDP, "sub-1"), "jwt-1", Kind.HUMAN, credential)


@pytest.mark.parametrize(
    ("said", "token", "over"),
    [
        # account and session as the logout names them; issuer, accounts and session as the token does
        (("sub-1", ""), (IDP, ("sub-1",), "s1"), True),
        (("sub-1", ""), (IDP, ("sub-1",), ""), True),
        (("sub-2", ""), (IDP, ("sub-1",), ""), False),
        (("sub-1", ""), ("https://other.example", ("sub-1",), ""), False),
        (("sub-1", "s1"), (IDP, ("sub-1",), "s1"), True),
        (("sub-1", "s1"), (IDP, ("sub-1",), "s2"), False),
        (("sub-1", "s1"), (IDP, ("sub-1",), ""), True),  # it does not say of which session it is, so it may be of this one
        (("sub-1", "s1"), (IDP, ("sub-2",), "s1"), False),
        (("", "s1"), (IDP, ("sub-1",), "s1"), True),
        (("", "s1"), (IDP, ("sub-1",), "s2"), False),
        (("", "s1"), (IDP, ("s1",), ""), False),  # an account that is called like a session
        (("bot-1", ""), (IDP, ("sub-1", "bot-1"), ""), True),  # who acts has logged out
    ],
    ids=lambda value: "".join(map(str, value)).replace(" ", "") if isinstance(value, tuple) else str(value),
)
async def test_which_tokens_a_logout_ends(
    logouts: Logouts, clock: ManualClock, said: tuple[str, str], token: tuple[str, tuple[str, ...], str], over: bool
) -> None:
    issuer, accounts, session = token
    held = holder(Origin(issuer, accounts, session, clock.now() - timedelta(minutes=5)))
    assert not logouts.over(held)
    told: list[Logout] = []
    logouts.subscribe(told.append)
    await logouts.take(LoggedOut(IDP, *said, clock.now()))
    assert logouts.over(held) == over
    assert told[0].concerns(held) == over


async def test_who_logs_in_again_is_in_again_and_the_token_put_aside_is_not(logouts: Logouts, clock: ManualClock) -> None:
    before = holder(Origin(IDP, ("sub-1",), "", clock.now()))
    await logouts.take(LoggedOut(IDP, "sub-1", "", clock.now()))
    clock.advance(3)
    after = holder(Origin(IDP, ("sub-1",), "", clock.now()))
    logouts.check(after)
    with pytest.raises(AuthenticationError) as caught:
        logouts.check(before)
    assert caught.value.code is Reason.LOGIN_ENDED
    both = holder(*after.credential.origins, *before.credential.origins)
    assert logouts.over(both)  # what was made from two tokens ends with either


async def test_it_outlives_a_restart_and_every_token_from_before(
    logouts: Logouts, store: Store, clock: ManualClock, journal: Journal
) -> None:
    held = holder(Origin(IDP, ("sub-1",), "", clock.now()))
    await logouts.take(LoggedOut(IDP, "sub-1", "", clock.now()))
    clock.advance(8 * HOUR)  # as old as this issuer's tokens may be
    again = opened(store, clock, journal)
    await again.load()
    assert again.over(held)
    clock.advance(HOUR)
    third = opened(store, clock, journal)
    await third.load()
    assert not third.over(held)  # no token from then is accepted any more, whatever it says
    assert await store.logouts.load(datetime.min.replace(tzinfo=clock.now().tzinfo)) == ()
    await store.close()
    with pytest.raises(StoreError):
        await third.load()


async def test_a_logout_that_comes_late_does_not_bring_tokens_back(
    logouts: Logouts, store: Store, clock: ManualClock, journal: Journal
) -> None:
    first = clock.now()
    clock.advance(60)
    between = holder(Origin(IDP, ("sub-1",), "", clock.now()))
    clock.advance(60)
    await logouts.take(LoggedOut(IDP, "sub-1", "", clock.now()))
    await logouts.take(LoggedOut(IDP, "sub-1", "", first))
    assert logouts.over(between)
    again = opened(store, clock, journal)
    await again.load()
    assert again.over(between)


async def test_live_sessions_end_although_neither_disk_nor_store_can_be_written(
    logouts: Logouts, store: Store, clock: ManualClock, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(_: Logout) -> None:
        raise RuntimeError

    told: list[Logout] = []
    logouts.subscribe(deaf)
    logouts.subscribe(told.append)
    journal.broken = True
    await store.close()
    with pytest.raises(StoreError):  # the provider is told, and tries again
        await logouts.take(LoggedOut(IDP, "sub-1", "", clock.now()))
    assert len(told) == 1 and logouts.over(holder(Origin(IDP, ("sub-1",), "", clock.now())))
    monkeypatch.setattr(rules, "MAX_KEPT", 1)
    with pytest.raises(InterlockError) as caught:
        await logouts.take(LoggedOut(IDP, "sub-2", "", clock.now()))
    assert (caught.value.code, len(told)) == (Reason.LIMIT_REACHED, 2)


async def test_no_account_is_told_to_the_journal(logouts: Logouts, clock: ManualClock, journal: Journal) -> None:
    await logouts.take(LoggedOut(IDP, "needle-account", "needle-session", clock.now()))
    (event,) = journal.of("login")
    assert "needle" not in repr(event.fields) and event.fields["provider"] == IDP
