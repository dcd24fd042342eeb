"""The shape of a statement: its tokens in order, with the kind of a constant in place of its value.

Two statements of one shape differ in the values of numbers and strings alone: `id = 1` and `id = 2` are one shape, and nothing
else is. Order, names, operators, TRUE, FALSE and NULL, the number of constants in a list and their kinds are all a part of it.
PostgreSQL's own fingerprint is no such thing: it takes `f(b, c)` for `f(c, b)`, SET ROLE a for SET ROLE b, and FALSE for TRUE.
Taken with PostgreSQL's lexer, which does not recurse. Pure.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from postgast import PgQueryError, scan
from postgast.pg_query_pb2 import Token

MAX_SHAPED = 16 * 1024
"""Bytes; a longer statement has no shape: nobody reads along whether only its constants differ."""

_KINDS = {
    Token.ICONST: "<integer>", Token.FCONST: "<number>", Token.SCONST: "<string>", Token.USCONST: "<string>",
    Token.BCONST: "<bits>", Token.XCONST: "<bits>",
}  # fmt: skip
_COMMENTS = frozenset((Token.SQL_COMMENT, Token.C_COMMENT))


@lru_cache(maxsize=256)
def shape(text: bytes) -> str:
    """Return the shape as hex, or nothing when the text is too long or does not lex."""
    if len(text) > MAX_SHAPED:
        return ""
    try:
        tokens = scan(text.decode()).tokens
    except (PgQueryError, UnicodeDecodeError, ValueError):
        return ""
    words = [_word(text, token.token, token.start, token.end) for token in tokens if token.token not in _COMMENTS]
    while words and words[-1] == ";":
        words.pop()
    return sha256("\0".join(words).encode()).hexdigest() if words else ""


def _word(text: bytes, kind: int, start: int, end: int) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    word = text[start:end].decode("utf-8", "backslashreplace")
    # What stands in double quotes is a name as it is; everything else PostgreSQL folds to lower case.
    return word if word.startswith(('"', "U&", "u&")) else word.lower()
