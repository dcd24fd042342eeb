"""SCIM as Okta and Entra send it: what comes of it here, what ends with it, and all that is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from harness.desk import Desk, open_desk
from harness.requests import draft
from harness.trust import TRUST
from harness.webnode import gate_over, open_web
from interlock.approvals.model import State
from interlock.clock import system_entropy
from interlock.config import Secret
from interlock.gate import Gate, Session
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Principal
from interlock.identity.provisioning import Provisioning
from interlock.identity.scim import ERROR, LIST, PATCH
from interlock.policy.model import Access, SessionFacts, Target
from interlock.web.app import ScimParts

ISSUER = "https://acme.okta.com"
TOKEN = "scim-secret-of-the-test"

OKTA_USER = {
    "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "dana@acme.example", "externalId": "00u-dana",
    "name": {"givenName": "Dana", "familyName": "Doe"}, "displayName": "Dana Doe", "locale": "en-US", "groups": [],
    "emails": [{"primary": True, "value": "dana@acme.example", "type": "work"}], "password": "1mz050nq", "active": True,
}  # fmt: skip
"""As Okta's "Create User" request, with the attributes that are not used here."""

ENTRA_USER = {
    "schemas": [
        "urn:ietf:params:scim:schemas:core:2.0:User", "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
    ],
    "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef", "userName": "Test_User_ab6490ee", "active": True,
    "displayName": "lennay", "name": {"formatted": "Adrienne", "familyName": "x", "givenName": "y"},
    "meta": {"resourceType": "User"}, "roles": [],
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "ops"},
}  # fmt: skip


@dataclass
class Tenant:
    desk: Desk
    gate: Gate
    http: httpx.AsyncClient
    provisioning: Provisioning

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        answer = await self.http.post(f"/scim/v2/{path}", json=body, headers={"content-type": "application/scim+json"})
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"].startswith("application/scim+json")
        return dict(answer.json())

    async def patch(self, path: str, *operations: dict[str, Any]) -> httpx.Response:
        body = {"schemas": [PATCH], "Operations": list(operations)}
        return await self.http.patch(f"/scim/v2/{path}", json=body)

    async def live(self, principal: Principal) -> Session:
        facts = SessionFacts(f"01LIVE{len(self.gate.sessions()):020}", "192.0.2.7", self.desk.clock.now())
        found = await self.gate.open(principal, Target("orders", "postgres", {"env": "prod"}, role="app_ro", database="o"), facts)
        assert isinstance(found, Session), found
        return found


class Open:
    """A policy that opens everything: who may is not what is tested."""

    digest, observed = "sha256:" + "0" * 64, ()

    @property
    def current(self) -> Open:
        return self

    def may_open(self, principal: Principal, target: Target) -> Any:
        return Access(True, "test", "test")


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[Tenant]:
    async with open_desk(tmp_path) as desk:
        made = Provisioning(
            desk.directory, desk.store.scim_groups, issuer=ISSUER, subject="externalId", clock=desk.clock, entropy=system_entropy
        )
        gate = gate_over(desk, policies=Open())  # type: ignore[arg-type]  # as much of one as a gate asks to open
        desk.directory.subscribe(lambda change: gate.revoke(change.stopped, change.credentials))
        async with open_web(desk, local=False, gate=gate, scim=ScimParts(made, Secret(TOKEN))) as url:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60, verify=TRUST) as http:
                yield Tenant(desk, gate, http, made)


