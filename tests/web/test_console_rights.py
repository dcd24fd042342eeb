"""Who may open what: every route of the console, for everybody. A route that is missing here fails the first test."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.console import House, open_house, visiting
from harness.trust import TRUST
from interlock.identity.principal import Kind

NOBODY, AGENT, REVIEWER, AUDITOR, ADMIN = "nobody", "agent", "reviewer", "auditor", "admin"
EVERYBODY = {NOBODY, AGENT, REVIEWER, AUDITOR, ADMIN}
PEOPLE = {REVIEWER, AUDITOR, ADMIN}
HANDLES = {REVIEWER: "bob", AUDITOR: "otto", ADMIN: "carol"}

RIGHTS: dict[tuple[str, str], set[str]] = {
    ("GET", "/"): EVERYBODY,
    ("GET", "/console/static/{name}"): EVERYBODY,
    ("GET", "/console/login"): EVERYBODY,
    ("POST", "/console/login"): EVERYBODY,
    ("POST", "/console/logout"): PEOPLE,
    ("GET", "/console"): PEOPLE,
    ("GET", "/console/events"): PEOPLE,
    ("GET", "/console/fingerprint"): PEOPLE,
    ("GET", "/console/history"): PEOPLE,
    ("GET", "/console/grants"): PEOPLE,
    ("POST", "/console/grants/{grant_id}/revoke"): PEOPLE,
    ("GET", "/console/approvals/{request_id}"): PEOPLE,
    ("POST", "/console/approvals/{request_id}/decision"): PEOPLE,
    ("POST", "/console/approvals/{request_id}/edit"): PEOPLE,
    ("POST", "/console/approvals/{request_id}/break-glass"): PEOPLE,
    ("POST", "/console/approvals/{request_id}/withdraw"): {ADMIN},
    ("POST", "/console/approvals/{request_id}/challenge"): PEOPLE,
    ("GET", "/console/passkeys"): PEOPLE,
    ("POST", "/console/passkeys"): PEOPLE,
    ("POST", "/console/passkeys/options"): PEOPLE,
    ("POST", "/console/passkeys/remove"): PEOPLE,
    ("GET", "/console/link/slack/{code}"): PEOPLE,
    ("POST", "/console/link/slack/{code}"): PEOPLE,
    ("GET", "/console/people"): {ADMIN},
    ("POST", "/console/people/{handle}/unlock"): {ADMIN},
    ("POST", "/console/people/{handle}/confirm"): {ADMIN},
    ("POST", "/console/people/{handle}/disable"): {ADMIN},
    ("GET", "/console/policy"): {ADMIN},
    ("GET", "/console/policy/rules/{pack}/{rule_id}"): {ADMIN},
    ("POST", "/console/policy/explain"): {ADMIN},
    ("GET", "/console/sessions"): {AUDITOR, ADMIN},
    ("GET", "/console/sessions/{session_id}"): {AUDITOR, ADMIN},
    ("GET", "/console/sessions/{session_id}/recording"): {AUDITOR, ADMIN},
    ("POST", "/console/sessions/{session_id}/kill"): {ADMIN},
    ("GET", "/console/health"): {ADMIN},
    ("POST", "/console/health/glass/{request_id}"): {ADMIN},
}
GIVEN = {"name": "console.css", "pack": "linux", "rule_id": "recursive-delete"}
OPEN = {
    ("GET", "/"), ("GET", "/console/static/{name}"), ("GET", "/console/login"), ("POST", "/console/login"),
}  # fmt: skip


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        await house.desk.directory.add(
            "otto", Kind.HUMAN, groups=["interlock-auditors"], passphrase="correct horse battery staple"
        )
        yield house


def routes(found: Iterable[Any]) -> set[tuple[str, str]]:
    """Every route for browsers, also of routers inside."""
    served = set()
    for route in found:
        path = getattr(route, "path", None) or ""
        if path == "/" or path.startswith("/console"):
            served |= {(method, path) for method in route.methods if method != "HEAD"}
        inside = getattr(route, "original_router", None)
        if inside is not None:
            served |= routes(inside.routes)
    return served


def filled(path: str, **values: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], GIVEN.get(found[1], "nothing")), path)


def test_every_route_is_in_the_matrix(house: House) -> None:
    assert routes(house.app.routes) == set(RIGHTS)


async def test_nobody_and_an_agent_with_its_token_get_no_page(house: House) -> None:
    token = (await house.desk.directory.issue_token("claude")).secret.reveal()
    request = await house.ask()
    async with httpx.AsyncClient(
        base_url=house.url, headers={"Origin": house.url}, trust_env=False, timeout=60, verify=TRUST
    ) as http:
        for headers in ({}, {"Authorization": f"Bearer {token}"}, {"Cookie": f"interlock_console={token}"}):
            for method, path in set(RIGHTS) - OPEN:
                answer = await http.request(method, filled(path, request_id=request.id), headers=headers)
                if method == "GET" and path not in ("/console/events", "/console/fingerprint"):
                    assert answer.status_code == 303 and answer.headers["location"].startswith("/console/login"), path
                else:
                    assert answer.status_code in (401, 422), (method, path, answer.status_code)
                assert "rm -rf" not in answer.text
    assert await house.state(request) == "pending"


@pytest.mark.parametrize("who", sorted(PEOPLE))
async def test_people_open_what_their_groups_give_and_nothing_else(house: House, who: str) -> None:
    request = await house.ask()
    async with visiting(house, HANDLES[who]) as visitor:
        for (method, path), allowed in RIGHTS.items():
            if (method, path) in OPEN or path in ("/console/events", "/console/logout"):
                continue
            where = filled(path, request_id=request.id)
            if method == "GET":
                status = (await visitor.http.get(where)).status_code
                unknown = path.startswith(("/console/sessions/{", "/console/link/"))
                assert status == ((404 if unknown else 200) if who in allowed else 403), (path, status)
            else:
                # Nothing but the token: whoever has the right gets as far as what the form lacks, or what is not there.
                status = (await visitor.post(where)).status_code
                assert (status != 403) == (who in allowed), (path, status)
                assert status not in (200, 303) or path.endswith(("/explain", "/withdraw", "/disable")), (path, status)


@pytest.mark.parametrize("forgery", ["no token", "another token", "another origin", "no origin"])
async def test_every_form_is_refused_from_anywhere_else(house: House, forgery: str) -> None:
    """Property 35, for each POST there is, as the person who may do the most."""
    request = await house.ask()
    async with visiting(house, "carol") as visitor:
        for method, path in set(RIGHTS) - OPEN:
            if method != "POST":
                continue
            csrf = {"no token": "", "another token": "0" * 64}.get(forgery, visitor.csrf)
            origin = {"another origin": "https://evil.example", "no origin": "null"}.get(forgery, house.url)
            data = {
                "csrf": csrf, "digest": request.digest, "verdict": "deny", "text": "ls", "reason": "because of this",
                "passphrase": "correct horse battery staple",
            }  # fmt: skip
            answer = await visitor.http.post(
                filled(path, request_id=request.id, handle="bob"), data=data, headers={"Origin": origin}
            )
            assert answer.status_code == 401, (path, answer.status_code)
        assert (await visitor.http.get("/console")).status_code == 200, "and nobody was logged out by one"
    assert await house.state(request) == "pending"
    assert not house.desk.entry("bob").disabled


async def test_rights_follow_from_the_directory_as_it_is_now(house: House) -> None:
    async with visiting(house, "carol") as visitor:
        assert (await visitor.http.get("/console/people")).status_code == 200
        await house.desk.directory.set_groups("carol", ["sre"])
        assert (await visitor.http.get("/console/people")).status_code == 403
        await house.desk.directory.set_disabled("carol", True)
        gone = await visitor.http.get("/console")
        assert gone.status_code == 303 and gone.headers["location"].startswith("/console/login")
        assert (await visitor.http.get("/console")).status_code == 303
