"""What agents, targets and people write never becomes a part of a page: no script, no element, no request, no dialog.

Each place where text of others is shown gets the same payloads, and real Chromium draws every page that shows it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.asked import Asking, open_asking
from harness.browser import Window, open_chromium, window
from harness.client import Impatient
from harness.console import House, open_house, visiting
from harness.requests import SHELL, SQL, TERMS, draft
from interlock.approvals.channels.slack.inbound import Actor
from interlock.approvals.model import ApprovalRequest, VoteVerdict
from interlock.commands.model import Analysis, BindValue, Effect, HeldInput, Opaque
from interlock.identity.principal import Identity
from interlock.policy.model import Need, SessionFacts, Target
from interlock.policy.question import Question
from interlock.web.console.pages import marked, said

EVIL = (
    "</code></li><script>window.owned=1;alert(1)</script><img id=owned src=//evil.example/x onerror=alert(2)>"
    "<form id=owned action=//evil.example><svg/onload=alert(3)>\"><i id=owned>'onmouseover='alert(4)'{{7*7}}javascript:alert(5)"
)
LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    async with open_asking() as asking:
        yield asking


@pytest.fixture
async def house(tmp_path: Path, asking: Asking) -> AsyncIterator[House]:
    rule = {
        "id": "title", "title": EVIL, "decide": "deny", "when": f"command.text == {json.dumps(EVIL)}", "message": EVIL,
        "hint": EVIL, "cases": [{"shell": EVIL, "expect": "none"}],
    }  # fmt: skip
    (tmp_path / "pack.yaml").write_text(json.dumps({"version": 1, "pack": "evil", "rules": [rule]}))
    async with open_house(tmp_path, asking.analyzer, policies=[tmp_path / "pack.yaml"]) as house:
        yield house


async def asked(house: House) -> ApprovalRequest:
    """Everything that a request can carry, in one."""
    agent = replace(house.desk.agent(), acting_for=(Identity(EVIL, EVIL),), acting_for_handles=(EVIL,), owner_handle=EVIL)
    analysis = Analysis(
        effects=(Effect("delete", EVIL, program=EVIL, argv=(EVIL,), via=(EVIL,), recursive=True, detail=EVIL),),
        opaque=(Opaque("command-substitution", EVIL),),
        notes=(EVIL,),
    )
    terms = replace(TERMS, groups=("sre", EVIL), quorum=2, also=(Need((EVIL,)),))
    base = draft()
    text = f"echo {EVIL} # {EVIL}\n{EVIL}".encode()
    whole = replace(
        base,
        principal=agent,
        target=Target(EVIL, "ssh", {"env": EVIL}, account=EVIL),
        command=replace(SHELL, text=text, stdin=HeldInput(EVIL.encode()), cwd=EVIL, env=((EVIL, EVIL),)),
        analysis=analysis,
        decision=replace(base.decision, rule=f"evil/{EVIL}", reason=EVIL, review=terms),
        terms=terms,
        client=EVIL,
        session=EVIL,
        said=EVIL,
        facts=(EVIL,),
    )
    return (await house.desk.inbox.submit(whole)).request


async def answered(house: House) -> ApprovalRequest:
    """Bind values and comments of SQL, and a reviewer's own words, through an account that a chat named."""
    command = replace(SQL, text=f"-- {EVIL}\nDELETE FROM o /* {EVIL} */".encode(), binds=(BindValue(EVIL.encode(), 0, 25, EVIL),))
    found = await house.ask(command=command, target=Target("orders", "postgres", {}, role=EVIL, database=EVIL))
    return await house.desk.inbox.vote(
        found.id, voter=house.desk.entry("bob").identity, channel="slack", channel_actor=EVIL, verdict=VoteVerdict.DENY,
        digest=found.digest, reason=EVIL,
    )  # fmt: skip


async def recorded(house: House) -> str:
    """A session in which the agent sent a payload, and a target said one."""
    agent, target = house.desk.agent(), Target("web-1", "ssh", {"env": "prod"}, account="deploy")
    session = await house.gate.open(agent, target, SessionFacts("01KB5T9ZV4Q7E8S3N2M6X0R1YD", EVIL))
    command = Question(f"sudo rm -rf /srv/x; echo {EVIL}".encode(), target).command
    await session.submit(command, Impatient(said=EVIL)).outcome()  # type: ignore[union-attr]
    return session.id  # type: ignore[union-attr]


