"""Slack accounts, confirmation and one's own passkeys over HTTP: who may, after which proof, and for whom."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from harness.authenticator import HOST, ORIGIN, Authenticator, authenticator
from harness.change_journal import seeded
from harness.registry import PHRASE, Callers, Registry, open_callers
from interlock.identity.entries import ADMINS
from interlock.identity.passkeys import Registrations, RelyingParty
from interlock.identity.principal import Kind
from interlock.web.access import Doorkeeper
from interlock.web.passkeys import passkeys_router

SLACK = "T024BE7LD/U024BE7LH"


async def register(house: Callers, phone: Authenticator, headers: dict[str, str], name: str = "phone") -> httpx.Response:
    options = await house.remote.post("/v1/passkeys/options", headers=headers)
    if options.is_error:
        return options
    body = {"name": name, "credential": phone.registration(options.json())}
    return await house.remote.post("/v1/passkeys", json=body, headers=headers)


def passkeys(registry: Registry, door: Doorkeeper) -> APIRouter:
    registrations = Registrations(RelyingParty(HOST, ORIGIN), clock=registry.clock, entropy=seeded("r"))
    return passkeys_router(registry.directory, registrations, door.require_scope)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Callers]:
    async with open_callers(tmp_path, [passkeys]) as callers:
        directory = callers.directory
        for handle, groups in (("root", [ADMINS]), ("carol", [ADMINS]), ("alice", ["sre"]), ("bob", ["sre"])):
            await directory.add(handle, Kind.HUMAN, groups=groups, passphrase=PHRASE)
        await directory.add("claude", Kind.AGENT, owner="alice")
        yield callers


def reason(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


class TestSlack:
    async def test_an_administrator_links_and_unlinks(self, house: Callers) -> None:
        linked = await house.local.post("/v1/principals/bob/links", json={"slack": SLACK})
        assert linked.json()["slack"] == [SLACK]
        taken = await house.local.post("/v1/principals/alice/links", json={"slack": SLACK})
        assert reason(taken) == (422, "config-invalid")
        unlinked = await house.local.delete("/v1/principals/bob/links", params={"slack": SLACK})
        assert unlinked.json()["slack"] == []
        assert (await house.local.delete("/v1/principals/bob/links", params={"slack": SLACK})).status_code == 404

    @pytest.mark.parametrize(
        "body", [{"slack": "bob"}, {"slack": "T1/bob"}, {"slack": SLACK, "account": "alice"}, {"slack": ""}, {"slack": 5}]
    )
    async def test_bodies_that_are_refused(self, house: Callers, body: dict[str, Any]) -> None:
        assert reason(await house.local.post("/v1/principals/bob/links", json=body)) == (422, "config-invalid")

    async def test_nobody_links_themselves(self, house: Callers) -> None:
        answer = await house.remote.post("/v1/principals/bob/links", json={"slack": SLACK}, headers=await house.token("bob"))
        assert reason(answer) == (403, "missing-scope")


class TestConfirming:
    async def test_another_administrator_confirms_what_was_looked_at(self, house: Callers) -> None:
        given = await house.remote.patch(
            "/v1/principals/bob", json={"groups": ["sre", "dba"]}, headers=await house.stepped_up("root")
        )
        assert given.json()["confirmed"] is False
        assert given.json()["changed_by"][0].startswith("local:root#")
        path, body = "/v1/principals/bob/confirm", {"changed": given.json()["changed"]}
        assert reason(await house.remote.post(path, json=body, headers=await house.stepped_up("root"))) == (403, "self-approval")
        confirmed = await house.remote.post(path, json=body, headers=await house.stepped_up("carol"))
        assert confirmed.json()["confirmed"] is True

    async def test_a_later_gain_is_not_confirmed_by_mistake(self, house: Callers) -> None:
        seen = (await house.local.get("/v1/principals/bob")).json()["changed"]
        house.clock.advance(1)
        await house.directory.link_slack("bob", *SLACK.split("/"))
        headers = await house.stepped_up("carol")
        answer = await house.remote.post("/v1/principals/bob/confirm", json={"changed": seen}, headers=headers)
        assert reason(answer) == (422, "config-invalid")

    async def test_the_socket_is_nobody_and_people_without_the_scope_neither(self, house: Callers) -> None:
        path = "/v1/principals/bob/confirm"
        assert reason(await house.local.post(path)) == (403, "missing-scope")
        for handle in ("alice", "bob", "claude"):
            assert reason(await house.remote.post(path, headers=await house.token(handle))) == (403, "missing-scope")
        for body in ({"changed": "yesterday"}, {"changed": "2026-01-02T02:13:00"}, {"who": "bob"}):
            answer = await house.remote.post(path, json=body, headers=await house.stepped_up("carol"))
            assert reason(answer) == (422, "config-invalid"), body


class TestPasskeys:
    async def test_one_s_own_after_the_passphrase(self, house: Callers) -> None:
        phone, headers = authenticator(), await house.stepped_up("bob")
        answer = await register(house, phone, headers)
        assert answer.status_code == 201
        assert [(p["id"], p["name"]) for p in answer.json()["passkeys"]] == [(phone.id, "phone")]
        found = house.directory.by_passkey(phone.id)
        assert found is not None
        assert (found[0].handle, found[1].public_key) == ("bob", phone.cose)
        listed = await house.remote.get("/v1/passkeys", headers=await house.token("bob"))
        assert listed.json() == answer.json()
        assert (await house.local.get("/v1/principals/bob")).json()["passkeys"] == answer.json()["passkeys"]
        removed = await house.remote.delete(f"/v1/passkeys/{phone.id}", headers=headers)
        assert removed.json() == {"passkeys": []}

    async def test_a_login_or_an_administrator_s_session_is_not_enough(self, house: Callers) -> None:
        for handle in ("bob", "root"):
            headers = await house.token(handle)
            assert reason(await house.remote.post("/v1/passkeys/options", headers=headers)) == (401, "step-up-required")
            body = {"name": "phone", "credential": "{}"}
            answer = await house.remote.post("/v1/passkeys", json=body, headers=headers)
            assert reason(answer) == (401, "step-up-required")
        answer = await house.remote.post("/v1/passkeys/options", headers=await house.token("claude"))
        assert reason(answer) == (401, "not-a-person") or answer.status_code == 403
        assert (await house.local.post("/v1/passkeys/options")).is_error  # the operator on the socket is no person either

    async def test_a_decision_session_that_has_ended_registers_nothing(self, house: Callers) -> None:
        headers = await house.stepped_up("bob")
        options = (await house.remote.post("/v1/passkeys/options", headers=headers)).json()
        house.clock.advance(301)
        body = {"name": "phone", "credential": authenticator().registration(options)}
        assert (await house.remote.post("/v1/passkeys", json=body, headers=headers)).status_code == 401

    async def test_twice_and_somebody_else_s_are_refused(self, house: Callers) -> None:
        phone = authenticator()
        await register(house, phone, await house.stepped_up("bob"))
        for handle in ("bob", "alice"):
            assert reason(await register(house, phone, await house.stepped_up(handle))) == (422, "config-invalid")
        found = house.directory.by_passkey(phone.id)
        assert found is not None
        assert found[0].handle == "bob"

    async def test_another_person_s_ceremony_is_not_answered(self, house: Callers) -> None:
        alice, bob = await house.stepped_up("alice"), await house.stepped_up("bob")
        options = (await house.remote.post("/v1/passkeys/options", headers=alice)).json()
        await house.remote.post("/v1/passkeys/options", headers=bob)
        body = {"name": "phone", "credential": authenticator().registration(options)}
        assert reason(await house.remote.post("/v1/passkeys", json=body, headers=bob)) == (403, "proof-rejected")

    async def test_one_removes_only_one_s_own_and_an_administrator_anybody_s(self, house: Callers) -> None:
        phone = authenticator()
        await register(house, phone, await house.stepped_up("bob"))
        answer = await house.remote.delete(f"/v1/passkeys/{phone.id}", headers=await house.stepped_up("alice"))
        assert answer.status_code == 404
        path = f"/v1/principals/bob/passkeys/{phone.id}"
        assert reason(await house.remote.delete(path, headers=await house.token("bob"))) == (403, "missing-scope")
        assert (await house.remote.delete(path, headers=await house.token("root"))).json()["passkeys"] == []

    @pytest.mark.parametrize(
        "body",
        [
            {"name": "phone"}, {"name": "phone", "credential": {}}, {"name": "phone", "credential": "x" * 40_000},
            {"name": "x" * 65, "credential": "{}"}, {"name": "phone", "credential": "{}", "handle": "alice"},
        ],
    )  # fmt: skip
    async def test_bodies_that_are_refused(self, house: Callers, body: dict[str, Any]) -> None:
        answer = await house.remote.post("/v1/passkeys", json=body, headers=await house.stepped_up("bob"))
        assert reason(answer) == (422, "config-invalid")

    async def test_what_was_sent_is_in_no_error(self, house: Callers) -> None:
        headers = await house.stepped_up("bob")
        await house.remote.post("/v1/passkeys/options", headers=headers)
        body = {"name": "phone", "credential": json.dumps({"id": "MARK", "rawId": "MARK"})}
        answer = await house.remote.post("/v1/passkeys", json=body, headers=headers)
        assert reason(answer) == (403, "proof-rejected")
        assert "MARK" not in answer.text
