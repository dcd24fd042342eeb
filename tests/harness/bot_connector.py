"""A Bot Connector of our own: its own key set, a token service, conversations and members, on loopback over real HTTP.

It signs like the real one; tests bend one claim at a time and expect a refusal. Validation is never switched off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from jwt.algorithms import RSAAlgorithm

from harness.webserver import serving

APP_ID = "11111111-1111-1111-1111-111111111111"
APP_PASSWORD = "bot-secret-for-tests"
TENANT = "11111111-2222-3333-4444-555555555555"
CONVERSATION = "19:approvals@thread.tacv2"
BOB_OID = "aaaaaaaa-0000-4000-8000-000000000002"
ALICE_OID = "aaaaaaaa-0000-4000-8000-000000000001"
STRANGER_OID = "aaaaaaaa-0000-4000-8000-00000000000f"
GUEST_OID = "aaaaaaaa-0000-4000-8000-00000000000e"
MEMBERS = {"29:bob": BOB_OID, "29:alice": ALICE_OID, "29:stranger": STRANGER_OID, "29:guest": GUEST_OID}


class BotConnector:
    """Keys, messages and members. `cards` maps message ids to the card they show now."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.endorsements: dict[str, list[str]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.updates: list[str] = []
        self.key_fetches = 0
        self.down = False
        self.roster_status = 200
        self.url = ""
        self.changed = asyncio.Event()
        self.add_key("k1")
        self.app = self._app()

    def add_key(self, kid: str, endorsements: tuple[str, ...] = ("msteams", "webchat")) -> None:
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.endorsements[kid] = list(endorsements)

    # -- the service ------------------------------------------------------------------------------------------------

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/keys")
        async def keys() -> dict[str, Any]:
            self.key_fetches += 1
            out = []
            for kid, key in self.keys.items():
                jwk = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
                out.append({**jwk, "kid": kid, "use": "sig", "endorsements": self.endorsements[kid]})
            return {"keys": out}

        @app.post("/token")
        async def token(request: Request) -> Any:
            form = dict(x.split("=", 1) for x in (await request.body()).decode().split("&"))
            if form.get("client_secret") != APP_PASSWORD:
                return JSONResponse({"error": "invalid_client"}, 401)
            return {"access_token": "connector-token", "expires_in": 3600, "token_type": "Bearer"}

        @app.post("/v3/conversations/{conversation}/activities")
        async def send(conversation: str, request: Request) -> Any:
            if self.down or request.headers.get("authorization") != "Bearer connector-token":
                return JSONResponse({}, 503 if self.down else 401)
            ident = f"m{len(self.cards) + 1}"
            self._show(ident, await request.json())
            return {"id": ident}

        @app.put("/v3/conversations/{conversation}/activities/{message}")
        async def update(conversation: str, message: str, request: Request) -> Any:
            if message not in self.cards:
                return JSONResponse({}, 404)
            self.updates.append(message)
            self._show(message, await request.json())
            return {"id": message}

        @app.get("/v3/conversations/{conversation}/pagedmembers")
        async def roster(conversation: str, request: Request) -> Any:
            if self.roster_status != 200 or request.headers.get("authorization") != "Bearer connector-token":
                return JSONResponse({}, self.roster_status if self.roster_status != 200 else 401)
            return {"members": [{"id": user, "aadObjectId": oid, "tenantId": TENANT} for user, oid in MEMBERS.items()]}

        @app.get("/v3/conversations/{conversation}/members/{user}")
        async def member(conversation: str, user: str) -> Any:
            if user not in MEMBERS:
                return JSONResponse({}, 404)
            role = "guest" if user == "29:guest" else "user"
            return {"id": user, "aadObjectId": MEMBERS[user], "tenantId": TENANT, "userRole": role, "name": "Bob Approver"}

        return app

    def _show(self, message: str, activity: dict[str, Any]) -> None:
        self.cards[message] = activity["attachments"][0]["content"]
        self.changed.set()

    async def card(self, accept: Any) -> tuple[str, dict[str, Any]]:
        """Wait for a message whose card `accept`s."""
        async with asyncio.timeout(20):
            while True:
                self.changed.clear()
                for message, card in self.cards.items():
                    if accept(card):
                        return message, card
                await self.changed.wait()

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

    def invoke(self, card: dict[str, Any], message: str, verb: str, *, user: str = "29:bob", **changes: Any) -> dict[str, Any]:
        """The activity Teams sends when `user` presses the button `verb` of a card."""
        action = next(a for a in card["actions"] if a.get("verb") == verb)
        activity: dict[str, Any] = {
            "type": "invoke", "name": "adaptiveCard/action", "id": f"f:{time.monotonic_ns()}", "channelId": "msteams",
            "serviceUrl": self.url,
            "from": {"id": user, "aadObjectId": MEMBERS.get(user, ""), "name": "Bob Approver"},
            "recipient": {"id": f"28:{APP_ID}", "name": "Interlock"},
            "conversation": {"id": f"{CONVERSATION};messageid={message}", "tenantId": TENANT, "conversationType": "channel"},
            "channelData": {"tenant": {"id": TENANT}},
            "replyToId": message,
            "value": {"action": {"type": "Action.Execute", "verb": verb, "data": action["data"]}, "trigger": "manual"},
        }  # fmt: skip
        return {**activity, **changes}


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
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.post(f"{node_url}/api/messages", content=json.dumps(activity), headers=headers, timeout=20)