@pytest.mark.interop
async def test_nothing_that_others_wrote_becomes_a_part_of_any_page(house: House) -> None:
    request, denied, session = await asked(house), await answered(house), await recorded(house)
    await house.desk.directory.link("bob", Identity("https://idp.example", EVIL.replace(" ", "/")))
    nowhere = EVIL.replace("/", "")
    code = house.codes.issue(Actor("T0EXAMPLE", "U0EXAMPLE"), EVIL)  # what somebody is called in Slack
    pages = (
        "/console", "/console/history", f"/console/history?who={EVIL}&rule={EVIL}", "/console/grants", "/console/people",
        f"/console/approvals/{request.id}", f"/console/approvals/{denied.id}", "/console/policy", "/console/health",
        "/console/policy/rules/evil/title", "/console/sessions", f"/console/sessions/{session}", "/console/passkeys",
        f"/console/link/slack/{code}",
        f"/console/login?next={EVIL}", f"/console/approvals/{nowhere}", f"/console/sessions/{nowhere}",
    )  # fmt: skip
    async with open_chromium() as chromium, window(chromium, house.url, forgiving=True) as seen:
        await seen.page.add_init_script(LISTEN)
        await seen.log_in("carol")
        for path in pages:
            await seen.page.goto(seen.url + path.replace("#", "%23"))
            await inert(seen, path)
        await seen.open("/console/policy")
        await seen.page.fill("textarea[name=text]", EVIL)
        await seen.page.click("text=Explain >> nth=-1")
        await inert(seen, "explain")
        # 404 and 422 of the last addresses are told to the console of the browser; nothing else is.
        assert [c for c in seen.complaints if "Failed to load resource" not in c] == []


async def inert(seen: Window, path: str) -> None:
    page = seen.page
    assert await page.locator("#owned").count() == 0, path
    assert await page.evaluate("window.owned === undefined && window.violations.length === 0"), path
    ours = await page.evaluate("[...document.scripts].map(s => s.src)")
    assert ours and all(src.startswith(f"{seen.url}/console/static/") for src in ours), path
    assert await page.evaluate("document.querySelectorAll('img, iframe, object, embed, style, [style], base').length") == 0, path
    assert seen.elsewhere == [], path
    outside = await page.evaluate("[...document.forms].map(f => f.action).concat([...document.links].map(a => a.href))")
    assert all(address.startswith(f"{seen.url}/") for address in outside), path


@pytest.mark.interop
async def test_the_payload_is_shown_as_the_text_that_it_is(house: House) -> None:
    """Or the test above would pass for pages that show nothing."""
    request, denied = await asked(house), await answered(house)
    async with open_chromium() as chromium, window(chromium, house.url) as seen:
        await seen.log_in("carol", f"/console/approvals/{request.id}")
        text = await seen.page.inner_text("main")
        assert text.count("<script>window.owned=1;alert(1)</script>") >= 6
        assert "Written by the agent. Nobody has checked it." in text
        await seen.open(f"/console/approvals/{denied.id}")
        assert "<script>window.owned=1;alert(1)</script>" in await seen.page.inner_text(".vote")
        await seen.open("/console/policy/rules/evil/title")
        assert "<img id=owned" in await seen.page.inner_text("h1")


@pytest.mark.interop
async def test_a_policy_of_content_is_in_force_and_ordinary_pages_never_break_it(house: House) -> None:
    request = await house.ask()
    async with open_chromium() as chromium, window(chromium, house.url, forgiving=True) as seen:
        await seen.page.add_init_script(LISTEN)
        await seen.log_in("carol")
        for path in ("/console", f"/console/approvals/{request.id}", "/console/policy", "/console/people", "/console/health"):
            await seen.open(path)
            assert await seen.page.evaluate("window.violations.length") == 0, path
            assert seen.complaints == []
        # And were something to slip through, the browser itself would not run or load it.
        await seen.page.evaluate(
            """() => { const s = document.createElement("script"); s.textContent = "window.owned = 1"; document.body.append(s);
                       const i = new Image(); i.src = "http://127.0.0.2:9/x"; document.body.append(i); }"""
        )
        await seen.page.wait_for_function("window.violations.length >= 2")
        assert await seen.page.evaluate("window.owned === undefined")


async def test_invisible_and_turning_characters_of_names_and_reasons_do_not_reach_a_page(house: House) -> None:
    turned = "ops\u202egnp.exe\u2066\u200b\x1b[31m"
    principal = replace(house.desk.agent(), acting_for_handles=(turned,), acting_for=(Identity("x", "y"),))
    found = await house.desk.inbox.submit(replace(draft(), principal=principal, said=turned))
    await house.vote(found.request, "deny", reason=turned)
    async with visiting(house) as visitor:
        for path in ("/console", "/console/history", f"/console/approvals/{found.request.id}"):
            page = (await visitor.http.get(path)).text
            assert not set(page) & set("\u202e\u2066\u200b\x1b"), path


def test_marks_are_set_off_and_everything_else_is_escaped() -> None:
    assert str(marked("rm \u27e6U+0430 cyrillic\u27e7<b>")) == "rm <mark>U+0430 cyrillic</mark>&lt;b&gt;"
    assert str(marked("\u27e6<i>\u27e7\u27e6open")) == "<mark>&lt;i&gt;</mark>\u27e6open"
    assert said("a\nb\x00\u202ec") == "a b c"
