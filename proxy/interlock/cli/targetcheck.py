"""The steps of `interlock doctor TARGET` for a Postgres target: each is tried for real, each failure says what to do.

Asks the target as the daemon would, with the daemon's own parts, and runs nothing there. What a failed step leaves open is
not tried.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from interlock.cli.checkup import Finding, Status
from interlock.clock import Clock, Entropy
from interlock.config import Config, TargetConfig, load, split_address
from interlock.errors import ConfigError, InterlockError, TargetError
from interlock.postgres.credentials.login import Login
from interlock.postgres.credentials.source import Providers
from interlock.postgres.settings import pinned
from interlock.postgres.upstream import Connector, Upstream
from interlock.postgres.watch import ParameterWatch

STEPS = ("configuration", "address", "tls", "credential", "login", "settings")

_PROVEN = {
    "verify-full": "the server proved its name by a certificate that is trusted here",
    "require": "encrypted; the certificate is not verified, so a password must be bound to it",
    "disable": "off, on loopback",
}


class TargetCheckup:
    """One run over one target."""

    def __init__(self, file: Path, name: str, *, clock: Clock, entropy: Entropy) -> None:
        self._file, self._name = file, name
        self._clock, self._entropy = clock, entropy

    async def run(self) -> list[Finding]:
        """Try every step, in order, until one fails."""
        findings: list[Finding] = []
        providers: Providers | None = None
        try:
            config, target = self._configuration()
            providers = Providers(config, clock=self._clock)
            provider = providers.of(target)
            connector = Connector(config, target, entropy=self._entropy, provider=provider)
            findings.append(_ok("configuration", f"{self._file} is valid, and {target.name} is a postgres target"))
            findings.append(_ok("address", await _resolved(target)))
            await connector.reach()
            findings.append(_ok("tls", f"{target.tls}: {_PROVEN[target.tls]}"))
            findings.append(_ok("credential", _told(target, await provider.login(target.role))))
            findings += await self._logged_in(connector, target)
        except InterlockError as error:
            findings.append(Finding(STEPS[len(findings)], Status.FAILED, str(error), error.next_step))
        finally:
            if providers is not None:
                await providers.close()
        return findings + [Finding(step, Status.SKIPPED, "needs the step before") for step in STEPS[len(findings) :]]

    def _configuration(self) -> tuple[Config, TargetConfig]:
        config = load(self._file)
        target = config.target(self._name)
        if target is None:
            told = f"{self._file} has no target {self._name!r}; it has {', '.join(t.name for t in config.targets) or 'none'}"
            raise ConfigError(told, next_step="Name one of those, or write this one under targets:.")
        if target.protocol != "postgres":
            raise ConfigError(f"{self._name} is an {target.protocol} target; this checks postgres targets")
        return config, target

    async def _logged_in(self, connector: Connector, target: TargetConfig) -> list[Finding]:
        upstream = await connector.connect(
            {"user": target.role, "database": target.database, "application_name": "interlock:doctor", **dict(pinned(target))}
        )
        try:
            logged_in = _ok("login", f"as {_session_role(upstream, target)} in database {target.database}")
            try:
                return [logged_in, _ok("settings", _settings(upstream))]
            except TargetError as error:
                return [logged_in, Finding("settings", Status.FAILED, str(error), error.next_step)]
        finally:
            upstream.dialogue.close()


def _ok(step: str, said: str) -> Finding:
    return Finding(step, Status.OK, said)


async def _resolved(target: TargetConfig) -> str:
    host, port = split_address(target.address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetError(f"the name {host} is not known here ({error.__class__.__name__})") from None
    return f"{host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}"


def _told(target: TargetConfig, login: Login) -> str:
    """Say which credential there is, and nothing of it."""
    kind = target.credentials.kind
    if kind == "vault-database":
        return f"{kind}: Vault made a role"
    if login.password is None:
        return f"{kind}: no password" if kind == "none" else f"{kind}: shown in TLS"
    return f"{kind}: at hand"


def _session_role(upstream: Upstream, target: TargetConfig) -> str:
    return upstream.parameters.get("session_authorization", target.role)


def _settings(upstream: Upstream) -> str:
    watch = ParameterWatch()
    for name, value in upstream.parameters.items():
        if (poison := watch.take(name, value)) is not None:
            raise TargetError(f"the target did not take our settings: {poison[1]}; is a pooler in between?")
    return f"PostgreSQL {upstream.parameters.get('server_version', 'of an unknown version')} took what is pinned"
