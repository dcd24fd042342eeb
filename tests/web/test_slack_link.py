"""Linking a Slack account: from a button in Slack to a page of the console, in real HTTP; by whom, once, and never by a GET."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from harness.clock import ManualClock
from harness.desk import PASSPHRASE
from harness.requests import draft
from harness.slack import APP, BOB, DAVE, STRANGER, TEAM
from harness.trust import TRUST
from harness.webnode import open_web
from interlock.approvals.authority import House
from interlock.approvals.channels.slack.inbound import Actor, Expected
from interlock.approvals.channels.slack.linking import MAX_CODES, LinkCodes
from interlock.approvals.model import State
from interlock.clock import system_entropy
from interlock.web.app import SlackParts
from interlock.web.console import sessions
from web.test_slack import Room, open_room


@dataclass
class Desktop:
    """A browser at the console of a room."""

    room: Room
    http: httpx.AsyncClient
    origin: str
    form: dict[str, str] = field(default_factory=dict)

    async def log_in(self, handle: str) -> None:
        data = {"handle": handle, "passphrase": PASSPHRASE}
        answer = await self.http.post("/console/login", data=data, headers={"Origin": self.origin})
        assert answer.status_code == 303, answer.text

    async def code(self, user: str = STRANGER) -> str:
        """Press the buttons in Slack; return the address of the page that comes back."""
        request = await self.room.ask()
        before = len(self.room.slack.whispers)
        await self.room.press(request, user=user)
        await self.room.send(self.room.slack.press_whisper(before + 1, user=user))
        found = re.search(r"https://interlock\.example(/console/link/slack/[0-9a-f]+)", json.dumps(self.room.slack.whispers[-1]))
        assert found is not None
        return found[1]

    async def read(self, path: str) -> httpx.Response:
        page = await self.http.get(path)
        found = re.search(r'<form method="post">\s*<input type="hidden" name="csrf" value="([0-9a-f]+)"', page.text)
        self.form = {"csrf": found[1]} if found else {}
        return page

    async def confirm(self, path: str, **changes: str) -> httpx.Response:
        return await self.http.post(path, data={**self.form, **changes}, headers={"Origin": self.origin})

    def linked(self, user: str = STRANGER) -> str:
        entry = self.room.desk.directory.by_slack(TEAM, user)
        return "" if entry is None else entry.handle


@pytest.fixture
async def desktop(tmp_path: Path) -> AsyncIterator[Desktop]:
    async with contextlib.AsyncExitStack() as stack:
        room = await stack.enter_async_context(open_room(tmp_path))
        await room.desk.directory.unlink_slack("bob", TEAM, BOB)
        parts = SlackParts(room.channel, Expected(TEAM, APP), room.codes, None)
        url = await stack.enter_async_context(open_web(room.desk, local=False, slack=parts))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, verify=TRUST))
        yield Desktop(room, http, url)


async def test_from_the_button_to_a_vote_that_counts(desktop: Desktop) -> None:
    path = await desktop.code()
    sent = await desktop.http.get(path)
    assert sent.status_code == 303 and sent.headers["location"] == f"/console/login?next={path}"
    await desktop.log_in("bob")

    page = await desktop.read(path)
    assert all(part in page.text for part in (TEAM, STRANGER, "Bob Approver", "<b>bob</b>", "as you"))
    assert desktop.linked() == "" and (await desktop.read(path)).status_code == 200  # reading uses nothing up
    done = await desktop.confirm(path)
    assert done.status_code == 200 and desktop.linked() == "bob"
    assert '"change":"linked"' in desktop.room.desk.journal_text()

    request = await desktop.room.ask()
    await desktop.room.press(request, user=STRANGER)
    assert await desktop.room.state(request) is State.APPROVED


async def test_a_code_is_good_once_and_only_for_the_account_it_was_given_to(desktop: Desktop) -> None:
    path = await desktop.code()
    await desktop.log_in("bob")
    await desktop.read(path)
    assert (await desktop.confirm(path)).status_code == 200
    for again in (await desktop.confirm(path), await desktop.http.get(path)):
        assert again.status_code == 404
    assert desktop.linked() == "bob" and desktop.linked(BOB) == ""
    for made_up in ("0" * 64, "x", "%00"):
        assert (await desktop.http.get(f"/console/link/slack/{made_up}")).status_code == 404


async def test_a_newer_code_of_the_same_account_takes_the_older_ones_place(desktop: Desktop) -> None:
    older, newer = await desktop.code(), await desktop.code()
    await desktop.log_in("bob")
    assert (await desktop.read(older)).status_code == 404
    assert (await desktop.read(newer)).status_code == 200


@pytest.mark.parametrize("how", ["no login", "no csrf", "another csrf", "another origin", "no origin"])
async def test_nobody_is_linked_by_a_form_that_is_not_ours(desktop: Desktop, how: str) -> None:
    path = await desktop.code()
    if how != "no login":
        await desktop.log_in("bob")
        await desktop.read(path)
    headers = {"another origin": {"Origin": "https://evil.example"}, "no origin": {}}.get(how, {"Origin": desktop.origin})
    form = {"no csrf": {}, "another csrf": {"csrf": "0" * 64}}.get(how, desktop.form)
    answer = await desktop.http.post(path, data=form, headers=headers)
    assert answer.status_code == 401 and desktop.linked() == ""


async def test_linking_needs_a_fresh_passphrase(desktop: Desktop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "DECIDING_S", 0)
    path = await desktop.code()
    await desktop.log_in("bob")
    assert 'name="passphrase"' in (await desktop.read(path)).text
    assert (await desktop.confirm(path)).status_code == 401
    assert (await desktop.confirm(path, passphrase="not hers")).status_code == 401
    assert desktop.linked() == ""
    assert (await desktop.confirm(path, passphrase=PASSPHRASE)).status_code == 200  # the tries used nothing up
    assert desktop.linked() == "bob"


async def test_an_account_of_somebody_is_never_taken_over(desktop: Desktop) -> None:
    path = await desktop.code()
    await desktop.room.desk.directory.link_slack("dave", TEAM, STRANGER)
    await desktop.log_in("bob")
    assert "linked to dave already" in (await desktop.read(path)).text
    page = await desktop.http.get("/console")
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
    assert csrf is not None
    assert (await desktop.confirm(path, csrf=csrf[1])).status_code >= 400
    assert desktop.linked() == "dave" and desktop.linked(DAVE) == "dave"


async def test_a_link_is_a_gain_that_waits_for_another_administrator(tmp_path: Path) -> None:
    async with open_room(tmp_path, house={"house": House(newcomer=3600)}) as room:
        directory, carol = room.desk.directory, room.desk.entry("carol").identity
        await directory.confirm("bob", by=carol)
        request = await room.ask()
        await room.press(request)
        assert await room.state(request) is State.APPROVED  # confirmed, and linked before that

        await directory.unlink_slack("bob", TEAM, BOB)
        await directory.link_slack("bob", TEAM, STRANGER, by=room.desk.entry("bob").identity)
        other = await room.ask(command=replace(draft().command, text=b"rm -rf /srv/other"))
        await room.press(other, user=STRANGER)
        assert await room.state(other) is State.PENDING and "reviewer-too-new" in room.desk.journal_text()
        await directory.confirm("bob", by=carol)
        await room.press(other, user=STRANGER)
        assert await room.state(other) is State.APPROVED


async def test_names_from_slack_are_inert_on_the_page(desktop: Desktop) -> None:
    desktop.room.slack.users[STRANGER]["profile"] = {"real_name": "<script>alert(1)</script>\u202e" + "x" * 5_000}
    path = await desktop.code()
    await desktop.log_in("bob")
    page = await desktop.read(path)
    assert "<script>alert" not in page.text and "\u202e" not in page.text and "&lt;script&gt;" in page.text


def test_codes_end_with_time_and_are_bounded() -> None:
    clock = ManualClock()
    codes = LinkCodes(clock, system_entropy)
    code = codes.issue(Actor(TEAM, BOB), "bob")
    clock.advance(599)
    assert codes.look(code) is not None
    clock.advance(1)
    assert codes.look(code) is None and codes.use(code) is None
    first = codes.issue(Actor(TEAM, "U1"), "")
    for number in range(2, MAX_CODES + 2):
        codes._claims[number.to_bytes(32, "big")] = codes._claims[next(iter(codes._claims))]
    last = codes.issue(Actor(TEAM, "U0LAST"), "")
    assert codes.look(last) is not None and codes.look(first) is None and len(codes._claims) <= MAX_CODES
