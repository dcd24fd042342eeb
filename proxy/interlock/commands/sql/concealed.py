"""Where the secret literals of a text are, in bytes: what may be hidden of it and still be the whole of each value.

A tree says where a literal begins, PostgreSQL's own lexer where it ends, however it is written: `'…'`, `E'…'`, `U&'…'`,
`$$…$$`, digits. Where the two do not agree, every literal of the statement is hidden.

Knows tokens. Must not know what is a secret and why (secrets.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postgast import PgQueryError, scan
from postgast.pg_query_pb2 import Token

from interlock.commands.sql.secrets import Secrets

Span = tuple[int, int]

_STRINGS = frozenset((Token.SCONST, Token.USCONST, Token.BCONST, Token.XCONST))
_LITERALS = _STRINGS | {Token.ICONST, Token.FCONST}
_SIGNS = frozenset((Token.ASCII_45, Token.ASCII_43))


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    string: bool
    sign: bool


def concealed(text: bytes, decoded: str, statements: Sequence[tuple[int, int, Secrets]]) -> tuple[Span, ...]:
    """Return the byte ranges that are secret, in order. `statements` are where each begins and ends, and what is secret of it."""
    if not any(s.literals or s.options or s.spelled or s.everything for _, _, s in statements):
        return ()
    try:
        tokens = scan(decoded).tokens
    except PgQueryError:
        return ((0, len(text)),)
    pieces = [
        _Piece(t.start, t.end, t.token in _STRINGS, t.token in _SIGNS)
        for t in tokens
        if t.token in _LITERALS or t.token in _SIGNS
    ]
    found: set[Span] = set()
    for start, end, secrets in statements:
        inside = [piece for piece in pieces if start <= piece.start < end]
        found |= set(_of_statement(text, inside, secrets))
    return tuple(sorted(span for span in found if span[0] < span[1]))


def _of_statement(text: bytes, pieces: list[_Piece], secrets: Secrets) -> Iterator[Span]:
    every = [_hidden(text, piece) for piece in pieces if not piece.sign]
    if secrets.everything:
        yield from every
        return
    at = {piece.start: index for index, piece in enumerate(pieces)}
    for place in secrets.literals | secrets.spelled:
        piece = _literal(pieces, at.get(place))
        if piece is None:
            yield from every
        elif place in secrets.literals or not _is_plain(text, piece):
            yield _hidden(text, piece)
    for place in secrets.options:
        following = next((piece for piece in pieces if piece.string and piece.start >= place), None)
        if following is None:
            yield from every
        else:
            yield _hidden(text, following)


def _literal(pieces: list[_Piece], index: int | None) -> _Piece | None:
    """The literal that begins here; of a signed number PostgreSQL says where its sign is."""
    if index is None:
        return None
    piece = pieces[index]
    if not piece.sign:
        return piece
    following = pieces[index + 1] if index + 1 < len(pieces) else None
    return None if following is None or following.sign or following.string else following


def _is_plain(text: bytes, piece: _Piece) -> bool:
    """Between two quotes, in the characters that it means."""
    return text[piece.start : piece.start + 1] == b"'" and text[piece.end - 1 : piece.end] == b"'"


def _hidden(text: bytes, piece: _Piece) -> Span:
    """All of a literal; of a plain string what is between its quotes, so that a reader sees that it is one."""
    return (piece.start + 1, piece.end - 1) if piece.string and _is_plain(text, piece) else (piece.start, piece.end)
