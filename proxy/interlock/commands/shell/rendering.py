"""Writes a static script back: what an automatic allow sends instead of the client's text.

Each word is single-quoted, everything around the words is plain POSIX. Never through a foreign printer: shfmt's can
create a substitution. Spec: commands.md, "Shell" item 7. Fed only with static trees; anything else is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from interlock.commands.shell.quoting import single_quoted
from interlock.commands.shell.syntax import (
    Binary,
    Case,
    For,
    Group,
    If,
    Loop,
    Node,
    Redirection,
    Script,
    Simple,
    Statement,
    Strange,
    Timed,
    Word,
)

Replaced = Mapping[int, tuple[Word, str]]
"""Words (by `id`) that are sent as another text: the re-rendered script of a `sh -c`. Each entry holds its word: the `id` of
one that is gone comes to mean another, and that would be sent as what the first one was."""


class NotStaticError(Exception):
    """The script holds something that can't be rendered."""


def render(script: Script, replaced: Replaced | None = None) -> str:
    """Return the script as POSIX shell text. Raise NotStaticError."""
    printer = _Printer(replaced or {})
    return printer.script(script.body)


_END = "INTERLOCK_END"


class _Printer:
    def __init__(self, replaced: Replaced) -> None:
        self._replaced = replaced
        self._bodies: list[tuple[str, str]] = []  # here-documents whose text follows the current line
        self._opened = False

    def script(self, body: tuple[Statement, ...]) -> str:
        text = self._list(body, "\n")
        return text if self._opened else text.rstrip("\n ")

    def _list(self, body: tuple[Statement, ...], separator: str) -> str:
        """Render statements one after another, each ended; a pending here-document forces a line end."""
        out: list[str] = []
        for index, statement in enumerate(body):
            out.append(self._statement(statement))
            last = index == len(body) - 1
            if self._bodies:
                out.append(self._flush())
            elif statement.background:
                out.append("\n" if separator == "\n" and not last else " ")
            else:
                out.append(separator if separator == "\n" else "; ")
        return "".join(out)

    def _flush(self) -> str:
        text = "\n" + "".join(f"{body}{end}\n" for end, body in self._bodies)
        self._bodies.clear()
        return text

    def _break(self) -> str:
        """After an operator: a blank, or the texts of the here-documents opened on this line."""
        return self._flush() if self._bodies else " "

    def _statement(self, statement: Statement) -> str:
        out = "! " if statement.negated else ""
        out += self._command(statement)
        if statement.background:
            out += " &"
        return out

    def _command(self, statement: Statement) -> str:
        command = statement.command
        if isinstance(command, Binary) and statement.redirections:
            raise NotStaticError("redirected list")
        # The words first: a here-document of the whole construct follows those opened inside it.
        shown = self._shown(command)
        redirections = "".join(" " + self._redirection(r) for r in statement.redirections)
        return (shown + redirections).lstrip(" ")

    def _shown(self, command: Node) -> str:
        match command:
            case Simple(assignments, words):
                parts = [f"{a.name}={self._word(a.value)}" for a in assignments if _plain(a.plain)]
                parts += [self._word(w) for w in words]
                return " ".join(parts)
            case Binary(op, left, right):
                first = self._statement(left)
                return f"{first} {op}{self._break()}{self._statement(right)}"
            case Group(body, subshell):
                inner = self._list(body, "; ")
                return f"( {inner})" if subshell else "{ " + inner + "}"
            case If(branches, otherwise):
                out = ""
                for index, (condition, then) in enumerate(branches):
                    keyword = "elif" if index else "if"
                    out += f"{keyword} {self._list(condition, '; ')}then {self._list(then, '; ')}"
                if otherwise:
                    out += f"else {self._list(otherwise, '; ')}"
                return out + "fi"
            case Loop(until, condition, body):
                keyword = "until" if until else "while"
                return f"{keyword} {self._list(condition, '; ')}do {self._list(body, '; ')}done"
            case For(name, items, body):
                listed = " ".join(self._word(w) for w in items)
                return f"for {name} in {listed}; do {self._list(body, '; ')}done"
            case Case(word, cases):
                out = f"case {self._word(word)} in "
                for patterns, chosen in cases:
                    shown = " | ".join("*" if p is None else self._word(p) for p in patterns)
                    out += f"( {shown} ) {self._list(chosen, '; ')};; " if chosen else f"( {shown} ) ;; "
                return out + "esac"
            case Timed(posix, body):
                return ("time -p " if posix else "time ") + self._statement(body)
            case Strange(reason):
                raise NotStaticError(reason)
            case _:
                assert_never(command)

    def _redirection(self, redirection: Redirection) -> str:
        if redirection.reason:
            raise NotStaticError(redirection.reason)
        fd = "" if redirection.fd is None else str(redirection.fd)
        if redirection.op == "<<":
            if redirection.body is None:
                raise NotStaticError("here-document")
            end, self._opened = _END, True
            while end in redirection.body:
                end += "_"
            self._bodies.append((end, redirection.body))
            return f"{fd}<<'{end}'"
        if redirection.target is None:
            raise NotStaticError("redirection")
        if redirection.op in ("<&", ">&"):
            return f"{fd}{redirection.op}{redirection.target.static}"
        return f"{fd}{redirection.op}{self._word(redirection.target)}"

    def _word(self, word: Word) -> str:
        replaced = self._replaced.get(id(word))
        if replaced is not None and replaced[0] is word:
            return single_quoted(replaced[1])
        if word.static is None:
            raise NotStaticError(word.reason)
        if word.home:
            # Only the `~` (and the slash that ends it) may stand without quotes.
            return word.static[:2] + (single_quoted(word.static[2:]) if word.static[2:] else "")
        return single_quoted(word.static)


def _plain(plain: bool) -> bool:
    if not plain:
        raise NotStaticError("assignment")
    return True
