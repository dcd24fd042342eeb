"""What a reviewer sees of a text: everything, and nothing that pretends to be something else.

Every character that is not printable ASCII is escaped between marks, lines are numbered by the caller, runs of blanks
are collapsed with a visible mark, and the length is said. Pure. Spec: commands.md, "Display"; threats.md 4.4.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby

MAX_LINES = 400
MAX_LINE = 2000
COLLAPSED = 8
"""A run of this many blanks or more is shown as a mark with its length; one at the end of a line always."""
PADDING = 40
"""A run of this many blanks in front of text is called a deception."""

OPEN, CLOSE = "⟦", "⟧"
"""Marks around what is not in the text as shown. The marks themselves are escaped when the text holds them."""

MAX_NAMED = 12
"""So many deceptions of one text are named one by one."""

_LOOK_ALIKES = str.maketrans(
    "абвгеѕіјорсухһԁԛԝӏкмнтьАВЕЅІЈКМНОРСТУХҺԚԜӀαγικνοπρτυωχΑΒΕΖΗΙΚΜΝΟΡΤΥΧɑɡıƖǀաոսօց",  # look-alikes are the point
    "a6bresijopcyxhdqwlkmhtbABESIJKMHOPCTYXHQWlayikvonptuwxABEZHIKMNOPTYXagilluunog",
)
"""Letters of other scripts by the Latin one that they are taken for (after UTS #39, confusables)."""
_WORD = re.compile(r"\w+")

_HIDDEN, _HIDDEN_MOST = 0xD800, 0x3FF

_BLANKS = re.compile(r" +|\t+")
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


def display(
    text: bytes, *, lines: int = MAX_LINES, width: int = MAX_LINE, hidden: Sequence[tuple[int, int]] = (), more: int = 0
) -> Display:
    """Return the text as a reviewer may see it. Any bytes are accepted; nothing is dropped without `cut`.

    Two different texts never look the same: of what is cut, length and SHA-256 are shown. `hidden` are ranges of bytes, in
    order, in whose place a mark stands (approvals/redaction.py); `more` bytes follow that were not even given here.
    """
    deceptions: dict[str, None] = {}
    raw = _without(text, hidden).split("\n")
    cut = len(raw) > lines or more > 0
    if any(a == "" and b == "" and c == "" for a, b, c in zip(raw, raw[1:], raw[2:], strict=False)):
        deceptions["many empty lines in a row"] = None
    found: list[str] = []
    empty = 0
    for line in raw[:lines]:
        if line == "":
            empty += 1
            continue
        found.extend(_blank_lines(empty))
        empty = 0
        shown = _line(line, deceptions)
        if len(shown) > width:
            cut = True
            kept, rest = _split(shown, width)
            shown = f"{kept}{OPEN}cut: {len(rest)} more characters, {_hash(rest)}{CLOSE}"
        found.append(shown)
    found.extend(_blank_lines(empty))
    if len(raw) > lines:
        rest = "\n".join(raw[lines:])
        found.append(f"{OPEN}cut: {len(raw) - lines} more lines, {_hash(rest)}{CLOSE}")
    if more:
        found.append(f"{OPEN}cut: {more} more bytes{CLOSE}")
    named = list(deceptions)
    if len(named) > MAX_NAMED:
        named[MAX_NAMED:] = [f"and {len(named) - MAX_NAMED} more of such kinds"]
    return Display(tuple(found), tuple(named), cut, len(text) + more)


def hide(length: int) -> str:
    """Return what stands for a hidden piece of text until `display` or `inline` draws its mark.

    It is a lone high surrogate, which no decoded text holds: nobody can write one and so pretend that something is hidden.
    """
    return chr(_HIDDEN + min(about(length), _HIDDEN_MOST))


def about(length: int) -> int:
    """Round a length: exactly how long a password is helps who wants to guess it."""
    return max(10, round(length / 10) * 10)


def _without(text: bytes, hidden: Sequence[tuple[int, int]]) -> str:
    out: list[str] = []
    position = 0
    for start, end in hidden:
        out += [text[position:start].decode("utf-8", "surrogateescape"), hide(end - start)]
        position = end
    return "".join(out) + text[position:].decode("utf-8", "surrogateescape")


def whole(text: bytes) -> Display:
    """Return all of the text, whatever its size: what the page shows that a cut display links to."""
    return display(text, lines=sys.maxsize, width=sys.maxsize)


def inline(text: str, limit: int = 200) -> str:
    """Return a name or a piece of text for the inside of a sentence: one line, with the same marks as `display`."""
    line = f"{OPEN}new line{CLOSE}".join(_line(part, {}) for part in text.split("\n"))
    if len(line) <= limit:
        return line
    kept, rest = _split(line, limit)
    return f"{kept}{OPEN}{len(rest)} more characters{CLOSE}"


def _split(shown: str, width: int) -> tuple[str, str]:
    """Cut what is shown, and never inside of a mark."""
    opened = shown.rfind(OPEN, 0, width)
    if opened >= 0 and shown.find(CLOSE, opened, width) < 0:
        width = opened
    return shown[:width], shown[width:]


def _hash(text: str) -> str:
    return f"SHA-256 {sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _blank_lines(count: int) -> list[str]:
    return [""] * count if count < 3 else [f"{OPEN}{count} empty lines{CLOSE}"]


def _line(line: str, deceptions: dict[str, None]) -> str:
    out: list[str] = []
    position = 0
    end = len(line)
    for blank in _BLANKS.finditer(line):
        run = blank.group()
        at_end = blank.end() == end
        if run[0] == " " and len(run) < COLLAPSED and not at_end:
            continue
        out.append(_characters(line[position : blank.start()], deceptions))
        out.append(_blanks(run))
        position = blank.end()
        if run[0] == " " and len(run) >= PADDING and not at_end:
            deceptions["a long run of blanks that pushes text out of view"] = None
        if at_end and run[0] == " ":
            deceptions["blanks at the end of a line"] = None
    out.append(_characters(line[position:], deceptions))
    return "".join(out)


def _blanks(run: str) -> str:
    kind = "tab" if run[0] == "\t" else "blank"
    return f"{OPEN}{kind}{CLOSE}" if len(run) == 1 else f"{OPEN}{len(run)} {kind}s{CLOSE}"


def _characters(text: str, deceptions: dict[str, None]) -> str:
    if text.isascii() and text.isprintable():
        return text
    _look_alikes(text, deceptions)
    out: list[str] = []
    for char, run in groupby(text):
        count = sum(1 for _ in run)
        if " " <= char <= "~":
            out.append(char * count)
            continue
        shown = _escaped(char, deceptions)
        out.append(shown * count if count < COLLAPSED else f"{OPEN}{count} times {shown[1:]}")
    return "".join(out)


def _look_alikes(text: str, deceptions: dict[str, None]) -> None:
    """Name the words that would be read as other words: `pass` with a Cyrillic letter, full-width or mathematical letters."""
    if text.isascii():
        return
    for word in _WORD.findall(text):
        if word.isascii():
            continue
        looks = unicodedata.normalize("NFKC", word).translate(_LOOK_ALIKES)
        if looks.isascii() and looks != word:
            deceptions[f"a word that only looks like {looks[:60]!r}: {OPEN}{_points(word)}{CLOSE}"] = None


def _points(word: str) -> str:
    return " ".join(c if c.isascii() else f"U+{ord(c):04X}" for c in word[:40])


def _escaped(char: str, deceptions: dict[str, None]) -> str:
    code = ord(char)
    if _HIDDEN <= code <= _HIDDEN + _HIDDEN_MOST:
        return f"{OPEN}hidden: about {code - _HIDDEN} characters{CLOSE}"
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
