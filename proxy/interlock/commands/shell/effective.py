"""From the tree to effective commands: everything that could run, with its wrappers, input, and where it stands.

Every branch counts (if, case, `&&`, loops): reachability is never reasoned about. Knows shell structure, not programs.
Spec: commands.md, "Shell" item 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import assert_never

from interlock.commands.programs.builtins import LOOP_NAMES
from interlock.commands.shell.syntax import (
    Assignment,
    Binary,
    Case,
    For,
    Group,
    If,
    Loop,
    Node,
    Redirection,
    Simple,
    Statement,
    Strange,
    Timed,
    Word,
)


class Input(Enum):
    """Where standard input comes from."""

    INHERITED = "inherited"
    PIPE = "pipe"
    FILE = "file"
    TEXT = "text"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Effective:
    """One command that could run: words as written, what surrounds it, and what is opaque about its surroundings."""

    words: tuple[Word, ...]
    assignments: tuple[Assignment, ...] = ()
    redirections: tuple[Redirection, ...] = ()
    input: Input = Input.INHERITED
    text: str = ""  # standard input, when `input` is TEXT
    via: tuple[str, ...] = ()
    origin: str = "direct"
    host: str = ""
    items: tuple[str, ...] = ()  # what `{}` stands for
    feeder: tuple[str, ...] = ()  # the command whose output is the input, when nothing else can be in it
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Blind:
    """Something that can't be known, found on the way. Offsets in bytes of this level's text."""

    reason: str
    text: str = ""
    start: int = 0
    end: int = 0


INERT_NAMES = frozenset(
    """TZ NO_COLOR CLICOLOR COLUMNS LINES DEBIAN_FRONTEND PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE FORCE_COLOR
    SYSTEMD_COLORS GREP_COLORS LS_COLORS TIME_STYLE BLOCKSIZE BLOCK_SIZE NEEDRESTART_MODE""".split()
)
"""Variables whose value runs nothing and changes no option parsing (as POSIXLY_CORRECT does) in any program of the table."""

_LOCALE = re.compile(r"(?:C|POSIX|[A-Za-z_]+(?:\.(?:UTF-8|utf-?8)))(?:@[a-z]+)?\Z|C\.(?:UTF-8|utf-?8)\Z|\Z")


def inert(name: str, value: str) -> bool:
    """Tell whether setting an environment variable changes nothing but presentation."""
    if name in ("LANG", "LANGUAGE") or name.startswith("LC_"):
        # Another charset would make the target read other characters than were shown (A3).
        return bool(_LOCALE.match(value))
    if name == "TZ":
        return bool(re.fullmatch(r"[A-Za-z0-9_+,.<>-]*(?:/[A-Za-z0-9_+-]+)*", value))
    return name in INERT_NAMES and "\n" not in value


def effective(body: tuple[Statement, ...], source: Effective | None = None) -> Iterator[Effective | Blind]:
    """Walk statements in order. `source` gives via, origin, host and input for a nested script."""
    walker = _Walker(source or Effective(()))
    for statement in body:
        yield from walker.statement(statement, walker.source.input, walker.source.text)


def repeats(body: tuple[Statement, ...]) -> bool:
    """Tell whether a loop stands anywhere in the statements (of this text; texts inside words are asked on their own)."""
    return any(_repeats(statement.command) for statement in body)


def _repeats(command: Node) -> bool:
    match command:
        case Loop() | For() | Strange():
            return True
        case Simple():
            return False
        case Binary(_, left, right):
            return repeats((left, right))
        case Group(body, _):
            return repeats(body)
        case If(branches, otherwise):
            return repeats(otherwise) or any(repeats(one) for branch in branches for one in branch)
        case Case(_, cases):
            return any(repeats(body) for _, body in cases)
        case Timed(_, body):
            return repeats((body,))
        case _:
            assert_never(command)


class _Walker:
    def __init__(self, source: Effective) -> None:
        self.source = source

    def body(self, statements: tuple[Statement, ...], kind: Input, text: str) -> Iterator[Effective | Blind]:
        for statement in statements:
            yield from self.statement(statement, kind, text)

    def statement(self, statement: Statement, kind: Input, text: str) -> Iterator[Effective | Blind]:
        for redirection in statement.redirections:
            if redirection.fd in (None, 0):
                match redirection.op:
                    case "<<":
                        kind, text = Input.TEXT, redirection.body or ""
                    case "<" | "<>":
                        kind = Input.NONE if _is_null(redirection) else Input.FILE
                    case "<&":
                        kind = Input.FILE
            if redirection.reason:
                yield Blind(redirection.reason, _shown(redirection), statement.start, statement.end)
            if redirection.target is not None:
                yield from self.inside(redirection.target)
        yield from self.node(statement, kind, text)

    def node(self, statement: Statement, kind: Input, text: str) -> Iterator[Effective | Blind]:
        command = statement.command
        if not isinstance(command, Simple) and statement.redirections:
            yield self.make(statement, (), kind, text)
        match command:
            case Simple(assignments, words):
                yield from self.simple(statement, assignments, words, kind, text)
            case Binary("|", left, right):
                yield from self.statement(left, kind, text)
                feeder = _feeder(left)
                fed = right.command.words if isinstance(right.command, Simple) else None
                for found in self.statement(right, Input.PIPE, ""):
                    direct = isinstance(found, Effective) and found.words is fed and found.input is Input.PIPE
                    yield replace(found, feeder=feeder) if direct and isinstance(found, Effective) else found
            case Binary(_, left, right):
                yield from self.statement(left, kind, text)
                yield from self.statement(right, kind, text)
            case Group(body, _):
                yield from self.body(body, kind, text)
            case If(branches, otherwise):
                for condition, then in branches:
                    yield from self.body(condition, kind, text)
                    yield from self.body(then, kind, text)
                yield from self.body(otherwise, kind, text)
            case Loop(_, condition, body):
                yield from self.body(condition, kind, text)
                yield from self.body(body, kind, text)
            case For(name, items, body):
                if not LOOP_NAMES.match(name):
                    yield Blind("assignment", name, statement.start, statement.end)
                for item in items:
                    yield from self.word(item)
                yield from self.body(body, kind, text)
            case Case(word, cases):
                yield from self.word(word)
                for patterns, body in cases:
                    for pattern in patterns:
                        if pattern is not None:
                            yield from self.word(pattern)
                    yield from self.body(body, kind, text)
            case Timed(_, body):
                yield from self.statement(body, kind, text)
            case Strange(reason, inside, source):
                yield Blind(reason, source, statement.start, statement.end)
                yield from self.body(inside, Input.INHERITED, "")
            case _:
                assert_never(command)

    def simple(
        self, statement: Statement, assignments: tuple[Assignment, ...], words: tuple[Word, ...], kind: Input, text: str
    ) -> Iterator[Effective | Blind]:
        for assignment in assignments:
            yield from self.inside(assignment.value)
            value = assignment.value
            if not assignment.plain or value.static is None:
                yield Blind(value.reason or "assignment", value.shown, value.start, value.end)
            elif not inert(assignment.name, value.static):
                yield Blind("assignment", f"{assignment.name}={value.static}", statement.start, statement.end)
        for word in words:
            yield from self.word(word)
        if words or statement.redirections:
            yield self.make(statement, words, kind, text, assignments)

    def make(
        self,
        statement: Statement,
        words: tuple[Word, ...],
        kind: Input,
        text: str,
        assignments: tuple[Assignment, ...] = (),
    ) -> Effective:
        return replace(
            self.source,
            words=words,
            assignments=assignments,
            redirections=statement.redirections,
            input=kind,
            text=text,
            start=statement.start,
            end=statement.end,
        )

    def word(self, word: Word) -> Iterator[Effective | Blind]:
        yield from self.inside(word)
        if word.static is None:
            yield Blind(word.reason, word.source, word.start, word.end)

    def inside(self, word: Word) -> Iterator[Effective | Blind]:
        """Commands of substitutions are reported, although the word that holds them is opaque."""
        yield from self.body(word.inside, Input.INHERITED, "")


def _feeder(left: Statement) -> tuple[str, ...]:
    """Return the words of a command whose standard output alone goes into the pipe: error messages would mix with it."""
    command = left.command
    if isinstance(command, Binary) and command.op == "|" and not left.redirections:
        return _feeder(command.right)
    if not isinstance(command, Simple) or any(word.static is None for word in command.words):
        return ()
    if any(r.fd != 2 or not _is_null(r) for r in left.redirections):
        return ()
    return tuple(word.static or "" for word in command.words)


def _is_null(redirection: Redirection) -> bool:
    return redirection.target is not None and redirection.target.static == "/dev/null"


def _shown(redirection: Redirection) -> str:
    target = redirection.target.shown if redirection.target is not None else ""
    return f"{redirection.op} {target}".strip()
