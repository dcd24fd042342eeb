"""Scopes wider than once over the real store: granted, used, ended, and never stretched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.approvals.test_grants import TERMS, rm

from harness.inbox import DAVE, Desk, Someone
from harness.people import ALICE, BOB, CLAUDE
from harness.requests import draft
from interlock.approvals.grants import GrantState
from interlock.approvals.model import ApprovalRequest, RequestDraft, Scope, State, VoteVerdict
from interlock.errors import NotFoundError, Reason, VoteError
from interlock.policy.model import ReviewTerms


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    await made.open()
    yield made
    await made.close()


async def exactly(desk: Desk, asked: RequestDraft | None = None, *, minutes: float = 10) -> ApprovalRequest:
    """Bob allows exactly this for some minutes; the first run uses the approval itself."""
    place = await desk.inbox.submit(asked or rm("/tmp/x"))
    await desk.vote(place.request, scope="exact", valid_until=desk.clock.now() + timedelta(minutes=minutes))
    used = await place.consume()
    assert used is not None
    return used


async def run(desk: Desk, asked: RequestDraft | None = None) -> State:
    """What becomes of a command that is run now: consumed under a grant, or pending."""
    place = await desk.inbox.submit(asked or rm("/tmp/x"))
    if place.request.state is State.APPROVED:
        used = await place.consume()
        return State.REVOKED if used is None else used.state
    return place.request.state


async def test_exactly_this_runs_again_without_asking_until_its_time(desk: Desk) -> None:
    first = await exactly(desk)
    assert [await run(desk) for _ in range(3)] == [State.CONSUMED] * 3
    (grant,) = desk.inbox.grants()
    assert (grant.request, grant.scope, grant.handle) == (first.id, Scope.EXACT, "claude-ci")
    under = [r for r in desk.seen if r.grant == grant.id and r.state is State.CONSUMED]
    assert len({r.id for r in under}) == 3
    assert all(r.votes == first.votes and r.digest != first.digest for r in under)
    desk.clock.advance(601)
    assert desk.inbox.grants() == []
    assert await run(desk) is State.PENDING


async def test_a_grant_is_not_the_answer_to_anything_else(desk: Desk) -> None:
    await exactly(desk)
    assert await run(desk, rm("/tmp/y")) is State.PENDING
    assert await run(desk, replace(rm("/tmp/x"), terms=ReviewTerms(("dba",)))) is State.PENDING


async def test_this_rule_in_this_session_covers_below_and_no_other_session(desk: Desk) -> None:
    place = await desk.inbox.submit(rm("/tmp/x"))
    await desk.vote(place.request, scope="rule_in_session")
    assert await place.consume() is not None
    assert await run(desk, rm("/tmp/x/below")) is State.CONSUMED
    assert await run(desk, rm("/")) is State.PENDING
    assert await run(desk, replace(rm("/tmp/x/other"), session="01OTHER")) is State.PENDING


async def test_a_rule_that_offers_once_gives_no_grant(desk: Desk) -> None:
    place = await desk.inbox.submit(draft())
    for scope in ("exact", "rule_in_session"):
        with pytest.raises(VoteError) as refused:
            await desk.vote(place.request, scope=scope, valid_until=desk.clock.now() + timedelta(minutes=1))
        assert refused.value.code is Reason.SCOPE_NOT_OFFERED
    assert (await desk.stored(place.request)).state is State.PENDING


async def test_concurrent_uses_each_have_a_request_of_their_own(desk: Desk) -> None:
    await exactly(desk)
    places = await asyncio.gather(*(desk.inbox.submit(rm("/tmp/x")) for _ in range(10)))
    assert len({place.request.id for place in places}) == 10
    used = await asyncio.gather(*(place.consume() for place in places))
    assert all(request is not None for request in used)


async def test_a_revoked_grant_covers_nothing_not_even_what_was_born_under_it(desk: Desk) -> None:
    await exactly(desk)
    born = await desk.inbox.submit(rm("/tmp/x"))
    (grant,) = desk.inbox.grants()
    ended = await desk.inbox.revoke_grant(grant.id, by=BOB, why="enough")
    assert ended.state is GrantState.REVOKED
    assert await born.consume() is None
    assert await run(desk) is State.PENDING
    assert [(e.fields["state"], e.fields.get("by")) for e in desk.journal.of("grant")] == [
        ("active", None), ("revoked", str(BOB))
    ]  # fmt: skip
    with pytest.raises(NotFoundError):
        await desk.inbox.revoke_grant(grant.id, by=BOB)


async def test_a_deny_after_the_approval_takes_the_grant_with_it(desk: Desk) -> None:
    desk.people.put(Someone(DAVE))
    place = await desk.inbox.submit(rm("/tmp/x"))
    await desk.vote(place.request, scope="exact", valid_until=desk.clock.now() + timedelta(minutes=5))
    assert len(desk.inbox.grants()) == 1
    await desk.vote(place.request, DAVE, VoteVerdict.DENY)
    assert desk.inbox.grants() == []
    assert list(await desk.store.grants.active()) == []
    assert await run(desk) is State.REVOKED  # the no stands, like any other


@pytest.mark.parametrize("gone", ["disabled", "removed", "now the owner"])
async def test_a_grant_falls_with_whoever_gave_it(desk: Desk, gone: str) -> None:
    await exactly(desk)
    match gone:
        case "disabled":
            desk.people.put(Someone(BOB, disabled=True))
        case "removed":
            del desk.people.entries[BOB]
        case _:
            desk.people.put(Someone(ALICE, linked=frozenset((BOB,))))
            desk.people.put(Someone(BOB, linked=frozenset((ALICE,))))
    assert await run(desk) is State.PENDING
    assert desk.inbox.grants() == []


async def test_a_grant_ends_with_its_requester(desk: Desk) -> None:
    await exactly(desk)
    await desk.inbox.withdraw([CLAUDE], "disabled")
    assert desk.inbox.grants() == []


async def test_a_denial_of_the_same_thing_comes_before_a_grant(desk: Desk) -> None:
    await exactly(desk)
    grant = desk.inbox.grants()[0]
    other = await desk.inbox.submit(replace(rm("/tmp/x"), terms=replace(TERMS, expires=800)))  # not the grant's terms
    await desk.vote(other.request, verdict=VoteVerdict.DENY)
    again = await desk.inbox.submit(rm("/tmp/x"))
    assert (grant.active(desk.clock.now()), again.request.state) == (True, State.DENIED)


async def test_grants_live_on_over_a_restart_and_end_with_their_time(desk: Desk) -> None:
    await exactly(desk)
    await desk.restart(crash=True)
    assert await run(desk) is State.CONSUMED
    await desk.close()
    desk.clock.advance(601)
    await desk.open()
    assert desk.inbox.grants() == []
    assert list(await desk.store.grants.active()) == []


async def test_a_restored_backup_revokes_grants(desk: Desk) -> None:
    await exactly(desk)
    await desk.restart(mirrored=10_000)
    assert desk.inbox.grants() == []
    assert await run(desk) is State.PENDING
    assert desk.journal.of("grant")[-1].fields["state"] == "revoked"


async def test_a_grant_of_two_people_needs_both_to_stand(desk: Desk) -> None:
    desk.people.put(Someone(DAVE))
    asked = replace(rm("/tmp/x"), terms=replace(TERMS, quorum=2))
    place = await desk.inbox.submit(asked)
    for who in (BOB, DAVE):
        await desk.vote(place.request, who, scope="exact", valid_until=desk.clock.now() + timedelta(minutes=5))
    assert await place.consume() is not None
    assert await run(desk, asked) is State.CONSUMED
    desk.people.put(Someone(DAVE, disabled=True))
    assert await run(desk, asked) is State.PENDING
