"""What all connections of the SSH listener share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from interlock.approvals.wording import Refusal
from interlock.clock import Clock, Entropy
from interlock.config import Config
from interlock.gate import Gate
from interlock.identity.principal import Principal
from interlock.identity.signin import SignIn
from interlock.ssh.dialling import Dialler
from interlock.ssh.enrolment import Enrolments
from interlock.ssh.limits import Doorkeeper, Limits
from interlock.ssh.lines import Lines
from interlock.ssh.tunnel import Adopt


class Authenticator(Protocol):
    """identity.authenticate, as far as SSH asks it."""

    def ssh_key(self, blob: bytes) -> Principal | None: ...

    def ssh_certificate(self, authority: bytes, serial: str, key: str, principals: list[str]) -> Principal | None: ...

    async def token(self, secret: str, *, source: str = "") -> Principal: ...


class Guest(Protocol):
    """A connection, as far as whoever ends them all asks it."""

    over: asyncio.Future[None]

    def leave(self, refusal: Refusal) -> None: ...


@dataclass(frozen=True, slots=True)
class House:
    """One a listener."""

    config: Config
    gate: Gate
    authenticator: Authenticator
    diallers: dict[str, Dialler]
    lines: Lines
    enrolments: Enrolments
    clock: Clock
    entropy: Entropy
    limits: Limits
    door: Doorkeeper
    connections: set[Guest]
    postgres: Adopt | None = None  # the other front end, where there is one: for tunnels to its targets
    signin: SignIn | None = None
