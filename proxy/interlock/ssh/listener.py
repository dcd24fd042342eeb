"""The SSH listener: accepts connections, hands each to its own protocol object, and drains at the end.

Nothing of a handshake runs in the accept loop: each connection is a protocol of its own with its own deadlines, so that
connections which never speak cost a slot and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import asyncssh
import structlog

from interlock.approvals.wording import Refusal
from interlock.clock import Clock, Entropy
from interlock.config import Config, TargetConfig
from interlock.errors import SENTENCES, ConfigError, Reason, TargetError
from interlock.gate import Gate
from interlock.identity.signin import SignIn
from interlock.listening import bound
from interlock.ssh import algorithms, credentials
from interlock.ssh.connection import ClientConnection
from interlock.ssh.dialling import Dialler, host_keys_path, read_host_keys
from interlock.ssh.enrolment import Enrolments
from interlock.ssh.host_authority import HostAuthority
from interlock.ssh.house import Authenticator, House
from interlock.ssh.limits import Doorkeeper, Limits
from interlock.ssh.lines import Lines
from interlock.ssh.proving import Owner
from interlock.ssh.tunnel import Adopt

log = structlog.get_logger()

HOST_KEY = "ssh_host_ed25519_key"
"""Under data_dir."""


class SshListener:
    """`listen.ssh` at work. `port` is known after `start`."""

    def __init__(
        self,
        config: Config,
        gate: Gate,
        authenticator: Authenticator,
        *,
        clock: Clock,
        entropy: Entropy,
        limits: Limits | None = None,
        postgres: Adopt | None = None,
        signin: SignIn | None = None,
        host_authority: HostAuthority | None = None,
    ) -> None:
        """`postgres`: takes the tunnels that name a Postgres target; without it they are refused."""
        bounds = limits or Limits()
        diallers = {
            target.name: Dialler(config, target, credentials.load(config, target, clock=clock, entropy=entropy), bounds)
            for target in config.targets
            if target.protocol == "ssh"
        }
        self.lines = Lines(bounds, clock=clock, entropy=entropy)
        self.enrolments = Enrolments(lambda: gate.transcripts.journal, clock)
        self._house = House(
            config, gate, authenticator, diallers, self.lines, self.enrolments, clock, entropy, bounds, Doorkeeper(bounds), set(),
            postgres, signin,
        )  # fmt: skip
        gate.on_revoke.append(self.lines.revoke)
        self._host_authority = host_authority
        self._server: asyncio.Server | None = None
        self.port = 0
        self.host_key = ""

    @property
    def inside(self) -> int:
        """How many connections there are now."""
        return self._house.door.inside

    async def start(self) -> None:
        """Bind and accept. Raise ConfigError when the address or the host key can't be used."""
        # Its INFO has every command and its DEBUG every packet: neither belongs into a log.
        asyncssh.set_log_level(logging.WARNING)
        config = self._house.config
        if config.listen.ssh is None:
            raise ConfigError("listen.ssh is not set")
        for target in config.targets:
            if target.protocol == "ssh":
                await asyncio.to_thread(_check_host_keys, config, target)
        path = config.path(config.node.data_dir) / HOST_KEY
        key = await asyncio.to_thread(credentials.own_host_key, path)
        self.host_key = key.export_public_key().decode().strip()
        # With its certificate a key is offered both ways, so that clients that know only the key go on to work.
        authority = self._host_authority
        proofs: list[Any] = [key if authority is None else (key, authority.certify(key, self._house.clock.now()))]
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=Owner,
            server_version="Interlock",
            server_host_keys=proofs,
            config=None,
            authorized_client_keys=None,
            gss_host=None,
            allow_pty=False,
            line_editor=False,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            encoding=None,
            **algorithms.OPTIONS,
            login_timeout=self._house.limits.login,
            keepalive_interval=self._house.limits.keepalive,
            keepalive_count_max=self._house.limits.keepalive_count,
        )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ClientConnection(self._house, options), sock=bound("ssh", config.listen.ssh)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("ssh.listening", port=self.port, host_key=key.get_fingerprint())

    def reload(self) -> None:
        """Make connections to targets anew, and ask their accounts again: what they rest on may have been changed."""
        self.lines.retire_all()
        self.enrolments.forget()

    async def close(self) -> None:
        """Stop accepting, end every connection with a sentence, hand back what is held, seal the transcripts."""
        if self._server is not None:
            self._server.close()
        connections = list(self._house.connections)
        for connection in connections:
            connection.leave(Refusal(Reason.SHUTTING_DOWN, SENTENCES[Reason.SHUTTING_DOWN]))
        await asyncio.gather(*(connection.over for connection in connections))
        await self.lines.close()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None


def _check_host_keys(config: Config, target: TargetConfig) -> None:
    """A target that could never be verified stops the start, not the first command."""
    try:
        read_host_keys(host_keys_path(config, target), target.name)
    except TargetError as error:
        raise ConfigError(str(error)) from None
