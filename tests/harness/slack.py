"""A Slack of our own, on loopback over real HTTP and real websockets: the Web API's calls that we use, Socket Mode, people.

It keeps Block Kit's limits, signs what it posts, and can be slow, busy, broken, or say the same thing twice. Its Socket
Mode is checked against slack-sdk's own client (test_slack_socket.py), so that it is Slack's protocol and not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from typing import Any
from urllib.parse import urlencode

import httpx
from aiohttp import WSMsgType, web

from harness.trust import TRUST

TEAM, OTHER_TEAM, APP = "T0TEAM", "T0OTHER", "A0APP"
CHANNEL, ESCALATION, ELSEWHERE = "C0APPROVALS", "C0ESCALATION", "C0ELSEWHERE"
BOT_TOKEN, APP_TOKEN, SIGNING_SECRET = "xoxb-not-a-real-token", "xapp-not-a-real-token", "not-a-real-signing-secret"
BOB, ALICE, DAVE, STRANGER, GUEST, SINGLE_GUEST, ROBOT, GONE, FOREIGNER = (
    "U0BOB", "U0ALICE", "U0DAVE", "U0STRANGER", "U0GUEST", "U0SINGLE", "U0ROBOT", "U0GONE", "U0FOREIGN",
)  # fmt: skip

_MEMBER = {"deleted": False, "is_bot": False, "is_restricted": False, "is_ultra_restricted": False, "team_id": TEAM}

Block = dict[str, Any]
Key = tuple[str, str]


class FakeSlack:
    """Messages by (conversation, ts), what was whispered, forms that were opened, and every call in order."""

    def __init__(self) -> None:
        self.url = ""
        self.team = TEAM
        self.app_id = APP
        self.users: dict[str, Block] = {
            user: {"id": user, "name": user.lower(), "profile": {"real_name": "Bob Approver"}, **_MEMBER, **flags}
            for user, flags in {
                BOB: {}, ALICE: {}, DAVE: {}, STRANGER: {"name": "bob"}, GUEST: {"is_restricted": True},
                SINGLE_GUEST: {"is_restricted": True, "is_ultra_restricted": True}, ROBOT: {"is_bot": True},
                GONE: {"deleted": True}, FOREIGNER: {"team_id": OTHER_TEAM, "is_stranger": True},
            }.items()
        }  # fmt: skip
        self.messages: dict[Key, Block] = {}
        self.whispers: list[Block] = []
        self.forms: list[Block] = []
        self.calls: list[tuple[str, Block]] = []
        self.acknowledged: dict[str, Block] = {}
        self.sockets: list[web.WebSocketResponse] = []
        self.opened = 0  # sockets that were ever opened
        self.tickets: set[str] = set()
        self.greets = True
        self._faults: defaultdict[str, deque[Callable[[], web.Response]]] = defaultdict(deque)
        self._held: dict[str, asyncio.Event] = {}
        self._numbers = count(1)
        self._changed = asyncio.Event()

    # -- what it can be made to do ----------------------------------------------------------------------------------

    def fail(self, method: str, *, status: int = 200, error: str = "internal_error", retry_after: int | None = None) -> None:
        """Answer the next call of `method` like this instead."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        body = {"ok": False, "error": error}
        self._faults[method].append(lambda: web.json_response(body, status=status, headers=headers))

    def answer(self, method: str, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._faults[method].append(lambda: web.Response(body=body, status=status, headers=headers or {}))

    def hold(self, method: str) -> asyncio.Event:
        """Let calls of `method` wait until the returned event is set."""
        self._held[method] = asyncio.Event()
        return self._held[method]

    async def until(self, true: Callable[[], Any]) -> Any:
        """Wait until something holds; return what `true` returned."""
        async with asyncio.timeout(45):
            while not (found := true()):
                self._changed.clear()
                await self._changed.wait()
            return found

    async def message(self, part: str, *, conversation: str = CHANNEL, without: str = "\0") -> tuple[Key, Block]:
        """Wait for a message of the conversation that says `part`."""

        def found() -> tuple[Key, Block] | None:
            for key, message in self.messages.items():
                text = text_of(message["blocks"])
                if key[0] == conversation and part in text and without not in text:
                    return key, message
            return None

        got = await self.until(found)
        assert isinstance(got, tuple)
        return got

    async def whisper(self, number: int = 1) -> str:
        """Wait for the n-th whisper; return its text."""
        await self.until(lambda: len(self.whispers) >= number)
        return text_of(self.whispers[number - 1]["blocks"])

    # -- the Web API ------------------------------------------------------------------------------------------------

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/{method}", self._call)
        app.router.add_get("/link", self._socket)
        return app

    async def _call(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        body = await request.json() if request.content_type == "application/json" else dict(await request.post())
        self.calls.append((method, body))
        self._changed.set()
        if method in self._held:
            await self._held[method].wait()
        if self._faults[method]:
            return self._faults[method].popleft()()
        wanted = APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN
        if request.headers.get("Authorization") != f"Bearer {wanted}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        answer = self._answer(method, body)
        self._changed.set()
        return web.json_response(answer if "ok" in answer else {"ok": True, **answer})

    def _answer(self, method: str, body: Block) -> Block:
        match method:
            case "auth.test":
                return {"team_id": self.team, "user_id": ROBOT, "bot_id": "B0BOT"}
            case "chat.postMessage" | "chat.update" | "chat.postEphemeral":
                return self._message(method, body)
            case "views.open":
                problem = misshapen_form(body["view"])
                if problem or not body.get("trigger_id"):
                    return {"ok": False, "error": "invalid_arguments", "response_metadata": {"messages": [problem]}}
                self.forms.append(body)
                return {"view": {**body["view"], "id": f"V{next(self._numbers)}", "team_id": TEAM, "app_id": APP}}
            case "users.info":
                user = self.users.get(str(body.get("user")))
                return {"user": user} if user is not None else {"ok": False, "error": "user_not_found"}
            case "apps.connections.open":
                ticket = f"ticket-{next(self._numbers)}"
                self.tickets.add(ticket)
                return {"url": f"{self.url.replace('http', 'ws')}/link?ticket={ticket}"}
            case _:
                return {"ok": False, "error": "unknown_method"}

    def _message(self, method: str, body: Block) -> Block:
        problem = misshapen(body["blocks"])
        if problem:
            return {"ok": False, "error": "invalid_blocks", "response_metadata": {"messages": [problem]}}
        if not str(body["channel"]).startswith(("C", "D", "G")) or body["channel"] == "C0MISSING":
            return {"ok": False, "error": "channel_not_found"}
        if method == "chat.postEphemeral":
            self.whispers.append(body)
            return {"message_ts": f"1700000000.{next(self._numbers):06d}"}
        if method == "chat.update":
            key = (body["channel"], body["ts"])
            if key not in self.messages:
                return {"ok": False, "error": "message_not_found"}
        else:
            key = (body["channel"], f"1700000000.{next(self._numbers):06d}")
        self.messages[key] = {"blocks": body["blocks"], "text": body["text"]}
        return {"channel": key[0], "ts": key[1]}

    # -- Socket Mode ------------------------------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if ticket not in self.tickets:
            return web.Response(status=403)
        self.tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        self.opened += 1
        if self.greets:
            info = {"app_id": self.app_id}
            await socket.send_json({"type": "hello", "num_connections": len(self.sockets), "connection_info": info})
        self._changed.set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    answer = json.loads(message.data)
                    self.acknowledged[answer["envelope_id"]] = answer
                    self._changed.set()
        finally:
            if socket in self.sockets:
                self.sockets.remove(socket)
            self._changed.set()
        return socket

    async def send(self, payload: Block, *, envelope: str = "", socket: int = -1) -> Block:
        """Deliver an interaction over a socket; return what it was acknowledged with."""
        envelope = envelope or f"envelope-{next(self._numbers)}"
        self.acknowledged.pop(envelope, None)
        body = {"type": "interactive", "envelope_id": envelope, "payload": payload, "accepts_response_payload": True}
        await self.until(lambda: self.sockets)
        await self.sockets[socket].send_json(body)
        got = await self.until(lambda: self.acknowledged.get(envelope))
        assert isinstance(got, dict)
        return got

    async def drop(self) -> None:
        """Cut every socket without a word."""
        for socket in list(self.sockets):
            self.sockets.remove(socket)
            assert socket._req is not None and socket._req.transport is not None
            socket._req.transport.abort()

    # -- what it delivers -------------------------------------------------------------------------------------------

    def click(self, key: Key, action: str, *, user: str = BOB, **changes: Any) -> Block:
        """The payload of somebody pressing the button `action` of a message."""
        message = self.messages[key]
        buttons = {b["action_id"]: b for block in message["blocks"] for b in block.get("elements", []) if b["type"] == "button"}
        payload = {
            "type": "block_actions", "api_app_id": APP, "team": {"id": TEAM, "domain": "acme"},
            "user": {"id": user, "username": "bob", "name": "bob", "team_id": TEAM},
            "container": {"type": "message", "message_ts": key[1], "channel_id": key[0], "is_ephemeral": False},
            "channel": {"id": key[0], "name": "approvals"}, "message": {"ts": key[1], **deepcopy(message)},
            "trigger_id": f"{next(self._numbers)}.trigger",
            "actions": [{"type": "button", "action_id": action, "value": buttons[action].get("value"), "block_id": "answers"}],
        }  # fmt: skip
        return {**payload, **changes}

    def press_whisper(self, number: int, *, user: str = BOB) -> Block:
        """The payload of somebody pressing the only button of a whisper."""
        body = self.whispers[number - 1]
        key = (body["channel"], "1700000000.999999")
        self.messages[key] = {"blocks": body["blocks"], "text": body["text"]}
        (action,) = [b["action_id"] for block in body["blocks"] for b in block["elements"] if b["type"] == "button"]
        try:
            return self.click(key, action, user=user)
        finally:
            del self.messages[key]

    def submit(self, form: Block, *, user: str = BOB, values: dict[str, str] | None = None, **changes: Any) -> Block:
        """The payload of somebody sending a form that was opened."""
        view = form["view"]
        state: dict[str, Block] = {}
        for block in view["blocks"]:
            if block["type"] == "input":
                name, kind = block["element"]["action_id"], block["element"]["type"]
                given = (values or {}).get(name)
                initial = block["element"].get("initial_option", {}).get("value") or block["element"].get("initial_value")
                value = given if given is not None else initial
                chosen = {"selected_option": {"value": value} if value else None} if kind == "static_select" else {"value": value}
                state[block["block_id"]] = {name: {"type": kind, **chosen}}
        payload = {
            "type": "view_submission", "api_app_id": APP, "team": {"id": TEAM},
            "user": {"id": user, "name": "bob", "team_id": TEAM}, "trigger_id": f"{next(self._numbers)}.trigger",
            "view": {
                "id": "V1", "team_id": TEAM, "app_id": APP, "type": "modal", "callback_id": view["callback_id"],
                "private_metadata": view["private_metadata"], "state": {"values": state},
            },
        }  # fmt: skip
        return {**payload, **changes}


def signed(
    payload: Block | bytes, *, secret: str = SIGNING_SECRET, at: float | None = None, headers: dict[str, str] | None = None
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers as Slack would post them."""
    body = payload if isinstance(payload, bytes) else urlencode({"payload": json.dumps(payload)}).encode()
    stamp = str(int(at if at is not None else datetime.now(UTC).timestamp()))  # noqa: TID251  Slack has its own clock
    mac = hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, sha256).hexdigest()
    usual = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={mac}",
    }
    return body, {**usual, **(headers or {})}


async def deliver(node_url: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http:
        return await http.post(f"{node_url}/slack/interactions", content=body, headers=headers, timeout=45)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[FakeSlack]:
    slack = FakeSlack()
    runner = web.AppRunner(slack.app(), shutdown_timeout=1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    slack.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield slack
    finally:
        await runner.cleanup()


# -- Block Kit -------------------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """Every text that a reader sees, in order."""
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return "".join([*own, *(text_of(v) for k, v in value.items() if k not in ("value", "url") and not isinstance(v, str))])
    return "".join(text_of(v) for v in value) if isinstance(value, list) else ""


def buttons_of(message: Block) -> list[str]:
    return [b["action_id"] for block in message["blocks"] for b in block.get("elements", []) if b["type"] == "button"]


def misshapen(blocks: list[Block], *, most: int = 50) -> str:
    """Return what Slack would refuse about these blocks, or an empty string (docs.slack.dev/reference/block-kit)."""
    if not 1 <= len(blocks) <= most:
        return "number of blocks"
    if len(json.dumps(blocks)) > 13_000:
        return "msg_blocks_too_long"
    idents = [b["block_id"] for b in blocks if "block_id" in b]
    if len(idents) != len(set(idents)):
        return "block_id twice"
    return next(filter(None, map(_misshapen_block, blocks)), "")


def _misshapen_block(block: Block) -> str:
    match block["type"]:
        case "header":
            return _misshapen_text(block["text"], 150)
        case "rich_text":
            return _misshapen_rich(block["elements"])
        case "actions":
            buttons = block["elements"]
            if not 1 <= len(buttons) <= 25 or len({b["action_id"] for b in buttons}) != len(buttons):
                return "actions"
            return next(filter(None, map(_misshapen_button, buttons)), "")
        case "input":
            return _misshapen_text(block["label"], 2000) or _misshapen_element(block["element"])
        case other:
            return f"a block of type {other}"


def _misshapen_rich(elements: list[Block]) -> str:
    for element in elements:
        kind = element["type"]
        if kind == "rich_text_list":
            if element["style"] not in ("bullet", "ordered") or not element["elements"]:
                return "list"
            if problem := _misshapen_rich(element["elements"]):
                return problem
            continue
        if kind not in ("rich_text_section", "rich_text_preformatted", "rich_text_quote") or not element["elements"]:
            return f"an element of type {kind}"
        for text in element["elements"]:
            if set(text) - {"type", "text", "style"} or text["type"] != "text" or not 1 <= len(text["text"]) <= 3000:
                return f"a text in {kind}"
    return "" if elements else "empty rich text"


def _misshapen_text(text: Block, most: int) -> str:
    right = text["type"] == "plain_text" and 1 <= len(text["text"]) <= most and text.get("emoji") is False
    return "" if right else f"a plain text of at most {most}"


def _misshapen_button(button: Block) -> str:
    if button["type"] != "button" or len(button.get("value", "")) > 2000 or len(button.get("url", "")) > 3000:
        return "button"
    if button.get("style", "primary") not in ("primary", "danger"):
        return "button style"
    return _misshapen_text(button["text"], 75)


def _misshapen_element(element: Block) -> str:
    if element["type"] == "static_select":
        options = element["options"]
        if not 1 <= len(options) <= 100 or element.get("initial_option", options[0]) not in options:
            return "options"
        return next(
            (p for o in options if (p := _misshapen_text(o["text"], 75) or ("value" if len(o["value"]) > 150 else ""))), ""
        )
    if element["type"] == "number_input":
        return "" if int(element["min_value"]) <= int(element["initial_value"]) <= int(element["max_value"]) else "number"
    return "" if element["type"] == "plain_text_input" and element.get("max_length", 1) <= 3000 else "element"


def misshapen_form(view: Block) -> str:
    if view["type"] != "modal" or len(view["private_metadata"]) > 3000 or len(view["callback_id"]) > 255:
        return "form"
    titles = next(filter(None, (_misshapen_text(view[part], 24) for part in ("title", "submit", "close"))), "")
    return titles or misshapen(view["blocks"], most=100)
