"""What changed between the text approved last time and this one, word by word. Pure.

Works on lines of a `Display`, so what is compared is what is seen. Bounded: long texts are compared by lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MAX_WORDS = 1200
MAX_LINES = 400
_WORD = re.compile(r"⟦[^⟧]*⟧|\s+|[\w.-]+|.", re.DOTALL)
"""A mark of a display is one word: half of one would be a lie."""


@dataclass(frozen=True, slots=True)
class Piece:
    """kind: same | gone | new."""

    kind: str
    text: str


def difference(before: Sequence[str], after: Sequence[str]) -> tuple[Piece, ...]:
    """Return the pieces in order. Two equal texts give one piece or none."""
    old, new = _WORD.findall("\n".join(before)), _WORD.findall("\n".join(after))
    if max(len(old), len(new)) > MAX_WORDS:
        old, new = [f"{line}\n" for line in before[:MAX_LINES]], [f"{line}\n" for line in after[:MAX_LINES]]
    pieces: list[Piece] = []
    for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(new[c:d])))
            continue
        if a < b:
            pieces.append(Piece("gone", "".join(old[a:b])))
        if c < d:
            pieces.append(Piece("new", "".join(new[c:d])))
    return tuple(pieces)


def same(pieces: Sequence[Piece]) -> bool:
    return all(piece.kind == "same" for piece in pieces)
