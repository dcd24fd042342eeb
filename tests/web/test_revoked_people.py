"""The kill switch against people who answer: a revoked reviewer decides nothing, on no way in, and lifts nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.desk import PASSPHRASE
from harness.house import House, open_house
from interlock.approvals.model import State, VoteVerdict
from interlock.errors import Reason, VoteError
from interlock.identity.entries import OPERATOR
from interlock.identity.revocation import Revocation, Revoked


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as made:
        yield made


async def revoked(house: House, handle: str) -> Revocation:
    identity = str(house.desk.entry(handle).identity)
    return await house.desk.revocations.revoke(Revoked.SUBJECT, identity, by=OPERATOR, why="laptop stolen")


async def decided(house: House, token: str, request: Any, verdict: str = "approve") -> httpx.Response:
    async with house.client(token) as http:
        return await http.post(f"/v1/approvals/{request.id}/decision", json={"verdict": verdict, "digest": request.digest})


async def test_a_decision_session_ends_with_its_person(house: House) -> None:
    request = await house.ask()
    token = await house.stepped_up("bob")
    made = await revoked(house, "bob")
    answer = await decided(house, token, request)
    assert (answer.status_code, answer.json()["reason"]) == (401, "credential-revoked")
    assert await house.state(request) is State.PENDING
    await house.desk.revocations.lift(made.id, by=OPERATOR)
    assert (await decided(house, token, request)).status_code == 200


async def test_the_passphrase_opens_nothing_any_more(house: House) -> None:
    await revoked(house, "bob")
    async with house.client() as http:
        answer = await http.post("/v1/step-up", json={"handle": "bob", "passphrase": PASSPHRASE})
        assert (answer.status_code, answer.json()["reason"]) == (401, "credential-revoked")
        page = await http.post("/console/login", data={"handle": "bob", "passphrase": PASSPHRASE}, headers={"Origin": house.url})
        assert page.status_code == 401 and "set-cookie" not in page.headers
    assert '"reason":"credential-revoked"' in house.desk.journal_text()


async def test_a_browser_that_is_logged_in_is_logged_out(house: House) -> None:
    async with house.client() as http:
        login = await http.post("/console/login", data={"handle": "bob", "passphrase": PASSPHRASE}, headers={"Origin": house.url})
        assert login.status_code == 303 and (await http.get("/console")).status_code == 200
        await revoked(house, "bob")
        assert (await http.get("/console")).status_code != 200


async def test_no_channel_counts_the_vote(house: House) -> None:
    request = await house.ask()
    await revoked(house, "bob")
    with pytest.raises(VoteError) as caught:
        await house.desk.inbox.vote(
            request.id, voter=house.desk.entry("bob").identity, channel="teams", channel_actor="bob",
            verdict=VoteVerdict.APPROVE, digest=request.digest,
        )  # fmt: skip
    assert caught.value.code is Reason.DISABLED_PRINCIPAL
    assert await house.state(request) is State.PENDING


async def test_an_approval_does_not_outlive_its_voter(house: House) -> None:
    place = await house.desk.inbox.submit((await house.ask()).draft)
    assert (await decided(house, await house.stepped_up("bob"), place.request)).status_code == 200
    await revoked(house, "bob")
    assert await place.consume() is None
    assert await house.state(place.request) is State.REVOKED


async def test_a_revoked_administrator_does_not_lift_it(house: House) -> None:
    token = await house.stepped_up("carol")
    made = await revoked(house, "carol")
    async with house.client(token) as http:
        assert (await http.delete(f"/v1/revocations/{made.id}")).status_code == 401
    assert house.desk.revocations.standing() == (made,)
