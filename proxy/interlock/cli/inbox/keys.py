"""Keys of a terminal: bytes into names. The terminal is put back as it was, however this ends."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator

from interlock.cli.inbox import board

_SEQUENCES = {
    "[A": board.UP, "[B": board.DOWN, "OA": board.UP, "OB": board.DOWN, "[5~": board.PAGE_UP, "[6~": board.PAGE_DOWN,
    "[H": board.HOME, "[F": board.END, "OH": board.HOME, "OF": board.END, "[1~": board.HOME, "[4~": board.END,
}  # fmt: skip
_SINGLE = {"\r": board.ENTER, "\n": board.ENTER, "\x7f": board.BACKSPACE, "\x08": board.BACKSPACE, "\x03": board.INTERRUPT,
    "\x04": board.INTERRUPT}  # fmt: skip


def keys_of(text: str) -> list[str]:
    """Return the keys that a piece of input stands for. A lone escape is the Escape key; unknown sequences are none."""
    keys: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\x1b":
            found = next((s for s in _SEQUENCES if text.startswith(s, at)), None)
            if found is not None:
                keys.append(_SEQUENCES[found])
                at += len(found)
            elif text[at : at + 1] in ("[", "O"):
                at += 1
                while at < len(text) and not "@" <= text[at] <= "~":
                    at += 1
                at += 1
            else:
                keys.append(board.ESCAPE)
        elif char in _SINGLE:
            keys.append(_SINGLE[char])
        elif char.isprintable():
            keys.append(char)
    return keys


class Keyboard:
    """Reads keys of a terminal without echo. Use `raw()` around it."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        before = termios.tcgetattr(self._file)
        try:
            tty.setcbreak(self._file, termios.TCSADRAIN)
            after = termios.tcgetattr(self._file)
            after[3] &= ~termios.ISIG  # Ctrl-C is a key here, so that nothing is left half written
            termios.tcsetattr(self._file, termios.TCSADRAIN, after)
            yield
        finally:
            termios.tcsetattr(self._file, termios.TCSADRAIN, before)

    def read(self, wake: int, timeout: float) -> list[str] | None:
        """Return the keys pressed by now, waiting at most `timeout` seconds or until `wake` can be read. None: no more."""
        ready, _, _ = select.select([self._file, wake], [], [], timeout)
        if wake in ready:
            os.read(wake, 4096)
        if self._file not in ready:
            return []
        data = os.read(self._file, 4096)
        return keys_of(self._decoder.decode(data)) if data else None
