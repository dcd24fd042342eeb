"""The words of a condition: CEL's tokens with their places. Pure.

Only for what the compiler's types can't see; whether a text is CEL at all is the compiler's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<raw>[rR](?:"[^"\n]*"|'[^'\n]*'))
      | (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9][0-9A-Za-z.]*)
      | (?P<sign>==|!=|<=|>=|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word, literal or sign, with its place in the expression (from 1)."""

    kind: str
    text: str
    line: int
    column: int

    @property
    def literal(self) -> str | None:
        """The value of a text literal without escapes; None for anything else."""
        if self.kind == "raw":
            return self.text[2:-1]
        if self.kind == "text" and "\\" not in self.text:
            return self.text[1:-1]
        return None


def tokens(source: str) -> Iterator[Token]:
    """Yield the tokens of an expression that the compiler took; blanks and comments are left out."""
    line, start = 1, 0
    for found in _TOKEN.finditer(source):
        kind, text = found.lastgroup or "sign", found[0]
        if kind != "space":
            yield Token(kind, text, line, found.start() - start + 1)
        line += text.count("\n")
        if "\n" in text:
            start = found.start() + text.rindex("\n") + 1
