"""The directory over HTTP: who may call what, what a body can't do, and where secrets show."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI

from harness.registry import PHRASE, Callers, open_callers
from interlock.identity.entries import ADMINS
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Principal
from interlock.web import principals, problems

TENANT, OID = "0a0b0c0d-0000-4000-8000-000000000001", "0a0b0c0d-0000-4000-8000-00000000000a"


def public_key() -> str:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Callers]:
    async with open_callers(tmp_path) as callers:
        yield callers


@pytest.fixture
async def team(house: Callers) -> Callers:
    await house.directory.add("root", Kind.HUMAN, groups=[ADMINS], passphrase=PHRASE)
    await house.directory.add("alice", Kind.HUMAN, groups=["sre"])
    await house.directory.add("claude", Kind.AGENT, owner="alice")
    return house


ROUTES: list[tuple[str, str, dict[str, object] | None]] = [
    ("GET", "/v1/principals", None),
    ("POST", "/v1/principals", {"handle": "mallory"}),
    ("GET", "/v1/principals/alice", None),
    ("PATCH", "/v1/principals/alice", {"groups": [ADMINS]}),
    ("DELETE", "/v1/principals/alice", None),
    ("POST", "/v1/principals/alice/links", {"teams": f"{TENANT}/{OID}"}),
    ("DELETE", f"/v1/principals/alice/links?teams={TENANT}/{OID}", None),
    ("POST", "/v1/principals/alice/tokens", {}),
    ("DELETE", "/v1/principals/alice/tokens/tok_x", None),
    ("POST", "/v1/principals/alice/passwords", {}),
    ("DELETE", "/v1/principals/alice/passwords/pwd_x", None),
    ("DELETE", "/v1/principals/alice/passkeys/key_x", None),
    ("POST", "/v1/principals/alice/confirm", {}),
]

GIVING: list[tuple[str, str, dict[str, object] | None]] = [
    *(route for route in ROUTES if route[0] in ("POST", "PATCH")),
    ("PATCH", "/v1/principals/alice", {"disabled": False}),
    ("PATCH", "/v1/principals/claude", {"owner": "root"}),
    ("PATCH", "/v1/principals/alice", {"passphrase": PHRASE}),
    ("PATCH", "/v1/principals/alice", {"passphrase": PHRASE, "disabled": True}),
    ("PATCH", "/v1/principals/alice", {"add_ssh_key": "ssh-ed25519 AAAA", "remove_ssh_key": "SHA256:x"}),
    ("POST", "/v1/principals/root/tokens", {}),
    ("DELETE", "/v1/principals/alice/links?issuer=https://okta.example&subject=00u1", None),
    ("DELETE", "/v1/principals/alice/links?account=root", None),
]
TAKING: list[tuple[str, str, dict[str, object] | None]] = [
    *(route for route in ROUTES if route[0] in ("GET", "DELETE")),
    ("PATCH", "/v1/principals/alice", {"disabled": True}),
    ("PATCH", "/v1/principals/alice", {"remove_ssh_key": "SHA256:x"}),
]


class TestAccess:
    def test_the_list_of_routes_is_whole(self, house: Callers) -> None:
        never: Any = lambda _: lambda _request: None  # noqa: E731  # never called
        app = FastAPI()
        app.include_router(principals.router(house.directory, never, never))
        found = {(m.upper(), path) for path, item in app.openapi()["paths"].items() for m in item}
        told = {
            (method, re.sub("tok_x|pwd_x|key_x", "{ident}", path.split("?")[0].replace("/alice", "/{handle}")))
            for method, path, _ in ROUTES
        }
        assert found == told | {("POST", "/v1/password")}

    @pytest.mark.parametrize(("method", "path", "body"), ROUTES)
    async def test_only_administrators(self, team: Callers, method: str, path: str, body: dict[str, object] | None) -> None:
        before = team.directory.entries()
        told = [
            (await team.remote.request(method, path, json=body)).status_code,
            (await team.remote.request(method, path, json=body, headers={"Authorization": "Bearer ilk_no"})).status_code,
        ]
        assert told == [401, 401]
        assert team.directory.entries() == before
        for handle in ("alice", "claude"):
            headers = await team.token(handle)
            before = team.directory.entries()
            answer = await team.remote.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (403, "missing-scope")
            assert team.directory.entries() == before

    async def test_an_administrator_and_the_socket_may(self, team: Callers) -> None:
        for client, headers, handle in ((team.remote, await team.stepped_up("root"), "one"), (team.local, {}, "two")):
            answer = await client.post("/v1/principals", json={"handle": handle}, headers=headers)
            assert answer.status_code == 201
        recorded = [e.fields["by"] for e in team.journal.of("identity.change")[-2:]]
        root = team.directory.by_handle("root")
        assert root is not None
        assert recorded == [str(root.identity), "unix:operator"]

    @pytest.mark.parametrize(("method", "path", "body"), GIVING)
    async def test_a_login_token_gives_nobody_anything(
        self, team: Callers, method: str, path: str, body: dict[str, object] | None
    ) -> None:
        """Attack: whoever finds an administrator's token on a laptop makes a reviewer, or has one confirmed."""
        await team.directory.link("alice", Identity("https://okta.example", "00u1"))
        headers = await team.token("root")
        before = team.directory.entries()
        for client in (team.remote, team.local):
            answer = await client.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (401, "step-up-required")
            assert "/v1/step-up" in answer.json()["detail"]
        assert team.directory.entries() == before
        for client, stepped in ((team.remote, await team.stepped_up("root")), (team.local, {})):
            answer = await client.request(method, path, json=body, headers=stepped)
            assert answer.status_code not in (401, 405, 500), answer.text

    @pytest.mark.parametrize(("method", "path", "body"), TAKING)
    async def test_stopping_waits_for_no_passphrase(
        self, team: Callers, method: str, path: str, body: dict[str, object] | None
    ) -> None:
        answer = await team.remote.request(method, path, json=body, headers=await team.token("root"))
        assert answer.status_code in (200, 204, 404), answer.text


