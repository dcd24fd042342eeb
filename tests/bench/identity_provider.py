"""An identity provider as lean as one can be: what is measured beside it is the daemon and not it.

A process of its own with an HTTP server that speaks as much HTTP/1.1 as these requests need, keeps connections alive, and signs
a real ID token (ES256) for every code. The code says what the token must hold: it is the nonce of the login. The certified
provider is what the tests use; it takes more of the machine than the daemon does.
"""

from __future__ import annotations

import asyncio
import json
import time
from multiprocessing.connection import Connection
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from harness.issuer import public_jwk


class LeanProvider(asyncio.Protocol):
    """One connection. `people` is how many different ones log in, one after another."""

    key = ec.generate_private_key(ec.SECP256R1())
    issuer = ""
    people = 50
    logins = 0

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].decode().lower()
            size = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
            if len(self._received) < end + 4 + size:
                return
            form = parse_qs(self._received[end + 4 : end + 4 + size].decode())
            self._received = self._received[end + 4 + size :]
            body = json.dumps(self._answer(head.split(" ")[1], form)).encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )

    def _answer(self, path: str, form: dict[str, list[str]]) -> dict[str, object]:
        kind = type(self)
        if path == "/keys":
            return {"keys": [public_jwk(kind.key, "k1")]}
        if path == "/token":
            kind.logins, now = kind.logins + 1, int(time.time())  # noqa: TID251  the provider's own clock
            who = f"person-{kind.logins % kind.people}"
            claims = {"iss": kind.issuer, "sub": who, "aud": "cli", "iat": now, "exp": now + 600, "nonce": form["code"][0],
                      "preferred_username": who, "groups": ["dba"]}  # fmt: skip
            return {"id_token": jwt.encode(claims, kind.key, "ES256", headers={"kid": "k1"})}
        return {"issuer": kind.issuer, "jwks_uri": kind.issuer + "/keys", "authorization_endpoint": kind.issuer + "/auth",
                "token_endpoint": kind.issuer + "/token"}  # fmt: skip


def provide(told: Connection, people: int) -> None:
    """Serve until terminated; send the issuer's address first."""

    async def run() -> None:
        LeanProvider.people = people
        server = await asyncio.get_running_loop().create_server(LeanProvider, "127.0.0.1", 0)
        LeanProvider.issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        told.send(LeanProvider.issuer)
        await server.serve_forever()

    asyncio.run(run())
