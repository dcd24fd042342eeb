"""A Bot Connector of our own: its own key set, a token service, conversations and members, on loopback over real HTTP.

It signs like the real one; tests bend one claim at a time and expect a refusal. Validation is never switched off. It can be
slow, busy (429 with Retry-After), failing, or lying about who somebody is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from jwt.algorithms import RSAAlgorithm

from harness.trust import TRUST
from harness.webserver import serving

APP_ID = "11111111-1111-1111-1111-111111111111"
APP_PASSWORD = "bot-secret-for-tests"
TENANT = "11111111-2222-3333-4444-555555555555"
OTHER_TENANT = "99999999-2222-3333-4444-555555555555"
CONVERSATION = "19:approvals@thread.tacv2"
ESCALATION = "19:everybody@thread.tacv2"
BOB_OID = "aaaaaaaa-0000-4000-8000-000000000002"
ALICE_OID = "aaaaaaaa-0000-4000-8000-000000000001"
DORA_OID = "aaaaaaaa-0000-4000-8000-000000000003"
STRANGER_OID = "aaaaaaaa-0000-4000-8000-00000000000f"
GUEST_OID = "aaaaaaaa-0000-4000-8000-00000000000e"
BOT_OID = "aaaaaaaa-0000-4000-8000-00000000000d"
FOREIGN_OID = "aaaaaaaa-0000-4000-8000-00000000000c"


_NUMBERS = count()


@cache
def _signer(number: int) -> rsa.RSAPrivateKey:
    """Return one of a few keys, made when first asked for: a test has no more at once, and each takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class User:
    """Somebody as the members API knows them. Every one of them calls themselves Bob."""

    oid: str
    role: str = "user"
    tenant: str = TENANT


USERS = {
    "29:bob": User(BOB_OID), "29:alice": User(ALICE_OID), "29:dora": User(DORA_OID), "29:stranger": User(STRANGER_OID),
    "29:guest": User(GUEST_OID, "guest"), "28:other-bot": User(BOT_OID, "bot"),
    "29:foreign": User(FOREIGN_OID, tenant=OTHER_TENANT),
}  # fmt: skip
MEMBERS = {ident: user.oid for ident, user in USERS.items()}


@dataclass(frozen=True)
class Posted:
    """One call that wrote a message: `update` is False for a new one."""

    conversation: str
    message: str
    card: dict[str, Any]
    summary: str
    update: bool