class TestRegistering:
    async def test_a_life(self, house: Callers) -> None:
        post, key = house.local.post, public_key()
        body = {"handle": "alice", "groups": ["sre"], "passphrase": PHRASE, "teams": [f"{TENANT}/{OID}"], "ssh_keys": [key]}
        alice = (await post("/v1/principals", json=body)).json()
        assert (alice["kind"], alice["reviewer"], alice["teams"]) == ("human", True, [f"{TENANT}/{OID}"])
        agent = (await post("/v1/principals", json={"handle": "claude", "kind": "agent", "owner": "alice"})).json()
        assert agent["owner"] == "alice"
        linked = await post("/v1/principals/alice/links", json={"issuer": "https://okta.example", "subject": "00u1"})
        assert linked.json()["linked"] == ["https://okta.example:00u1"]
        changed = await house.local.patch(
            "/v1/principals/alice",
            json={"groups": [], "remove_ssh_key": alice["ssh_keys"][0]["fingerprint"], "add_ssh_key": public_key()},
        )
        assert changed.json()["groups"] == []
        assert changed.json()["ssh_keys"] != alice["ssh_keys"]
        assert (await house.local.patch("/v1/principals/alice", json={"disabled": True})).json()["disabled"]
        rows = (await house.local.get("/v1/principals")).json()["principals"]
        assert [(r["handle"], r["disabled"]) for r in rows] == [("alice", True), ("claude", True)]
        assert (await house.local.delete("/v1/principals/alice")).status_code == 204
        assert (await house.local.get("/v1/principals/alice")).status_code == 404

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"handle": "Alice"},
            {"handle": "a", "kind": "agent"},
            {"handle": "a", "kind": "robot"},
            {"handle": "a", "admin": True},
            {"handle": "a", "passphrase": "short"},
            {"handle": "a", "teams": ["contoso/alice"]},
            {"handle": "a", "teams": ["alice"]},
            {"handle": "a", "ssh_keys": ["ssh-dss AAAA"]},
            {"handle": "a", "groups": ["a\nb"]},
            {"handle": ["a"]},
        ],
    )
    async def test_bodies_that_are_refused(self, house: Callers, body: dict[str, object]) -> None:
        answer = await house.local.post("/v1/principals", json=body)
        assert (answer.status_code, answer.json()["reason"]) == (422, "config-invalid")
        assert house.directory.entries() == ()

    @pytest.mark.parametrize("body", [{}, {"teams": "x/y", "account": "alice"}, {"issuer": "https://x"}, {"subject": "x"}])
    async def test_a_link_names_exactly_one_account(self, team: Callers, body: dict[str, str]) -> None:
        answer = await team.local.post("/v1/principals/alice/links", json=body)
        assert answer.status_code == 422

    async def test_accounts_of_one_person(self, team: Callers) -> None:
        answer = await team.local.post("/v1/principals/alice/links", json={"account": "root"})
        root = team.directory.by_handle("root")
        assert root is not None
        assert answer.json()["linked"] == [str(root.identity)]
        answer = await team.local.delete("/v1/principals/alice/links", params={"account": "root"})
        assert answer.json()["linked"] == []

    async def test_a_passphrase_is_in_no_answer(self, house: Callers) -> None:
        """Also not in the answer to a body that was wrong somewhere else."""
        for body in (
            {"handle": "a", "passphrase": PHRASE},
            {"handle": "b", "passphrase": PHRASE, "x": 1},
            {"passphrase": PHRASE * 99},
        ):
            assert PHRASE not in (await house.local.post("/v1/principals", json=body)).text
        assert PHRASE not in (await house.local.get("/v1/principals")).text + house.journal.everything()


