"""Making one connection to a target: dial, verify the host key, prove ourselves.

Host keys are verified always and belong to the target's own route (its address and its host_keys file); strict key
exchange is required; no configuration file, agent or default key of the user who runs the proxy is ever looked at.
Knows nothing of who asks, of commands and of what a connection is used for.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.constants import MSG_KEXINIT
from asyncssh.packet import SSHPacket

from interlock.config import Config, SecretRef, TargetConfig, split_address
from interlock.errors import Reason, TargetError
from interlock.evidence.events import Json
from interlock.ssh import algorithms
from interlock.ssh.acks import acknowledge
from interlock.ssh.credentials import Credentials, Proof
from interlock.ssh.limits import Limits
from interlock.ssh.relay import Relay
from interlock.ssh.sftp.target import FarServer

Stamp = tuple[int, int, int, int]
"""What tells one state of a file from another: inode, size, and both times."""


class FarConnection(asyncssh.SSHClientConnection):
    """A connection to a target that insists on strict key exchange and on signatures without SHA-1."""

    on_lost: Callable[[], object] = staticmethod(lambda: None)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHClientConnectionOptions, *, wait: str | None = None
    ) -> None:
        self._clogs: set[str] = set()
        super().__init__(loop, options, wait=wait)
        self.set_extra_info(clogs=self._clogs)  # where a relay that begins later finds them

    def _connection_made(self) -> None:
        super()._connection_made()
        known = [name for name in self._server_host_key_algs or () if name.decode() in algorithms.HOST_KEYS]
        # With none left the target can only show a key that is not in the file, and that is what it is told.
        self._server_host_key_algs = known or [name.encode() for name in algorithms.HOST_KEYS]

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        acknowledge(self._transport, len(data))
        super().data_received(data, datatype)

    def pause_writing(self) -> None:
        """The socket is full: a target with a huge window that does not read must not fill our memory."""
        self._clog("socket")

    def resume_writing(self) -> None:
        self._free("socket")

    def _send_kexinit(self) -> None:
        # Until the exchange ends asyncssh keeps what we send in a list without a bound.
        self._clog("key exchange")
        super()._send_kexinit()

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)
        self._free("key exchange")

    def _clog(self, where: str) -> None:
        """Hold back what goes to the target, in all that runs here and in what begins meanwhile (`Relay.connection_made`)."""
        self._clogs.add(where)
        for relay in self._relays():
            relay.input_clogged(where)

    def _free(self, where: str) -> None:
        self._clogs.discard(where)
        for relay in self._relays():
            relay.input_free(where)

    def _relays(self) -> list[Relay | FarServer]:
        return [chan._session for chan in self._channels.values() if isinstance(chan._session, (Relay, FarServer))]

    def _cleanup(self, exc: Exception | None) -> None:
        super()._cleanup(exc)
        self.on_lost()

    async def _process_strict_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        await super()._process_kexinit(pkttype, pktid, packet)
        if not self._strict_kex:
            raise asyncssh.KeyExchangeFailed(algorithms.OLD_PEER)

    _packet_handlers = {**asyncssh.SSHClientConnection._packet_handlers, MSG_KEXINIT: _process_strict_kexinit}  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class Dialled:
    """An authenticated connection. `trust` is the state of the host_keys file that its host key was found in."""

    connection: FarConnection
    about: dict[str, Json]
    trust: Stamp
    lasts: float | None
    """Seconds for which the credential is good; None: for as long as it is configured."""


class HostKeys:
    """The host_keys file of one target, parsed anew when it has changed. A revoked key ends what rests on it at once."""

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._target = target
        self._read: tuple[Stamp, asyncssh.SSHKnownHosts] | None = None

    def stamp(self) -> Stamp | None:
        """Return the present state of the file; None when it is not there."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    async def current(self) -> tuple[Stamp, asyncssh.SSHKnownHosts]:
        """Return the file as it is now. Raise TargetError (target-identity)."""
        stamp = self.stamp()
        if stamp is None or self._read is None or self._read[0] != stamp:
            known = await asyncio.to_thread(read_host_keys, self._path, self._target)
            if stamp is None:  # it came into being in between: the next dial reads it in peace
                raise TargetError(f"the host_keys file {self._path} of {self._target} is being replaced",
                                  reason=Reason.TARGET_IDENTITY)  # fmt: skip
            self._read = stamp, known
        return self._read


class Dialler:
    """Makes connections to one target."""

    def __init__(self, config: Config, target: TargetConfig, credentials: Credentials, limits: Limits) -> None:
        self.target = target
        self.credentials = credentials
        self._limits = limits
        self._host_keys = HostKeys(host_keys_path(config, target), target.name)

    def trusts(self, trust: Stamp) -> bool:
        """Say whether a host key that was verified against that state of the file is still verified."""
        return self._host_keys.stamp() == trust

    async def dial(self, account: str, forced: bytes | None) -> Dialled:
        """Dial, verify the host key, authenticate. Raise TargetError with what to look at; nothing was sent then."""
        name = self.target.name
        try:
            async with asyncio.timeout(self._limits.connect):
                try:
                    return await self._login(account, forced)
                except asyncssh.ConnectionLost:
                    # Nothing was sent. A target that hangs up may have said why, and whether that comes through is a race.
                    return await self._login(account, forced)
        except TimeoutError:
            raise TargetError(f"the target {name} did not answer within {self._limits.connect:g} s") from None
        except asyncssh.HostKeyNotVerifiable:
            raise TargetError(
                f"the target {name} showed a host key that is not in its host_keys file; nothing was sent",
                reason=Reason.TARGET_IDENTITY,
            ) from None
        except asyncssh.PermissionDenied:
            raise TargetError(
                f"the target {name} did not accept our credential for {account}", reason=Reason.TARGET_CREDENTIAL
            ) from None
        except asyncssh.KeyExchangeFailed as error:
            raise TargetError(f"the target {name} and the proxy share no algorithms: {error.reason}") from None
        except (asyncssh.Error, OSError, ValueError) as error:
            raise TargetError(f"the target {name} can't be reached: {_said(error)}") from None

    async def _login(self, account: str, forced: bytes | None) -> Dialled:
        host, port = split_address(self.target.address)
        trust, known = await self._host_keys.current()
        sock = await _connected(host, port)
        try:
            proof = await self.credentials.prove(account, sock.getsockname()[0].partition("%")[0], forced)
        except BaseException:
            sock.close()
            raise
        try:
            connection = await self._authenticated(sock, host, port, account, proof, known)
        finally:
            proof.done()
        key = connection.get_server_host_key()
        about = {**proof.about, "host_key": key.get_fingerprint() if key is not None else ""}
        return Dialled(connection, about, trust, proof.lasts)

    async def _authenticated(
        self, sock: socket.socket, host: str, port: int, account: str, proof: Proof, known: asyncssh.SSHKnownHosts
    ) -> FarConnection:
        loop = asyncio.get_running_loop()
        try:
            options = await asyncssh.SSHClientConnectionOptions.construct(
                None,
                config=None,
                host=host,
                port=port,
                username=account,
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
                **algorithms.OPTIONS,
                login_timeout=self._limits.connect,
                keepalive_interval=self._limits.keepalive,
                keepalive_count_max=self._limits.keepalive_count,
            )
            options.waiter = loop.create_future()
            connection = FarConnection(loop, options, wait="auth")
            await loop.create_connection(lambda: connection, sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            await options.waiter
        except BaseException:
            connection.abort()
            raise
        return connection


async def _connected(host: str, port: int) -> socket.socket:
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
