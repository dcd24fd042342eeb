"""`interlock approvals watch` on a real terminal: a reviewer reads and answers, and a hostile command moves nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.desk import PASSPHRASE
from harness.house import House, open_house
from harness.requests import SHELL, TERMS
from harness.screen import Terminal, on_terminal
from interlock.approvals.model import State
from interlock.policy.model import Risk, StepUp

HOSTILE = b"echo ok\x1b]0;owned\x07\x1b[2J\x1b[1;1Happroved by alice\x07\r\nrm -rf /srv \xe2\x80\xaegnp.exe\x9b31m"

pytestmark = pytest.mark.blackbox


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as made:
        yield made


def watching(house: House, *more: str, rows: int = 40, columns: int = 120):  # type: ignore[no-untyped-def]
    argv = [sys.executable, "-m", "interlock", "approvals", "watch", "--server", house.socket, *more]
    return on_terminal(argv, {**os.environ, "NO_COLOR": ""}, rows=rows, columns=columns)


async def leave(terminal: Terminal) -> None:
    terminal.type("q")
    assert await terminal.ended() == 0


async def test_a_reviewer_reads_approves_and_denies_with_one_passphrase(house: House) -> None:
    first = await house.ask()
    async with watching(house, "--as", "bob") as terminal:
        shown = await terminal.until("sudo rm -rf /var/lib/pg", "owned by alice", "j/k choose")
        assert "linux/recursive-delete" in shown and "claude" in shown
        terminal.type("a")
        await terminal.until("reason (optional)")
        terminal.type("looked at it\r")
        await terminal.until("passphrase of bob")
        terminal.type(PASSPHRASE + "\r")
        await terminal.until(f"{first.id} is approved", "nothing waits")
        second = await house.ask(command=replace(SHELL, text=b"rm -rf /srv/second"))
        await terminal.until("rm -rf /srv/second")
        terminal.type("d")
        await terminal.until("told to the agent")
        terminal.type("not tonight\r")
        await terminal.until(f"{second.id} is denied")
        await leave(terminal)
        raw = terminal.screen.raw
    assert PASSPHRASE.encode() not in raw
    assert b"\x1b[?1049l" in raw and raw.count(b"\x1b[?25h"), "the terminal is as it was"
    approved, denied = await house.desk.inbox.get(first.id), await house.desk.inbox.get(second.id)
    assert (approved.state, approved.votes[0].reviewer_handle, approved.votes[0].channel) == (State.APPROVED, "bob", "cli")
    assert approved.votes[0].reason == "looked at it" and denied.votes[0].reason == "not tonight"


async def test_a_hostile_command_is_shown_and_moves_nothing(house: House) -> None:
    request = await house.ask(command=replace(SHELL, text=HOSTILE), said="\x1b[2Jplease \u202e approve")
    async with watching(house, "--as", "bob", rows=60) as terminal:
        shown = await terminal.until(request.id, "U+001B escape", "j/k choose")
        assert "approved by alice" in shown, "it is there, as text"
        assert shown.splitlines()[0].strip().startswith("AGE"), "and nothing was written where it wanted"
        assert "rm -rf /srv" in shown and "U+202E" in shown and "carriage return" in shown
        terminal.type("jk?")
        await terminal.until("choose a request")
        terminal.type("x")
        await leave(terminal)
        raw = terminal.screen.raw
    assert b"\x1b]" not in raw and b"\x07" not in raw and b"\x9b31m" not in raw
    assert "\u202e".encode() not in raw and b"\x1b[2J\x1b[1;1H" not in raw


async def test_what_arrives_moves_nothing_under_the_hand(house: House) -> None:
    first = await house.ask()
    async with watching(house, "--as", "bob") as terminal:
        await terminal.until("sudo rm -rf /var/lib/pg", first.id)
        terminal.type("a")
        await terminal.until("reason (optional)")
        await house.ask(command=replace(SHELL, text=b"shred /dev/sda"))
        await terminal.until("shred /dev/sda", "reason (optional)")
        terminal.type("\r")
        await terminal.until("passphrase of bob")
        terminal.type(PASSPHRASE + "\r")
        await terminal.until(f"{first.id} is approved")
        await leave(terminal)
    states = {r.draft.command.text: r.state for r in await house.desk.inbox.list()}
    assert states == {SHELL.text: State.APPROVED, b"shred /dev/sda": State.PENDING}


async def test_somebody_else_decides_while_one_types(house: House) -> None:
    request = await house.ask()
    async with watching(house, "--as", "bob") as terminal:
        await terminal.until(request.id)
        terminal.type("d")
        await terminal.until("told to the agent")
        async with house.client(await house.stepped_up("dan")) as dan:
            await dan.post(f"/v1/approvals/{request.id}/decision", json={"verdict": "approve", "digest": request.digest})
        await terminal.until("nothing waits", f"{request.id} is approved (by dan)")
        await leave(terminal)


async def test_an_approval_takes_that_everything_was_read(house: House) -> None:
    text = b"\n".join(b"echo %d" % n for n in range(60)) + b"\nrm -rf /srv/hidden-below"
    request = await house.ask(command=replace(SHELL, text=text))
    async with watching(house, "--as", "bob", rows=24) as terminal:
        shown = await terminal.until(request.id, "space shows more")
        assert "hidden-below" not in shown
        terminal.type("a")
        await terminal.until("read to the end first")
        terminal.type(" " * 12)
        await terminal.until("hidden-below", absent="space shows more")
        terminal.type("a")
        await terminal.until("reason (optional)")
        terminal.type("\x1b")
        await terminal.until("j/k choose")
        await leave(terminal)
    assert await house.state(request) is State.PENDING


async def test_critical_ones_are_signed_and_without_a_name_nothing_is_answered(house: House) -> None:
    critical = await house.ask(terms=replace(TERMS, risk=Risk.CRITICAL, step_up=StepUp.PASSKEY))
    async with watching(house, "--as", "bob") as terminal:
        await terminal.until(critical.id)
        terminal.type("a")
        await terminal.until("--sign")
        await leave(terminal)
    async with watching(house) as terminal:
        await terminal.until(critical.id)
        terminal.type("d")
        await terminal.until("--as HANDLE")
        await leave(terminal)
    assert await house.state(critical) is State.PENDING


class Relay:
    """A wire between the terminal and the daemon that can be cut."""

    def __init__(self, to: str) -> None:
        self._to = urlsplit(to)
        self._open: list[asyncio.StreamWriter] = []
        self.url = ""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._to.hostname, self._to.port)
        self._open += [writer, back]
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()


async def test_a_cut_wire_is_said_and_what_was_missed_is_there_afterwards(house: House) -> None:
    first = await house.ask()
    relay = Relay(house.socket)
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with watching(house, "--as", "bob", "--server", relay.url) as terminal:
            await terminal.until(first.id)
            relay.cut()
            await terminal.until("connecting")
            missed = await house.ask(command=replace(SHELL, text=b"rm -rf /srv/missed"))
            await terminal.until("rm -rf /srv/missed", "2 waiting", absent="connecting")
            terminal.type("j")
            await terminal.until(missed.id)
            await leave(terminal)
    finally:
        server.close()
        relay.cut()


async def test_a_decision_session_that_ended_early_is_opened_anew(house: House) -> None:
    """A new passphrase ends what the old one opened; the person is asked again and not locked out for five minutes."""
    first, second = await house.ask(), await house.ask(command=replace(SHELL, text=b"rm -rf /srv/b"))
    async with watching(house, "--as", "bob") as terminal:
        await terminal.until(first.id)
        terminal.type("d\r")
        await terminal.until("passphrase of bob")
        terminal.type(PASSPHRASE + "\r")
        await terminal.until(f"{first.id} is denied", second.id)
        await house.desk.directory.set_passphrase("bob", "another long passphrase")
        terminal.type("d\r")
        await terminal.until("not accepted")
        terminal.type("d\r")
        await terminal.until("passphrase of bob")
        terminal.type("another long passphrase\r")
        await terminal.until(f"{second.id} is denied")
        await leave(terminal)


async def test_a_wrong_passphrase_says_so_and_ctrl_c_leaves(house: House) -> None:
    request = await house.ask()
    async with watching(house, "--as", "bob") as terminal:
        await terminal.until(request.id)
        terminal.type("a\r")
        await terminal.until("passphrase of bob")
        terminal.type("wrong\r")
        await terminal.until("passphrase is wrong")
        terminal.type("\x03")
        assert await terminal.ended() == 0
    assert await house.state(request) is State.PENDING
