"""Decision sessions: who opens one, how long it lasts, and what ends it earlier."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from harness.clock import ManualClock
from interlock.errors import AuthenticationError, Reason
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.principal import Assurance, Credential, CredentialKind, Kind, Principal
from interlock.identity.stepup import LIFETIME_S, MAX_PER_PERSON, DecisionSessions

PHRASE = "correct horse battery"


@pytest.fixture
async def bob(directory: Directory, authenticator: Authenticator) -> Principal:
    await directory.add("bob", Kind.HUMAN, groups=["sre"], passphrase=PHRASE)
    return await authenticator.passphrase("bob", PHRASE)


async def test_five_minutes(bob: Principal, decisions: DecisionSessions, clock: ManualClock) -> None:
    secret = decisions.open(bob)
    found = decisions.resolve(secret)
    assert found is not None
    assert (found.identity, found.groups) == (bob.identity, {"sre"})
    clock.advance(LIFETIME_S - 1)
    assert decisions.resolve(secret) is not None
    clock.advance(1)
    assert decisions.resolve(secret) is None


async def test_using_it_does_not_prolong_it(bob: Principal, decisions: DecisionSessions, clock: ManualClock) -> None:
    secret = decisions.open(bob)
    for _ in range(LIFETIME_S // 50):
        clock.advance(50)
        decisions.resolve(secret)
    assert decisions.resolve(secret) is None


async def test_the_earlier_of_both_clocks_counts(bob: Principal, decisions: DecisionSessions, clock: ManualClock) -> None:
    one, two = decisions.open(bob), decisions.open(bob)
    clock.step(-3600)
    clock.advance(LIFETIME_S)
    assert decisions.resolve(one) is None
    clock.step(3600)
    assert decisions.resolve(two) is None


async def test_a_clock_set_forward_ends_it(bob: Principal, decisions: DecisionSessions, clock: ManualClock) -> None:
    secret = decisions.open(bob)
    clock.step(LIFETIME_S)
    assert decisions.resolve(secret) is None


@pytest.mark.parametrize(
    "end",
    [
        lambda d: d.set_disabled("bob", True),
        lambda d: d.remove("bob"),
        lambda d: d.set_passphrase("bob", "another passphrase"),
    ],
)
async def test_what_ends_it_at_once(
    bob: Principal, decisions: DecisionSessions, directory: Directory, end: Callable[[Directory], Awaitable[object]]
) -> None:
    secret = decisions.open(bob)
    await end(directory)
    assert decisions.resolve(secret) is None
    if directory.by_handle("bob") is not None:
        await directory.set_disabled("bob", False)
        assert decisions.resolve(secret) is None  # enabling somebody again revives nothing


async def test_groups_are_those_of_now(bob: Principal, decisions: DecisionSessions, directory: Directory) -> None:
    secret = decisions.open(bob)
    await directory.set_groups("bob", [])
    found = decisions.resolve(secret)
    assert found is not None
    assert found.groups == frozenset()


async def test_closing(bob: Principal, decisions: DecisionSessions) -> None:
    one, two = decisions.open(bob), decisions.open(bob)
    decisions.close(one)
    decisions.close("nonsense")
    assert decisions.resolve(one) is None
    assert decisions.resolve(two) is not None


async def test_only_people(bob: Principal, decisions: DecisionSessions) -> None:
    for kind in (Kind.AGENT, Kind.SERVICE):
        with pytest.raises(AuthenticationError) as caught:
            decisions.open(replace(bob, kind=kind))
        assert caught.value.code is Reason.NOT_A_PERSON


async def test_only_a_passphrase_given_just_now(bob: Principal, decisions: DecisionSessions, clock: ManualClock) -> None:
    """A login credential never decides (threat A11), nor does an old proof."""
    login = [replace(bob, credential=Credential(kind, "x")) for kind in CredentialKind if kind is not CredentialKind.PASSPHRASE]
    for principal in (*login, replace(bob, assurance=Assurance())):
        with pytest.raises(AuthenticationError) as caught:
            decisions.open(principal)
        assert caught.value.code is Reason.STEP_UP_REQUIRED
    clock.advance(61)
    with pytest.raises(AuthenticationError):
        decisions.open(bob)


async def test_a_person_stopped_between_passphrase_and_session(
    bob: Principal, decisions: DecisionSessions, directory: Directory
) -> None:
    await directory.set_disabled("bob", True)
    with pytest.raises(AuthenticationError):
        decisions.open(bob)


async def test_secrets_that_open_nothing(bob: Principal, decisions: DecisionSessions, directory: Directory) -> None:
    secret = decisions.open(bob)
    token = (await directory.issue_token("bob")).secret.reveal()
    for wrong in ("", "ild_", secret[:-1], secret + "x", secret.replace("ild_", "ilk_"), token, "\ud800", "ild_\ud800"):
        assert decisions.resolve(wrong) is None


async def test_a_login_token_is_no_decision_session_and_the_reverse(
    bob: Principal, decisions: DecisionSessions, authenticator: Authenticator
) -> None:
    with pytest.raises(AuthenticationError):
        await authenticator.token(decisions.open(bob))


async def test_the_secret_is_not_kept(bob: Principal, decisions: DecisionSessions) -> None:
    secret = decisions.open(bob)
    assert secret not in repr(decisions._sessions)
    found = decisions.resolve(secret)
    assert found is not None
    assert secret[4:] not in repr(found)


async def test_sessions_of_one_person_are_bounded(bob: Principal, decisions: DecisionSessions) -> None:
    secrets = [decisions.open(bob) for _ in range(MAX_PER_PERSON + 5)]
    assert [decisions.resolve(s) is not None for s in secrets] == [False] * 5 + [True] * MAX_PER_PERSON
