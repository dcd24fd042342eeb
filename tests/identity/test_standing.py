"""Access that is taken back just while a session opens, when nobody who ends sessions can find it yet: it must not be missed.

The transcript of a real gate is held open in the middle, what takes access away happens, and only then the session is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from harness.desk import Desk, open_desk
from harness.webnode import gate_over
from interlock.approvals.wording import Refusal
from interlock.errors import Reason
from interlock.evidence.events import Draft, Recorder
from interlock.gate import Gate, Session
from interlock.identity.idtoken import LoggedOut
from interlock.identity.logouts import Logouts
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Origin, Principal
from interlock.identity.revocation import Revoked
from interlock.identity.sshkey import fingerprint
from interlock.identity.standing import Standing
from interlock.policy.model import Access, SessionFacts, Target

IDP = "https://idp.example"
TARGET = Target(name="web-1", protocol="ssh", labels={}, account="deploy")


class Held:
    """The transcripts of a node, each of which opens when the test says so."""

    def __init__(self, desk: Desk) -> None:
        self._inner = desk.transcripts
        self.journal = desk.transcripts.journal
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def open(self, facts: SessionFacts, opened: Draft) -> Recorder:
        self.reached.set()
        await self.go_on.wait()
        return await self._inner.open(facts, opened)


@dataclass
class House:
    desk: Desk
    gate: Gate
    held: Held
    standing: Standing
    logouts: Logouts
    exchanged: set[str]

    async def opening(self, principal: Principal, then: Callable[[House], Awaitable[object]]) -> Session | Refusal:
        """Open a session, and let `then` happen when it is half open."""
        task = asyncio.ensure_future(self.gate.open(principal, TARGET, SessionFacts("s1", "::1", self.desk.clock.now())))
        reached = asyncio.ensure_future(self.held.reached.wait())
        await asyncio.wait((task, reached), return_when=asyncio.FIRST_COMPLETED)
        assert reached.done(), await task
        await then(self)
        self.held.go_on.set()
        return await task

    def key(self, handle: str) -> Principal:
        entry = self.desk.entry(handle)
        return entry.principal(Credential(CredentialKind.SSH_KEY, entry.ssh_keys[0].fingerprint))

    def jwt(self, handle: str) -> Principal:
        origin = Origin(IDP, (f"sub-{handle}",), "", self.desk.clock.now())
        return self.desk.entry(handle).principal(Credential(CredentialKind.JWT, "j1", None, (origin,)))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_desk(tmp_path) as desk:
        people = desk.directory
        await people.add("dora", Kind.HUMAN, ssh_keys=[_public_key()])
        await people.link("dora", Identity(IDP, "sub-dora"))
        await people.add("robot", Kind.AGENT, owner="dora", ssh_keys=[_public_key()])
        logouts = Logouts(desk.store.logouts, oldest={}, clock=desk.clock, journal=desk.transcripts.journal)
        exchanged: set[str] = set()
        standing = Standing(
            people, revocations=desk.revocations, logouts=logouts, holds={CredentialKind.EXCHANGED: exchanged.__contains__}
        )
        gate, held = gate_over(desk), Held(desk)
        gate.transcripts, gate.standing, gate.policies = held, standing, Open(gate)  # type: ignore[assignment]
        yield House(desk, gate, held, standing, logouts, exchanged)


class Open:
    """Policy lets everybody in: what is tested here is not policy."""

    def __init__(self, gate: Gate) -> None:
        self.current = self
        self.digest = gate.policies.current.digest

    def may_open(self, principal: Principal, target: Target) -> Access:
        return Access(True, "test", "")


def _public_key() -> str:
    import asyncssh

    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()


async def _disabled(house: House) -> None:
    await house.desk.directory.set_disabled("dora", True)


async def _removed(house: House) -> None:
    await house.desk.directory.remove("dora")


async def _key_removed(house: House) -> None:
    await house.desk.directory.remove_ssh_key("dora", house.key("dora").credential.ident)


async def _revoked(house: House) -> None:
    await house.desk.revocations.revoke(Revoked.TARGET, "web-1", by=Identity("unix", "operator"), why="")


async def _logged_out(house: House) -> None:
    await house.logouts.take(LoggedOut(IDP, "sub-dora", "", house.desk.clock.now() + timedelta(seconds=1)))


async def _unlinked(house: House) -> None:
    await house.desk.directory.unlink("dora", Identity(IDP, "sub-dora"))


async def _nothing(house: House) -> None:
    pass


async def _exchange_ended(house: House) -> None:
    house.exchanged.discard("xtk_1")


def _agent(house: House) -> Principal:
    return house.key("robot")


def _person(house: House) -> Principal:
    return house.key("dora")


def _token(house: House) -> Principal:
    return house.jwt("dora")


def _subject(house: House) -> Principal:
    """Somebody who was let in as just a subject of the issuer, and belongs to an entry since."""
    held = house.jwt("dora").credential
    return Principal(Identity(IDP, "sub-dora"), "jwt-1", Kind.HUMAN, held)


def _exchanged(house: House) -> Principal:
    house.exchanged.add("xtk_1")
    return house.desk.entry("robot").principal(Credential(CredentialKind.EXCHANGED, "xtk_1"))


@pytest.mark.parametrize(
    ("who", "then", "reason"),
    [
        (_person, _disabled, Reason.DISABLED_PRINCIPAL),
        (_person, _removed, Reason.UNKNOWN_PRINCIPAL),
        (_person, _key_removed, Reason.CREDENTIAL_REVOKED),
        (_person, _revoked, Reason.CREDENTIAL_REVOKED),
        (_agent, _disabled, Reason.DISABLED_PRINCIPAL),  # nobody answers for it any more
        (_token, _disabled, Reason.DISABLED_PRINCIPAL),
        (_token, _logged_out, Reason.LOGIN_ENDED),
        (_token, _unlinked, Reason.CREDENTIAL_REVOKED),
        (_subject, _disabled, Reason.DISABLED_PRINCIPAL),
        (_subject, _logged_out, Reason.LOGIN_ENDED),
        (_exchanged, _exchange_ended, Reason.CREDENTIAL_REVOKED),
        (_exchanged, _disabled, Reason.DISABLED_PRINCIPAL),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else str(value),
)
async def test_access_that_is_taken_back_while_a_session_opens_is_not_missed(
    house: House, who: Callable[[House], Principal], then: Callable[[House], Awaitable[None]], reason: Reason
) -> None:
    principal = who(house)
    assert house.standing.opens(principal, "web-1") is None
    opened = await house.opening(principal, then)
    assert isinstance(opened, Session)
    stopped = opened.stopped()
    assert stopped is not None and stopped.reason is reason
    await opened.close("test")
    refused = await house.gate.open(principal, TARGET, SessionFacts("s2", "::1", house.desk.clock.now()))
    assert isinstance(refused, Refusal) and refused.reason is reason


@pytest.mark.parametrize("who", [_person, _agent, _token, _subject, _exchanged], ids=lambda who: who.__name__.strip("_"))
async def test_nothing_happened_and_the_session_is_good(house: House, who: Callable[[House], Principal]) -> None:
    opened = await house.opening(who(house), _nothing)
    assert isinstance(opened, Session) and opened.stopped() is None
    house.gate.sweep()
    assert opened.stopped() is None
    await opened.close("test")


async def test_a_sweep_ends_who_was_let_in_before_their_subject_had_an_entry(house: House) -> None:
    """By their subject alone nobody finds them: the entry that was disabled has another identity."""
    told: list[Refusal] = []
    opened = await house.opening(_subject(house), _nothing)
    other = await house.gate.open(_agent(house), TARGET, SessionFacts("s2", "::1", house.desk.clock.now()))
    assert isinstance(opened, Session) and isinstance(other, Session)
    opened.on_kill = told.append
    await house.logouts.take(LoggedOut(IDP, "sub-dora", "", house.desk.clock.now() + timedelta(seconds=1)))
    house.gate.sweep()
    assert [refusal.reason for refusal in told] == [Reason.LOGIN_ENDED]
    house.gate.sweep()
    assert len(told) == 1  # it is told once
    assert other.stopped() is None
    await opened.close("test")
    await other.close("test")


async def test_a_subject_that_is_linked_again_is_let_in_again(house: House) -> None:
    principal = house.jwt("dora")
    await _unlinked(house)
    assert house.standing.ended(principal) is Reason.CREDENTIAL_REVOKED
    await house.desk.directory.link("dora", Identity(IDP, "sub-dora"))
    assert house.standing.ended(principal) is None


async def test_a_session_that_a_newer_credential_prolongs_is_not_ended_with_the_older(house: House) -> None:
    opened = await house.opening(_exchanged(house), _nothing)
    house.exchanged.clear()  # expired and forgotten
    house.gate.sweep()
    assert isinstance(opened, Session) and opened.stopped() is None
    await opened.close("test")


def test_fingerprints_are_what_a_key_is_named_by() -> None:
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    assert fingerprint(key.public_data) == key.get_fingerprint()
