"""What only the agent wrote inside of a command: comments and messages, words for people that no machine acts on. Pure.

They are shown apart and labelled, because they are the way to talk a reviewer into something (threats.md, A21). A remark is
told only where it is proven to be one: SQL by PostgreSQL's own lexer, comments nested or not; shell text by a small
reader that stops at the first thing which could change how the rest is read. What is not told stays in the text, in sight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from postgast import PgQueryError, scan
from postgast.pg_query_pb2 import Token

from interlock.commands.model import Command, Wire
from interlock.commands.shell.operands import words_of

MAX_TEXT = 64 * 1024
"""Bytes. Longer texts are not looked through: nobody reads their comments either."""

_MESSAGES = {
    "git": frozenset(("commit", "tag", "merge", "notes", "stash", "revert", "cherry-pick")),
    "svn": frozenset(("commit", "ci", "import", "copy", "cp", "mkdir", "delete", "rm")),
    "hg": frozenset(("commit", "ci", "tag", "backout")),
}
"""Programs and subcommands whose -m and --message take words for people."""

_PIECE = re.compile(
    rb"(?P<comment>#[^\n]*)"
    rb"|(?P<single>'[^']*')"
    rb'|(?P<double>"(?:[^"\\$`!]|\\[^\n])*")'
    rb"|(?P<escape>\\[^\n])"
    rb"|(?P<gap>[ \t\n;|&]+)"
    rb"|(?P<plain>[^'\"\\ \t\n;|&#$`<(){}!]+)"
    rb"|(?P<hash>#)"
)


@dataclass(frozen=True, slots=True)
class Remark:
    """`start` and `end` are byte offsets into the command's text. kind: comment | message."""

    kind: str
    text: str
    start: int
    end: int


def remarks(command: Command) -> tuple[Remark, ...]:
    """Return the remarks of a command, in order."""
    if len(command.text) > MAX_TEXT:
        return ()
    found = _of_sql(command.text) if command.wire is Wire.POSTGRES else _of_shell(command.text)
    return tuple(sorted(found, key=lambda remark: remark.start))


def _remark(kind: str, text: bytes, start: int, end: int) -> Remark:
    return Remark(kind, text[start:end].decode("utf-8", "replace"), start, end)


def _of_sql(text: bytes) -> Iterator[Remark]:
    try:
        tokens = scan(text.decode("utf-8")).tokens
    except (PgQueryError, UnicodeDecodeError):
        return
    for token in tokens:
        if token.token in (Token.SQL_COMMENT, Token.C_COMMENT):
            yield _remark("comment", text, token.start, token.end)


def _of_shell(text: bytes) -> Iterator[Remark]:
    """A `#` begins a comment where a word could begin (POSIX, 2.3 rule 9); an expansion or a redirection ends what is sure."""
    position, fresh = 0, True
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None:
            break
        if piece.lastgroup == "comment" and not fresh:
            position += 1  # inside of a word it is a character
            continue
        if piece.lastgroup == "comment":
            yield _remark("comment", text, *piece.span())
        position = piece.end()
        fresh = piece.lastgroup == "gap"
    yield from _messages(text)


def _messages(text: bytes) -> Iterator[Remark]:
    for words in words_of(text) or ():
        taking = _MESSAGES.get(words[0].text) if words[0].bare else None
        if taking is None or len(words) < 2 or words[1].text not in taking:
            continue
        for option, value in pairwise(words[1:]):
            if option.text in ("-m", "-am", "--message"):
                yield _remark("message", text, value.start, value.end)
        for word in words[2:]:
            if word.text.startswith("--message=") and word.pieces <= 2:
                yield _remark("message", text, word.end - len(word.text.partition("=")[2].encode()), word.end)
