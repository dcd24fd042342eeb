"""The permission matrix of the API: every route, for every kind of caller. A route that is not in the table fails the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.desk import PASSPHRASE
from harness.house import House, open_house
from interlock.approvals.model import State
from interlock.identity.principal import Kind

OWN, READ, DECIDE, SESSIONS, ADMIN, OPEN = "own", "read", "decide", "sessions", "admin", "open"
LOOK = "look"
"""A decision session of an administrator or auditor."""
GIVE = "give"
"""An administrator in a decision session, or the local operator, who has none."""

GIVE = "give"
"""An administrator's decision session, or the local operator."""

DIGEST = "sha256:" + "0" * 64
DECISION = {"verdict": "approve", "digest": DIGEST}
ROUTES: dict[tuple[str, str], tuple[str, Any]] = {
    ("GET", "/healthz"): (OPEN, None),
    ("GET", "/readyz"): (OPEN, None),
    ("POST", "/v1/step-up"): (OPEN, {"handle": "bob", "passphrase": PASSPHRASE}),
    ("POST", "/v1/token"): (OPEN, None),
    ("GET", "/v1/whoami"): (OWN, None),
    ("GET", "/v1/targets"): (OWN, None),
    ("GET", "/v1/login"): (OPEN, None),
    ("POST", "/v1/login/device"): (OPEN, None),
    ("POST", "/v1/login/device/poll"): (OPEN, {"flow": "x"}),
    ("POST", "/v1/login/browser"): (OPEN, {"port": 4711, "challenge": "x"}),
    ("POST", "/v1/login/browser/finish"): (OPEN, {"flow": "x", "state": "x", "code": "x", "verifier": "x"}),
    ("POST", "/v1/logout/backchannel"): (OPEN, None),
    ("POST", "/v1/logout"): (OWN, {}),
    ("POST", "/v1/certificate"): (OWN, {"public_key": "x"}),
    ("POST", "/v1/certificate/revoke"): (ADMIN, {"serial": "0" * 16}),
    ("GET", "/v1/connect"): (OWN, None),
    ("GET", "/v1/ca"): (OWN, None),
    ("POST", "/v1/ca/rotate"): (GIVE, {}),
    ("GET", "/v1/approvals"): (OWN, None),
    ("GET", "/v1/approvals/{request_id}"): (OWN, None),
    ("POST", "/v1/approvals/{request_id}/decision"): (DECIDE, DECISION),
    ("POST", "/v1/approvals/{request_id}/edit"): (DECIDE, {"text": "x", "digest": DIGEST}),
    ("POST", "/v1/approvals/{request_id}/withdraw"): (OWN, {}),
    ("POST", "/v1/approvals/{request_id}/revoke"): (ADMIN, {}),
    ("POST", "/v1/approvals/{request_id}/reviewed"): (LOOK, {"note": "looked"}),
    ("GET", "/v1/events"): (OWN, None),
    ("GET", "/v1/grants"): (OWN, None),
    ("DELETE", "/v1/grants/{grant_id}"): (OWN, None),
    ("GET", "/v1/locks"): (READ, None),
    ("DELETE", "/v1/locks/{identity}"): (GIVE, None),
    ("GET", "/v1/revocations"): (ADMIN, None),
    ("POST", "/v1/revocations"): (ADMIN, {"kind": "target"}),
    ("DELETE", "/v1/revocations/{ident}"): (GIVE, None),
    ("GET", "/v1/glass"): (READ, None),
    ("GET", "/v1/passkeys"): (OWN, None),
    ("POST", "/v1/passkeys"): (DECIDE, {"name": "key", "credential": "{}"}),
    ("POST", "/v1/passkeys/options"): (DECIDE, {}),
    ("DELETE", "/v1/passkeys/{ident}"): (DECIDE, None),
    ("GET", "/v1/sessions"): (SESSIONS, None),
    ("GET", "/v1/sessions/live"): (SESSIONS, None),
    ("GET", "/v1/sessions/{session_id}"): (SESSIONS, None),
    ("GET", "/v1/sessions/{session_id}/events"): (SESSIONS, None),
    ("GET", "/v1/sessions/{session_id}/bundle"): (SESSIONS, None),
    ("POST", "/v1/sessions/{session_id}/kill"): (ADMIN, {}),
}
DIRECTORY = "/v1/principals"
"""Routes below are the directory's own: for administrators, whatever they do (test_principals.py says what)."""
PASSWORD = "/v1/password"

AT_THE_DOOR = frozenset(("not-authenticated", "token-rejected", "step-up-required", "not-a-person", "missing-scope"))