async def test_okta_s_life_of_a_user(tenant: Tenant) -> None:
    """Okta asks for the user by name, creates, reads, replaces, and deactivates with PATCH."""
    http = tenant.http
    asked = {"filter": 'userName eq "dana@acme.example"', "startIndex": "1", "count": "100"}
    empty = (await http.get("/scim/v2/Users", params=asked)).json()
    assert (empty["schemas"], empty["totalResults"], empty["Resources"]) == ([LIST], 0, [])
    made = await tenant.post("Users", OKTA_USER)
    entry = tenant.desk.entry("dana")
    assert (entry.kind, entry.disabled, entry.groups) == (Kind.HUMAN, False, frozenset())
    assert Identity(ISSUER, "00u-dana") in entry.linked
    assert tenant.desk.directory.get(Identity(ISSUER, "00u-dana")) == entry
    found = (await http.get("/scim/v2/Users", params={**asked, "filter": 'USERNAME Eq "DANA@acme.example"'})).json()
    assert [one["id"] for one in found["Resources"]] == [made["id"]]
    renamed = {**OKTA_USER, "userName": "dana.roe@acme.example", "displayName": "Dana Roe"}
    answer = await http.put(f"/scim/v2/Users/{made['id']}", json=renamed)
    assert (answer.status_code, answer.json()["displayName"]) == (200, "Dana Roe")
    answer = await tenant.patch(f"Users/{made['id']}", {"op": "replace", "value": {"active": False}})
    assert answer.json()["active"] is False
    assert tenant.desk.entry("dana").disabled
    assert (await tenant.patch(f"Users/{made['id']}", {"op": "replace", "value": {"active": True}})).status_code == 200
    assert not tenant.desk.entry("dana").disabled
    assert (await http.delete(f"/scim/v2/Users/{made['id']}")).status_code == 204
    assert tenant.desk.entry("dana").disabled  # records name them, so they stay
    assert (await http.get(f"/scim/v2/Users/{made['id']}")).status_code == 404
    assert "1mz050nq" not in tenant.desk.journal_text()


async def test_entra_s_words(tenant: Tenant) -> None:
    """Entra capitalises operations, sends booleans as words, and adds and removes members by value."""
    user = await tenant.post("Users", ENTRA_USER)
    where = f"Users/{user['id']}"
    answer = await tenant.patch(where, {"op": "Replace", "path": "active", "value": "False"})
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    many = [
        {"op": "Add", "path": "name.familyName", "value": "Updated"}, {"op": "Replace", "path": "displayName", "value": "newly"},
        {"op": "Replace", "path": "active", "value": "True"},
        {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "x@y.example"},
    ]  # fmt: skip
    answer = await tenant.patch(where, *many)
    assert (answer.json()["displayName"], answer.json()["active"]) == ("newly", True)
    group = await tenant.post("Groups", {"schemas": [], "externalId": "8aa1", "displayName": "sre", "members": []})
    at = f"Groups/{group['id']}"
    await tenant.patch(at, {"op": "Add", "path": "members", "value": [{"$ref": None, "value": user["id"]}]})
    assert tenant.desk.entry("test_user_ab6490ee").groups == {"sre"}
    asked = {"filter": 'displayName eq "sre"', "excludedAttributes": "members"}
    found = (await tenant.http.get("/scim/v2/Groups", params=asked)).json()
    assert found["totalResults"] == 1
    answer = await tenant.patch(at, {"op": "Replace", "path": "displayName", "value": "site-reliability"})
    assert answer.status_code == 200
    assert tenant.provisioning.user(user["id"])[0].groups == {"site-reliability"}
    await tenant.patch(at, {"op": "Remove", "path": "members", "value": [{"value": user["id"]}]})
    assert tenant.provisioning.user(user["id"])[0].groups == frozenset()
    await tenant.patch(at, {"op": "replace", "path": "members", "value": [{"value": user["id"]}]})
    await tenant.patch(at, {"op": "remove", "path": f'members[value eq "{user["id"]}"]'})
    assert tenant.provisioning.user(user["id"])[0].groups == frozenset()
    assert (await tenant.http.delete(f"/scim/v2/{at}")).status_code == 204


