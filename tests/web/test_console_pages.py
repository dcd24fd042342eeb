"""What each page of the console does, over real HTTP, the real desk and the real gate."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from webauthn.helpers import base64url_to_bytes

from harness.asked import WEB, Asking, open_asking
from harness.authenticator import as_json, authenticator
from harness.client import Impatient
from harness.console import House, open_house, visiting
from harness.desk import PASSPHRASE
from harness.loopback import free_port
from harness.requests import SHELL, TERMS, draft
from interlock.approvals.authority import House as DeskHouse
from interlock.approvals.fatigue import Limits
from interlock.approvals.line import Line
from interlock.approvals.model import State
from interlock.clock import ulid
from interlock.errors import Reason
from interlock.identity.principal import Identity, Kind
from interlock.identity.registration import NewPasskey
from interlock.policy.model import SessionFacts
from interlock.policy.question import Question
from interlock.web.console.decisions import as_sent
from interlock.web.console.rows import first_line
from interlock.web.console.sessions import DECIDING_S

SESSION = "01KB5T9ZV4Q7E8S3N2M6X0R1YD"


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    async with open_asking() as asking:
        yield asking


@pytest.fixture
async def house(tmp_path: Path, asking: Asking) -> AsyncIterator[House]:
    async with open_house(tmp_path, asking.analyzer) as house:
        yield house


def stale(house: House) -> None:
    for session in house.consoles._sessions.values():
        session.deciding_until_us -= (DECIDING_S + 1) * 1_000_000


# -- editing -----------------------------------------------------------------------------------------------------------------


async def test_an_edited_text_is_asked_anew_and_its_author_can_not_answer(house: House, asking: Asking) -> None:
    agent = house.desk.agent()
    old = (await house.desk.inbox.submit(await asking.draft(agent, WEB, "sudo rm -rf /srv/app"))).request
    await house.desk.directory.add("dora", Kind.HUMAN, groups=["sre"], passphrase=PASSPHRASE)
    async with visiting(house) as bob, visiting(house, "dora") as dora:
        answer = await bob.post(
            f"/console/approvals/{old.id}/edit", digest=old.digest, text="sudo rm -rf /srv/app/cache", reason="only the cache"
        )
        assert answer.status_code == 303
        new = await house.desk.inbox.get(answer.headers["location"].rpartition("/")[2])
        assert (new.draft.command.text, new.edited_from, new.state) == (b"sudo rm -rf /srv/app/cache", old.id, State.PENDING)
        assert new.author == house.desk.entry("bob").identity
        assert await house.state(old) is State.SUPERSEDED
        page = (await bob.http.get(f"/console/approvals/{new.id}")).text
        assert "You wrote this text" in page and "what was asked" in page and 'value="approve"' not in page
        form = {"digest": new.digest, "verdict": "approve"}
        assert (await bob.post(f"/console/approvals/{new.id}/decision", **form)).status_code == 409
        assert await house.state(new) is State.PENDING
        assert (await dora.post(f"/console/approvals/{new.id}/decision", **form)).status_code == 303
    assert await house.state(new) is State.APPROVED


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rm -rf /", "would not survive"),
        ("ls", "allows that text without asking"),
        ("echo \u202e hidden", "invisible"),
        ("sudo rm -rf '", "parse"),
    ],
)
async def test_an_edit_that_policy_decides_otherwise_changes_nothing(house: House, asking: Asking, text: str, told: str) -> None:
    old = (await house.desk.inbox.submit(await asking.draft(house.desk.agent(), WEB, "sudo rm -rf /srv/app"))).request
    async with visiting(house) as bob:
        answer = await bob.post(f"/console/approvals/{old.id}/edit", digest=old.digest, text=text)
    assert answer.status_code == 409 and told in answer.text
    assert await house.state(old) is State.PENDING


async def test_the_owner_and_an_old_digest_edit_nothing(house: House, asking: Asking) -> None:
    old = (await house.desk.inbox.submit(await asking.draft(house.desk.agent(), WEB, "sudo rm -rf /srv/app"))).request
    async with visiting(house, "alice") as alice, visiting(house) as bob:
        path = f"/console/approvals/{old.id}/edit"
        assert (await alice.post(path, digest=old.digest, text="sudo rm -rf /srv/app/x")).status_code == 409
        assert (await bob.post(path, digest="sha256:" + "0" * 64, text="sudo rm -rf /srv/app/x")).status_code == 409
        stale(house)
        answer = await bob.post(path, digest=old.digest, text="sudo rm -rf /srv/app/x")
        assert answer.status_code == 409 and "step-up" in answer.text
    assert await house.state(old) is State.PENDING


def test_a_form_gives_back_the_bytes_of_a_text_that_nobody_changed() -> None:
    """Browsers send line ends as CR LF; what would run must not change by being looked at."""
    for text in (b"one", b"one\ntwo\n", b"a\n\n\tb", "caf\u00e9".encode()):
        request = replace(draft(), command=replace(SHELL, text=text))
        sent = text.decode().replace("\n", "\r\n")
        assert as_sent(sent, _Found(request)) == text  # type: ignore[arg-type]


class _Found:
    def __init__(self, asked: Any) -> None:
        self.draft = asked


# -- breaking the glass --------------------------------------------------------------------------------------------------------


async def test_glass_is_broken_with_a_passkey_and_a_reason_and_stays_until_somebody_else_reviewed_it(tmp_path: Path) -> None:
    url = f"http://localhost:{free_port()}"
    rules = DeskHouse(glass=frozenset(("leads",)))
    async with open_house(tmp_path, house=rules, public_url=url) as house:
        people = house.desk.directory
        lead = await people.add("lea", Kind.HUMAN, groups=["leads"], passphrase=PASSPHRASE)
        await people.add("max", Kind.HUMAN, groups=["leads", "interlock-admins"], passphrase=PASSPHRASE)
        phone = authenticator("phone", host="localhost", origin=url)
        await people.add_passkey("lea", NewPasskey(phone.id, phone.cose, 0, "phone"), by=lead.identity)
        request = await house.ask(terms=replace(TERMS, quorum=2))
        path = f"/console/approvals/{request.id}/break-glass"
        async with visiting(house, "lea") as lea, visiting(house) as bob, visiting(house, "max") as boss:
            page = (await lea.http.get(f"/console/approvals/{request.id}")).text
            assert "Break the glass and sign" in page and 'data-scope="break_glass"' in page
            assert "Break the glass" not in (await bob.http.get(f"/console/approvals/{request.id}")).text
            why = "the site is down and nobody else is awake"
            assert (await lea.post(path, digest=request.digest, reason=why)).status_code == 409, "without a signature"
            assert (await bob.post(path, digest=request.digest, reason=why)).status_code == 409, "of no named group"

            async def signed(scope: str = "break_glass") -> str:
                options = await lea.post(
                    f"/console/approvals/{request.id}/challenge", digest=request.digest, verdict="approve", scope=scope
                )
                return json.dumps(as_json(phone.assertion(base64url_to_bytes(options.json()["challenge"]))))

            short = await lea.post(path, digest=request.digest, reason="hurry", signed=await signed())
            assert short.status_code == 409 and await house.state(request) is State.PENDING
            ordinary = await lea.post(path, digest=request.digest, reason=why, signed=await signed("once"))
            assert ordinary.status_code == 409 and await house.state(request) is State.PENDING, "signed to approve, not to break"
            done = await lea.post(path, digest=request.digest, reason=why, signed=await signed())
            assert done.status_code == 303, done.text
            assert await house.state(request) is State.APPROVED
            assert "Somebody broke the glass" in (await bob.http.get(f"/console/approvals/{request.id}")).text
            assert request.id in (await boss.http.get("/console/health")).text
            review = f"/console/health/glass/{request.id}"
            assert (await lea.post(review, note="fine by me")).status_code == 403, "no administrator"
            assert (await boss.post(review, note="read the transcript: as described")).status_code == 303
            assert request.id not in (await boss.http.get("/console/health")).text


# -- sessions ------------------------------------------------------------------------------------------------------------------


async def test_a_live_session_is_listed_and_ended_and_the_journal_says_by_whom(house: House) -> None:
    session = await house.gate.open(house.desk.agent(), WEB, SessionFacts(SESSION, "192.0.2.7"))
    async with visiting(house, "carol") as carol:
        page = (await carol.http.get("/console/sessions")).text
        assert SESSION in page and "192.0.2.7" in page and "End it now" in page
        assert (await carol.post(f"/console/sessions/{SESSION}/kill", reason="runs wild")).status_code == 303
        refused = session.stopped()  # type: ignore[union-attr]
        assert refused is not None and refused.reason is Reason.SESSION_KILLED
        assert (await carol.post("/console/sessions/01NOTHING/kill")).status_code == 404
    journal = house.desk.journal_text()
    assert "session.kill" in journal and str(house.desk.entry("carol").identity) in journal
    disclosed = [base64.urlsafe_b64decode(found + "==") for found in re.findall(r'"d":"([\w-]+)"', journal)]
    assert any(b"runs wild" in value for value in disclosed)


async def test_a_recorded_session_is_read_event_by_event_and_taken_away(house: House) -> None:
    session = await house.gate.open(house.desk.agent(), WEB, SessionFacts(SESSION, "192.0.2.7"))
    command = Question(b"sudo rm -rf /srv/x", WEB).command
    await session.submit(command, Impatient(said="tidying up")).outcome()  # type: ignore[union-attr]
    await session.close("client-left")  # type: ignore[union-attr]
    async with visiting(house, "carol") as carol:
        assert SESSION in (await carol.http.get("/console/sessions")).text
        page = (await carol.http.get(f"/console/sessions/{SESSION}")).text
        assert "session.open" in page and "decision" in page and "sudo rm -rf /srv/x" in page
        cast = await carol.http.get(f"/console/sessions/{SESSION}/recording")
        assert cast.headers["content-disposition"] == f"attachment; filename={SESSION}.cast"
        assert cast.headers["content-type"] == "application/octet-stream" and cast.text.startswith('{"')
        for name in ("../journal", "..%2F..%2Fkeys", "a;b%0D%0AX:%20y", "nope"):
            assert (await carol.http.get(f"/console/sessions/{name}/recording")).status_code in (404, 405), name


# -- people --------------------------------------------------------------------------------------------------------------------


async def test_people_shows_owners_reviewers_links_and_the_disabled(house: House) -> None:
    people = house.desk.directory
    await people.link("bob", Identity("https://idp.example", "00u1"))
    await people.add("eve", Kind.HUMAN, groups=["sre"])
    async with visiting(house, "carol") as carol:
        assert (await carol.post("/console/people/eve/disable")).status_code == 303
        page = (await carol.http.get("/console/people")).text
    assert "https://idp.example:00u1" in page
    cards = {found[1]: found[0] for found in re.findall(r"(<article[^>]*>.*?<b>(\w+)</b>.*?</article>)", page, re.DOTALL)}
    assert "alice" in cards["claude"] and "reviewer" in cards["bob"] and "disabled" in cards["eve"]
    assert "disabled" not in cards["bob"].partition("<details>")[0]


async def test_a_locked_agent_is_unlocked_with_a_fresh_passphrase_only(tmp_path: Path) -> None:
    async with open_house(tmp_path, limits=Limits(denials=2)) as house:
        for text in (b"sudo rm -rf /a", b"sudo rm -rf /b"):
            await house.vote(await house.ask(command=replace(SHELL, text=text)), "deny")
        assert len(house.desk.inbox.locks()) == 1
        async with visiting(house, "carol") as carol:
            assert "Kept asking for what was denied" in (await carol.http.get("/console/people")).text
            stale(house)
            assert (await carol.post("/console/people/claude/unlock")).status_code == 401
            assert len(house.desk.inbox.locks()) == 1
            assert (await carol.post("/console/people/claude/unlock", passphrase=PASSPHRASE)).status_code == 303
        assert house.desk.inbox.locks() == []


async def test_a_new_reviewer_is_confirmed_by_another_administrator_as_shown(tmp_path: Path) -> None:
    async with open_house(tmp_path, house=DeskHouse(newcomer=3600.0)) as house:
        people = house.desk.directory
        carol_is = house.desk.entry("carol").identity
        await people.add("nina", Kind.HUMAN, groups=["sre"], passphrase=PASSPHRASE, by=carol_is)
        await people.add("max", Kind.HUMAN, groups=["interlock-admins"], passphrase=PASSPHRASE)
        request = await house.ask()
        async with visiting(house, "nina") as nina, visiting(house, "carol") as carol, visiting(house, "max") as boss:
            decide = f"/console/approvals/{request.id}/decision"
            early = await nina.post(decide, digest=request.digest, verdict="approve")
            assert early.status_code == 409 and "only lately" in early.text
            page = (await boss.http.get("/console/people")).text
            shown = re.search(r'people/nina/confirm">.*?name="changed" value="([^"]+)"', page, re.DOTALL)
            assert shown and "waits to be confirmed" in page
            path = "/console/people/nina/confirm"
            assert (await carol.post(path, changed=shown[1])).status_code >= 400, "whoever made the change"
            assert (await boss.post(path, changed="2020-01-01T00:00:00Z")).status_code >= 400, "another change than was shown"
            assert (await boss.post(path, changed="soon")).status_code >= 400
            assert (await boss.post(path, changed=shown[1])).status_code >= 400, "an administrator made for the occasion"
            assert not house.desk.entry("nina").confirmed
            await people.confirm("max", by=carol_is)
            assert (await boss.post(path, changed=shown[1])).status_code == 303
            assert (await nina.post(decide, digest=request.digest, verdict="approve")).status_code == 303
        assert await house.state(request) is State.APPROVED


# -- policy --------------------------------------------------------------------------------------------------------------------


async def test_explain_answers_as_the_terminal_does_and_sends_nothing(house: House) -> None:
    async with visiting(house, "carol") as carol:
        said = (await carol.post("/console/policy/explain", text="sudo rm -rf /srv/app", target="web-1", who="claude")).text
        assert "A person is asked" in said and "linux/recursive-delete" in said
        assert "deletes /srv/app and everything below it, by force, as root" in said
        sql = (await carol.post("/console/policy/explain", text="DROP TABLE t", target="orders", who="an agent")).text
        assert "drops the table" in sql or "DROP TABLE t" in sql
        for target, who, told in (("nowhere", "", "there is no target"), ("web-1", "ghost", "there is no principal")):
            answer = await carol.post("/console/policy/explain", text="ls", target=target, who=who)
            assert told in answer.text
        assert "write a command" in (await carol.post("/console/policy/explain", text=" ")).text
    assert house.gate.sessions() == [] and house.desk.inbox.pending_count() == 0


async def test_a_text_that_takes_its_parser_long_does_not_hold_up_other_pages(house: House) -> None:
    deep = "if true; then " * 2000 + "ls; " + "fi; " * 2000
    async with visiting(house, "carol") as carol, visiting(house) as bob:
        explaining = asyncio.create_task(carol.post("/console/policy/explain", text=deep, target="web-1"))
        await asyncio.sleep(0)
        answered = 0
        while not explaining.done():
            assert (await bob.http.get("/console/fingerprint")).status_code == 200
            answered += not explaining.done()
        assert (await explaining).status_code == 200
    assert answered, "another page was answered while the parser was at it"


async def test_every_rule_has_a_page_with_its_condition_and_cases(house: House) -> None:
    async with visiting(house, "carol") as carol:
        names = re.findall(r'href="/console/policy/rules/([^"]+)"', (await carol.http.get("/console/policy")).text)
        assert len(names) > 40
        for name in names:
            page = await carol.http.get(f"/console/policy/rules/{name}")
            assert page.status_code == 200, name
        page = (await carol.http.get("/console/policy/rules/linux/recursive-delete")).text
        assert "effects.exists(e, e.verb == &#34;delete&#34; &amp;&amp; e.recursive)" in page
        assert "find /srv/app -name" in page and str(Path(__file__).parents[2]) not in page
        assert (await carol.http.get("/console/policy/rules/linux/nothing")).status_code == 404


# -- history -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, limits=Limits(pending=1000, denials=1000)) as house:
        yield house


async def test_history_filters_and_pages_without_losing_any(busy: House) -> None:
    house, made = busy, []
    for number in range(60):
        request = await house.ask(command=replace(SHELL, text=f"sudo rm -rf /srv/{number}".encode()), terms=TERMS)
        made.append(request.id)
        if number % 3 == 0:
            await house.vote(request, "deny")
    async with visiting(house) as bob:
        assert await walked(bob.http, "/console/history") == sorted(made, reverse=True)
        denied = sorted((ident for n, ident in enumerate(made) if n % 3 == 0), reverse=True)
        assert await walked(bob.http, "/console/history?state=denied") == denied
        assert await walked(bob.http, "/console/history?who=BOB") == denied, "reviewers are found as well"
        assert await walked(bob.http, "/console/history?rule=recursive&target=web") == sorted(made, reverse=True)
        assert await walked(bob.http, "/console/history?target=elsewhere") == []
        assert await walked(bob.http, "/console/history?state=nonsense") == sorted(made, reverse=True)


async def walked(http: httpx.AsyncClient, path: str) -> list[str]:
    """Follow Older to the end."""
    found: list[str] = []
    while path:
        page = (await http.get(path)).text
        found += re.findall(r'href="/console/approvals/(req_\w+)" data-row', page)
        older = re.search(r'href="([^"]+)">Older', page)
        path = older[1].replace("&amp;", "&") if older else ""
    return found


# -- the inbox -----------------------------------------------------------------------------------------------------------------


async def test_an_inbox_of_ten_thousand_is_drawn_a_page_at_a_time(house: House) -> None:
    """The lines are put where the desk keeps them: what is counted is what is drawn for one page, over HTTP."""
    first = await house.ask(command=replace(SHELL, text=b"sudo rm -rf /srv\n" + b"x" * 200_000))
    register = house.desk.inbox._register
    for _ in range(10_000):
        copy = replace(first, id=f"req_{ulid(house.desk.clock, lambda n: bytes(n - 2) + len(register.lines).to_bytes(2, 'big'))}")
        register.lines[copy.id] = Line(copy)
    async with visiting(house) as bob:
        page = await bob.http.get("/console")
        assert page.text.count("data-row") == 50
        assert len(page.content) < 200_000, "a row shows the beginning of a text, however long it is"
        older = re.search(r'href="(/console\?before=req_\w+)">Older', page.text)
        assert older and (await bob.http.get(older[1])).text.count("data-row") == 50
        assert len((await bob.http.get("/console/fingerprint")).text) == 64
    for ident in list(register.lines):
        if ident != first.id:
            del register.lines[ident]


async def test_events_carry_ids_and_states_alone_and_end_with_the_login(house: House) -> None:
    async with visiting(house) as bob, bob.http.stream("GET", "/console/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        assert await anext(lines) == "retry: 3000"
        request = await house.ask(said="secret words")
        told = [await anext(lines) for _ in range(3)]
        assert told[1] == "event: change"
        assert told[2] == (
            f'data: {{"id": "{request.id}", "state": "pending", "presence": "held", "answers": 0, "escalated": false}}'
        )
        await house.desk.directory.set_disabled("bob", True)
        await house.ask(command=replace(SHELL, text=b"sudo rm -rf /other"))
        async for line in lines:
            assert not line, "whoever is disabled is told nothing more"


async def test_a_stop_ends_event_streams(house: House) -> None:
    async with visiting(house) as bob, bob.http.stream("GET", "/console/events") as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        house.stopping.set()
        assert [line async for line in lines if line] == []


def test_a_row_shows_a_command_and_not_the_comment_before_it() -> None:
    assert first_line(b"-- harmless\n  # really\nDROP TABLE t;\nSELECT 1") == ("DROP TABLE t;", True, True, False)
    assert first_line(b"# only a comment") == ("# only a comment", False, False, False)
    assert first_line(b"") == ("", False, False, False)
    line, _, more, deceptive = first_line(b"rm '" + "\u00e9".encode() * 200)
    assert more and "byte 0x" not in line and not deceptive
    assert first_line(b"\n" * 300 + b"late")[0] == "late"


async def test_expiry_is_said_in_words_that_shrink(house: House) -> None:
    request = await house.ask(terms=replace(TERMS, expires=7200))
    assert request.expires - request.created == timedelta(seconds=7200)
    async with visiting(house) as bob:
        assert re.search(r"expires in 1(19|20) min", (await bob.http.get(f"/console/approvals/{request.id}")).text)
