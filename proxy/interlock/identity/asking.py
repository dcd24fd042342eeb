"""One question to an identity provider and its answer: a request out, a small document back.

Knows HTTP and what bounds an answer: no redirect is followed, nothing is unpacked, size and time have an end, TLS is checked
against what the system trusts or the authority that the configuration names. Must not know OpenID Connect, or which address may
be asked: that is `provider`'s. Connections are kept for the next question, but not so long that the provider ends one just as a
code is sent on it: a code is good for one try.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from interlock.errors import ConfigError

TIMEOUT_S = 10
MAX_BODY = 262_144
CONCURRENT = 64
"""Questions at once, as many as logins (`turnstile`): a thousand are a queue here, not a flood there."""

KEPT_S = 4
"""How long an idle connection is kept. Common servers end theirs after five seconds or more."""


class AskingError(Exception):
    """No answer, or none that is read. Its text is the kind of failure: what was said may quote what was sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = field(repr=False)


class Asking(Protocol):
    async def ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Raise AskingError."""
        ...


class HttpAsking:
    """Implements `Asking`. Made on the running loop; `close` ends its connections."""

    def __init__(self, ca: Path | None = None) -> None:
        """`ca` is trusted alone, else what the system trusts. Raise ConfigError."""
        try:
            trust = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise ConfigError(f"identity.issuers: ca {ca} can't be read: {error.__class__.__name__}") from None
        self._room = asyncio.Semaphore(CONCURRENT)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S, ssl=trust),
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False,
            trust_env=False,
        )  # fmt: skip

    async def ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form, or nothing, and read what comes. Raise AskingError."""
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        data = None
        if form is not None:
            sent["Content-Type"], data = "application/x-www-form-urlencoded", urlencode(form).encode()
        try:
            # Time counts from when it is asked: who waits for the ones before is not told that nobody answers.
            async with self._room, asyncio.timeout(TIMEOUT_S), self._session.request(
                method, URL(url, encoded=True), data=data, headers=sent, allow_redirects=False
            ) as response:  # fmt: skip
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise AskingError("compressed")  # a kilobyte may hold a gigabyte
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_BODY:
                        raise AskingError("too large")
                return Answer(response.status, bytes(body))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise AskingError(type(error).__name__) from None

    async def close(self) -> None:
        await self._session.close()
