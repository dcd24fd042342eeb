"""A terminal for tests: a child on a pseudo-terminal of its own, and what is on its screen.

Knows as much of ECMA-48 as rich and OpenSSH's tools write. Everything the child wrote is kept as well, for what must never be
written.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

_CSI = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])")
_OSC = re.compile(rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


class Screen:
    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.raw = b""
        self.row = self.column = 0
        self.cells = [[" "] * columns for _ in range(rows)]
        self._rest = b""

    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.cells)

    def feed(self, data: bytes) -> None:
        self.raw += data
        data = self._rest + data
        at = 0
        while at < len(data):
            byte = data[at]
            if byte == 0x1B:
                found = _CSI.match(data, at) or _OSC.match(data, at)
                if found is None:
                    if len(data) - at < 64:
                        break  # it may go on in the next piece
                    at += 2
                    continue
                if found.re is _CSI:
                    self._control(found[1].decode(), found[2].decode())
                at = found.end()
            elif byte >= 0x80:
                length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                if at + length > len(data):
                    break
                self._put(data[at : at + length].decode("utf-8", "replace"))
                at += length
            else:
                self._plain(chr(byte))
                at += 1
        self._rest = data[at:]

    def _plain(self, char: str) -> None:
        match char:
            case "\r":
                self.column = 0
            case "\n":
                self.row += 1
                self._scroll()
            case "\b":
                self.column = max(0, self.column - 1)
            case _ if char >= " ":
                self._put(char)

    def _put(self, char: str) -> None:
        if self.column >= self.columns:
            self.row, self.column = self.row + 1, 0
        self._scroll()
        self.cells[self.row][self.column] = char
        self.column += 1

    def _scroll(self) -> None:
        while self.row >= self.rows:
            self.cells = [*self.cells[1:], [" "] * self.columns]
            self.row -= 1

    def _control(self, given: str, name: str) -> None:
        numbers = [int(n) if n.isdigit() else 0 for n in given.lstrip("?").split(";")]
        first = numbers[0] if numbers else 0
        match name:
            case "H" | "f":
                self.row = min(self.rows, max(1, first)) - 1
                self.column = min(self.columns, max(1, numbers[1] if len(numbers) > 1 else 1)) - 1
            case "A":
                self.row = max(0, self.row - max(1, first))
            case "B":
                self.row = min(self.rows - 1, self.row + max(1, first))
            case "C":
                self.column = min(self.columns - 1, self.column + max(1, first))
            case "D":
                self.column = max(0, self.column - max(1, first))
            case "G":
                self.column = max(1, first) - 1
            case "J":
                below = first == 0
                for row in range(self.row if below else 0, self.rows):
                    start = self.column if below and row == self.row else 0
                    self.cells[row][start:] = [" "] * (self.columns - start)
            case "K":
                start, end = (self.column, self.columns) if first == 0 else (0, self.columns)
                self.cells[self.row][start:end] = [" "] * (end - start)


class Terminal:
    """A child on a terminal. `type` presses keys, `until` waits for the screen."""

    def __init__(self, master: int, screen: Screen, child: asyncio.subprocess.Process) -> None:
        self._master = master
        self.screen = screen
        self.child = child
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the child and its terminal are gone
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.screen.feed(data)
        self._changed.set()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, *wanted: str, absent: str = "") -> str:
        """Return the screen once it shows every text, and not `absent`."""
        try:
            async with asyncio.timeout(45):
                while True:
                    shown = self.screen.text()
                    if all(text in shown for text in wanted) and (not absent or absent not in shown):
                        return shown
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"never showed {wanted}:\n{self.screen.text()}") from None

    async def ended(self) -> int:
        async with asyncio.timeout(45):
            return await self.child.wait()


def _size(file: int, rows: int, columns: int) -> None:
    fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@asynccontextmanager
async def on_terminal(
    argv: Sequence[str], env: Mapping[str, str], *, rows: int = 40, columns: int = 120
) -> AsyncIterator[Terminal]:
    """Run a child whose controlling terminal is ours."""
    master, slave = pty.openpty()
    _size(slave, rows, columns)

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    # Whoever runs the tests may say another size than the terminal's own, which is the one that we read.
    ours = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=slave, stdout=slave, stderr=slave, env={**ours, "TERM": "xterm"}, preexec_fn=own_terminal
    )
    os.close(slave)
    terminal = Terminal(master, Screen(rows, columns), child)
    try:
        yield terminal
    finally:
        asyncio.get_running_loop().remove_reader(master)
        if child.returncode is None:
            child.kill()
            await child.wait()
        os.close(master)