async def test_whoever_is_deactivated_loses_sessions_and_requests_before_the_answer(tenant: Tenant) -> None:
    """And so do the agents that they own. What others have goes on."""
    made = await tenant.post("Users", OKTA_USER)
    await tenant.desk.directory.add("danas-bot", Kind.AGENT, owner="dana")
    own = tenant.desk.entry("dana").principal(Credential(CredentialKind.JWT, "j1"))
    issued = await tenant.desk.directory.issue_token("danas-bot")
    bot = tenant.desk.entry("danas-bot").principal(Credential(CredentialKind.TOKEN, issued.id))
    sessions = [await tenant.live(one) for one in (own, bot, tenant.desk.agent())]
    request = (await tenant.desk.inbox.submit(draft(principal=bot))).request
    stopped: list[frozenset[Identity]] = []
    tenant.desk.directory.subscribe(lambda change: stopped.append(change.stopped))
    await tenant.patch(f"Users/{made['id']}", {"op": "replace", "path": "active", "value": False})
    assert [one.stopped() is not None for one in sessions] == [True, True, False]
    assert {own.identity, bot.identity} <= stopped[-1]  # what the daemon withdraws requests by
    await tenant.desk.inbox.withdraw(stopped[-1], "disabled")
    assert (await tenant.desk.inbox.get(request.id)).state is State.CANCELLED


