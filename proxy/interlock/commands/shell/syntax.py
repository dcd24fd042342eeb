"""The shell text as we understand it: a small tree that keeps what can run and drops how it was written.

Two readings of one text (raw, and as bash prints it) are compared with `==`: spans and sources do not count, structure,
static words and the constructs inside dynamic ones do. Spans are byte offsets into the text of that level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union


@dataclass(frozen=True, slots=True)
class Word:
    """One shell word. `static` is its value when nothing expands, else None and `reason` says what does."""

    static: str | None
    reason: str = ""
    inside: tuple[Statement, ...] = ()  # statements of substitutions
    home: bool = False  # begins with an unquoted `~` that stands for the account's home
    source: str = field(default="", compare=False)
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)

    @property
    def shown(self) -> str:
        """The value, or the source text of a dynamic word."""
        return self.source if self.static is None else self.static


@dataclass(frozen=True, slots=True)
class Redirection:
    """`op` is < > >> >| <> <& >& or << (a here-document or here-string: `body` is its text, None when dynamic)."""

    op: str
    fd: int | None
    target: Word | None = None
    body: str | None = None
    reason: str = ""  # why it is opaque; empty when it is understood


@dataclass(frozen=True, slots=True)
class Assignment:
    name: str
    value: Word
    plain: bool = True  # False: +=, subscript or array


@dataclass(frozen=True, slots=True)
class Simple:
    assignments: tuple[Assignment, ...] = ()
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Binary:
    op: str  # && || |
    left: Statement
    right: Statement


@dataclass(frozen=True, slots=True)
class Group:
    body: tuple[Statement, ...]
    subshell: bool


@dataclass(frozen=True, slots=True)
class If:
    branches: tuple[tuple[tuple[Statement, ...], tuple[Statement, ...]], ...]  # (condition, then) in order
    otherwise: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    until: bool
    condition: tuple[Statement, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class For:
    name: str
    items: tuple[Word, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Case:
    word: Word
    items: tuple[tuple[tuple[Word | None, ...], tuple[Statement, ...]], ...]  # a pattern of None is `*`


@dataclass(frozen=True, slots=True)
class Timed:
    posix: bool
    body: Statement


@dataclass(frozen=True, slots=True)
class Strange:
    """A construct that is never static. The statements found inside are still reported."""

    reason: str
    inside: tuple[Statement, ...] = ()
    source: str = field(default="", compare=False)


Node = Union[Simple, Binary, Group, If, Loop, For, Case, Timed, Strange]


@dataclass(frozen=True, slots=True)
class Statement:
    command: Node
    redirections: tuple[Redirection, ...] = ()
    negated: bool = False
    background: bool = False
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Script:
    """A whole text. `dialect` tells that something in it is bash's and not every POSIX shell's, `timed` that it is `time`."""

    body: tuple[Statement, ...]
    dialect: bool = field(default=False, compare=False)
    timed: bool = field(default=False, compare=False)
