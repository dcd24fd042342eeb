"""Socket Mode over a real websocket: greeted, acknowledged at once, opened again, and never a ticket in a log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from harness import slack as fake
from harness.slack import APP, FakeSlack
from interlock.approvals.channels.courier import Patience
from interlock.approvals.channels.slack.client import SlackApi
from interlock.approvals.channels.slack.socket import SocketMode
from interlock.clock import SystemClock
from interlock.config import Secret


@dataclass
class Line:
    slack: FakeSlack
    api: SlackApi
    got: list[tuple[str, object]] = field(default_factory=list)
    answer: dict[str, Any] | None = None

    def accept(self, envelope: str, payload: object) -> dict[str, Any] | None:
        self.got.append((envelope, payload))
        return self.answer

    def socket(self, app: str = APP) -> SocketMode:
        return SocketMode(self.api, self.accept, app=app, clock=SystemClock(), patience=Patience(first=0.001, most=0.01))


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with AsyncExitStack() as stack:
        slack = await stack.enter_async_context(fake.running())
        api = SlackApi(api_url=f"{slack.url}/api/", bot_token=Secret(fake.BOT_TOKEN), app_token=Secret(fake.APP_TOKEN))
        stack.push_async_callback(api.close)
        yield Line(slack, api)


async def test_an_envelope_is_handed_on_and_acknowledged(line: Line) -> None:
    socket = line.socket()
    socket.start()
    acknowledged = await line.slack.send({"type": "block_actions"}, envelope="e1")
    assert acknowledged == {"envelope_id": "e1"}
    line.answer = {"response_action": "errors", "errors": {"minutes": "1 to 60"}}
    assert (await line.slack.send({}, envelope="e2"))["payload"] == line.answer
    assert [envelope for envelope, _ in line.got] == ["e1", "e2"]
    await socket.close()


async def test_a_socket_that_is_cut_is_opened_again(line: Line) -> None:
    socket = line.socket()
    socket.start()
    for number in range(1, 4):
        await line.slack.until(lambda number=number: line.slack.opened == number and line.slack.sockets)
        await line.slack.send({}, envelope=f"e{number}")
        await line.slack.drop()
    await line.slack.send({}, envelope="last")
    assert [envelope for envelope, _ in line.got] == ["e1", "e2", "e3", "last"]
    await socket.close()


async def test_a_socket_that_will_end_keeps_delivering_until_the_next_one_does(line: Line) -> None:
    socket = line.socket()
    socket.start()
    await line.slack.until(lambda: line.slack.sockets)
    await line.slack.sockets[0].send_json({"type": "disconnect", "reason": "refresh_requested"})
    await line.slack.until(lambda: len(line.slack.sockets) == 2)
    await line.slack.send({}, envelope="old", socket=0)
    await line.slack.send({}, envelope="new", socket=1)
    assert [envelope for envelope, _ in line.got] == ["old", "new"]
    await socket.close()


async def test_slack_that_does_not_let_us_in_is_asked_again_with_a_new_ticket(line: Line) -> None:
    line.slack.fail("apps.connections.open", error="internal_error")
    line.slack.fail("apps.connections.open", status=503)
    line.slack.answer("apps.connections.open", b'{"ok": true, "url": "%s/link?ticket=spent"}' % line.slack.url.encode())
    line.slack.answer("apps.connections.open", b'{"ok": true, "url": "ws://slack.example/link"}')
    socket = line.socket()
    socket.start()
    assert await line.slack.send({}, envelope="e1") == {"envelope_id": "e1"}
    assert len([method for method, _ in line.slack.calls if method == "apps.connections.open"]) == 5
    await socket.close()


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"ok": true, "url": "wss://[x"}', b'{"ok": true, "url": "ws://localhost:x/"}']
)
async def test_an_odd_answer_does_not_end_the_line(line: Line, body: bytes) -> None:
    line.slack.answer("apps.connections.open", body)
    socket = line.socket()
    socket.start()
    assert await line.slack.send({}, envelope="e1") == {"envelope_id": "e1"}
    await socket.close()


async def test_a_defect_of_ours_does_not_end_the_line(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, failures = line.api.socket_url, [KeyError("ticket"), AssertionError()]

    async def odd() -> str:
        if failures:
            raise failures.pop()
        return await genuine()

    monkeypatch.setattr(line.api, "socket_url", odd)
    socket = line.socket()
    socket.start()
    assert await line.slack.send({}, envelope="e1") == {"envelope_id": "e1"}
    await socket.close()


async def test_the_socket_of_another_app_delivers_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.slack.app_id = "A0OTHER"
    socket = line.socket()
    socket.start()
    await line.slack.until(lambda: line.slack.opened >= 2)  # refused after its greeting, and tried again
    assert line.got == []
    await socket.close()


async def test_frames_that_are_no_envelopes_are_passed_over(line: Line) -> None:
    socket = line.socket()
    socket.start()
    await line.slack.until(lambda: line.slack.sockets)
    for frame in (
        "",
        "[]",
        "{",
        "null",
        '{"type": "interactive", "envelope_id": 7, "payload": {}}',
        '{"envelope_id": "x"}',
        "[" * 9_000,
    ):
        await line.slack.sockets[0].send_str(frame)
    await line.slack.sockets[0].send_bytes(b"\x00\xff")
    await line.slack.send({}, envelope="e1")
    assert [envelope for envelope, _ in line.got] == ["e1"]
    assert line.slack.opened == 1
    await socket.close()


async def test_closing_leaves_no_socket_and_no_task(line: Line) -> None:
    socket = line.socket()
    socket.start()
    await line.slack.send({}, envelope="e1")
    await socket.close()
    await line.slack.until(lambda: not line.slack.sockets)
    assert not [task for task in asyncio.all_tasks() if "slack-socket" in task.get_name()]


async def test_no_ticket_is_ever_printed(
    line: Line, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    line.slack.answer("apps.connections.open", b'{"ok": true, "url": "%s/link?ticket=very-secret"}' % line.slack.url.encode())
    socket = line.socket()
    socket.start()
    await line.slack.send({}, envelope="e1")
    await line.slack.drop()
    await line.slack.send({}, envelope="e2")
    await socket.close()
    printed = caplog.text + "".join(capsys.readouterr())
    assert fake.APP_TOKEN not in printed and "ticket=" not in printed


async def test_the_fake_speaks_the_protocol_that_slack_sdk_speaks(line: Line) -> None:
    """slack-sdk's own client connects to it, is greeted, gets the envelope and acknowledges it."""
    web = AsyncWebClient(token=fake.BOT_TOKEN, base_url=f"{line.slack.url}/api/")
    client = SocketModeClient(app_token=fake.APP_TOKEN, web_client=web)
    got: list[str] = []

    async def listener(_: Any, request: Any) -> None:
        got.append(request.payload["type"])
        await client.send_socket_mode_response(SocketModeResponse(request.envelope_id))

    client.socket_mode_request_listeners.append(listener)
    await client.connect()
    assert (await line.slack.send({"type": "block_actions"}, envelope="e1"))["envelope_id"] == "e1"
    assert got == ["block_actions"]
    await client.close()
