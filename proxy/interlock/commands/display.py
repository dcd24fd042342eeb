"""What a reviewer sees of a text: everything, and nothing that pretends to be something else.

Every character that is not printable ASCII is escaped between marks, lines are numbered by the caller, runs of blanks
are collapsed with a visible mark, and the length is said. Pure. Spec: commands.md, "Display"; threats.md 4.4.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

MAX_LINES = 400
MAX_LINE = 2000
COLLAPSED = 8
"""A run of this many blanks or more is shown as a mark with its length."""

OPEN, CLOSE = "⟦", "⟧"
"""Marks around what is not in the text as shown. The marks themselves are escaped when the text holds them."""

_BLANKS = re.compile(rf" {{{COLLAPSED},}}|\t+")
_NAMED = {
    "\r": "carriage return",
    "\x1b": "escape",
    "\x00": "null",
    "\x7f": "delete",
    "\x08": "backspace",
    "\xa0": "no-break space",
}


@dataclass(frozen=True, slots=True)
class Display:
    """`lines` are safe to print anywhere as plain text. `deceptions` say what would have misled, once each.

    `cut` tells that lines or characters were left out: what is cut can't be approved from this view. `length` in bytes.
    """

    lines: tuple[str, ...]
    deceptions: tuple[str, ...]
    cut: bool
    length: int


def display(text: bytes) -> Display:
    """Return the text as a reviewer may see it. Any bytes are accepted; nothing is dropped without `cut`."""
    deceptions: dict[str, None] = {}
    decoded = text.decode("utf-8", "surrogateescape")
    raw = decoded.split("\n")
    cut = len(raw) > MAX_LINES
    if any(a == "" and b == "" and c == "" for a, b, c in zip(raw, raw[1:], raw[2:], strict=False)):
        deceptions["many empty lines in a row"] = None
    lines: list[str] = []
    empty = 0
    for line in raw[:MAX_LINES]:
        if line == "":
            empty += 1
            continue
        lines.extend(_blank_lines(empty))
        empty = 0
        shown = _line(line, deceptions)
        if len(shown) > MAX_LINE:
            cut = True
            shown = f"{shown[:MAX_LINE]}{OPEN}cut: {len(shown) - MAX_LINE} more characters{CLOSE}"
        lines.append(shown)
    lines.extend(_blank_lines(empty))
    if len(raw) > MAX_LINES:
        lines.append(f"{OPEN}cut: {len(raw) - MAX_LINES} more lines{CLOSE}")
    return Display(tuple(lines), tuple(deceptions), cut, len(text))


def _blank_lines(count: int) -> list[str]:
    return [""] * count if count < 3 else [f"{OPEN}{count} empty lines{CLOSE}"]


def _line(line: str, deceptions: dict[str, None]) -> str:
    out: list[str] = []
    position = 0
    for blank in _BLANKS.finditer(line):
        out.append(_characters(line[position : blank.start()], deceptions))
        run = blank.group()
        if run[0] == "\t":
            out.append(f"{OPEN}tab{CLOSE}" if len(run) == 1 else f"{OPEN}{len(run)} tabs{CLOSE}")
        else:
            out.append(f"{OPEN}{len(run)} blanks{CLOSE}")
            if len(run) >= 40:
                deceptions["a long run of blanks that pushes text out of view"] = None
        position = blank.end()
    out.append(_characters(line[position:], deceptions))
    shown = "".join(out)
    if shown.endswith(" "):
        shown = f"{shown[:-1]}{OPEN}blank{CLOSE}"
    return shown


def _characters(text: str, deceptions: dict[str, None]) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else _escaped(char, deceptions) for char in text)


def _escaped(char: str, deceptions: dict[str, None]) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        deceptions["bytes that are not UTF-8"] = None
        return f"{OPEN}byte 0x{code - 0xDC00:02X}{CLOSE}"
    category = unicodedata.category(char)
    name = _NAMED.get(char) or unicodedata.name(char, "").lower()
    if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"):
        bidi = unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        kind = "direction-changing" if bidi else "control" if category == "Cc" else "invisible"
        deceptions[f"{kind} character U+{code:04X}{f' ({name})' if name else ''}"] = None
        return f"{OPEN}U+{code:04X}{f' {name}' if name else ''}{CLOSE}"
    if category.startswith("L") and not name.startswith("latin"):
        deceptions["letters of a script other than Latin, which may look like others"] = None
    elif category in ("Pd", "Sm", "Po", "Ps", "Pe", "Pi", "Pf", "Mn", "Me", "Sk", "Lm"):
        deceptions["punctuation that is not ASCII, which may look like ASCII"] = None
    return f"{OPEN}U+{code:04X} {name or 'unnamed'}{CLOSE}"