class Watched(asyncio.Lock):
    """A lock that says when somebody has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = asyncio.Semaphore(0)

    async def acquire(self) -> Literal[True]:
        self.arrived.release()
        return await super().acquire()


async def at_once(part: Any, *requests: Coroutine[Any, Any, httpx.Response]) -> None:
    """Let all of them come in while something else is being changed there, and then go on one after the other."""
    part._lock = lock = Watched()
    async with lock:
        await lock.arrived.acquire()  # our own
        sent = []
        for request in requests:
            sent.append(asyncio.ensure_future(request))
            await asyncio.wait_for(lock.arrived.acquire(), 60)
    for answer in await asyncio.gather(*sent):
        assert answer.status_code == 200, answer.text


async def test_of_two_changes_at_once_none_brings_back_what_the_other_took(tenant: Tenant) -> None:
    """Providers push in parallel: a new name, read before the deactivation was, let a leaver in again."""
    dana, erik = [
        (await tenant.post("Users", {**OKTA_USER, "userName": f"{name}@acme.example", "externalId": name}))["id"]
        for name in ("dana", "erik")
    ]
    group = (await tenant.post("Groups", {"displayName": "oncall", "members": [{"value": dana}]}))["id"]
    await at_once(
        tenant.provisioning,
        tenant.patch(f"Groups/{group}", {"op": "remove", "path": f'members[value eq "{dana}"]'}),
        tenant.patch(f"Groups/{group}", {"op": "add", "path": "members", "value": [{"value": erik}]}),
    )  # fmt: skip
    assert [entry.handle for entry in tenant.provisioning.members(group)] == ["erik"]
    await at_once(
        tenant.desk.directory,
        tenant.patch(f"Users/{dana}", {"op": "replace", "path": "active", "value": False}),
        tenant.patch(f"Users/{dana}", {"op": "replace", "path": "displayName", "value": "Dana Roe"}),
    )  # fmt: skip
    assert tenant.desk.entry("dana").disabled


async def test_a_whole_user_that_does_not_say_active_lets_nobody_in(tenant: Tenant) -> None:
    dana = (await tenant.post("Users", OKTA_USER))["id"]
    await tenant.patch(f"Users/{dana}", {"op": "replace", "path": "active", "value": False})
    whole = {name: value for name, value in OKTA_USER.items() if name != "active"}
    assert (await tenant.http.put(f"/scim/v2/Users/{dana}", json=whole)).json()["active"] is False


async def test_who_was_here_before_keeps_entry_and_history(tenant: Tenant) -> None:
    before = tenant.desk.entry("bob")
    await tenant.desk.directory.link("bob", Identity(ISSUER, "00u-bob"))
    made = await tenant.post("Users", {**OKTA_USER, "userName": "robert@acme.example", "externalId": "00u-bob"})
    after = tenant.provisioning.user(made["id"])[0]
    assert (after.identity, after.handle, after.groups) == (before.identity, "bob", before.groups)
    again = await tenant.http.post("/scim/v2/Users", json={**OKTA_USER, "userName": "other", "externalId": "00u-bob"})
    assert (again.status_code, again.json()["scimType"]) == (409, "uniqueness")


async def test_an_administrator_s_stop_is_not_the_provider_s_to_lift(tenant: Tenant) -> None:
    made = await tenant.post("Users", OKTA_USER)
    await tenant.desk.directory.set_disabled("dana", True)
    for active in (False, True):
        await tenant.patch(f"Users/{made['id']}", {"op": "replace", "path": "active", "value": active})
        assert tenant.desk.entry("dana").disabled
    await tenant.desk.directory.set_disabled("dana", False)
    assert not tenant.desk.entry("dana").disabled


async def test_a_group_is_a_gain_that_another_administrator_confirms(tenant: Tenant) -> None:
    made = await tenant.post("Users", OKTA_USER)
    group = await tenant.post("Groups", {"displayName": "sre", "members": [{"value": made["id"]}]})
    entry = tenant.desk.entry("dana")
    assert (entry.groups, entry.confirmed, entry.changed_by) == ({"sre"}, False, f"scim:{ISSUER}")
    await tenant.http.put(f"/scim/v2/Groups/{group['id']}", json={"displayName": "sre", "members": []})
    assert tenant.desk.entry("dana").groups == frozenset()


async def test_users_and_groups_survive_a_restart(tenant: Tenant) -> None:
    made = await tenant.post("Users", OKTA_USER)
    await tenant.post("Groups", {"displayName": "sre", "members": [{"value": made["id"]}]})
    await tenant.patch(f"Users/{made['id']}", {"op": "replace", "path": "active", "value": False})
    await tenant.desk.directory.load()
    await tenant.provisioning.load()
    entry, row = tenant.provisioning.user(made["id"])
    assert (entry.disabled, row.active, entry.groups) == (True, False, {"sre"})
    assert [group.display for group in tenant.provisioning.groups()] == ["sre"]


async def test_pages(tenant: Tenant) -> None:
    for number in range(5):
        await tenant.post("Users", {**OKTA_USER, "userName": f"u{number}", "externalId": f"x{number}"})

    async def page(**params: str) -> tuple[int, list[str]]:
        found = (await tenant.http.get("/scim/v2/Users", params=params)).json()
        return found["totalResults"], [one["userName"] for one in found["Resources"]]

    assert await page(startIndex="2", count="2") == (5, ["u1", "u2"])
    assert await page(startIndex="-3", count="1") == (5, ["u0"])
    assert await page(count="0") == (5, [])
    assert await page(startIndex="99") == (5, [])
    assert (await tenant.http.get("/scim/v2/Users", params={"count": "x"})).status_code == 400


async def test_nobody_else_may(tenant: Tenant) -> None:
    secrets = ["", "x", TOKEN + "x", TOKEN.upper(), (await tenant.desk.directory.issue_token("carol")).secret.reveal()]
    for secret in secrets:
        for path in ("Users", "Groups", "Users/x", "ServiceProviderConfig"):
            headers = {"Authorization": f"Bearer {secret}" if secret else ""}
            answer = await tenant.http.get(f"/scim/v2/{path}", headers=headers)
            assert (answer.status_code, answer.json()["schemas"]) in ((401, [ERROR]), (429, [ERROR])), path
    answer = await tenant.http.post("/scim/v2/Users", json=OKTA_USER, headers={"Authorization": f"Basic {TOKEN}"})
    assert answer.status_code in (401, 429)
    assert tenant.desk.directory.by_handle("dana") is None
    assert TOKEN not in tenant.desk.journal_text()


async def test_what_can_not_be_meant_changes_nothing(tenant: Tenant) -> None:
    user = await tenant.post("Users", OKTA_USER)
    group = await tenant.post("Groups", {"displayName": "sre", "members": []})
    before = (tenant.desk.directory.entries(), tenant.provisioning.groups())
    u, g = f"/scim/v2/Users/{user['id']}", f"/scim/v2/Groups/{group['id']}"

    def ops(*operations: Any) -> dict[str, Any]:
        return {"schemas": [PATCH], "Operations": list(operations)}

    cases: list[tuple[str, str, Any, int]] = [
        ("POST", "/scim/v2/Users", {}, 400), ("POST", "/scim/v2/Users", [], 400),
        ("POST", "/scim/v2/Users", {**OKTA_USER, "externalId": "other"}, 409),
        ("POST", "/scim/v2/Users", {**OKTA_USER, "userName": "new", "externalId": ""}, 400),
        ("POST", "/scim/v2/Users", {**OKTA_USER, "userName": "new", "externalId": "a b"}, 400),
        ("POST", "/scim/v2/Users", {**OKTA_USER, "userName": "x" * 256}, 400),
        ("POST", "/scim/v2/Users", {**OKTA_USER, "userName": "a\nb"}, 400),
        ("POST", "/scim/v2/Users", {**OKTA_USER, "userName": 7}, 400),
        ("POST", "/scim/v2/Users", {**OKTA_USER, "active": "maybe"}, 400),
        ("POST", "/scim/v2/Users", {"userName": "a", "USERNAME": "b", "externalId": "e"}, 400),
        ("PUT", u, {**OKTA_USER, "externalId": "00u-mallory"}, 400),
        ("PUT", "/scim/v2/Users/usr_none", OKTA_USER, 404),
        ("PATCH", u, {"Operations": [{"op": "replace", "value": {"active": False}}]}, 400),
        ("PATCH", u, ops(), 400), ("PATCH", u, ops({"op": "move", "path": "active"}), 400),
        ("PATCH", u, ops({"op": "remove"}), 400), ("PATCH", u, ops({"op": "remove", "path": "userName"}), 400),
        ("PATCH", u, ops({"op": "remove", "path": "active"}), 400), ("PATCH", u, ops({"op": "replace", "value": []}), 400),
        ("PATCH", u, ops({"op": "replace", "value": {"active": False}}, {"op": "replace", "value": {"active": 2}}), 400),
        ("PATCH", u, ops(*[{"op": "replace", "path": "displayName", "value": "x"}] * 501), 400),
        ("PATCH", u, ops({"op": "replace", "path": "externalId", "value": "00u-mallory"}), 400),
        ("PATCH", g, ops({"op": "add", "path": "members", "value": [{"value": "usr_none"}]}), 404),
        ("PATCH", g, ops({"op": "add", "path": "members", "value": [{"display": "x"}]}), 400),
        ("PATCH", g, ops({"op": "add", "path": "owners", "value": []}), 400),
        ("PATCH", g, ops({"op": "replace", "path": "displayName", "value": "<script>"}), 400),
        ("PATCH", g, ops({"op": "add", "path": 'members[value eq "x"]', "value": 1}), 400),
        ("POST", "/scim/v2/Groups", {"displayName": "sre"}, 409), ("POST", "/scim/v2/Groups", {"displayName": ""}, 400),
        ("DELETE", "/scim/v2/Groups/grp_none", None, 404), ("DELETE", "/scim/v2/Users/usr_none", None, 404),
    ]  # fmt: skip
    for method, path, body, status in cases:
        answer = await tenant.http.request(method, path, json=body)
        assert (answer.status_code, answer.json()["schemas"]) == (status, [ERROR]), (method, path, body, answer.text)
    for text in (
        'userName eq "a" or userName eq "b"', 'userName co "a"', "userName eq a", "userName pr", 'password eq "x"',
        'userName eq "a', "x" * 5000, '(userName eq "a")',
    ):  # fmt: skip
        answer = await tenant.http.get("/scim/v2/Users", params={"filter": text})
        assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidFilter"), text
    for content in (b"", b"{", b'{"userName": "a", "userName": "b"}', b"\xff", b"[" * 50_000, b'{"a": NaN}'):
        answer = await tenant.http.post("/scim/v2/Users", content=content, headers={"content-type": "application/scim+json"})
        assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidSyntax"), content[:20]
    answer = await tenant.http.post("/scim/v2/Users", content=json.dumps(OKTA_USER), headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    large = {"displayName": "x", "padding": "x" * 2_000_000}
    assert (await tenant.http.post("/scim/v2/Groups", json=large)).status_code == 413
    assert (tenant.desk.directory.entries(), tenant.provisioning.groups()) == before
