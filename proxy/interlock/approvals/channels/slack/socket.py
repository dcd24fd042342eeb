"""Socket Mode: a websocket that we open ourselves, over which Slack delivers what it would post to an inbound address.

The connection authenticates its deliveries: it was opened with the app's own token, and its greeting must name our app.
Every envelope is acknowledged before anything slow is done with it, for Slack waits three seconds. Slack ends each
connection now and then and says so before; the next one is opened first, and what both of them deliver the replay table
takes once.

slack-sdk's types carry the envelopes; its SocketModeClient is not used: its queue has no bound, it prints tickets into
logs, and it retries for ever on a spent ticket (slackapi/python-slack-sdk#1446, #1922). Must not know what is in an
envelope. https://docs.slack.dev/apis/events-api/using-socket-mode
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import structlog
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from interlock.approvals.channels.courier import Patience
from interlock.approvals.channels.slack.client import SlackApi, SlackError
from interlock.approvals.channels.slack.inbound import MAX_BODY
from interlock.clock import Clock
from interlock.config import is_loopback

log = structlog.get_logger()

HEARTBEAT_S = 10.0
GREETING_S = 15.0
LIVED_S = 60
"""A connection that lasted so long was a good one: after it the pauses begin anew."""

Accept = Callable[[str, object], dict[str, Any] | None]
"""Takes an envelope's id and payload, starts what it asks for, and returns at once what to acknowledge it with."""


class SocketMode:
    """Keeps one connection open. `accept` must not block."""

    def __init__(
        self,
        api: SlackApi,
        accept: Accept,
        *,
        app: str,
        clock: Clock,
        patience: Patience = Patience(),
        heartbeat: float = HEARTBEAT_S,
    ) -> None:
        self._api = api
        self._accept = accept
        self._app = app
        self._clock = clock
        self._patience = patience
        self._heartbeat = heartbeat
        self._keeper: asyncio.Task[None] | None = None
        self._reading: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep(), name="slack-socket")

    async def close(self) -> None:
        tasks = [*self._reading, *([self._keeper] if self._keeper is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        """Open connections one after another, the next one when the last is ending or has ended."""
        failures = 0
        while True:
            since = self._clock.monotonic_us()
            wait = 0.0
            try:
                connection = await self._open()
                ending = asyncio.Event()
                task = asyncio.create_task(self._read(connection, ending), name="slack-socket-reader")
                self._reading.add(task)
                task.add_done_callback(self._reading.discard)
                log.info("slack.connected")
                await ending.wait()
                if self._clock.monotonic_us() - since >= LIVED_S * 1_000_000:
                    failures = 0
                    continue
            except SlackError as error:
                wait = error.wait
                log.warning("slack.not_connected", error=str(error), slack=error.slack)
            except Exception as error:  # one odd answer must not end the line for good; its text may hold a ticket
                log.error("slack.not_connected", error=type(error).__name__)
            failures += 1
            await asyncio.sleep(max(wait, self._patience.pause(failures)))

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        url = await self._api.socket_url()
        try:
            parts = urlsplit(url)
        except ValueError:
            raise SlackError("Slack's address for the socket is none", passing=True) from None
        if parts.scheme != "wss" and not is_loopback(parts.hostname or ""):
            raise SlackError("Slack's address for the socket is not wss")
        try:
            connection = await self._api.session.ws_connect(url, heartbeat=self._heartbeat, max_msg_size=2 * MAX_BODY)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The class alone: aiohttp's messages hold the address, which is a ticket.
            raise SlackError(f"Slack's socket can't be opened ({type(error).__name__})", passing=True) from None
        try:
            async with asyncio.timeout(GREETING_S):
                greeting = _object(await connection.receive())
            info = greeting.get("connection_info")
            if greeting.get("type") != "hello" or not isinstance(info, dict) or info.get("app_id") != self._app:
                raise SlackError("the socket is not one of the configured app; check approvals.channels.slack.app and app_token")
        except BaseException as error:
            await connection.close()
            if isinstance(error, TimeoutError):
                raise SlackError("Slack's socket did not greet", passing=True) from None
            raise
        return connection

    async def _read(self, connection: aiohttp.ClientWebSocketResponse, ending: asyncio.Event) -> None:
        try:
            async for message in connection:
                data = _object(message)
                if data.get("type") == "disconnect":
                    log.info("slack.disconnecting")
                    ending.set()
                    continue
                envelope = SocketModeRequest.from_dict(data) if isinstance(data.get("payload"), dict) else None
                if envelope is None or not isinstance(envelope.envelope_id, str):
                    continue
                answer = self._accept(envelope.envelope_id, envelope.payload) if envelope.type == "interactive" else None
                response = SocketModeResponse(envelope.envelope_id, answer if envelope.accepts_response_payload else None)
                await connection.send_str(json.dumps(response.to_dict()))
        except (aiohttp.ClientError, OSError) as error:
            log.warning("slack.socket_broke", error=type(error).__name__)
        except Exception as error:
            log.error("slack.socket_broke", error=type(error).__name__)
        finally:
            ending.set()
            await connection.close()


def _object(message: aiohttp.WSMessage) -> dict[str, Any]:
    """Return the object a text frame holds; an empty one for anything else."""
    if message.type is not aiohttp.WSMsgType.TEXT:
        return {}
    try:
        value = json.loads(message.data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
