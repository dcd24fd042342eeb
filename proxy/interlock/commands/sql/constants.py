"""Which bytes of an SQL text are provably nothing but a value: inside of one plain string constant, by PostgreSQL's lexer.

Only `'…'`: not `E'…'` or `U&'…'`, whose escapes say other characters than are written, and not `$$…$$`, which is how code is
quoted. `standard_conforming_strings` is pinned to on (postgres/settings.py), so a backslash is a character like any other.
"""

from __future__ import annotations

from postgast import PgQueryError, scan
from postgast.pg_query_pb2 import Token


def constants(text: bytes) -> tuple[tuple[int, int], ...]:
    """Return the byte ranges inside the quotes of plain string constants. Empty when the text does not lex."""
    try:
        tokens = scan(text.decode("utf-8")).tokens
    except (PgQueryError, UnicodeDecodeError):
        return ()
    return tuple(
        (token.start + 1, token.end - 1)
        for token in tokens
        if token.token == Token.SCONST and text[token.start : token.start + 1] == b"'" and text[token.end - 1 : token.end] == b"'"
    )
