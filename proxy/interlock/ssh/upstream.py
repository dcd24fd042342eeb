"""Connections to a target: shared ones for allowed commands, one of its own for each pinned command.

A pinned connection's certificate names its command, and carries exactly one channel: a second exec on it would run
the first command again (shown by experiment, design/ssh.md). Host keys are verified always, strict key exchange is
required, no configuration file, agent or default key of the user who runs the proxy is ever looked at.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.constants import MSG_KEXINIT, OPEN_REQUEST_SESSION_FAILED
from asyncssh.packet import SSHPacket

from interlock.config import Config, SecretRef, TargetConfig, split_address
from interlock.errors import Reason, TargetError
from interlock.evidence.events import Json
from interlock.gate import Release
from interlock.ssh import algorithms
from interlock.ssh.credentials import Credentials, forcible
from interlock.ssh.limits import Limits
from interlock.ssh.relay import Relay
from interlock.ssh.sftp.target import FarServer

SHARED_BY = 10
"""Commands at once on one connection: sshd's own default of MaxSessions."""


class _Connection(asyncssh.SSHClientConnection):
    """A connection to a target that insists on strict key exchange and on signatures without SHA-1."""

    def _connection_made(self) -> None:
        super()._connection_made()
        known = [name for name in self._server_host_key_algs or () if name.decode() in algorithms.HOST_KEYS]
        # With none left the target can only show a key that is not in the file, and that is what it is told.
        self._server_host_key_algs = known or [name.encode() for name in algorithms.HOST_KEYS]

    def pause_writing(self) -> None:
        """The socket is full: a target with a huge window that does not read must not fill our memory."""
        for relay in self._relays():
            relay.input_clogged("socket")

    def resume_writing(self) -> None:
        for relay in self._relays():
            relay.input_free("socket")

    def _relays(self) -> list[Relay | FarServer]:
        return [chan._session for chan in self._channels.values() if isinstance(chan._session, (Relay, FarServer))]

    async def _process_strict_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        await super()._process_kexinit(pkttype, pktid, packet)
        if not self._strict_kex:
            raise asyncssh.KeyExchangeFailed(algorithms.OLD_PEER)

    _packet_handlers = {**asyncssh.SSHClientConnection._packet_handlers, MSG_KEXINIT: _process_strict_kexinit}  # noqa: RUF012


@dataclass(slots=True, eq=False)
class Line:
    """One connection to the target and what runs on it."""

    connection: asyncssh.SSHClientConnection
    about: dict[str, Json]
    room: int
    busy: int = 0

    @property
    def usable(self) -> bool:
        return not self.connection.is_closed() and self.busy < self.room


@dataclass(slots=True)
class Route:
    """The way of one command to the target."""

    line: Line
    pinned: bool

    @property
    def about(self) -> dict[str, Json]:
        """What the transcript says of it."""
        return {**self.line.about, "pinned": self.pinned}


