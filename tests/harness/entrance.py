"""The register of logins and the login authority over a test's directory."""

from __future__ import annotations

from pathlib import Path

import asyncssh

from harness.change_journal import seeded
from interlock.clock import Clock, Entropy, system_entropy
from interlock.evidence.events import Recorder
from interlock.identity.directory import Directory
from interlock.identity.idtoken import LoggedIn
from interlock.identity.issuance import Issuance
from interlock.identity.logins import Logins
from interlock.identity.principal import Assurance, Identity
from interlock.identity.ssh_ca import SshCa
from interlock.store.logins import LoginRows

HOURS = 3600.0


def logins_over(
    directory: Directory,
    rows: LoginRows,
    *,
    clock: Clock,
    journal: Recorder,
    register: bool = True,
    entropy: Entropy | None = None,
) -> Logins:
    return Logins(
        directory, rows, clock=clock, entropy=entropy or seeded("logins"), journal=journal, lifetime=8 * HOURS, register=register
    )


def issuance_over(
    folder: Path, logins: Logins, directory: Directory, *, clock: Clock, journal: Recorder, entropy: Entropy = system_entropy
) -> Issuance:
    ca = SshCa.load_or_create(folder / "ssh_ca")
    return Issuance(ca, logins, directory, clock=clock, entropy=entropy, journal=journal, user_ttl=8 * HOURS, agent_ttl=900.0)


def somebody(
    name: str = "dora", *, account: str = "", session: str = "s1", groups: frozenset[str] = frozenset({"dba"})
) -> LoggedIn:
    return LoggedIn(Identity("https://idp.example", account or "sub-" + name), session, (name,), groups, Assurance())


def public_line(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])
