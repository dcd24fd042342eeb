"""HashiCorp Vault (and OpenBao) as a source of logins: key/value secrets, and roles that its database engine makes.

Knows: Vault's HTTP API: "KV Secrets Engine" versions 1 and 2, "Database Secrets Engine" (creds and static-creds), leases.
Must not know: targets' protocol. Answers are bounded, redirects not followed, and no error holds any part of an answer.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any

import httpx

from interlock.clock import Clock
from interlock.config import Config, Secret, VaultConfig, VaultRef
from interlock.errors import ConfigError
from interlock.postgres.credentials.kept import Kept
from interlock.postgres.credentials.login import Login, unavailable

TIMEOUT_S = 10.0
MAX_ANSWER = 256 * 1024
SECRET_S = 60.0
"""Seconds that a key/value secret is kept: it has no end of its own, and somebody may have changed it meanwhile."""

_STATUS = {
    400: "Vault does not understand the path",
    403: "Vault does not let our token read it: check the token, its end, and its policy",
    404: "Vault has nothing at this path",
    429: "Vault has too much to do",
    503: "Vault is sealed or in maintenance",
}


class VaultError(Exception):
    """Vault gave no secret. The text is ours: it says what failed, and nothing of what was answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was read: its data, and for how many seconds it holds (0: Vault does not say)."""

    data: dict[str, Any]
    seconds: float


class Vault:
    """One a process. `close` ends its connections."""

    def __init__(self, settings: VaultConfig, config: Config) -> None:
        self._settings = settings
        self._base = config.base
        verify: bool | ssl.SSLContext = True
        if settings.ca is not None:
            try:
                verify = ssl.create_default_context(cafile=str(config.path(settings.ca)))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"vault.ca can't be read: {error.__class__.__name__}") from None
        self._http = httpx.AsyncClient(
            base_url=settings.address.rstrip("/") + "/v1/",
            follow_redirects=False,
            trust_env=False,
            verify=verify,
            timeout=TIMEOUT_S,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def read(self, path: str) -> Answer:
        """Read one path. Raise VaultError."""
        try:
            token = await asyncio.to_thread(self._settings.token.resolve, self._base)
        except ConfigError as error:
            raise VaultError(str(error)) from None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await self._get(path, token)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise VaultError(f"Vault does not answer ({error.__class__.__name__})") from None
        if status != 200:
            raise VaultError(f"{_STATUS.get(status, 'Vault refused')} ({status})")
        try:
            return _answer(json.loads(body))
        except (ValueError, RecursionError):
            raise VaultError("Vault answered something that is no secret") from None

    async def _get(self, path: str, token: Secret) -> tuple[int, bytes]:
        headers = {"X-Vault-Token": token.reveal().strip(), "X-Vault-Request": "true"}
        if self._settings.namespace:
            headers["X-Vault-Namespace"] = self._settings.namespace
        async with self._http.stream("GET", path, headers=headers) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise VaultError("Vault's answer is too large")
            return response.status_code, bytes(body)


def _answer(document: Any) -> Answer:
    """Take the data out of its envelope; version 2 of key/value has one more. Raise ValueError."""
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        raise ValueError("no data")  # noqa: TRY004  one error for an answer that is none
    lease = document.get("lease_duration")
    if isinstance(data.get("metadata"), dict) and isinstance(data.get("data"), dict):
        return Answer(data["data"], 0.0)
    # A static role has no lease: `ttl` is when Vault changes its password next.
    seconds = lease or data.get("ttl")
    return Answer(data, float(seconds) if isinstance(seconds, int | float) and not isinstance(seconds, bool) else 0.0)


class VaultSecret:
    """A password that lies in Vault, under one field of a key/value secret."""

    def __init__(self, vault: Vault, reference: VaultRef, target: str, *, clock: Clock) -> None:
        self._vault, self._reference, self._target = vault, reference, target
        self._kept = Kept(self._fetch, clock=clock)

    async def login(self, role: str) -> Login:
        return Login(role, await self._kept.get())

    def forget(self) -> bool:
        return self._kept.forget()

    async def close(self) -> None:
        await self._kept.close()

    async def _fetch(self) -> tuple[Secret, float]:
        answer = await _read(self._vault, self._reference, self._target)
        return _text(answer, self._reference, self._reference.field, self._target), SECRET_S


class VaultDatabase:
    """A role that Vault makes for us, with a password and an end, or whose password it changes now and then."""

    def __init__(self, vault: Vault, reference: VaultRef, target: str, role: str, *, clock: Clock) -> None:
        self._vault, self._reference, self._target, self._role = vault, reference, target, role
        self._kept = Kept(self._fetch, clock=clock)

    async def login(self, role: str) -> Login:
        if role != self._role:
            raise unavailable(self._target, "Vault makes the role of this target, so no other one can be asked for")
        return await self._kept.get()

    def forget(self) -> bool:
        return self._kept.forget()

    async def close(self) -> None:
        await self._kept.close()

    async def _fetch(self) -> tuple[Login, float]:
        answer = await _read(self._vault, self._reference, self._target)
        if answer.seconds <= 0:
            raise unavailable(self._target, "Vault does not say how long the role lives; is the path one of the database engine?")
        name = _text(answer, self._reference, "username", self._target).reveal()
        return Login(name, _text(answer, self._reference, "password", self._target)), answer.seconds


async def _read(vault: Vault, reference: VaultRef, target: str) -> Answer:
    try:
        return await vault.read(reference.path)
    except VaultError as error:
        raise unavailable(target, f"vault:{reference.path}: {error}") from None


def _text(answer: Answer, reference: VaultRef, field: str, target: str) -> Secret:
    value = answer.data.get(field)
    if not isinstance(value, str) or not value or "\0" in value:
        raise unavailable(target, f"vault:{reference.path} holds no text {field!r}")
    return Secret(value)
