"""Groups that an issuer says at a login: they count for a while, and who has none that are known is asked to sign in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.clock import ManualClock
from harness.desk import Desk, open_desk
from harness.issuer import FakeIssuer
from harness.requests import draft
from harness.trust import TRUST
from interlock.approvals.model import ApprovalRequest, State, VoteVerdict
from interlock.config import Issuer, parse
from interlock.errors import ConfigError, Reason, VoteError
from interlock.identity.authenticate import Authenticator
from interlock.identity.oidc import TokenVerifier
from interlock.identity.principal import Identity, Kind

HOURS = 3600


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as opened:
        yield opened


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path, clock=clock) as opened:  # type: ignore[arg-type]  # a clock that tests move
        yield opened


@pytest.fixture
async def logins(desk: Desk, issuer: FakeIssuer, clock: ManualClock) -> AsyncIterator[Authenticator]:
    async with httpx.AsyncClient(trust_env=False, verify=TRUST) as http:
        pinned = Issuer(name="okta", issuer=issuer.issuer, audience="interlock")
        verifier = TokenVerifier([pinned], clock=clock, client=lambda: http)
        yield Authenticator(desk.directory, clock=clock, journal=desk.transcripts.journal, verifier=verifier)


async def signs_in(logins: Authenticator, issuer: FakeIssuer, clock: ManualClock, *groups: str, **more: Any) -> None:
    now = int(clock.now().timestamp())
    claims = {"iss": issuer.issuer, "aud": "interlock", "sub": "00u-fay", "jti": f"j{now}", "iat": now, "exp": now + 60}
    await logins.token(issuer.token({**claims, "groups": list(groups), **more}))


async def answer(desk: Desk, request: ApprovalRequest) -> Reason | None:
    entry = desk.entry("fay")
    try:
        await desk.inbox.vote(
            request.id, voter=entry.identity, channel="api", channel_actor="fay", verdict=VoteVerdict.APPROVE,
            digest=request.digest,
        )  # fmt: skip
    except VoteError as error:
        return error.code
    return None


async def test_absent_then_fresh_then_too_old_then_fresh_again(
    desk: Desk, logins: Authenticator, issuer: FakeIssuer, clock: ManualClock
) -> None:
    """The request stays pending all the while: being asked to sign in decides nothing."""
    await desk.directory.add("fay", Kind.HUMAN)
    await desk.directory.link("fay", Identity(issuer.issuer, "00u-fay"))
    request = (await desk.inbox.submit(draft(principal=desk.agent()))).request
    assert await answer(desk, request) is Reason.SIGN_IN_REQUIRED
    await signs_in(logins, issuer, clock, "dba")
    assert await answer(desk, request) is Reason.NOT_A_REVIEWER  # known, and not among them
    assert (await desk.inbox.get(request.id)).state is State.PENDING
    await signs_in(logins, issuer, clock, "sre")
    clock.advance(8 * HOURS + 1)
    request = (await desk.inbox.submit(draft(principal=desk.agent()))).request
    assert await answer(desk, request) is Reason.SIGN_IN_REQUIRED
    assert (await desk.inbox.get(request.id)).state is State.PENDING
    await signs_in(logins, issuer, clock, "sre")
    assert await answer(desk, request) is None


async def test_a_group_that_the_issuer_takes_away_is_gone_at_the_next_login(
    desk: Desk, logins: Authenticator, issuer: FakeIssuer, clock: ManualClock
) -> None:
    await desk.directory.add("fay", Kind.HUMAN)
    await desk.directory.link("fay", Identity(issuer.issuer, "00u-fay"))
    await signs_in(logins, issuer, clock, "sre")
    gained = desk.entry("fay").changed
    clock.advance(60)
    await signs_in(logins, issuer, clock, "sre")
    assert desk.entry("fay").changed == gained  # nothing new, so nobody has to confirm it anew
    await signs_in(logins, issuer, clock, "sre", "dba")
    assert desk.entry("fay").changed == clock.now()
    assert f"{issuer.issuer}:groups" in desk.entry("fay").changed_by.split()
    await signs_in(logins, issuer, clock)
    assert desk.entry("fay").groups == frozenset()
    await desk.directory.load()
    assert (desk.entry("fay").groups, desk.entry("fay").stale) == (frozenset(), False)


async def test_local_groups_do_not_age(desk: Desk, clock: ManualClock) -> None:
    await desk.directory.link("bob", Identity("https://idp.example", "00u-bob"))
    clock.advance(365 * 24 * HOURS)
    assert (desk.entry("bob").groups, desk.entry("bob").stale) == ({"sre"}, True)


def test_the_configuration_says_for_how_long(tmp_path: Path) -> None:
    def made(**identity: Any) -> float:
        return parse({"version": 1, "node": {"data_dir": "d"}, "identity": identity}, base=tmp_path).identity.groups_max_age

    assert (made(), made(groups_max_age="30m")) == (8 * HOURS, 1800)
    for wrong in ("0s", "31d", "x"):
        with pytest.raises(ConfigError, match="groups_max_age"):
            made(groups_max_age=wrong)