CALLERS: dict[str, frozenset[str]] = {
    "nobody": frozenset(),
    "agent": frozenset((OWN,)),
    "reviewer": frozenset((OWN, READ)),
    "reviewer, stepped up": frozenset((OWN, READ, DECIDE)),
    "auditor": frozenset((OWN, READ, SESSIONS)),
    "auditor, stepped up": frozenset((OWN, READ, SESSIONS, DECIDE, LOOK)),
    "admin": frozenset((OWN, READ, SESSIONS, ADMIN)),
    "admin, stepped up": frozenset((OWN, READ, SESSIONS, ADMIN, DECIDE, LOOK, GIVE)),
    "socket": frozenset((OWN, READ, SESSIONS, ADMIN, GIVE)),
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as made:
        yield made


async def calling(house: House, who: str) -> tuple[str | None, bool]:
    """Return the token of a caller, and whether it comes over the socket."""
    match who:
        case "nobody":
            return None, False
        case "socket":
            return None, True
        case "reviewer, stepped up":
            return await house.stepped_up("bob"), False
        case "auditor, stepped up":
            return await house.stepped_up("erin"), False
        case "admin, stepped up":
            return await house.stepped_up("carol"), False
        case _:
            return await house.token({"agent": "claude", "reviewer": "bob", "auditor": "erin", "admin": "carol"}[who]), False


def concrete(path: str) -> str:
    names = {
        "request_id": "req_none",
        "session_id": "none",
        "grant_id": "grt_none",
        "identity": "local:none",
        "handle": "nobody",
        "ident": "AA",
    }
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    return path


async def test_the_table_knows_every_route(house: House) -> None:
    async with house.client() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    rest = {route for route in served if not route[1].startswith((DIRECTORY, PASSWORD))}
    assert rest == set(ROUTES)


@pytest.mark.parametrize("who", CALLERS)
async def test_every_route_for_every_caller(house: House, who: str) -> None:
    token, socket = await calling(house, who)
    scopes = CALLERS[who]
    async with house.client(token, socket=socket) as http:
        for (method, path), (scope, body) in ROUTES.items():
            if path == "/v1/events" and scope in scopes:
                async with http.stream("GET", path) as stream:
                    assert stream.status_code == 200
                continue
            answer = await http.request(method, concrete(path), json=body)
            told = f"{who}: {method} {path} → {answer.status_code} {answer.text[:200]}"
            if scope == OPEN or scope in scopes:
                refused = answer.status_code >= 400 and answer.json()["reason"] in AT_THE_DOOR
                assert not refused and answer.status_code not in (405, 500), told
            elif who == "nobody":
                assert (answer.status_code, answer.json()["reason"]) == (401, "not-authenticated"), told
            elif scope == GIVE and ADMIN in scopes:
                assert (answer.status_code, answer.json()["reason"]) == (401, "step-up-required"), told
            elif scope in (DECIDE, LOOK) and DECIDE not in scopes:
                person = who not in ("agent", "socket")
                expected = (401, "step-up-required") if person else (403, "not-a-person")
                assert (answer.status_code, answer.json()["reason"]) == expected, told
            else:
                assert (answer.status_code, answer.json()["reason"]) == (403, "missing-scope"), told


@pytest.mark.parametrize("who", ["agent", "reviewer", "reviewer, stepped up", "auditor", "auditor, stepped up"])
async def test_the_directory_is_for_administrators(house: House, who: str) -> None:
    token, _ = await calling(house, who)
    async with house.client(token) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        asked = 0
        for path, methods in paths.items():
            for method in methods:
                if path.startswith(DIRECTORY):
                    answer = await http.request(method.upper(), concrete(path), json={})
                    assert answer.status_code == 403, f"{method} {path} → {answer.status_code}"
                    asked += 1
        assert asked > 4


@pytest.mark.parametrize("who", ["nobody", "agent", "reviewer", "auditor", "admin", "socket"])
async def test_whoever_has_not_stepped_up_decides_nothing(house: House, who: str) -> None:
    """With everything else right: a waiting request, its digest, a good body."""
    request = await house.ask()
    token, socket = await calling(house, who)
    async with house.client(token, socket=socket) as http:
        for verb, body in (
            ("decision", {"verdict": "approve", "digest": request.digest}),
            ("decision", {"verdict": "deny", "digest": request.digest}),
            ("edit", {"text": "ls", "digest": request.digest}),
        ):
            answer = await http.post(f"/v1/approvals/{request.id}/{verb}", json=body)
            assert answer.status_code in (401, 403), answer.text
    assert await house.state(request) is State.PENDING


async def test_only_who_may_decide_sees_the_nonce(house: House) -> None:
    request = await house.ask()
    for who in CALLERS:
        token, socket = await calling(house, who)
        async with house.client(token, socket=socket) as http:
            for path in (f"/v1/approvals/{request.id}", "/v1/approvals"):
                answer = await http.get(path)
                seen = request.nonce in answer.text
                assert seen == (who.endswith(", stepped up") and path.endswith(request.id)), (who, path)


async def test_somebody_without_a_group_reads_nobody_else_s_requests(house: House) -> None:
    """Who logs in at the identity provider for the first time has an entry of their own, and no more."""
    await house.desk.directory.add("stranger", Kind.HUMAN)
    request = await house.ask()
    async with house.client(await house.token("stranger")) as http:
        assert (await http.get("/v1/approvals")).json()["approvals"] == []
        assert (await http.get(f"/v1/approvals/{request.id}")).status_code == 404
        assert (await http.get("/v1/locks")).status_code == 403
    async with house.client(await house.token("bob")) as http:
        assert (await http.get(f"/v1/approvals/{request.id}")).status_code == 200
