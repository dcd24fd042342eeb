"""What the channels of a client ask of the connection that carries them.

Must not know channels: a connection is built on this, and so are they.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

import asyncssh

from interlock.evidence.events import EventDraft
from interlock.ssh.exec import Execution
from interlock.ssh.relay import ClientSide
from interlock.ssh.requests import Scope
from interlock.ssh.sftp.session import FileSession


class Carrier(asyncssh.SSHServerConnection, ABC):
    """A client's connection as its channels see it."""

    clogs: set[str]
    """What keeps output back now; a channel that begins starts with them."""

    @abstractmethod
    def clog(self, where: str) -> None:
        """Hold back what goes to the client."""

    @abstractmethod
    def free(self, where: str) -> None:
        """Let it go on, if nothing else holds it back."""

    @abstractmethod
    def channel_opened(self, number: int, say: Callable[[str], None]) -> None:
        """Record it. `say` prints a line for the client, on that channel."""

    @abstractmethod
    def channel_closed(self, number: int, *, used: bool) -> None:
        """Record a channel that nothing was done on (`used` records its own end)."""

    @abstractmethod
    def tunnel_closed(self, number: int) -> None:
        """Record it."""

    @abstractmethod
    def script_reader(self) -> bytes:
        """Return what reads the script of a client that asks for a shell: the account's own where that is bash, else sh."""

    @abstractmethod
    def execution(
        self, channel: int, text: bytes, env: tuple[tuple[str, str], ...], client: ClientSide, said: str, unended: str = ""
    ) -> Execution:
        """Return the execution of a command text on this connection's session."""

    @abstractmethod
    def files(self, channel: int, client: ClientSide, said: str) -> FileSession:
        """Return the file service of a channel on this connection's session."""

    @abstractmethod
    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work of this connection; it is cancelled and awaited when the connection ends."""

    @abstractmethod
    def record(self, draft: EventDraft) -> None:
        """Write what happened around commands. A transcript that can't be written ends the connection."""

    @abstractmethod
    def refuse_limit(self, scope: Scope, what: str, channel: int | None = None) -> None:
        """Record that a bound was reached."""
