"""The same store on a real PostgreSQL: migrations, directory, the compare-and-swap between processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from harness.people import BOB, CAROL
from harness.postgres_server import PostgresServer, running_server
from harness.requests import START, TERMS, draft
from interlock.approvals import authority, desk
from interlock.approvals.authority import Voter
from interlock.approvals.model import ApprovalRequest, State, Vote, VoteVerdict
from interlock.errors import StoreError, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.store.engine import Store, open_store
from interlock.store.principals import MembershipRow, PrincipalRow

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


@pytest.fixture
async def stores(server: PostgresServer, tmp_path: Path) -> AsyncIterator[list[Store]]:
    """Two processes' worth of stores on one database."""
    url = f"postgresql://app:{server.password}@127.0.0.1:{server.port}/app"
    opened = [await open_store(url, tmp_path), await open_store(url, tmp_path)]
    yield opened
    for store in opened:
        await store.close()
    server.run("DROP OWNED BY app; GRANT ALL ON SCHEMA public TO app", user="postgres")


def ballot(request: ApprovalRequest, who: Identity, verdict: VoteVerdict) -> Vote:
    return Vote(who, who.subject, "cli", "", verdict, request.digest, START)


def counted(request: ApprovalRequest, who: Identity, verdict: VoteVerdict = VoteVerdict.APPROVE) -> partial[ApprovalRequest]:
    voter = Voter(who, who.subject, Kind.HUMAN, frozenset(("sre",)))
    return partial(desk.vote, ballot=ballot(request, who, verdict), voter=voter, now=START, house=authority.House(validity=600))


def opened(**terms: int) -> ApprovalRequest:
    asked = draft(terms=replace(TERMS, **terms))  # type: ignore[arg-type]  # numbers of ReviewTerms
    return desk.open_request(asked, request_id="req_1", nonce="00", match="m", now=START)


async def test_directory_and_requests_come_back(stores: list[Store]) -> None:
    one, other = stores
    alice = PrincipalRow("local", "alice", "alice", "human", START, START)
    await one.principals.change(put=[alice, MembershipRow("local", "alice", "sre", START)])
    await one.principals.change(put=[replace(alice, disabled=True)])
    assert (await other.principals.load_all()).principals == (replace(alice, disabled=True),)
    with pytest.raises(StoreError):
        await other.principals.change(put=[replace(alice, subject="mallory")])
    request = opened()
    await one.approvals.insert(request, now=START)
    assert await other.approvals.get("req_1") == request
    assert await one.approvals.ledger() == await other.approvals.ledger()


async def test_two_processes_and_two_answers_give_one_final_state(stores: list[Store]) -> None:
    request = opened()
    await stores[0].approvals.insert(request, now=START)
    results = await asyncio.gather(
        stores[0].approvals.apply(request, counted(request, BOB), now=START, in_time=True),
        stores[1].approvals.apply(request, counted(request, CAROL, VoteVerdict.DENY), now=START, in_time=True),
        return_exceptions=True,
    )
    # Whichever process is first, the deny is heard: an approval that was not used yet is taken back.
    found = await stores[0].approvals.get("req_1")
    assert found is not None
    if found.state is State.DENIED:
        assert sorted(type(r).__name__ for r in results) == ["VoteError", "Written"]
    else:
        assert (found.state, len(found.votes)) == (State.REVOKED, 2)


async def test_a_quorum_is_counted_across_processes(stores: list[Store]) -> None:
    request = opened(quorum=2)
    await stores[0].approvals.insert(request, now=START)
    await asyncio.gather(
        stores[0].approvals.apply(request, counted(request, BOB), now=START, in_time=True),
        stores[1].approvals.apply(request, counted(request, CAROL), now=START, in_time=True),
    )
    found = await stores[0].approvals.get("req_1")
    assert found is not None
    assert (found.state, len(found.votes)) == (State.APPROVED, 2)
    use = partial(desk.consume, now=START)
    used = await asyncio.gather(
        *(store.approvals.apply(found, use, now=START, in_time=True) for store in stores), return_exceptions=True
    )
    assert sum(isinstance(r, VoteError) for r in used) == 1


async def test_the_same_thing_is_pending_once(stores: list[Store]) -> None:
    await stores[0].approvals.insert(opened(), now=START)
    second = desk.open_request(draft(), request_id="req_2", nonce="01", match="m", now=START)
    with pytest.raises(StoreError):
        await stores[1].approvals.insert(second, now=START)


async def test_the_mark_never_goes_down(stores: list[Store]) -> None:
    late, early = datetime(2030, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    before = await stores[0].approvals.advance(late, at_least=77)
    assert before == 78
    assert await stores[1].approvals.advance(early) == 79
    assert (await stores[0].approvals.ledger()).high_water == late


async def test_a_server_that_is_not_there_is_an_error_of_ours(server: PostgresServer, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await open_store("postgresql://app:hunter2@127.0.0.1:1/app", tmp_path)
    with pytest.raises(StoreError) as caught:
        await open_store(f"postgresql://app:hunter2@127.0.0.1:{server.port}/app", tmp_path)
    assert "hunter2" not in str(caught.value)
