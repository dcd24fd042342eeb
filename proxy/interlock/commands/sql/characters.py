"""The character gate of SQL: text that would deceive a reviewer, or that two lexers would read differently, is refused.

Refused everywhere, in literals too: invalid UTF-8, NUL, C0 controls but LF, TAB and CRLF, DEL, C1, and everything of the
Unicode categories Cf (bidi controls, zero-width characters, BOM, tags), Co, Cn, Cs, Zl, Zp. Blanks other than U+0020
(category Zs: no-break space, em space, …) are letters of an identifier for PostgreSQL: refused outside of literals
and comments, allowed inside, where they are data. The price is named: emoji joined by U+200D can't be written in a
literal; send them as a parameter. A lone CR ends a `--` comment and is
refused; FF and VT are refused because PostgreSQL changed its mind about VT in 16.

Knows characters only.
"""

from __future__ import annotations

import re
import unicodedata

from postgast import PgQueryError, scan
from postgast.pg_query_pb2 import Token

from interlock.commands.model import Unreadable
from interlock.errors import Reason

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
_REFUSED_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_DATA_TOKENS = frozenset((Token.SCONST, Token.USCONST, Token.XCONST, Token.SQL_COMMENT, Token.C_COMMENT))


def readable(text: bytes) -> str | Unreadable:
    """Return the text decoded, or why it is refused. Positions are byte offsets."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        return Unreadable(Reason.NOT_UTF8, f"The byte at offset {error.start} is not valid UTF-8.", error.start)
    found = _CONTROL.search(decoded)
    if found is not None:
        return _deceptive(decoded, found.start())
    if decoded.isascii():
        return decoded
    blanks: list[int] = []
    for index, character in enumerate(decoded):
        if character < "\x80":
            continue
        category = unicodedata.category(character)
        if category in _REFUSED_CATEGORIES:
            return _deceptive(decoded, index)
        if category == "Zs":
            blanks.append(index)
    if blanks:
        return _outside_of_literals(decoded, blanks)
    return decoded


def _deceptive(text: str, index: int) -> Unreadable:
    character = text[index]
    name = unicodedata.name(character, "control character")
    position = len(text[:index].encode())
    return Unreadable(
        Reason.DECEPTIVE_TEXT, f"The text holds U+{ord(character):04X} ({name}) at byte offset {position}.", position
    )


def _outside_of_literals(text: str, blanks: list[int]) -> str | Unreadable:
    """Allow blanks other than U+0020 where they are data: in string constants and comments."""
    try:
        tokens = scan(text).tokens
    except PgQueryError:
        return _deceptive(text, blanks[0])
    data = [(token.start, token.end) for token in tokens if token.token in _DATA_TOKENS]
    for index in blanks:
        position = len(text[:index].encode())
        if not any(start < position < end for start, end in data):
            return _deceptive(text, index)
    return text
