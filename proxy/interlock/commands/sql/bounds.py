"""What may be parsed at all, and where: sizes, and nesting counted before any parser sees the text.

libpg_query walks its tree by recursion in C: 120 KB of `1+1+…` crash the process that parses it. So a text is first
measured with PostgreSQL's lexer, for an upper bound: parentheses and brackets that are open,
plus everything that stacks without them (operators, casts, CASE, NOT, joins, set operations) since the last comma,
semicolon, AND, OR or arm of a CASE of the same level, where PostgreSQL's grammar builds flat lists.

Knows lexical structure only.
"""

from __future__ import annotations

import re

from postgast import PgQueryError, scan
from postgast.pg_query_pb2 import Token

AUTOMATIC_BYTES = 64 * 1024
"""Beyond this, only a flat INSERT … VALUES list is classified; the rest is for a human."""
LARGEST_BYTES = 1024 * 1024
"""Beyond this, nothing is accepted."""
IN_PROCESS_BYTES = 8 * 1024
"""Up to here a caller on the event loop may analyse in its own process; beyond it should use a child."""
MEASURED_FROM = 2 * 1024
"""Shorter texts can't nest deeply enough to harm the C library: the decoder's own limit answers for them."""
NESTING = 64
TERMS = 1_000
GRAMMAR_NUMERALS_SINCE = 160_000
"""server_version_num of the first server that reads `1_000` and `0x1F` as the numbers they look like."""

_CHAINING_WORDS = """NOT NOT_LA IS ISNULL NOTNULL LIKE ILIKE SIMILAR BETWEEN IN_P COLLATE AT OVERLAPS OPERATOR ESCAPE ANY ALL
    SOME TYPECAST EQUALS_GREATER LESS_EQUALS GREATER_EQUALS NOT_EQUALS COLON_EQUALS DOT_DOT""".split()
_STACKING_WORDS = "UNION INTERSECT EXCEPT JOIN SELECT EXPLAIN PREPARE".split()
_OPERATORS = frozenset((Token.Op, *(ord(character) for character in "%*+-/<=>^:")))
_CHAINING = _OPERATORS | {Token.Value(name) for name in _CHAINING_WORDS}
"""What makes a tree deeper until the next comma, AND or OR."""
_STACKING = frozenset(Token.Value(name) for name in _STACKING_WORDS)
"""What makes a tree deeper until its parenthesis or statement ends."""
_FLAT = frozenset((ord(","), Token.AND, Token.OR, Token.WHEN, Token.THEN, Token.ELSE))
_STATEMENT_END = ord(";")
_TERMS = frozenset((Token.AND, Token.OR))
_OPEN = frozenset((ord("("), ord("["), Token.CASE))
_CLOSE = frozenset((ord(")"), ord("]"), Token.END_P))


def nesting(text: str, limit: int = NESTING) -> int:
    """Return an upper bound of how deep the parse tree of `text` is, in levels of expressions and queries.

    More than TERMS conditions count as too deep as well: nobody can review them, and no program needs them. Uses
    PostgreSQL's own lexer, which does not recurse, and stops counting beyond `limit`. A text that does not lex has no
    tree: 0.
    """
    try:
        tokens = scan(text).tokens
    except PgQueryError:
        return 0
    deepest = chained = stacked = outer = terms = 0
    levels: list[tuple[int, int]] = []  # what chained and stacked at the levels outside of this one; `outer` is their sum
    for token in tokens:
        kind = token.token
        if kind in _FLAT:
            chained = 0
            terms += kind in _TERMS
            if terms > TERMS:
                return limit + 1
        elif kind == _STATEMENT_END:
            chained = stacked = 0
        elif kind in _CHAINING:
            chained += token.end - token.start if kind == Token.Op else 1
        elif kind in _STACKING:
            stacked += 1
            chained = 0
        elif kind in _OPEN:
            levels.append((chained, stacked))
            outer += chained + stacked + 1
            chained = stacked = 0
        elif kind in _CLOSE and levels:
            chained, stacked = levels.pop()
            outer -= chained + stacked + 1
        if outer + chained + stacked > deepest:
            deepest = outer + chained + stacked
            if deepest > limit:
                break
    return deepest


_BLANK = r"[ \t\r\n]*+"
_NAME = r'(?:[A-Za-z_][A-Za-z0-9_]*+|"(?:[^"]|"")++")'
_QUALIFIED = rf"{_NAME}(?:\.{_NAME})?"
_VALUE = (
    r"(?:[+-]?[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?|(?:[eE]'(?:[^'\\]|''|\\.)*+'|'(?:[^']|'')*+')"
    rf"|\$[0-9]++|NULL|TRUE|FALSE|DEFAULT)(?:::{_QUALIFIED}(?:\([0-9, ]++\))?)?+"
)
_ROW = rf"\({_BLANK}{_VALUE}{_BLANK}(?:,{_BLANK}{_VALUE}{_BLANK})*+\){_BLANK}"
_FLAT_INSERT = re.compile(
    rf"{_BLANK}INSERT[ \t\r\n]++INTO[ \t\r\n]++{_QUALIFIED}{_BLANK}"
    rf"(?:\({_BLANK}{_NAME}{_BLANK}(?:,{_BLANK}{_NAME}{_BLANK})*+\){_BLANK})?+"
    rf"VALUES{_BLANK}{_ROW}(?:,{_BLANK}{_ROW})*+"
    rf"(?:ON[ \t\r\n]++CONFLICT[ \t\r\n]++DO[ \t\r\n]++NOTHING{_BLANK})?+"
    rf"(?:RETURNING[ \t\r\n]++{_NAME}{_BLANK}(?:,{_BLANK}{_NAME}{_BLANK})*+)?+;?{_BLANK}",
    re.IGNORECASE | re.DOTALL,
)


def is_flat_insert(text: str) -> bool:
    """Tell whether the whole text is one INSERT … VALUES of constants: what object mappers send in bulk."""
    return _FLAT_INSERT.fullmatch(text) is not None
