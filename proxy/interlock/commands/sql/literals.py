"""Where a text of SQL has literals that PostgreSQL's lexer is sure to read alike: integers and plain strings.

Integers of up to nine digits, and one-line strings of printable ASCII with neither quote nor backslash inside, with nothing
around them that could join them to another token. What else looks like a literal is none here: being too careful costs time only.

Knows the lexer. Must not know what a literal means, or where (alike.py).

Compiled (`_cut.c`) where a compiler was there when the package was built. Both forms give the same for every text
(tests/commands/sql/test_literals.py).
"""

from __future__ import annotations

import re

__all__ = ["LITERAL", "cut", "cut_plain"]

LITERAL = re.compile(
    rb"""(?<![\w$.'"\\\x80-\xff]) (?: 0 | [1-9][0-9]{0,8} ) (?![\w$.'"\x80-\xff])
       | (?<=[ \t\n(,=<>]) (') [ !"#$%&()*+,\-./0-9:;<=>?@A-Z\[\]^_`a-z{|}~]* ' (?!')""",
    re.VERBOSE,
)
_MARK = rb"\1" + b"\x01"
"""What stands for a literal: for a string behind its first quote, so that the kinds differ. No text that is read holds it."""


def cut_plain(text: bytes, /) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the text with a mark for each of its literals, and the literals in their order."""
    return LITERAL.sub(_MARK, text), tuple(found[0] for found in LITERAL.finditer(text))


try:
    from interlock.commands.sql._cut import cut
except ImportError:
    cut = cut_plain
