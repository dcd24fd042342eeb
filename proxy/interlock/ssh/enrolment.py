"""Enrolment: which login shell and which charset an account says it has, and why that can only tighten.

Before the first command that no person has looked at goes to an account, the proxy asks there with a command of its own,
in its own name: the question is in the node's journal before it is sent, the answer after it. What comes back was printed
by the target, and by whatever the account's start-up files put in its way, so it is evidence against the account and
never for it: the configuration's word stands, a contradiction makes it stricter, and silence or rubbish change nothing
(docs/adr, "What an account says of itself can only tighten").
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncssh

from interlock.clock import Clock
from interlock.commands.model import ShellContext
from interlock.commands.shell.dialect import POSIX_SHELLS
from interlock.config import TargetConfig
from interlock.evidence.events import EventDraft, Json, Recorder

AGAIN_US = 3_600_000_000
"""An account is asked again after that."""

MAX_ANSWER = 4096
ANSWER_S = 5.0

_PLAIN = frozenset(("UTF-8", "ANSI_X3.4-1968", "US-ASCII", "ASCII", "646"))
"""Charsets in which every byte of a multi-byte character is none of ASCII, and none is a blank: the shell's lexer reads the
same words. In GBK, Big5 or Shift-JIS the second byte can be a backslash, in ISO 8859-1 a blank."""

_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,39}\Z")
_SHELL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Statement:
    """What an account said of itself; empty where it said nothing that can be read."""

    shell: str = ""
    charset: str = ""


def question(account: str) -> str:
    """Return what is run there: two programs and plain words, which every shell reads alike."""
    return f"getent passwd {account}; locale charmap"


def read(account: str, output: bytes) -> Statement:
    """Read an answer. Lines that start-up files printed around it are passed over; two shells are none that is known."""
    if len(output) >= MAX_ANSWER:  # cut somewhere: whatever its last line seems to say
        return Statement()
    lines = output.decode("ascii", "replace").splitlines()
    entries = [fields for fields in (line.split(":") for line in lines) if len(fields) == 7 and fields[0] == account]
    shells = {fields[6].rpartition("/")[2] or "sh" for fields in entries}  # an empty field means /bin/sh (passwd(5))
    charset = lines[-1] if lines and _CHARSET.match(lines[-1]) else ""
    match sorted(shells):
        case []:
            return Statement("", charset)
        case [shell] if _SHELL.match(shell):
            return Statement(shell, charset)
        case _:
            return Statement("unlisted", charset)


def context(configured: str, said: Statement | None) -> ShellContext:
    """Return how text for the account is read: as configured, or stricter. A statement never makes it looser."""
    shell, utf8 = configured, True
    if said is not None and said.shell:
        if said.shell not in POSIX_SHELLS:
            shell = said.shell if configured in POSIX_SHELLS else configured
        elif configured == "bash" and said.shell != "bash":
            shell = "unknown"
    if said is not None and said.charset:
        utf8 = said.charset.upper() in _PLAIN
    return ShellContext(shell, utf8_locale=utf8)


class _Answer(asyncssh.SSHClientSession[bytes]):
    """Collects what the target prints, and no more of it than an answer can have."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self.output += data[: MAX_ANSWER - len(self.output)]
            if len(self.output) >= MAX_ANSWER:
                self._chan.abort()

    def session_started(self) -> None:
        self._chan.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


Ask = Callable[[str], Awaitable[bytes]]
"""Runs a text at the account and returns what it printed. Raises asyncssh.Error, OSError or TimeoutError."""


async def ask(connection: asyncssh.SSHClientConnection, text: str) -> bytes:
    """Run our own question on a channel of its own."""
    answer = _Answer()
    async with asyncio.timeout(ANSWER_S):
        chan, _ = await connection.create_session(
            lambda: answer, text, request_pty=False, x11_forwarding=False, encoding=None, window=MAX_ANSWER
        )
        try:
            await answer.ended
        finally:
            chan.abort()
    return bytes(answer.output)


class Enrolments:
    """What accounts have said, of all targets. One a listener."""

    def __init__(self, journal: Callable[[], Recorder], clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._said: dict[tuple[str, str, str], tuple[Statement, int]] = {}
        self._asking: dict[tuple[str, str, str], asyncio.Lock] = {}

    def context(self, target: TargetConfig, account: str) -> ShellContext:
        """Return how text for the account is read now. The configured shell is that of the configured account."""
        found = self._said.get((target.name, target.address, account))
        configured = target.shell if account == target.account else "unknown"
        return context(configured, found[0] if found is not None else None)

    async def enrol(self, target: TargetConfig, account: str, run: Ask) -> None:
        """Ask the account unless it has answered lately. Raise EvidenceError: then nothing was asked."""
        key = (target.name, target.address, account)
        if self._known(key):
            return
        async with self._asking.setdefault(key, asyncio.Lock()):
            if self._known(key):
                return
            text = question(account)
            where: dict[str, Json] = {"target": target.name, "account": account}
            self._journal().append(EventDraft("account", {**where, "asked": True}, {"text": text}))
            try:
                output = await run(text)
            except (asyncssh.Error, OSError):  # TimeoutError is one
                return  # nothing was learned; who comes next asks again
            said = read(account, output)
            self._said[key] = said, self._clock.monotonic_us()
            reading = context(target.shell if account == target.account else "unknown", said)
            found: dict[str, Json] = {
                "shell": said.shell, "charset": said.charset, "read_as": reading.shell, "utf8": reading.utf8_locale,
            }  # fmt: skip
            self._journal().append(
                EventDraft("account", {**where, "asked": False, **found}, {"output": output.decode("utf-8", "backslashreplace")})
            )

    def forget(self) -> None:
        """Ask every account again before its next command."""
        self._said = {key: (said, self._clock.monotonic_us() - AGAIN_US) for key, (said, _) in self._said.items()}

    def _known(self, key: tuple[str, str, str]) -> bool:
        found = self._said.get(key)
        return found is not None and self._clock.monotonic_us() - found[1] < AGAIN_US
