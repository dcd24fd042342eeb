"""Slack accounts, confirmation and one's own passkeys over HTTP: who may, after which proof, and for whom."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from harness.authenticator import HOST, ORIGIN, Authenticator, authenticator
from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from interlock.identity.authenticate import Authenticator as Login
from interlock.identity.directory import Directory
from interlock.identity.passkeys import Registrations, RelyingParty
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import Kind
from interlock.identity.stepup import DecisionSessions
from interlock.store.engine import open_store
from interlock.web import principals, problems
from interlock.web.access import ADMINS, Doorkeeper
from interlock.web.passkeys import passkeys_router
from interlock.web.stepup import stepup_router

PHRASE = "correct horse battery"
SLACK = "T024BE7LD/U024BE7LH"


@dataclass
class House:
    directory: Directory
    clock: ManualClock
    local: httpx.AsyncClient
    remote: httpx.AsyncClient

    async def token(self, handle: str) -> dict[str, str]:
        issued = await self.directory.issue_token(handle)
        return {"Authorization": f"Bearer {issued.secret.reveal()}"}

    async def stepped_up(self, handle: str) -> dict[str, str]:
        answer = await self.remote.post("/v1/step-up", json={"handle": handle, "passphrase": PHRASE})
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    async def register(self, phone: Authenticator, headers: dict[str, str], name: str = "phone") -> httpx.Response:
        options = await self.remote.post("/v1/passkeys/options", headers=headers)
        if options.is_error:
            return options
        body = {"name": name, "credential": phone.registration(options.json())}
        return await self.remote.post("/v1/passkeys", json=body, headers=headers)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock, journal = ManualClock(), Journal()
    store = await open_store("sqlite:///interlock.db", tmp_path)
    cheap = Passphrases(memory_kib=64, passes=1)
    directory = Directory(store.principals, clock=clock, entropy=seeded("d"), journal=journal, passphrases=cheap)
    await directory.load()
    for handle, groups in (("root", [ADMINS]), ("carol", [ADMINS]), ("alice", ["sre"]), ("bob", ["sre"])):
        await directory.add(handle, Kind.HUMAN, groups=groups, passphrase=PHRASE)
    await directory.add("claude", Kind.AGENT, owner="alice")
    login = Login(directory, clock=clock, journal=journal, passphrases=cheap)
    sessions = DecisionSessions(directory, clock=clock, entropy=seeded("s"))

    def client(*, local: bool) -> httpx.AsyncClient:
        app = FastAPI()
        problems.install(app)
        door = Doorkeeper(login, sessions, local=local)
        registrations = Registrations(RelyingParty(HOST, ORIGIN), clock=clock, entropy=seeded("r"))
        app.include_router(principals.router(directory, door.require_scope, door.require_given))
        app.include_router(passkeys_router(directory, registrations, door.require_scope))
        app.include_router(stepup_router(login, sessions))
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://interlock")

    async with client(local=True) as local, client(local=False) as remote:
        yield House(directory, clock, local, remote)
    await login.close()
    await store.close()


def reason(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


class TestSlack:
    async def test_an_administrator_links_and_unlinks(self, house: House) -> None:
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
    async def test_bodies_that_are_refused(self, house: House, body: dict[str, Any]) -> None:
        assert reason(await house.local.post("/v1/principals/bob/links", json=body)) == (422, "config-invalid")

    async def test_nobody_links_themselves(self, house: House) -> None:
        answer = await house.remote.post("/v1/principals/bob/links", json={"slack": SLACK}, headers=await house.token("bob"))
        assert reason(answer) == (403, "missing-scope")


class TestConfirming:
    async def test_another_administrator_confirms_what_was_looked_at(self, house: House) -> None:
        given = await house.remote.patch(
            "/v1/principals/bob", json={"groups": ["sre", "dba"]}, headers=await house.stepped_up("root")
        )
        assert given.json()["confirmed"] is False
        assert given.json()["changed_by"][0].startswith("local:root#")
        path, body = "/v1/principals/bob/confirm", {"changed": given.json()["changed"]}
        assert reason(await house.remote.post(path, json=body, headers=await house.stepped_up("root"))) == (403, "self-approval")
        confirmed = await house.remote.post(path, json=body, headers=await house.stepped_up("carol"))
        assert confirmed.json()["confirmed"] is True

    async def test_a_later_gain_is_not_confirmed_by_mistake(self, house: House) -> None:
        seen = (await house.local.get("/v1/principals/bob")).json()["changed"]
        house.clock.advance(1)
        await house.directory.link_slack("bob", *SLACK.split("/"))
        headers = await house.stepped_up("carol")
        answer = await house.remote.post("/v1/principals/bob/confirm", json={"changed": seen}, headers=headers)
        assert reason(answer) == (422, "config-invalid")

    async def test_the_socket_is_nobody_and_people_without_the_scope_neither(self, house: House) -> None:
        path = "/v1/principals/bob/confirm"
        assert reason(await house.local.post(path)) == (403, "missing-scope")
        for handle in ("alice", "bob", "claude"):
            assert reason(await house.remote.post(path, headers=await house.token(handle))) == (403, "missing-scope")
        for body in ({"changed": "yesterday"}, {"changed": "2026-01-02T02:13:00"}, {"who": "bob"}):
            answer = await house.remote.post(path, json=body, headers=await house.stepped_up("carol"))
            assert reason(answer) == (422, "config-invalid"), body


class TestPasskeys:
    async def test_one_s_own_after_the_passphrase(self, house: House) -> None:
        phone, headers = authenticator(), await house.stepped_up("bob")
        answer = await house.register(phone, headers)
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

    async def test_a_login_or_an_administrator_s_session_is_not_enough(self, house: House) -> None:
        for handle in ("bob", "root"):
            headers = await house.token(handle)
            assert reason(await house.remote.post("/v1/passkeys/options", headers=headers)) == (401, "step-up-required")
            body = {"name": "phone", "credential": "{}"}
            answer = await house.remote.post("/v1/passkeys", json=body, headers=headers)
            assert reason(answer) == (401, "step-up-required")
        answer = await house.remote.post("/v1/passkeys/options", headers=await house.token("claude"))
        assert reason(answer) == (401, "not-a-person") or answer.status_code == 403
        assert (await house.local.post("/v1/passkeys/options")).is_error  # the operator on the socket is no person either

    async def test_a_decision_session_that_has_ended_registers_nothing(self, house: House) -> None:
        headers = await house.stepped_up("bob")
        options = (await house.remote.post("/v1/passkeys/options", headers=headers)).json()
        house.clock.advance(301)
        body = {"name": "phone", "credential": authenticator().registration(options)}
        assert (await house.remote.post("/v1/passkeys", json=body, headers=headers)).status_code == 401

    async def test_twice_and_somebody_else_s_are_refused(self, house: House) -> None:
        phone = authenticator()
        await house.register(phone, await house.stepped_up("bob"))
        for handle in ("bob", "alice"):
            assert reason(await house.register(phone, await house.stepped_up(handle))) == (422, "config-invalid")
        found = house.directory.by_passkey(phone.id)
        assert found is not None
        assert found[0].handle == "bob"

    async def test_another_person_s_ceremony_is_not_answered(self, house: House) -> None:
        alice, bob = await house.stepped_up("alice"), await house.stepped_up("bob")
        options = (await house.remote.post("/v1/passkeys/options", headers=alice)).json()
        await house.remote.post("/v1/passkeys/options", headers=bob)
        body = {"name": "phone", "credential": authenticator().registration(options)}
        assert reason(await house.remote.post("/v1/passkeys", json=body, headers=bob)) == (403, "proof-rejected")

    async def test_one_removes_only_one_s_own_and_an_administrator_anybody_s(self, house: House) -> None:
        phone = authenticator()
        await house.register(phone, await house.stepped_up("bob"))
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
    async def test_bodies_that_are_refused(self, house: House, body: dict[str, Any]) -> None:
        answer = await house.remote.post("/v1/passkeys", json=body, headers=await house.stepped_up("bob"))
        assert reason(answer) == (422, "config-invalid")

    async def test_what_was_sent_is_in_no_error(self, house: House) -> None:
        headers = await house.stepped_up("bob")
        await house.remote.post("/v1/passkeys/options", headers=headers)
        body = {"name": "phone", "credential": json.dumps({"id": "MARK", "rawId": "MARK"})}
        answer = await house.remote.post("/v1/passkeys", json=body, headers=headers)
        assert reason(answer) == (403, "proof-rejected")
        assert "MARK" not in answer.text
