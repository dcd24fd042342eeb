"""The console in a real Chromium: a reviewer logs in, reads a whole request and answers it, by finger or by key."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.browser import DESKTOP, PHONE, SMALL, Window, open_chromium, window
from harness.console import House, open_house, visiting
from harness.desk import PASSPHRASE
from harness.requests import TERMS, draft
from harness.trust import TRUST
from interlock.approvals.model import State
from interlock.web.console.sessions import DECIDING_S


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        yield house


@pytest.fixture
async def chromium() -> AsyncIterator[Any]:
    async with open_chromium() as chromium:
        yield chromium


def lines(count: int) -> bytes:
    return "\n".join(f"echo step {n}" for n in range(1, count + 1)).encode()


async def ready(seen: Window) -> None:
    """Wait until the page knows that all of the command was on screen."""
    await seen.page.wait_for_selector("[data-approve][aria-disabled=false]")


async def scrolled_through(seen: Window) -> None:
    """Scroll to the end as a reader does, a screen at a time. A wheel is answered later, and later still on a busy machine."""
    while not await seen.page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 1"):
        before = await seen.page.evaluate("scrollY")
        await seen.page.mouse.wheel(0, 350)
        await seen.page.wait_for_function("before => scrollY > before", arg=before)
        await seen.page.wait_for_function(
            "() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(true))))"
        )


@pytest.mark.interop
async def test_a_reviewer_reads_and_approves(house: House, chromium: Any) -> None:
    request = await house.ask()
    async with window(chromium, house.url, size=PHONE) as seen:
        await seen.log_in("bob")
        await seen.page.click(f"a[href='/console/approvals/{request.id}']")
        text = await seen.page.inner_text("main")
        assert "sudo rm -rf /var/lib/pg" in text and "owned by alice" in text and "linux/recursive-delete" in text
        assert "deletes /var/lib/pg and everything below it" in text
        await seen.page.fill("#reason", "agreed on the phone")
        await seen.page.click("button[value=approve]")
        await seen.page.wait_for_selector(".chip.approved")
        assert "agreed on the phone" in await seen.page.inner_text(".vote")
    decided = await house.desk.inbox.get(request.id)
    assert (decided.votes[0].reviewer_handle, decided.votes[0].channel) == ("bob", "console")
    assert (decided.votes[0].channel_actor, str(decided.votes[0].proof)) == (str(house.desk.entry("bob").identity), "none")
    assert seen.elsewhere == []


@pytest.mark.interop
async def test_keys_alone_lead_from_the_inbox_to_an_approval(house: House, chromium: Any) -> None:
    older, newer = await house.ask(), await house.ask(session="01OTHER", command=replace(draft().command, text=b"sudo rm -rf /a"))
    async with window(chromium, house.url) as seen:
        await seen.log_in("bob")
        keyboard = seen.page.keyboard
        for key in "jjk":
            await keyboard.press(key)
        assert await seen.page.evaluate("document.activeElement.getAttribute('href')") == f"/console/approvals/{newer.id}"
        await keyboard.press("j")
        await keyboard.press("Enter")
        await ready(seen)
        assert older.id in seen.page.url
        await keyboard.press("a")
        await seen.page.wait_for_selector(".chip.approved")
        await keyboard.press("g")
        await keyboard.press("h")
        await seen.page.wait_for_url("**/console/history")
        await keyboard.press("?")
        assert await seen.page.is_visible("dialog#help")
        await keyboard.press("g")
        await keyboard.press("i")
        assert seen.page.url.endswith("/history"), "keys do nothing behind the dialog"
        await keyboard.press("Escape")
        await keyboard.press("u")
    assert (await house.state(older), await house.state(newer)) == (State.APPROVED, State.PENDING)


@pytest.mark.interop
async def test_d_asks_why_first_and_typing_decides_nothing(house: House, chromium: Any) -> None:
    request = await house.ask()
    async with window(chromium, house.url) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        keyboard = seen.page.keyboard
        await keyboard.press("d")
        assert await seen.page.evaluate("document.activeElement.id") == "reason"
        await keyboard.type("don't: a database agreed? d a e g i")
        assert request.id in seen.page.url and await house.state(request) is State.PENDING
        await keyboard.press("Escape")
        await keyboard.press("d")
        await seen.page.wait_for_selector(".chip.denied")
    vote = (await house.desk.inbox.get(request.id)).votes[0]
    assert (str(vote.verdict), vote.reason) == ("deny", "don't: a database agreed? d a e g i")


@pytest.mark.interop
async def test_enter_denies_only_after_d_and_never_approves_by_itself(house: House, chromium: Any) -> None:
    request = await house.ask()
    async with window(chromium, house.url) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        await seen.page.focus("#reason")
        await seen.page.keyboard.type("hm")
        await seen.page.keyboard.press("Enter")
        assert await seen.page.input_value("#reason") == "hm\n"
        assert await house.state(request) is State.PENDING
        await seen.page.evaluate("document.activeElement.blur()")
        await seen.page.keyboard.press("d")
        await seen.page.keyboard.press("Enter")
        await seen.page.wait_for_selector(".chip.denied")


@pytest.mark.interop
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_nothing_is_approved_that_was_never_on_screen(house: House, chromium: Any, size: dict[str, int]) -> None:
    request = await house.ask(command=replace(draft().command, text=lines(150), stdin=None))
    async with window(chromium, house.url, size=size) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        await seen.page.wait_for_selector("[data-seen]")
        assert "lines to go" in await seen.page.inner_text("[data-seen]")
        await seen.page.keyboard.press("a")
        await seen.page.click("[data-approve]", force=True)
        await seen.page.keyboard.press("End")  # the end was seen then, what lies between was not
        await seen.page.wait_for_function("!document.querySelector('[data-seen]').textContent.includes('151 ')")
        await seen.page.keyboard.press("a")
        assert "Read the whole command first" in await seen.page.inner_text("#notice")
        assert await house.state(request) is State.PENDING
        await seen.page.evaluate("scrollTo(0, 0)")
        await scrolled_through(seen)
        await ready(seen)
        await seen.page.keyboard.press("a")
        await seen.page.wait_for_selector(".chip.approved")


@pytest.mark.interop
async def test_a_stale_login_asks_for_the_passphrase_and_enter_then_gives_the_answer_that_was_meant(
    house: House, chromium: Any
) -> None:
    request = await house.ask()
    async with window(chromium, house.url) as seen:
        await seen.log_in("bob")
        later(house, DECIDING_S + 1)
        await seen.open(f"/console/approvals/{request.id}")
        await ready(seen)
        await seen.page.keyboard.press("a")
        assert await seen.page.evaluate("document.activeElement.name") == "passphrase"
        assert await house.state(request) is State.PENDING
        await seen.page.keyboard.type(PASSPHRASE)
        await seen.page.keyboard.press("Enter")
        await seen.page.wait_for_selector(".chip.approved")


@pytest.mark.interop
async def test_the_button_says_how_far_an_approval_goes(house: House, chromium: Any) -> None:
    request = await house.ask(terms=replace(TERMS, scopes=("once", "exact")))
    async with window(chromium, house.url, size=PHONE) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        assert await seen.page.inner_text("[data-approve]") == "Approve once"
        assert not await seen.page.is_visible("input[name=minutes]")
        await seen.page.check("input[value=exact]")
        await seen.page.fill("input[name=minutes]", "30")
        assert await seen.page.inner_text("[data-approve]") == "Approve for 30 min"
        await seen.page.click("[data-approve]")
        await seen.page.wait_for_selector(".chip.approved")
    (grant,) = house.desk.inbox.grants()
    assert (str(grant.scope), grant.request) == ("exact", request.id)


@pytest.mark.interop
async def test_pages_work_without_script(house: House, chromium: Any) -> None:
    request = await house.ask()
    async with window(chromium, house.url, java_script_enabled=False) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        await seen.page.focus("#reason")
        await seen.page.fill("#reason", "without script")
        await seen.page.click("button[value=deny]")
        await seen.page.wait_for_selector(".chip.denied")
        await seen.page.click(".menu summary")
        await seen.page.click("text=Log out")
        await seen.page.wait_for_selector("input[name=handle]")
    assert (await house.desk.inbox.get(request.id)).votes[0].reason == "without script"


@pytest.mark.interop
async def test_the_inbox_shows_a_new_request_by_itself_and_keeps_the_focus(house: House, chromium: Any) -> None:
    async with window(chromium, house.url) as seen:
        await seen.log_in("bob")
        await seen.page.wait_for_selector(".empty")
        first = await house.ask()
        await seen.page.wait_for_selector(f"a[href='/console/approvals/{first.id}']")
        await seen.page.focus(f"a[href='/console/approvals/{first.id}']")
        second = await house.ask(command=replace(draft().command, text=b"sudo rm -rf /b"))
        await seen.page.wait_for_selector(f"a[href='/console/approvals/{second.id}']")
        assert await seen.page.evaluate("document.activeElement.getAttribute('href')") == f"/console/approvals/{first.id}"
        assert "(2)" in await seen.page.title()
        await house.vote(first, "deny")
        await seen.page.wait_for_selector(f"a[href='/console/approvals/{first.id}']", state="detached")
    assert any(address.endswith("/console/events") for address in seen.loaded)


@pytest.mark.interop
async def test_without_event_streams_pages_ask_now_and_then(house: House, chromium: Any) -> None:
    async with window(chromium, house.url) as seen:
        await seen.page.add_init_script("delete window.EventSource")
        await seen.log_in("bob")
        request = await house.ask()
        await seen.page.wait_for_selector(f"a[href='/console/approvals/{request.id}']", timeout=15_000)


@pytest.mark.interop
async def test_a_page_changes_under_nobody_who_types(house: House, chromium: Any) -> None:
    request = await house.ask()
    async with window(chromium, house.url) as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        await seen.page.fill("#reason", "half a sent")
        await house.desk.directory.add("dora", _human(), groups=["sre"], passphrase=PASSPHRASE)
        await house.vote(request, "deny", who="dora")
        await seen.page.wait_for_selector("#notice a")
        assert await seen.page.input_value("#reason") == "half a sent"
        await seen.page.fill("#reason", "")
        await seen.page.click("#notice a")
        await seen.page.wait_for_selector(".chip.denied")


@pytest.mark.interop
async def test_nothing_scrolls_sideways_and_every_target_is_large_enough_on_a_small_phone(house: House, chromium: Any) -> None:
    wide = "sudo rm -rf /" + "x" * 900
    terms = replace(TERMS, scopes=("once", "exact"))
    request = await house.ask(command=replace(draft().command, text=wide.encode()), terms=terms, said="y" * 300)
    async with window(chromium, house.url, size=SMALL) as seen:
        await seen.log_in("bob")
        for path in ("/console", f"/console/approvals/{request.id}", "/console/history?state=pending", "/console/grants"):
            await seen.open(path)
            assert await seen.page.evaluate("document.documentElement.scrollWidth") == SMALL["width"], path
            small = await seen.page.evaluate(
                """() => [...document.querySelectorAll("button, summary, .bar a, .choice, input, select, textarea, .rows a")]
                  .filter(e => !["hidden", "radio"].includes(e.type))
                  .filter(e => e.offsetParent !== null && e.getBoundingClientRect().height < 43.5).map(e => e.outerHTML)"""
            )
            assert small == [], path


def later(house: House, seconds: float) -> None:
    """Let time pass for every console login."""
    for session in house.consoles._sessions.values():
        session.deciding_until_us -= int(seconds * 1_000_000)
        session.reading_until_us -= int(seconds * 1_000_000)


def _human() -> Any:
    from interlock.identity.principal import Kind

    return Kind.HUMAN


# -- without a browser: what other pages and tools could try -----------------------------------------------------------------


async def test_a_form_of_another_page_decides_nothing(house: House) -> None:
    request = await house.ask()
    async with visiting(house) as visitor:
        path = f"/console/approvals/{request.id}/decision"
        form = {"digest": request.digest, "verdict": "approve"}
        for headers, csrf in (
            ({"Origin": "https://evil.example"}, visitor.csrf),
            ({"Origin": "null"}, visitor.csrf),
            ({"Origin": house.url.replace("http:", "https:")}, visitor.csrf),
            ({}, "0" * 64),
            ({}, ""),
        ):
            answer = await visitor.http.post(path, data={**form, "csrf": csrf}, headers=headers)
            assert answer.status_code == 401, headers
    assert await house.state(request) is State.PENDING


async def test_without_a_login_nothing_is_shown_or_decided(house: House) -> None:
    request = await house.ask()
    form = {"csrf": "0" * 64, "digest": request.digest, "verdict": "approve"}
    async with httpx.AsyncClient(
        base_url=house.url, headers={"Origin": house.url}, trust_env=False, timeout=60, verify=TRUST
    ) as http:
        shown = await http.get(f"/console/approvals/{request.id}")
        decided = await http.post(f"/console/approvals/{request.id}/decision", data=form)
        http.cookies.set("interlock_console", "0" * 64)
        forged = await http.get("/console")
    assert shown.status_code == forged.status_code == 303 and "rm -rf" not in shown.text
    assert decided.status_code == 401
    assert await house.state(request) is State.PENDING


async def test_agents_and_wrong_passphrases_do_not_log_in(house: House) -> None:
    async with httpx.AsyncClient(
        base_url=house.url, headers={"Origin": house.url}, trust_env=False, timeout=60, verify=TRUST
    ) as http:
        for handle, passphrase in (("claude", PASSPHRASE), ("bob", "open-sesame"), ("nobody", PASSPHRASE)):
            answer = await http.post("/console/login", data={"handle": handle, "passphrase": passphrase})
            assert answer.status_code == 401 and "set-cookie" not in answer.headers
            assert passphrase not in answer.text


async def test_a_decision_long_after_the_login_needs_the_passphrase(house: House) -> None:
    request = await house.ask()
    async with visiting(house) as visitor:
        later(house, DECIDING_S + 1)
        path = f"/console/approvals/{request.id}/decision"
        for given in ({}, {"passphrase": "open-sesame"}):
            answer = await visitor.post(path, digest=request.digest, verdict="approve", reason="as agreed", **given)
            assert answer.status_code == 409 and "as agreed" in answer.text, "what was written is not lost"
            assert await house.state(request) is State.PENDING
        answer = await visitor.post(path, digest=request.digest, verdict="approve", passphrase=PASSPHRASE)
        assert answer.status_code == 303
    assert await house.state(request) is State.APPROVED


async def test_the_owner_is_told_why_not_and_refused_all_the_same(house: House) -> None:
    request = await house.ask()
    async with visiting(house, "alice") as visitor:
        page = (await visitor.http.get(f"/console/approvals/{request.id}")).text
        assert "somebody else answers" in page and 'value="approve"' not in page
        answer = await visitor.post(f"/console/approvals/{request.id}/decision", digest=request.digest, verdict="approve")
    assert answer.status_code == 409 and "delegation chain" in answer.text
    assert await house.state(request) is State.PENDING


async def test_an_answer_to_what_was_shown_before_is_refused(house: House) -> None:
    request = await house.ask()
    async with visiting(house) as visitor:
        path = f"/console/approvals/{request.id}/decision"
        answer = await visitor.post(path, digest="sha256:" + "0" * 64, verdict="approve")
        assert answer.status_code == 409 and "another request" in answer.text
    assert await house.state(request) is State.PENDING


async def test_a_disabled_reviewer_is_logged_out(house: House) -> None:
    request = await house.ask()
    async with visiting(house) as visitor:
        await house.desk.directory.set_disabled("bob", True)
        answer = await visitor.post(f"/console/approvals/{request.id}/decision", digest=request.digest, verdict="approve")
    assert answer.status_code == 401
    assert await house.state(request) is State.PENDING


@pytest.mark.parametrize("stopped", ["passphrase", "disabled"])
async def test_a_login_does_not_outlive_a_new_passphrase_or_a_stop(house: House, stopped: str) -> None:
    """Attack: a stolen cookie goes on working after its owner changed the passphrase, or was stopped and let in again."""
    request, people = await house.ask(), house.desk.directory
    async with visiting(house) as stolen, visiting(house, "carol") as carol:
        if stopped == "passphrase":
            await people.set_passphrase("bob", "another passphrase")
        else:
            await people.set_disabled("bob", True)
            await people.set_disabled("bob", False)
        answer = await stolen.post(f"/console/approvals/{request.id}/decision", digest=request.digest, verdict="approve")
        assert answer.status_code == 401
        assert (await stolen.http.get("/console")).status_code != 200
        assert (await carol.http.get("/console")).status_code == 200, "nobody else is logged out"
    assert await house.state(request) is State.PENDING


async def test_login_leads_only_to_our_own_pages(house: House) -> None:
    async with httpx.AsyncClient(
        base_url=house.url, headers={"Origin": house.url}, trust_env=False, timeout=60, verify=TRUST
    ) as http:
        elsewhere = (
            "https://evil.example", "//evil.example", "/console\\@evil", "javascript:alert(1)", "/console//evil.example",
            "/console@evil.example", "/console.evil.example", "/console/\r\nSet-Cookie: a=b", "/console/\u2028", "",
        )  # fmt: skip
        for path in elsewhere:
            answer = await http.post("/console/login", data={"handle": "bob", "passphrase": PASSPHRASE, "next": path})
            assert answer.headers["location"] == "/console", path
        answer = await http.post(
            "/console/login", data={"handle": "bob", "passphrase": PASSPHRASE, "next": "/console/history?state=denied"}
        )
        assert answer.headers["location"] == "/console/history?state=denied"


async def test_pages_can_not_be_framed_and_load_nothing_from_elsewhere(house: House) -> None:
    request = await house.ask()
    async with visiting(house, "carol") as visitor:
        for path in (
            "/console", "/console/login", f"/console/approvals/{request.id}", "/console/approvals/nope", "/console/health",
            "/console/static/console.css", "/console/static/nope", "/console/events?x", "/console/policy", "/",
        ):  # fmt: skip
            async with visitor.http.stream("GET", path) as answer:
                assert answer.headers["content-security-policy"] == (
                    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
                ), path
                assert answer.headers["x-frame-options"] == "DENY"
                if "events" not in path:
                    text = (await answer.aread()).decode()
                    assert not re.search(r"(src|href|action)=\"(https?:)?//", text), path
                    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", text), path


async def test_an_error_is_a_page_that_says_what_to_do(house: House) -> None:
    async with visiting(house) as visitor:
        answer = await visitor.http.get("/console/approvals/req_nothing")
        assert answer.status_code == 404 and "there is no request" in answer.text and "To the inbox" in answer.text
        answer = await visitor.http.get("/console/history", params={"who": "x" * 200})
        assert answer.status_code == 422 and "could not be read" in answer.text


async def test_a_wider_scope_is_chosen_in_minutes_and_listed_until_it_is_ended(house: House) -> None:
    request = await house.ask(terms=replace(TERMS, scopes=("once", "exact")))
    async with visiting(house) as visitor:
        page = (await visitor.http.get(f"/console/approvals/{request.id}")).text
        assert 'name="scope" value="exact"' in page and 'name="minutes"' in page
        path = f"/console/approvals/{request.id}/decision"
        form = {"digest": request.digest, "verdict": "approve", "scope": "exact"}
        for minutes in ("0", "-5", "soon", "1e3", "999999"):
            answer = await visitor.post(path, **form, minutes=minutes)
            assert answer.status_code == 409, minutes
        assert (await visitor.post(path, **form, minutes="30")).status_code == 303
        (grant,) = house.desk.inbox.grants()
        assert abs((grant.valid_until - house.desk.clock.now()).total_seconds() - 1800) < 30
        assert "exactly this command" in (await visitor.http.get("/console/grants")).text
        assert (await visitor.post(f"/console/grants/{grant.id}/revoke", reason="done")).status_code == 303
        assert "No grants" in (await visitor.http.get("/console/grants")).text
    assert house.desk.inbox.grants() == []


async def test_an_administrator_withdraws_and_the_request_says_so(house: House) -> None:
    request = await house.ask()
    async with visiting(house, "carol") as visitor:
        assert (await visitor.post(f"/console/approvals/{request.id}/withdraw", reason="wrong host")).status_code == 303
        assert "Withdrawn" in (await visitor.http.get(f"/console/approvals/{request.id}")).text
    assert await house.state(request) is State.CANCELLED
