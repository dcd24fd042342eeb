"""What a recording may say to a terminal. Pure.

A recording is played in the terminal of whoever checks it, so output of targets is data there: it may have colours, and
when it came from a terminal session move the cursor and draw; everything else that a terminal would obey (titles,
clipboard, answers to queries, fonts, uploads) is made visible instead. tests/evidence/test_terminal.py has the attacks.
"""

from __future__ import annotations

import re

from interlock.evidence.shown import kept, shown

_ESCAPE = re.compile(
    r"\x1b\[(?P<args>[0-9;:]*)(?P<final>[@-~])"  # CSI without private or intermediate bytes
    r"|\x1b\[(?P<private>\?[0-9;]*[hl])"  # DEC private modes
    r"|\x1b(?P<short>[78DEHM=>])"
)
_PARTIAL = re.compile(r"\x1b(\[[0-9;:?]*)?\Z")
_DRAWING = frozenset("ABCDEFGHJKLMPSTXZ@`adefrsu")
"""CSI finals that only move, erase, insert, delete, scroll or save the cursor (ECMA-48 §8.3)."""

_MODES = frozenset(("?1", "?7", "?12", "?25", "?47", "?1047", "?1048", "?1049", "?2004"))
"""Private modes that a screen program sets for itself: cursor keys, wrap, cursor, alternate screen, paste."""

_LIMIT = 64
"""Longest escape sequence that is waited for across two reads."""


_LINES = kept("\n\t")
_DRAWN = kept("\n\r\t\b\a")


def visible(text: str) -> str:
    """Make every character that is not printable visible; keep newlines and tabs."""
    return shown(text, _LINES)


class OutputFilter:
    """Filters one stream. `drawing` allows what a terminal session needs. A sequence may be cut across two reads."""

    def __init__(self, *, drawing: bool) -> None:
        self._drawing = drawing
        self._rest = ""

    def feed(self, text: str) -> str:
        text = self._rest + text
        self._rest = ""
        if (partial := _PARTIAL.search(text)) is not None and len(partial[0]) < _LIMIT:
            self._rest, text = partial[0], text[: partial.start()]
        return self._filter(text)

    def finish(self) -> str:
        """Return what was waited for and never came whole."""
        rest, self._rest = self._rest, ""
        return visible(rest)

    def _filter(self, text: str) -> str:
        if "\x1b" not in text:
            return self._plain(text)
        pieces: list[str] = []
        at = 0
        for found in _ESCAPE.finditer(text):
            pieces.append(self._plain(text[at : found.start()]))
            pieces.append(found[0] if self._harmless(found) else visible(found[0]))
            at = found.end()
        pieces.append(self._plain(text[at:]))
        return "".join(pieces)

    def _harmless(self, found: re.Match[str]) -> bool:
        if found["final"] == "m":
            return True
        if not self._drawing:
            return False
        if found["private"] is not None:
            return all(f"?{mode}" in _MODES for mode in found["private"][1:-1].split(";"))
        return found["short"] is not None or found["final"] in _DRAWING

    def _plain(self, text: str) -> str:
        if self._drawing:
            return shown(text, _DRAWN)
        # A program without a terminal ends lines with LF alone; a terminal needs CR LF.
        return visible(text.replace("\r\n", "\n")).replace("\n", "\r\n")
