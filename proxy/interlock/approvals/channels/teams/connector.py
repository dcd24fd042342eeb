"""Outbound calls to the Bot Connector: send, update, look up a member. Only ever to the validated service URL.

https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-api-reference
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from interlock.approvals.channels.teams.cards import CONTENT_TYPE
from interlock.approvals.channels.teams.transport import Member, TransportError
from interlock.clock import Clock
from interlock.config import Secret

SCOPE = "https://api.botframework.com/.default"
TIMEOUT_S = 15.0
MAX_ANSWER = 256 * 1024
REFRESH_BEFORE_S = 300


class Connector:
    """One bot's client. `service_url` was validated by `inbound.service_allowed` before it came here."""

    def __init__(
        self, *, app_id: str, password: Secret, token_url: str, service_url: str, clock: Clock, http: httpx.AsyncClient
    ) -> None:
        self._app_id = app_id
        self._password = password
        self._token_url = token_url
        self.base = service_url.rstrip("/")
        self._clock = clock
        self._http = http
        self._token = ""
        self._token_until_us = 0
        self._lock = asyncio.Lock()

    async def send(self, conversation: str, card: dict[str, Any], summary: str) -> str:
        """Post a card; return the id of the message."""
        answer = await self.call("POST", f"/v3/conversations/{quote(conversation, safe='')}/activities", _message(card, summary))
        ident = answer.get("id")
        if not isinstance(ident, str) or not ident:
            raise TransportError("the Bot Connector gave no id for the message it took")
        return ident

    async def update(self, conversation: str, message: str, card: dict[str, Any], summary: str) -> None:
        path = f"/v3/conversations/{quote(conversation, safe='')}/activities/{quote(message, safe='')}"
        await self.call("PUT", path, _message(card, summary))

    async def member(self, conversation: str, user: str) -> Member:
        """Ask the service who a user id is: the mapping is confirmed here, not taken from the activity alone."""
        path = f"/v3/conversations/{quote(conversation, safe='')}/members/{quote(user, safe='')}"
        return member_of(await self.call("GET", path, None))

    async def open_conversation(self, tenant: str, user: str) -> str:
        """Open the one-to-one conversation with a Teams id; the service returns the one there is."""
        body = {"isGroup": False, "bot": {"id": f"28:{self._app_id}"}, "members": [{"id": user}], "tenantId": tenant}
        answer = await self.call("POST", "/v3/conversations", {**body, "channelData": {"tenant": {"id": tenant}}})
        ident = answer.get("id")
        if not isinstance(ident, str) or not ident:
            raise TransportError("the Bot Connector gave no id for the conversation it opened")
        return ident

    async def call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Make one authenticated call under the service URL; return the JSON object it answers with."""
        token = await self.bearer()
        try:
            return await self._fetch(method, self.base + path, headers={"Authorization": f"Bearer {token}"}, json=body)
        except TransportError as error:
            if error.status != 401:
                raise
        # The token was taken back before its time: once more, with a new one.
        if self._token == token:
            self._token = ""
        token = await self.bearer()
        return await self._fetch(method, self.base + path, headers={"Authorization": f"Bearer {token}"}, json=body)

    async def bearer(self) -> str:
        """Return a client-credentials token; one fetch at a time, renewed five minutes before it ends."""
        async with self._lock:
            if self._token and self._clock.monotonic_us() < self._token_until_us:
                return self._token
            form = {
                "grant_type": "client_credentials",
                "client_id": self._app_id,
                "client_secret": self._password.reveal(),
                "scope": SCOPE,
            }
            try:
                answer = await self._fetch("POST", self._token_url, data=form)
            except TransportError as error:
                raise TransportError(str(error), status=error.status, retry_after=error.retry_after, token=True) from None
            token, lifetime = answer.get("access_token"), answer.get("expires_in")
            if not isinstance(token, str) or not isinstance(lifetime, int):
                raise TransportError("the token service gave no token")
            self._token = token
            self._token_until_us = self._clock.monotonic_us() + max(0, lifetime - REFRESH_BEFORE_S) * 1_000_000
            return token

    async def _fetch(self, method: str, url: str, **kwargs: Any) -> dict[str, Any]:
        """One bounded call without redirects. Errors never carry the body: it may hold our secret."""
        if kwargs.get("json") is None:
            kwargs.pop("json", None)
        try:
            async with asyncio.timeout(TIMEOUT_S):  # for all of it: httpx only bounds the wait for each piece
                async with self._http.stream(method, url, timeout=TIMEOUT_S, follow_redirects=False, **kwargs) as response:
                    received = b""
                    async for piece in response.aiter_bytes():
                        received += piece
                        if len(received) > MAX_ANSWER:
                            raise TransportError("the Bot Connector's answer is larger than 256 KiB")
                    if not response.is_success:
                        raise TransportError(
                            f"the Bot Connector answered {response.status_code}",
                            status=response.status_code,
                            retry_after=_retry_after(response.headers.get("retry-after", "")),
                        )
                    value = _json(received)
        except TimeoutError:
            raise TransportError("the Bot Connector did not answer in time") from None
        except httpx.HTTPError as error:
            raise TransportError(f"the Bot Connector can't be reached ({error.__class__.__name__})") from None
        return value


def member_of(answer: Mapping[str, Any]) -> Member:
    """Read the members API's answer."""
    return Member(
        id=str(answer.get("id") or ""),
        oid=str(answer.get("aadObjectId") or answer.get("objectId") or ""),
        tenant=str(answer.get("tenantId") or ""),
        role=str(answer.get("userRole") or ""),  # without one nobody is taken for a person of the tenant
    )


def _retry_after(header: str) -> float | None:
    """Return the seconds of a Retry-After (RFC 9110 §10.2.3). A date is not believed: it would need their clock."""
    return float(header) if header.isascii() and header.isdigit() and len(header) < 7 else None


def _json(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise TransportError("the Bot Connector's answer is not JSON") from None
    return value if isinstance(value, dict) else {}


def _message(card: dict[str, Any], summary: str) -> dict[str, Any]:
    return {"type": "message", "summary": summary, "attachments": [{"contentType": CONTENT_TYPE, "content": card}]}
