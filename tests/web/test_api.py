"""The REST API through real HTTP: who may call what, and what a decision needs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.desk import PASSPHRASE, Desk, open_desk
from harness.requests import draft
from harness.trust import TRUST
from harness.webnode import open_web
from interlock.approvals.model import ApprovalRequest, State


@dataclass
class House:
    desk: Desk
    url: str
    socket: str

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=60, verify=TRUST)

    async def ask(self, **changes: Any) -> ApprovalRequest:
        return (await self.desk.inbox.submit(draft(principal=self.desk.agent(), **changes))).request

    async def token(self, handle: str) -> str:
        return (await self.desk.directory.issue_token(handle)).secret.reveal()

    async def stepped_up(self, handle: str) -> str:
        async with self.client() as http:
            answer = await http.post("/v1/step-up", json={"handle": handle, "passphrase": PASSPHRASE})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(tmp_path))
        url = await stack.enter_async_context(open_web(desk, local=False))
        socket = await stack.enter_async_context(open_web(desk, local=True))
        yield House(desk, url, socket)


async def vote(http: httpx.AsyncClient, request: ApprovalRequest, verdict: str = "approve", **changes: Any) -> httpx.Response:
    body = {"verdict": verdict, "digest": request.digest, "scope": "once", **changes}
    return await http.post(f"/v1/approvals/{request.id}/decision", json=body)


async def test_a_reviewer_with_a_fresh_step_up_decides(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.stepped_up("bob")) as http:
        answer = await vote(http, request, reason="looked at it")
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["state"] == "approved"
    (counted,) = shown["votes"]
    assert (counted["reviewer"], counted["channel"], counted["proof"]) == ("bob", "api", "none")


async def test_the_shape_of_a_request_is_the_contract(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.token("bob")) as http:
        shown = (await http.get(f"/v1/approvals/{request.id}")).json()
    promised = {
        "id", "state", "digest", "match", "principal", "acting_for", "owner", "target", "text", "effects", "rule", "reason",
        "expires", "quorum", "votes",
    }  # fmt: skip
    assert promised <= shown.keys()
    assert shown["principal"] == "claude" and shown["owner"] == "alice"


# -- a login credential never decides; agents never decide ---------------------------------------------------------------


async def test_a_login_token_of_a_reviewer_does_not_decide(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.token("bob")) as http:
        answer = await vote(http, request)
    assert (answer.status_code, answer.json()["reason"]) == (401, "step-up-required")
    assert (await house.desk.inbox.get(request.id)).state is State.PENDING


async def test_an_agents_token_does_not_decide(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.token("claude")) as http:
        answer = await vote(http, request)
    assert (answer.status_code, answer.json()["reason"]) == (403, "not-a-person")


async def test_the_unix_socket_alone_does_not_decide(house: House) -> None:
    """Whoever owns data_dir administers and reads; deciding still takes a person with a passphrase."""
    request = await house.ask()
    async with httpx.AsyncClient(base_url=house.socket, trust_env=False, timeout=60, verify=TRUST) as http:
        assert (await http.get("/v1/approvals")).status_code == 200
        answer = await vote(http, request)
    assert (answer.status_code, answer.json()["reason"]) == (403, "not-a-person")
    assert (await house.desk.inbox.get(request.id)).state is State.PENDING


async def test_the_owner_is_refused_with_a_step_up_too(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.stepped_up("alice")) as http:
        answer = await vote(http, request)
    assert (answer.status_code, answer.json()["reason"]) == (403, "self-approval")


async def test_an_administrator_outside_the_groups_is_refused(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.stepped_up("carol")) as http:
        answer = await vote(http, request)
    assert (answer.status_code, answer.json()["reason"]) == (403, "not-a-reviewer")


async def test_another_digest_is_refused(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.stepped_up("bob")) as http:
        answer = await vote(http, request, digest="sha256:" + "0" * 64)
    assert (answer.status_code, answer.json()["reason"]) == (409, "digest-mismatch")


async def test_no_get_decides(house: House) -> None:
    request = await house.ask()
    async with house.client(await house.stepped_up("bob")) as http:
        answer = await http.get(f"/v1/approvals/{request.id}/decision", params={"verdict": "approve", "digest": request.digest})
    assert answer.status_code in (404, 405)
    assert (await house.desk.inbox.get(request.id)).state is State.PENDING


# -- the permission matrix: every route, every kind of caller ---------------------------------------------------------------

OPEN = {
    ("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/v1/step-up"), ("GET", "/openapi.json"), ("POST", "/v1/token"),
    ("GET", "/v1/login"), ("POST", "/v1/login/device"), ("POST", "/v1/login/device/poll"), ("POST", "/v1/login/browser"),
    ("POST", "/v1/login/browser/finish"), ("POST", "/v1/logout/backchannel"),
}  # fmt: skip
"""Whoever comes there proves with what they send who they are."""

CONSOLE = "/console"


async def test_every_route_without_a_credential_says_no(house: House) -> None:
    async with house.client() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert len(paths) > 8
        for path, methods in paths.items():
            for method in methods:
                if (method.upper(), path) in OPEN:
                    continue
                concrete = path.replace("{request_id}", "req_x").replace("{session_id}", "s").replace("{handle}", "bob")
                answer = await http.request(method.upper(), concrete, json={})
                assert answer.status_code == 401, f"{method} {path} → {answer.status_code}"


async def test_an_agent_sees_its_own_requests_and_no_others(house: House) -> None:
    mine = await house.ask()
    other = replace(house.desk.agent(), identity=house.desk.entry("bob").identity, handle="other", owner=None)
    theirs = (
        await house.desk.inbox.submit(draft(principal=other, command=replace(draft().command, text=b"rm -rf /srv/x")))
    ).request
    async with house.client(await house.token("claude")) as http:
        assert [r["id"] for r in (await http.get("/v1/approvals")).json()["approvals"]] == [mine.id]
        assert (await http.get(f"/v1/approvals/{theirs.id}")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/principals"])
async def test_sessions_and_people_need_their_own_scope(house: House, path: str) -> None:
    for handle, status in (("claude", 403), ("bob", 403), ("carol", 200)):
        async with house.client(await house.token(handle)) as http:
            assert (await http.get(path)).status_code == status, handle


async def test_errors_are_problem_documents_and_never_repeat_the_passphrase(house: House) -> None:
    async with house.client() as http:
        wrong = await http.post("/v1/step-up", json={"handle": "bob", "passphrase": "s3cret-guess"})
        malformed = await http.post("/v1/step-up", json={"handle": "bob", "passphrase": {"s3cret-guess": 1}})
    assert wrong.status_code == 401 and wrong.headers["content-type"] == "application/problem+json"
    assert malformed.status_code == 422
    for answer in (wrong, malformed):
        assert "s3cret-guess" not in answer.text
        assert {"title", "status", "detail", "reason"} <= answer.json().keys()


async def test_an_oversized_body_is_refused(house: House) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    async with house.client() as http:
        declared = await http.post("/v1/step-up", content=b"x" * (2 * 1024 * 1024))
        streamed = await http.post("/v1/step-up", content=endless())
    assert declared.status_code == streamed.status_code == 413


async def test_events_are_streamed_as_they_happen(house: House) -> None:
    token = await house.token("bob")
    async with house.client(token) as http, http.stream("GET", "/v1/events") as events:
        lines = events.aiter_lines()
        assert (await anext(lines)).startswith(":")
        request = await house.ask()
        async for line in lines:
            if line.startswith("data: "):
                assert request.id in line
                break
