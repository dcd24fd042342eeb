"""A small OpenID issuer on loopback: discovery, a key set, and tokens signed with whatever a test wants.

A real HTTP server on a real socket: what is fetched went through the client's own stack. Tests reach in to rotate keys,
to fail, to redirect, or to answer slowly until they say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]


def rsa_key(which: int = 0) -> rsa.RSAPrivateKey:
    """One of two keys made once: RSA keys are slow to make."""
    return _RSA[which]


def public_jwk(key: PrivateKey, kid: str | None, **more: Any) -> dict[str, Any]:
    match key:
        case rsa.RSAPrivateKey():
            jwk = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
        case ec.EllipticCurvePrivateKey():
            jwk = json.loads(ECAlgorithm.to_jwk(key.public_key()))
        case _:
            jwk = json.loads(OKPAlgorithm.to_jwk(key.public_key()))
    jwk.pop("key_ops", None)
    return {**jwk, **({"kid": kid} if kid is not None else {}), "use": "sig", **more}


class FakeIssuer:
    """Serves while `async with` lasts. `issuer` is its address on 127.0.0.1, plain HTTP unless it is given `tls`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.keys: list[dict[str, Any]] = [public_jwk(rsa_key(), "k1")]
        self.cache_control = "max-age=3600"
        self.status = 200
        self.redirect_to: str | None = None
        self.discovery: dict[str, Any] = {}
        self.raw_keys: bytes | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.requests: list[str] = []
        self.headers = ""  # more of them, each with its CR LF
        self.drip = False  # blanks, for ever
        self.connections = 0
        self._tls = tls
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeIssuer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        scheme = "http" if self._tls is None else "https"
        self.issuer = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.gate.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.requests.append(path)
            self.asked.set()
            await self.gate.wait()
            if self.drip:
                writer.write(self._answer(path).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
                while True:
                    writer.write(b" " * 4096)
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.write(self._answer(path))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client gave up, which some tests want
        finally:
            writer.close()

    def _answer(self, path: str) -> bytes:
        if self.redirect_to is not None:
            return (
                f"HTTP/1.1 302 Found\r\nLocation: {self.redirect_to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
        if path == "/.well-known/openid-configuration":
            body = json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", **self.discovery}).encode()
        else:
            body = self.raw_keys if self.raw_keys is not None else json.dumps({"keys": self.keys}).encode()
        head = f"HTTP/1.1 {self.status} X\r\nContent-Type: application/json\r\nCache-Control: {self.cache_control}\r\n"
        return head.encode() + self.headers.encode() + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body

    @property
    def key_fetches(self) -> int:
        return sum(path == "/keys" for path in self.requests)

    def token(
        self,
        claims: Mapping[str, Any],
        *,
        key: PrivateKey | bytes | None = None,
        algorithm: str = "RS256",
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Sign `claims` as they are. Headers of None are left out."""
        shown = {"kid": "k1", "typ": "at+jwt", **(headers or {})}
        return jwt.encode(
            dict(claims),
            key if key is not None else rsa_key(),
            algorithm,
            headers={k: v for k, v in shown.items() if v is not None},
        )


@contextlib.contextmanager
def running_issuer() -> Iterator[FakeIssuer]:
    """Run one in a thread of its own, for tests whose clients block or are other processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="issuer")
    thread.start()
    issuer = FakeIssuer()
    asyncio.run_coroutine_threadsafe(issuer.__aenter__(), loop).result(30)
    try:
        yield issuer
    finally:
        asyncio.run_coroutine_threadsafe(issuer.__aexit__(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
