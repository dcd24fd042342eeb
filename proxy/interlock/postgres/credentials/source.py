"""From a target's configuration to the provider of its logins: the one place that knows every kind.

Must not know: the protocol, clients.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from interlock.clock import Clock
from interlock.config import Config, SecretRef, TargetConfig, VaultRef
from interlock.errors import ConfigError
from interlock.postgres.credentials.login import Login, Provider, unavailable
from interlock.postgres.credentials.rds import RdsToken
from interlock.postgres.credentials.vault import Vault, VaultDatabase, VaultSecret


class _Closable(Provider, Protocol):
    async def close(self) -> None: ...


class NoPassword:
    """For a target that asks for none: it trusts where we come from, or the certificate that TLS shows it."""

    async def login(self, role: str) -> Login:
        return Login(role)

    def forget(self) -> bool:
        return False

    async def close(self) -> None:
        return None


class Stored:
    """A password in the environment or a file, read anew each time: what replaces the file is used at once."""

    def __init__(self, reference: SecretRef, target: str, base: Path) -> None:
        self._reference, self._target, self._base = reference, target, base

    async def login(self, role: str) -> Login:
        try:
            return Login(role, await asyncio.to_thread(self._reference.resolve, self._base))
        except ConfigError as error:
            raise unavailable(self._target, str(error)) from None

    def forget(self) -> bool:
        return False

    async def close(self) -> None:
        return None


class Providers:
    """One a process: makes the provider of each target, and closes them all. Raise ConfigError."""

    def __init__(self, config: Config, *, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._vault: Vault | None = None
        self._made: list[_Closable] = []

    def of(self, target: TargetConfig) -> Provider:
        made = self._make(target)
        self._made.append(made)
        return made

    async def close(self) -> None:
        for provider in self._made:
            await provider.close()
        if self._vault is not None:
            await self._vault.close()

    def _make(self, target: TargetConfig) -> _Closable:
        credentials = target.credentials
        match credentials.kind, credentials.source:
            case "password", SecretRef() as reference:
                return Stored(reference, target.name, self._config.base)
            case "password", VaultRef() as reference:
                return VaultSecret(self._opened(), reference, target.name, clock=self._clock)
            case "vault-database", VaultRef() as reference:
                return VaultDatabase(self._opened(), reference, target.name, target.role, clock=self._clock)
            case "rds-iam", _:
                return RdsToken(
                    credentials, address=target.address, target=target.name, base=self._config.base, clock=self._clock
                )
            case (("none" | "certificate"), _):
                return NoPassword()
        raise ConfigError(f"target {target.name}: credentials of kind {credentials.kind} are not for Postgres")

    def _opened(self) -> Vault:
        if self._vault is None:
            if self._config.vault is None:
                raise ConfigError("a vault: reference needs vault: in the configuration")
            self._vault = Vault(self._config.vault, self._config)
        return self._vault
