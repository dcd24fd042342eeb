"""The console in a real Chromium: a reviewer logs in, reads a whole request and answers it.

Also what another page, a script in a command, or a framed console could try.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.desk import PASSPHRASE, Desk, open_desk
from harness.requests import draft
from harness.webnode import open_web
from interlock.approvals.model import ApprovalRequest, State

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class House:
    desk: Desk
    url: str
    loaded: list[str] = field(default_factory=list)

    async def ask(self, **changes: Any) -> ApprovalRequest:
        return (await self.desk.inbox.submit(draft(principal=self.desk.agent(), **changes))).request

    async def state(self, request: ApprovalRequest) -> State:
        return (await self.desk.inbox.get(request.id)).state


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(tmp_path))
        yield House(desk, await stack.enter_async_context(open_web(desk, local=False)))


@contextlib.asynccontextmanager
async def browser(house: House) -> AsyncIterator[Any]:
    """A page in Chromium. Every address it loads is kept; anything it complains about fails the test."""
    from playwright.async_api import async_playwright

    complaints: list[str] = []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = await chromium.new_page()
        page.on("request", lambda request: house.loaded.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: complaints.append("a script of the command ran"))
        yield page
        await chromium.close()
    assert complaints == []


async def log_in(page: Any, house: House, handle: str, path: str = "/console") -> None:
    await page.goto(house.url + path)
    await page.fill("input[name=handle]", handle)
    await page.fill("input[name=passphrase]", PASSPHRASE)
    await page.click("button.primary")
    await page.wait_for_selector(".who")


@pytest.mark.interop
async def test_a_reviewer_reads_and_approves(house: House) -> None:
    request = await house.ask()
    async with browser(house) as page:
        await log_in(page, house, "bob")
        await page.click(f"a[href='/console/approvals/{request.id}']")
        text = await page.inner_text("main")
        assert "sudo rm -rf /var/lib/pg" in text and "owned by alice" in text and "linux/recursive-delete" in text
        await page.fill("input[name=reason]", "agreed on the phone")
        await page.click("button[value=approve]")
        await page.wait_for_selector(".state.approved")
    decided = await house.desk.inbox.get(request.id)
    assert (decided.votes[0].reviewer_handle, decided.votes[0].channel) == ("bob", "console")
    assert all(address.startswith(house.url) for address in house.loaded)


@pytest.mark.interop
async def test_a_script_in_a_command_is_inert_and_invisible_characters_show(house: House) -> None:
    evil = "echo '</code><script>alert(1)</script><img src=x onerror=alert(2)>' \u202egnp.exe\u200b".encode()
    request = await house.ask(command=replace(draft().command, text=evil))
    async with browser(house) as page:
        await log_in(page, house, "bob", f"/console/approvals/{request.id}")
        text = await page.inner_text(".command")
        assert "<script>alert(1)</script>" in text
        assert "\u202e" not in text and "\u200b" not in text
        assert await page.locator(".warning").count() > 0
        assert await page.evaluate("document.scripts.length") == 1


@pytest.mark.interop
async def test_the_inbox_shows_a_new_request_by_itself(house: House) -> None:
    async with browser(house) as page:
        await log_in(page, house, "bob")
        await page.wait_for_selector(".empty")
        request = await house.ask()
        await page.wait_for_selector(f"a[href='/console/approvals/{request.id}']", timeout=15_000)


# -- without a browser: what other pages and tools could try -----------------------------------------------------------------


@contextlib.asynccontextmanager
async def session(house: House, handle: str = "bob") -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A logged-in client and its CSRF token."""
    async with httpx.AsyncClient(base_url=house.url, headers={"Origin": house.url}, trust_env=False) as http:
        answer = await http.post("/console/login", data={"handle": handle, "passphrase": PASSPHRASE})
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await http.get("/console")).text)
        assert found
        yield http, found[1]


def form(request: ApprovalRequest, csrf: str, verdict: str = "approve") -> dict[str, str]:
    return {"csrf": csrf, "digest": request.digest, "verdict": verdict}


async def test_a_form_of_another_page_decides_nothing(house: House) -> None:
    request = await house.ask()
    async with session(house) as (http, csrf):
        path = f"/console/approvals/{request.id}/decision"
        for headers, data in (
            ({"Origin": "https://evil.example"}, form(request, csrf)),
            ({"Origin": "null"}, form(request, csrf)),
            ({}, form(request, "0" * 64)),
            ({}, form(request, "")),
        ):
            answer = await http.post(path, data=data, headers=headers)
            assert answer.status_code in (401, 422), headers
    assert await house.state(request) is State.PENDING


async def test_without_a_login_nothing_is_shown_or_decided(house: House) -> None:
    request = await house.ask()
    async with httpx.AsyncClient(base_url=house.url, headers={"Origin": house.url}, trust_env=False) as http:
        shown = await http.get(f"/console/approvals/{request.id}")
        decided = await http.post(f"/console/approvals/{request.id}/decision", data=form(request, "0" * 64))
        http.cookies.set("interlock_console", "0" * 64)
        forged = await http.get("/console")
    assert shown.status_code == forged.status_code == 303 and "rm -rf" not in shown.text
    assert decided.status_code == 401
    assert await house.state(request) is State.PENDING


async def test_agents_and_wrong_passphrases_do_not_log_in(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.url, headers={"Origin": house.url}, trust_env=False) as http:
        for handle, passphrase in (("claude", PASSPHRASE), ("bob", "open-sesame"), ("nobody", PASSPHRASE)):
            answer = await http.post("/console/login", data={"handle": handle, "passphrase": passphrase})
            assert answer.status_code == 401 and "set-cookie" not in answer.headers
            assert passphrase not in answer.text


async def test_the_owner_is_refused_in_the_console(house: House) -> None:
    request = await house.ask()
    async with session(house, "alice") as (http, csrf):
        answer = await http.post(f"/console/approvals/{request.id}/decision", data=form(request, csrf))
    assert answer.status_code == 409 and "delegation chain" in answer.text
    assert await house.state(request) is State.PENDING


async def test_a_disabled_reviewer_is_logged_out(house: House) -> None:
    request = await house.ask()
    async with session(house) as (http, csrf):
        await house.desk.directory.set_disabled("bob", True)
        answer = await http.post(f"/console/approvals/{request.id}/decision", data=form(request, csrf))
    assert answer.status_code == 403
    assert await house.state(request) is State.PENDING


async def test_login_leads_only_to_our_own_pages(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.url, headers={"Origin": house.url}, trust_env=False) as http:
        for path in ("https://evil.example", "//evil.example", "/console\\@evil", "javascript:alert(1)"):
            answer = await http.post("/console/login", data={"handle": "bob", "passphrase": PASSPHRASE, "next": path})
            assert answer.headers["location"] == "/console"


async def test_pages_can_not_be_framed_and_load_nothing_from_elsewhere(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.url, trust_env=False) as http:
        answer = await http.get("/console/login")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)
