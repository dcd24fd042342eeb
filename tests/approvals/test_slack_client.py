"""Our calls of Slack's Web API: bounded, silent, and one error for all that can fail. Over real HTTP to the fake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import structlog

from harness import slack as fake
from harness.slack import BOB, CHANNEL, FakeSlack
from interlock.approvals.channels.slack import blocks
from interlock.approvals.channels.slack.client import MAX_ANSWER, SlackApi, SlackError
from interlock.approvals.channels.slack.forms import Seal
from interlock.config import Secret

CONTENT = blocks.note("a secret command")


@dataclass
class Line:
    slack: FakeSlack
    api: SlackApi


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with AsyncExitStack() as stack:
        slack = await stack.enter_async_context(fake.running())
        api = SlackApi(api_url=f"{slack.url}/api/", bot_token=Secret(fake.BOT_TOKEN), app_token=Secret(fake.APP_TOKEN))
        stack.push_async_callback(api.close)
        yield Line(slack, api)


async def test_a_message_is_posted_updated_and_formats_nothing(line: Line) -> None:
    ts = await line.api.post(CHANNEL, CONTENT, "<!channel> & co")
    await line.api.update(CHANNEL, ts, blocks.note("changed"), "x")
    method, body = line.slack.calls[0]
    assert method == "chat.postMessage" and body["text"] == "&lt;!channel&gt; &amp; co"
    assert (body["mrkdwn"], body["parse"], body["link_names"], body["unfurl_links"]) == (False, "none", False, False)
    assert "changed" in fake.text_of(line.slack.messages[CHANNEL, ts]["blocks"])


@pytest.mark.parametrize(
    ("user", "person"),
    [
        (BOB, True),
        (fake.GUEST, False),
        (fake.SINGLE_GUEST, False),
        (fake.ROBOT, False),
        (fake.GONE, False),
        (fake.FOREIGNER, False),
    ],
)
async def test_only_a_full_member_is_a_person(line: Line, user: str, person: bool) -> None:
    assert (await line.api.account(user)).person is person


@pytest.mark.parametrize("flag", ["deleted", "is_bot", "is_restricted", "is_ultra_restricted"])
async def test_a_flag_that_is_missing_is_not_a_no(line: Line, flag: str) -> None:
    del line.slack.users[BOB][flag]
    assert not (await line.api.account(BOB)).person


async def test_an_account_that_slack_does_not_know_or_mixes_up_is_an_error(line: Line) -> None:
    with pytest.raises(SlackError, match="user_not_found"):
        await line.api.account("U0NOBODY")
    line.slack.users["U0MIXED"] = line.slack.users[BOB]
    with pytest.raises(SlackError):
        await line.api.account("U0MIXED")


async def test_failures_say_whether_they_pass_and_how_long_to_wait(line: Line) -> None:
    cases = [
        ({"status": 429, "retry_after": 7}, True, 7.0),
        ({"status": 503}, True, 0.0),
        ({"error": "ratelimited"}, True, 0.0),
        ({"error": "channel_not_found"}, False, 0.0),
        ({"status": 404}, False, 0.0),
    ]
    for how, passing, wait in cases:
        line.slack.fail("chat.postMessage", **how)
        with pytest.raises(SlackError) as caught:
            await line.api.post(CHANNEL, CONTENT, "x")
        assert (caught.value.passing, caught.value.wait) == (passing, wait)


async def test_answers_that_are_too_large_not_json_or_elsewhere_are_refused(line: Line) -> None:
    line.slack.answer("chat.postMessage", b'{"ok": true, "x": "' + b"x" * MAX_ANSWER + b'"}')
    line.slack.answer("chat.postMessage", b"<html>")
    line.slack.answer("chat.postMessage", b"[]")
    line.slack.answer("chat.postMessage", b"", status=302, headers={"Location": f"{line.slack.url}/api/auth.test"})
    for _ in range(4):
        with pytest.raises(SlackError):
            await line.api.post(CHANNEL, CONTENT, "x")
    assert [method for method, _ in line.slack.calls] == ["chat.postMessage"] * 4  # nobody followed the redirect


async def test_slack_out_of_reach_is_an_error_that_passes() -> None:
    api = SlackApi(api_url="http://127.0.0.1:1/api/", bot_token=Secret(fake.BOT_TOKEN))
    with pytest.raises(SlackError) as caught:
        await api.team()
    assert caught.value.passing
    await api.close()


async def test_no_token_no_ticket_and_no_command_is_ever_printed(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """With every logger awake, over good calls, refused ones and broken ones; also in errors and in reprs."""
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        if name.startswith(("slack_sdk", "aiohttp")):
            caplog.set_level(logging.DEBUG, name)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    told: list[str] = [repr(line.api), repr(vars(line.api)), repr(Seal(Secret(fake.BOT_TOKEN)))]
    url = await line.api.socket_url()  # through no proxy of the environment, or this would fail
    await line.api.post(CHANNEL, CONTENT, "x")
    line.slack.fail("chat.postMessage", error="invalid_auth")
    line.slack.fail("chat.postMessage", status=500)
    line.slack.answer("chat.postMessage", b"{")
    for _ in range(3):
        with pytest.raises(SlackError) as caught:
            await line.api.post(CHANNEL, CONTENT, "x")
        told += [str(caught.value), repr(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
        structlog.get_logger().warning("slack", error=str(caught.value))
    printed = caplog.text + "".join(capsys.readouterr()) + "".join(told)
    for secret in (fake.BOT_TOKEN, fake.APP_TOKEN, url.partition("ticket=")[2], "a secret command"):
        assert secret not in printed


async def test_a_slow_slack_holds_up_only_who_waits_for_it(line: Line) -> None:
    gate = line.slack.hold("users.info")
    slow = asyncio.ensure_future(line.api.account(BOB))
    assert await line.api.team() == fake.TEAM
    assert not slow.done()
    gate.set()
    assert (await slow).person