class BotConnector:
    """Keys, messages and members. `cards` maps message ids to the card they show now, `calls` is all that was written.

    `trouble` are answers given to the next writes, as (status, Retry-After). `held` stops every write until it is set.
    `lies` replaces what the members API says of a user, `members_status` and `members_held` make it fail or hang.
    """

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.endorsements: dict[str, list[str]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.where: dict[str, str] = {}
        self.calls: list[Posted] = []
        self.key_fetches = 0
        self.keys_status = 200
        self.down = False
        self.token_status = 200
        self.roster_status = 200
        self.not_installed: set[str] = set()
        self.trouble: list[tuple[int, str]] = []
        self.held: asyncio.Event | None = None
        self.held_up = 0
        self.lies: dict[str, dict[str, Any]] = {}
        self.members_status = 200
        self.members_held: asyncio.Event | None = None
        self.lookups: list[tuple[str, str]] = []
        self.opened: list[str] = []
        self.url = ""
        self.changed = asyncio.Event()
        self.add_key("k1")
        self.app = self._app()

    @property
    def updates(self) -> list[str]:
        return [call.message for call in self.calls if call.update]

    def add_key(self, kid: str, endorsements: tuple[str, ...] = ("msteams", "webchat")) -> None:
        self.keys[kid] = _signer(next(_NUMBERS) % 8)
        self.endorsements[kid] = list(endorsements)

    def rotate(self, kid: str) -> None:
        """Sign with a new key from now on; the old one is gone from the set."""
        self.keys.clear()
        self.add_key(kid)

    # -- the service ------------------------------------------------------------------------------------------------

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/keys")
        async def keys() -> Any:
            self.key_fetches += 1
            if self.keys_status != 200:
                return JSONResponse({}, self.keys_status)
            out = []
            for kid, key in self.keys.items():
                jwk = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
                out.append({**jwk, "kid": kid, "use": "sig", "endorsements": self.endorsements[kid]})
            return {"keys": out}

        @app.post("/token")
        async def token(request: Request) -> Any:
            form = dict(x.split("=", 1) for x in (await request.body()).decode().split("&"))
            if self.token_status != 200:
                return JSONResponse({}, self.token_status)
            if form.get("client_secret") != APP_PASSWORD:
                return JSONResponse({"error": "invalid_client"}, 401)
            return {"access_token": "connector-token", "expires_in": 3600, "token_type": "Bearer"}

        @app.post("/v3/conversations")
        async def open_conversation(request: Request) -> Any:
            body = await request.json()
            (member,) = body["members"]
            if body.get("isGroup") or body.get("tenantId") != TENANT or member["id"] not in USERS:
                return JSONResponse({}, 400)
            self.opened.append(member["id"])
            return JSONResponse({"id": self.chat(member["id"])}, 201)

        @app.post("/v3/conversations/{conversation}/activities")
        async def send(conversation: str, request: Request) -> Any:
            activity = await request.json()
            if (refusal := await self._refusal(request)) is not None:
                return refusal
            ident = f"m{len(self.cards) + 1}"
            self._show(conversation, ident, activity, update=False)
            return {"id": ident}

        @app.put("/v3/conversations/{conversation}/activities/{message}")
        async def update(conversation: str, message: str, request: Request) -> Any:
            activity = await request.json()
            if (refusal := await self._refusal(request)) is not None:
                return refusal
            if self.where.get(message) != conversation:
                return JSONResponse({}, 404)
            self._show(conversation, message, activity, update=True)
            return {"id": message}

        @app.get("/v3/conversations/{conversation}/pagedmembers")
        async def roster(conversation: str, request: Request) -> Any:
            if self.roster_status != 200 or request.headers.get("authorization") != "Bearer connector-token":
                return JSONResponse({}, self.roster_status if self.roster_status != 200 else 401)
            if conversation in self.not_installed:
                return JSONResponse({"error": {"code": "BotNotInConversationRoster"}}, 403)
            return {"members": [self._member(user) for user in USERS]}

        @app.get("/v3/conversations/{conversation}/members/{user}")
        async def member(conversation: str, user: str) -> Any:
            self.lookups.append((conversation, user))
            self.changed.set()
            if self.members_held is not None:
                await self.members_held.wait()
            if self.members_status != 200:
                return JSONResponse({}, self.members_status)
            ident = user if user in USERS else next((i for i, u in USERS.items() if u.oid == user), "")
            return self._member(ident) if ident else JSONResponse({}, 404)

        return app

    def _member(self, ident: str) -> dict[str, Any]:
        user = USERS[ident]
        told = {
            "id": ident, "aadObjectId": user.oid, "tenantId": user.tenant, "userRole": user.role, "name": "Bob Approver",
            "userPrincipalName": "bob@contoso.com", "email": "bob@contoso.com",
        }  # fmt: skip
        return {**told, **self.lies.get(ident, {})}

    async def _refusal(self, request: Request) -> JSONResponse | None:
        """Return what a write is answered with instead of being done."""
        if self.held is not None:
            self.held_up += 1
            self.changed.set()
            await self.held.wait()
        if self.down or request.headers.get("authorization") != "Bearer connector-token":
            return JSONResponse({}, 503 if self.down else 401)
        if self.trouble:
            status, retry_after = self.trouble.pop(0)
            return JSONResponse({}, status, headers={"Retry-After": retry_after} if retry_after else None)
        return None

    def chat(self, user: str) -> str:
        """The one-to-one conversation of a user."""
        return f"a:{user.removeprefix('29:')}"

    def _show(self, conversation: str, message: str, activity: dict[str, Any], *, update: bool) -> None:
        card = activity["attachments"][0]["content"]
        self.cards[message] = card
        self.where[message] = conversation
        self.calls.append(Posted(conversation, message, card, activity.get("summary", ""), update))
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until what was written makes `condition` true; return what it returns."""
        async with asyncio.timeout(45):
            while True:
                self.changed.clear()
                if found := condition():
                    return found
                await self.changed.wait()

    async def card(self, accept: Callable[[dict[str, Any]], Any], conversation: str = "") -> tuple[str, dict[str, Any]]:
        """Wait for a message, in a conversation when one is given, whose card `accept`s."""

        def found() -> tuple[str, dict[str, Any]] | None:
            for message, card in self.cards.items():
                if conversation in ("", self.where[message]) and accept(card):
                    return message, card
            return None

        result: tuple[str, dict[str, Any]] = await self.until(found)
        return result

    # -- what it delivers -------------------------------------------------------------------------------------------

    def token(self, *, kid: str = "k1", algorithm: str = "RS256", drop: tuple[str, ...] = (), **claims: Any) -> str:
        now = int(datetime.now(UTC).timestamp())  # noqa: TID251  the service has its own clock
        body = {
            "iss": "https://api.botframework.com", "aud": APP_ID, "nbf": now - 10, "iat": now, "exp": now + 600,
            "serviceurl": self.url, **claims,
        }  # fmt: skip
        for name in drop:
            body.pop(name, None)
        return jwt.encode(body, self.keys[kid], algorithm=algorithm, headers={"kid": kid})

    def activity(self, kind: str, conversation: str, *, user: str = "29:bob", **fields: Any) -> dict[str, Any]:
        """What Teams sends for something that `user` does in a conversation."""
        place = "personal" if conversation.startswith("a:") else "channel"
        oid = USERS[user].oid if user in USERS else ""
        return {
            "type": kind, "id": f"f:{time.monotonic_ns()}", "channelId": "msteams", "serviceUrl": self.url,
            "from": {"id": user, "aadObjectId": oid, "name": "Bob Approver"},
            "recipient": {"id": f"28:{APP_ID}", "name": "Interlock"},
            "conversation": {"id": conversation, "tenantId": TENANT, "conversationType": place},
            "channelData": {"tenant": {"id": TENANT}},
            **fields,
        }  # fmt: skip

    def invoke(
        self, card: dict[str, Any], message: str, verb: str, *, user: str = "29:bob", typed: dict[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The activity Teams sends when `user` presses the button `verb` of a card, having typed something."""
        action = next(a for a in executes(card) if a.get("verb") == verb)
        value = {
            "action": {"type": "Action.Execute", "verb": verb, "data": {**action["data"], **(typed or {})}},
            "trigger": "automatic" if verb == "refresh" else "manual",
        }  # fmt: skip
        sent = self.activity(
            "invoke", self._thread(message), user=user, name="adaptiveCard/action", replyToId=message, value=value
        )
        return {**sent, **changes}

    def submit(
        self, card: dict[str, Any], message: str, verb: str, *, user: str = "29:bob", typed: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """What a client that knows no Action.Execute sends for the same button: a message with a value."""
        fallback = next(a["fallback"] for a in executes(card) if a.get("verb") == verb)
        value = {**fallback["data"], **(typed or {})}
        return self.activity("message", self._thread(message), user=user, replyToId=message, value=value)

    def _thread(self, message: str) -> str:
        conversation = self.where.get(message, CONVERSATION)
        return conversation if conversation.startswith("a:") else f"{conversation};messageid={message}"


def executes(card: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every Action.Execute of a card: its buttons, those that unfold, and the one it refreshes with."""
    if "refresh" in card:
        yield card["refresh"]["action"]
    for action in card.get("actions", ()):
        if action.get("type") == "Action.ShowCard":
            yield from executes(action["card"])
        elif "verb" in action:
            yield action


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[BotConnector]:
    connector = BotConnector()
    async with serving(connector.app) as url:
        connector.url = url
        yield connector


async def deliver(node_url: str, activity: dict[str, Any], token: str | None) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http:
        return await http.post(f"{node_url}/api/messages", content=json.dumps(activity), headers=headers, timeout=45)