class TestSecrets:
    async def test_a_token_is_shown_once(self, team: Callers) -> None:
        made = (await team.local.post("/v1/principals/claude/tokens", json={"lifetime": 60})).json()
        assert (await team.remote.get("/v1/principals", headers={"Authorization": f"Bearer {made['token']}"})).status_code == 403
        shown = await team.local.get("/v1/principals/claude")
        assert [t["id"] for t in shown.json()["tokens"]] == [made["id"]]
        assert made["token"] not in shown.text + team.journal.everything()
        assert (await team.local.delete(f"/v1/principals/claude/tokens/{made['id']}")).status_code == 204
        assert (await team.local.delete(f"/v1/principals/claude/tokens/{made['id']}")).status_code == 404
        again = await team.remote.post("/v1/password", headers={"Authorization": f"Bearer {made['token']}"})
        assert again.status_code == 401

    async def test_verifiers_are_not_shown(self, team: Callers) -> None:
        made = (await team.local.post("/v1/principals/claude/passwords")).json()
        text = (await team.local.get("/v1/principals/claude")).text
        entry = team.directory.by_handle("claude")
        assert entry is not None
        (row,) = entry.passwords
        for kept in (row.stored_key, row.server_key, row.salt):
            assert base64.b64encode(kept).decode() not in text
            assert kept.hex() not in text
        assert made["password"] not in text
        assert (await team.local.delete(f"/v1/principals/claude/passwords/{made['id']}")).status_code == 204

    @pytest.mark.parametrize("lifetime", [0, -1, 10**9, "1h", 9 * 3600])
    async def test_lifetimes(self, team: Callers, lifetime: object) -> None:
        answer = await team.local.post("/v1/principals/claude/passwords", json={"lifetime": lifetime})
        assert answer.status_code == 422


class TestOwnPassword:
    async def test_for_whoever_calls_and_no_longer_than_the_credential(self, team: Callers) -> None:
        token = await team.directory.issue_token("claude", timedelta(minutes=3))
        headers = {"Authorization": f"Bearer {token.secret.reveal()}"}
        made = (await team.remote.post("/v1/password", headers=headers)).json()
        assert made["handle"] == "claude"
        entry = team.directory.by_handle("claude")
        assert entry is not None
        assert entry.passwords[0].expires == token.expires

    async def test_the_socket_is_nobody(self, team: Callers) -> None:
        answer = await team.local.post("/v1/password")
        assert (answer.status_code, answer.json()["reason"]) == (403, "unknown-principal")

    async def test_not_for_an_agent_that_acts_for_somebody(self, team: Callers) -> None:
        """The password would name the agent alone, and the person would be in no record and no exclusion."""
        entry = team.directory.by_handle("claude")
        assert entry is not None
        caller = replace(
            entry.principal(Credential(CredentialKind.JWT, "j")), acting_for=(Identity("https://okta.example", "00u1"),)
        )

        def require(_: str) -> Callable[[object], Awaitable[Principal]]:
            async def dependency() -> Principal:
                return caller

            return dependency  # type: ignore[return-value]  # takes no request on purpose

        app = FastAPI()
        problems.install(app)
        app.include_router(principals.router(team.directory, require, require))  # type: ignore[arg-type]  # as above
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://interlock") as client:
            answer = await client.post("/v1/password")
        assert (answer.status_code, answer.json()["reason"]) == (403, "missing-scope")
        assert (team.directory.by_handle("claude") or entry).passwords == ()