class Upstream:
    """What one session holds at its target. Opens nothing before the first release."""

    def __init__(self, config: Config, target: TargetConfig, account: str, credentials: Credentials, limits: Limits) -> None:
        self._target = target
        self._account = account
        self._credentials = credentials
        self._limits = limits
        self._host_keys = host_keys_path(config, target)
        self._shared: list[Line] = []
        self._dialling = asyncio.Lock()
        self._closed = False

    @property
    def pins(self) -> bool:
        """Whether what a reviewer approves must be enforced by the target itself."""
        return self._credentials.pins

    def check(self, payload: bytes) -> None:
        """Raise TargetError (cannot-be-pinned) when an approval of this text could not be carried out."""
        if self._credentials.pins:
            forcible(payload)

    async def reach(self, release: Release, *, alone: bool = False) -> Route:
        """Return a way for one released command. Raise TargetError; nothing was sent then.

        `alone`: it is forced although nobody was asked yet, because a person will be asked about what it is told later.
        """
        if (release.approved or alone) and self._credentials.pins:
            line = await self._connect(forced=release.payload, room=1)
            line.busy = 1
            return Route(line, True)
        return Route(await self._take(), False)

    async def run(
        self, route: Route, release: Release, env: tuple[tuple[str, str], ...], relay: Relay, taken: Callable[[Route], object]
    ) -> None:
        """Start exactly `release.payload` there. Raise TargetError.

        `taken` is called before the command is sent, and again when the target has no room for another session on that
        connection and the command, of which nothing was sent yet, takes a new one. Without a payload asyncssh would ask
        for a shell, so an empty one never comes this far.
        """
        command = release.payload.decode("utf-8")
        if not command:
            raise TargetError("an empty command can't be sent", reason=Reason.INTERNAL)
        await self._start(route, lambda: relay, taken, command=command, env=dict(env))

    async def serve_files(self, route: Route, far: FarServer, taken: Callable[[Route], object]) -> None:
        """Start the target's SFTP server. Raise TargetError. `taken` as for `run`."""
        await self._start(route, lambda: far, taken, subsystem="sftp")

    async def _start(
        self, route: Route, session: Callable[[], Relay | FarServer], taken: Callable[[Route], object], **what: Any
    ) -> None:
        while True:
            taken(route)
            try:
                await route.line.connection.create_session(
                    session, request_pty=False, x11_forwarding=False, encoding=None, window=self._limits.stream_window, **what
                )
            except asyncssh.ChannelOpenError as error:
                if error.code == OPEN_REQUEST_SESSION_FAILED:
                    raise TargetError("the target refused to start what was asked for") from error
                if route.pinned or route.line.busy <= 1:
                    raise TargetError("the target refused to open a session") from error
                # Its MaxSessions is smaller than we thought: others run there, so we know now how many fit.
                route.line.busy -= 1
                route.line.room = route.line.busy
                route.line = await self._take()
            except (asyncssh.Error, OSError) as error:
                raise TargetError("the connection to the target was lost while the command was sent: outcome unknown") from error
            else:
                return

    async def reach_files(self) -> Route:
        """Return a way for file operations: an unforced connection. Raise TargetError; nothing was sent then."""
        return Route(await self._take(), False)

    def leave(self, route: Route) -> None:
        """The command on this route has ended. A pinned connection is never used again."""
        route.line.busy -= 1
        if route.pinned or self._closed:
            route.line.connection.close()

    async def close(self) -> None:
        self._closed = True
        for line in self._shared:
            line.connection.close()
        for line in self._shared:
            await line.connection.wait_closed()
        self._shared.clear()

    # -- connecting -----------------------------------------------------------------------------------------------

    async def _take(self) -> Line:
        async with self._dialling:
            self._shared = [line for line in self._shared if not line.connection.is_closed()]
            line = next((line for line in self._shared if line.usable), None)
            if line is None:
                line = await self._connect(forced=None, room=SHARED_BY)
                self._shared.append(line)
            line.busy += 1
            return line

    async def _connect(self, *, forced: bytes | None, room: int) -> Line:
        """Dial, verify the host key, authenticate. Raise TargetError with what to look at."""
        name = self._target.name
        if self._closed:
            raise TargetError("the session has ended", reason=Reason.SHUTTING_DOWN)
        try:
            async with asyncio.timeout(self._limits.connect):
                return await self._login(forced, room)
        except TimeoutError:
            raise TargetError(f"the target {name} did not answer within {self._limits.connect:g} s") from None
        except asyncssh.HostKeyNotVerifiable:
            raise TargetError(
                f"the target {name} showed a host key that is not in its host_keys file; nothing was sent",
                reason=Reason.TARGET_IDENTITY,
            ) from None
        except asyncssh.PermissionDenied:
            raise TargetError(
                f"the target {name} did not accept our credential for {self._account}", reason=Reason.TARGET_CREDENTIAL
            ) from None
        except asyncssh.KeyExchangeFailed as error:
            raise TargetError(f"the target {name} and the proxy share no algorithms: {error.reason}") from None
        except (asyncssh.Error, OSError, ValueError) as error:
            raise TargetError(f"the target {name} can't be reached: {_said(error)}") from None

    async def _login(self, forced: bytes | None, room: int) -> Line:
        loop = asyncio.get_running_loop()
        host, port = split_address(self._target.address)
        known = await asyncio.to_thread(read_host_keys, self._host_keys, self._target.name)
        sock = await _dial(host, port)
        try:
            proof = self._credentials.prove(self._account, sock.getsockname()[0].partition("%")[0], forced)
            options = await asyncssh.SSHClientConnectionOptions.construct(
                None,
                config=None,
                host=host,
                port=port,
                username=self._account,
                # A function, because an empty list of keys would mean the user's own file and None no check at all.
                known_hosts=lambda name, _address, number: known.match(name, "", number)[:3],
                client_keys=proof.keys,
                agent_path=None,
                agent_forwarding=False,
                preferred_auth="publickey",
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                disable_trivial_auth=True,
                kex_algs=algorithms.KEX,
                encryption_algs=algorithms.CIPHERS,
                mac_algs=algorithms.MACS,
                compression_algs=algorithms.COMPRESSION,
                signature_algs=algorithms.SIGNATURES,
                x509_trusted_certs=None,
                login_timeout=self._limits.connect,
                keepalive_interval=self._limits.keepalive,
                keepalive_count_max=self._limits.keepalive_count,
            )
            options.waiter = loop.create_future()
            connection = _Connection(loop, options, wait="auth")
            await loop.create_connection(lambda: connection, sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            await options.waiter
        except BaseException:
            connection.abort()
            raise
        key = connection.get_server_host_key()
        about = {**proof.about, "host_key": key.get_fingerprint() if key is not None else ""}
        return Line(connection, about, room)


async def _dial(host: str, port: int) -> socket.socket:
    """Resolve once and connect to the first address that answers. Raise OSError."""
    loop = asyncio.get_running_loop()
    problem: OSError | None = None
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem or OSError(f"{host} has no address")


def read_host_keys(path: Path, target: str) -> asyncssh.SSHKnownHosts:
    """Read a known_hosts file. Raise TargetError (target-identity): without it nothing can be verified."""
    try:
        return asyncssh.import_known_hosts(path.read_text())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a known_hosts file"
        raise TargetError(f"the host_keys file {path} of {target} can't be read: {why}", reason=Reason.TARGET_IDENTITY) from None


def host_keys_path(config: Config, target: TargetConfig) -> Path:
    where = target.host_keys
    return config.path(Path(where.where) if isinstance(where, SecretRef) else where or Path("known_hosts"))


def _said(error: Exception) -> str:
    """Return what a foreign error says, without any text that the peer chose."""
    if isinstance(error, OSError):
        return error.strerror or error.__class__.__name__
    return error.__class__.__name__
