"""Every page for everybody: axe finds nothing on a phone and a desktop, in light and in dark, and nothing is loaded from
anywhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.asked import ORDERS, WEB, Asking, open_asking
from harness.browser import DESKTOP, PHONE, Window, open_chromium, window
from harness.client import Impatient
from harness.console import House, open_house
from interlock.approvals.authority import House as DeskHouse
from interlock.approvals.channels.slack.inbound import Actor
from interlock.approvals.model import ApprovalRequest
from interlock.policy.model import Need, SessionFacts, StepUp
from interlock.policy.question import Question

SIZES = {"phone": PHONE, "desktop": DESKTOP}


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    async with open_asking() as asking:
        yield asking


@pytest.fixture
async def house(tmp_path: Path, asking: Asking) -> AsyncIterator[House]:
    rules = DeskHouse(glass=frozenset(("interlock-admins",)), newcomer=3600.0)
    async with open_house(tmp_path, asking.analyzer, house=rules) as house:
        carol = house.desk.entry("carol").identity
        for handle in ("alice", "bob"):
            await house.desk.directory.confirm(handle, by=carol, changed=house.desk.entry(handle).changed)
        yield house


async def everything(house: House, asking: Asking) -> list[str]:
    """Make one of all there is; return the addresses that show it."""
    agent = house.desk.agent()

    async def ask(*args: Any, **more: Any) -> ApprovalRequest:
        return (await house.desk.inbox.submit(await asking.draft(agent, *args, **more))).request

    first = await house.desk.inbox.submit(await asking.draft(agent, WEB, "sudo rm -rf /srv/one", scopes=("once", "exact")))
    until = house.desk.clock.now() + (first.request.expires - first.request.created)
    await house.vote(first.request, scope="exact", valid_until=until)
    await first.consume()
    denied = await ask(WEB, "sudo apt-get install -y nginx")
    await house.vote(denied, "deny", reason="not from there")
    plain = await ask(WEB, "sudo rm -rf '/srv/b\u0430ckups'", said="only old ones", scopes=("once", "exact", "rule_in_session"))
    critical = await ask(
        ORDERS, "-- cleaned up\nDELETE FROM orders WHERE id < 10", step_up=StepUp.PASSKEY, also=(Need(("dba",)),)
    )
    session = await house.gate.open(agent, WEB, SessionFacts("01KB5T9ZV4Q7E8S3N2M6X0R1YD", "192.0.2.7"))
    await session.submit(Question(b"sudo rm -rf /srv/x", WEB).command, Impatient()).outcome()  # type: ignore[union-attr]
    code = house.codes.issue(Actor("T0EXAMPLE", "U0EXAMPLE"), "Bob")
    requests = [f"/console/approvals/{request.id}" for request in (first.request, denied, plain, critical)]
    return [
        "/console", *requests, "/console/history", "/console/history?who=claude", "/console/grants", "/console/people",
        "/console/policy", "/console/policy/rules/linux/recursive-delete", "/console/sessions", f"/console/sessions/{session.id}",
        "/console/health", "/console/passkeys", f"/console/link/slack/{code}",
    ]  # fmt: skip


@pytest.mark.interop
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", sorted(SIZES))
async def test_axe_finds_nothing_and_nothing_comes_from_elsewhere(house: House, asking: Asking, size: str, dark: bool) -> None:
    pages = await everything(house, asking)
    async with open_chromium() as chromium:
        for handle in ("carol", "bob") if dark else ("carol",):
            async with window(chromium, house.url, size=SIZES[size], dark=dark) as seen:
                await seen.open("/console/login")
                found = await violations(seen)
                await seen.log_in(handle)
                for path in pages if handle == "carol" else [p for p in pages if "/approvals/" in p or p == "/console"]:
                    await seen.open(path)
                    found += [f"{path}: {violation}" for violation in await violations(seen)]
                    await seen.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
                    found += [f"{path}, opened: {violation}" for violation in await violations(seen)]
                    if size == "phone":
                        assert await seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
                await seen.open("/console")
                await seen.page.keyboard.press("?")
                found += [f"help: {violation}" for violation in await violations(seen)]
                assert found == []
                assert seen.elsewhere == []


async def violations(seen: Window) -> list[str]:
    from axe_playwright_python.async_playwright import Axe

    found = (await Axe().run(seen.page)).response
    assert len(found["passes"]) > 10, "axe has looked at the page"
    return [f"{v['id']}: {[node['html'][:160] for node in v['nodes'][:3]]}" for v in found["violations"]]


@pytest.mark.interop
async def test_focus_is_visible_and_motion_stops_where_it_is_not_wanted(house: House, asking: Asking) -> None:
    request = (await house.desk.inbox.submit(await asking.draft(house.desk.agent(), WEB, "sudo rm -rf /srv/x"))).request
    async with open_chromium() as chromium, window(chromium, house.url, reduced_motion="reduce") as seen:
        await seen.log_in("bob", f"/console/approvals/{request.id}")
        reached = set()
        for _ in range(40):
            await seen.page.keyboard.press("Tab")
            name, outlined, hidden = await seen.page.evaluate(
                """() => {
                  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
                  const bar = document.querySelector(".decide").getBoundingClientRect();
                  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
                  const hidden = !e.closest(".decide") && box.height > 0 && box.top >= bar.top;
                  return [e.tagName + (e.name || e.textContent.trim().slice(0, 20)), outlined, hidden];
                }"""
            )
            if name.startswith("BODY"):
                break
            reached.add(name)
            assert outlined and not hidden, name
        assert {"TEXTAREAreason", "BUTTONverdict"} <= reached
        moving = await seen.page.evaluate(
            "[...document.querySelectorAll('*')].filter(e => parseFloat(getComputedStyle(e).transitionDuration) > 0).length"
        )
        assert moving == 0
