"""What we ask of Slack's Web API, through slack-sdk: the few calls, bounded and silent, and one error for all that can fail.

The SDK builds the calls; the transport under it is ours, because the SDK's own reads answers without a bound, follows
redirects with our token, takes a proxy from the environment and logs bodies at debug. Errors carry Slack's code for what
went wrong and never what was sent: that holds tokens and commands. Must not know requests, votes or people.
https://docs.slack.dev/apis/web-api, https://docs.slack.dev/apis/web-api/rate-limits
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from interlock.config import Secret
from interlock.errors import InterlockError, Reason

TIMEOUT_S = 15
MAX_ANSWER = 1024 * 1024
MAX_WAIT_S = 300.0
MAX_NAME = 200

Blocks = Sequence[Mapping[str, Any]]

_CODE = re.compile(r"[a-z0-9_]{1,64}\Z")
_PASSING = frozenset(
    (
        "ratelimited",
        "rate_limited",
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
    )
)
"""Codes of failures that pass by themselves."""


class SlackError(InterlockError):
    """Slack did not do what was asked. The request stays as it is; other channels still work.

    `slack` is Slack's own code. `passing` tells that the same call may succeed later, after `wait` seconds if Slack said so.
    """

    reason = Reason.TARGET_UNREACHABLE

    def __init__(self, message: str, *, slack: str = "", passing: bool = False, wait: float = 0.0) -> None:
        super().__init__(message)
        self.slack = slack
        self.passing = passing
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Account:
    """A user as Slack itself knows it at this moment. `name` is for people to look at and proves nothing."""

    user: str
    team: str
    person: bool  # a full member: not deleted, no bot, no guest, of no other workspace
    name: str


class SlackApi:
    """One app in one workspace. `close()` when done."""

    def __init__(self, *, api_url: str, bot_token: Secret, app_token: Secret | None = None) -> None:
        self._url = api_url
        self._bot_token = bot_token
        self._app_token = app_token
        self._web: _Web | None = None

    async def close(self) -> None:
        if self._web is not None:
            await self._web.session.close()
            self._web = None

    async def team(self) -> str:
        """Return the workspace that the bot token is for."""
        return str((await self._call("auth.test")).get("team_id") or "")

    async def post(self, conversation: str, blocks: Blocks, summary: str) -> str:
        """Post a message; return its `ts`, which names it within the conversation."""
        answer = await self._call("chat.postMessage", {"channel": conversation, **_message(blocks, summary)})
        message = answer.get("ts")
        if not isinstance(message, str) or not message:
            raise SlackError("Slack gave no name for the message that it took")
        return message

    async def update(self, conversation: str, message: str, blocks: Blocks, summary: str) -> None:
        await self._call("chat.update", {"channel": conversation, "ts": message, **_message(blocks, summary)})

    async def whisper(self, conversation: str, user: str, blocks: Blocks, summary: str) -> None:
        """Tell one person something that nobody else in the conversation sees."""
        await self._call("chat.postEphemeral", {"channel": conversation, "user": user, **_message(blocks, summary)})

    async def open_form(self, trigger: str, form: Mapping[str, Any]) -> None:
        """Open a form before whoever caused `trigger`, which is good for three seconds."""
        await self._call("views.open", {"trigger_id": trigger, "view": form})

    async def account(self, user: str) -> Account:
        """Ask Slack who a user id is, now: nothing is kept between two questions."""
        found = (await self._call("users.info", {"user": user}, form=True)).get("user")
        if not isinstance(found, dict) or found.get("id") != user:
            raise SlackError("Slack does not say who this is", slack="user_not_found")
        # Said plainly or not believed: a field that is missing is no `False`.
        plain = all(found.get(flag) is False for flag in ("deleted", "is_bot", "is_restricted", "is_ultra_restricted"))
        strange = any(found.get(flag) for flag in ("is_stranger", "is_workflow_bot", "is_invited_user", "is_connector_bot"))
        profile = found.get("profile")
        name = profile.get("real_name") if isinstance(profile, dict) else ""
        return Account(
            user=user,
            team=str(found.get("team_id") or ""),
            person=plain and not strange and user != "USLACKBOT",
            name=name[:MAX_NAME] if isinstance(name, str) else "",
        )

    async def socket_url(self) -> str:
        """Return the address of a Socket Mode connection: a ticket for one use, which is never shown."""
        assert self._app_token is not None  # SlackConfig asks for it
        answer = await self._call("apps.connections.open", token=self._app_token)
        url = answer.get("url")
        if not isinstance(url, str):
            raise SlackError("Slack gave no address to connect to")
        return url

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session that the websocket is opened in too."""
        return self._connected().session

    def _connected(self) -> _Web:
        if self._web is None:
            self._web = _Web(self._url)
        return self._web

    async def _call(
        self, method: str, body: Mapping[str, Any] | None = None, *, form: bool = False, token: Secret | None = None
    ) -> Mapping[str, Any]:
        headers = {"Authorization": f"Bearer {(token or self._bot_token).reveal()}"}
        content: dict[str, Any] = dict(body or {})
        try:
            if form or not content:
                answer = await self._connected().api_call(method, data=content, headers=headers)
            else:
                answer = await self._connected().api_call(method, json=content, headers=headers)
        except _HttpError as error:
            raise SlackError(f"Slack answered {error.status} to {method}", passing=error.passing, wait=error.wait) from None
        except (aiohttp.ClientError, SlackClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            raise SlackError(f"Slack can't be reached for {method} ({type(error).__name__})", passing=True) from None
        assert isinstance(answer.data, dict)
        return answer.data


class _HttpError(Exception):
    def __init__(self, status: int, wait: float) -> None:
        super().__init__(status)
        self.status = status
        self.wait = wait
        self.passing = status == 429 or status >= 500


class _Web(AsyncWebClient):
    """slack-sdk's client over a transport of our own."""

    session: aiohttp.ClientSession

    def __init__(self, base_url: str) -> None:
        # A logger in no hierarchy: no setting of anybody's root logger can make it print what we send.
        silent = logging.Logger("slack_sdk.silent", logging.CRITICAL + 1)  # noqa: LOG001  getLogger is what is to be avoided
        super().__init__(base_url=base_url, logger=silent, retry_handlers=[], timeout=TIMEOUT_S)
        self.proxy = None
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), trust_env=False)

    async def _request(self, *, http_verb: str, api_url: str, req_args: dict[str, Any]) -> dict[str, Any]:
        arguments = {key: value for key, value in req_args.items() if value is not None and key not in ("files", "proxy", "ssl")}
        async with self.session.request(http_verb, api_url, allow_redirects=False, **arguments) as response:
            if response.status != 200:
                raise _HttpError(response.status, _seconds(response.headers.get("Retry-After")))
            received = bytearray()
            async for piece in response.content.iter_any():
                received += piece
                if len(received) > MAX_ANSWER:
                    raise SlackError("Slack's answer is larger than 1 MiB")
            data = json.loads(received)
        if not isinstance(data, dict):
            raise SlackError("Slack's answer is not an object")
        if data.get("ok") is not True:
            code = data.get("error")
            code = code if isinstance(code, str) and _CODE.match(code) else "unknown_error"
            method = api_url.rpartition("/")[2]
            raise SlackError(f"Slack refused {method}: {code}", slack=code, passing=code in _PASSING)
        return {"data": data, "headers": response.headers, "status_code": response.status}


def _message(blocks: Blocks, summary: str) -> dict[str, Any]:
    """Nothing in a message of ours is formatted, linked, unfurled or calls anybody."""
    flat = summary.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    quiet = {"mrkdwn": False, "parse": "none", "link_names": False, "unfurl_links": False, "unfurl_media": False}
    return {"blocks": list(blocks), "text": flat, **quiet}


def _seconds(header: str | None) -> float:
    return min(float(header), MAX_WAIT_S) if header is not None and header.isascii() and header.isdigit() else 0.0
