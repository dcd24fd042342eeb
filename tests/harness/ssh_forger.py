"""An SSH client that sends authentication requests one by one, exactly as a test says: what a hostile client can do."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh
from asyncssh.constants import MSG_CHANNEL_OPEN, MSG_USERAUTH_REQUEST
from asyncssh.logging import SSHLogger
from asyncssh.packet import Boolean, Byte, SSHPacket, SSHPacketHandler, String, UInt32

MSG_USERAUTH_PK_OK = 60  # RFC 4252 §7


class _Listening(SSHPacketHandler):
    """Stands where asyncssh's own authentication would stand, and only notes what the server answers."""

    def __init__(self, forger: Forger) -> None:
        self._forger = forger

    @property
    def logger(self) -> SSHLogger:
        return self._forger.logger

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        self._forger.answers.put_nowait("offered" if pkttype == MSG_USERAUTH_PK_OK else f"packet {pkttype}")
        return True

    def auth_succeeded(self) -> None:
        self._forger.answers.put_nowait("success")

    def auth_failed(self) -> None:
        self._forger.answers.put_nowait("failure")

    def cancel(self) -> None:
        pass


class Forger(asyncssh.SSHClientConnection):
    """Connected and keyed, not authenticated. `answers` gets offered, success, failure or closed for each request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers: asyncio.Queue[str] = asyncio.Queue()
        self.ready = asyncio.Event()

    def try_next_auth(self, *, next_method: bool = False) -> None:
        self._auth = _Listening(self)  # type: ignore[assignment]  # as much of one as is asked for
        self.ready.set()

    def _cleanup(self, exc: Exception | None) -> None:
        self._auth = None
        self.answers.put_nowait("closed")
        super()._cleanup(exc)

    def offer(self, key: asyncssh.SSHKey, user: str) -> None:
        """Ask whether a key would do, without proving anything (RFC 4252 §7)."""
        self.send_packet(MSG_USERAUTH_REQUEST, self._request(key, user, signed=False)[1:])

    def sign(self, key: asyncssh.SSHKey, user: str, *, by: asyncssh.SSHKey | None = None, for_user: str | None = None) -> None:
        """Authenticate as `user` with `key`; the signature may be another key's, or one for another user name."""
        signed = String(self._session_id) + self._request(key, for_user or user, signed=True)
        signature = asyncssh.load_keypairs(by or key)[0].sign(signed)
        self.send_packet(MSG_USERAUTH_REQUEST, self._request(key, user, signed=True)[1:] + String(signature))

    def open_early(self) -> None:
        """Open a session channel, whatever the state of the authentication."""
        self._auth_complete = True  # ours alone: asyncssh would keep the packet back
        self.send_packet(MSG_CHANNEL_OPEN, String("session"), UInt32(0), UInt32(65536), UInt32(32768))

    @staticmethod
    def _request(key: asyncssh.SSHKey, user: str, *, signed: bool) -> bytes:
        return b"".join(
            (Byte(MSG_USERAUTH_REQUEST), String(user), String("ssh-connection"), String("publickey"), Boolean(signed),
             String("ssh-ed25519"), String(key.public_data))
        )  # fmt: skip

    @classmethod
    async def connect(cls, port: int, known_hosts: str) -> Forger:
        options = await asyncssh.SSHClientConnectionOptions.construct(
            None, config=None, username="web-1", client_keys=None, agent_path=None, gss_host=None, host="127.0.0.1", port=port,
            known_hosts=known_hosts,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        connection = cls(loop, options)
        await loop.create_connection(lambda: connection, "127.0.0.1", port)
        async with asyncio.timeout(30):
            await connection.ready.wait()
        return connection
