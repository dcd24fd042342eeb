"""An identity provider that answers what a test says: what a broken or hostile one can do. The real one is `harness.provider`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from harness.clock import ManualClock
from harness.issuer import PrivateKey, public_jwk, rsa_key
from interlock.config import Issuer
from interlock.identity.asking import Answer

ISSUER = "https://idp.example"
CLI, WEB = "interlock-cli", "interlock-web"


class HostileProvider:
    """`device` and `token` are what its endpoints answer next; `asked` is what they were asked."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.config = Issuer(name="idp", issuer=ISSUER, audience="interlock")
        self.metadata: dict[str, Any] = {
            "issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", "authorization_endpoint": f"{ISSUER}/auth",
            "token_endpoint": f"{ISSUER}/token", "device_authorization_endpoint": f"{ISSUER}/device",
            "authorization_response_iss_parameter_supported": True,
        }  # fmt: skip
        self.device: dict[str, Any] = {
            "device_code": "device-secret", "user_code": "ABCD-EFGH", "verification_uri": f"{ISSUER}/go", "expires_in": 600,
            "interval": 5, "verification_uri_complete": f"{ISSUER}/go?c=ABCD-EFGH",
        }  # fmt: skip
        self.token: dict[str, Any] = {"error": "authorization_pending"}
        self.status: int | None = None
        self.raw: bytes | None = None
        self.asked: list[tuple[str, dict[str, str], Mapping[str, str]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._keys))

    async def ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Implement `identity.asking.Asking`. While `open` is not set, nobody gets an answer."""
        path = urlsplit(url).path
        self.asked.append((path, dict(form or {}), {name.lower(): value for name, value in (headers or {}).items()}))
        await self.open.wait()
        if path == "/.well-known/openid-configuration":
            return Answer(200, json.dumps(self.metadata).encode())
        body = self.device if path == "/device" else self.token
        status = self.status or (400 if "error" in body else 200)
        return Answer(status, self.raw if self.raw is not None else json.dumps(body).encode())

    def _keys(self, request: httpx.Request) -> httpx.Response:
        """The documents that its key set is fetched by."""
        self.asked.append((request.url.path, {}, request.headers))
        if request.url.path == "/keys":
            return httpx.Response(200, json={"keys": [public_jwk(rsa_key(), "k1")]})
        return httpx.Response(200, json=self.metadata)

    def times(self, path: str) -> int:
        return sum(asked == path for asked, _, _ in self.asked)

    def id_token(
        self, *, key: PrivateKey | bytes | None = None, algorithm: str = "RS256", headers: Mapping[str, Any] | None = None,
        without: str = "", **claims: Any,
    ) -> str:  # fmt: skip
        """Sign an ID token for the command line's client; `claims` replace, `without` leaves one out."""
        now = int(self.clock.now().timestamp())
        said = {"iss": ISSUER, "sub": "00u1", "aud": CLI, "iat": now, "exp": now + 600, "sid": "s1",
                "preferred_username": "dora", "groups": ["dba"], **claims}  # fmt: skip
        said.pop(without, None)
        return jwt.encode(said, key or rsa_key(), algorithm, headers={"kid": "k1", **(headers or {})})

    def logout_token(self, **claims: Any) -> str:
        event = {"http://schemas.openid.net/event/backchannel-logout": {}}
        return self.id_token(**{"events": event, "jti": "j1", **claims}, headers={"typ": "logout+jwt"})

    def grant(self, token: str) -> None:
        """The person has confirmed."""
        self.token = {"id_token": token, "access_token": "x", "token_type": "Bearer"}
