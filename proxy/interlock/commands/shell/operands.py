"""Which bytes of a shell text are provably nothing but a value: inside of one literal that is one operand.

A proof, not a reading: it knows a small part of the shell where all shells agree, and answers "nothing" for every text
beyond it. No expansion, no redirection, no pipe (what one command prints another may run), no assignment, no wrapper, no
option's value, no program that is not in the table. A wrong "nothing" costs a click; a wrong range would let a payload
hide behind a mark (threats.md, A7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from interlock.commands.programs.options import Operand, Problem, parse
from interlock.commands.programs.schema import Program
from interlock.commands.shell.wrappers import WRAPPERS

_PLAIN_SPECIALS = frozenset(("", "echo", "printf", "test", "curl"))  # of curl, options alone are special

_TOKEN = re.compile(
    rb"(?P<blank>[ \t]+)"
    rb"|(?P<end>\n|;|&&|\|\|)"
    rb"|(?P<bare>[A-Za-z0-9_./:@%+,=^-]+)"
    rb"|'(?P<single>[^'\x00]*)'"
    rb'|"(?P<double>[^"$`\\!\x00]*)"'
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word: its value, the bytes it stands in (without the quotes of a single literal), and of how many literals it is."""

    text: str
    start: int
    end: int
    pieces: int
    bare: bool


def operands(text: bytes, table: Mapping[str, Program]) -> tuple[tuple[int, int], ...]:
    """Return the byte ranges of single-literal operands, without their quotes. Empty when anything is not plain."""
    commands = words_of(text)
    if commands is None:
        return ()
    found: list[tuple[int, int]] = []
    for words in commands:
        ranges = _of_command(words, table)
        if ranges is None:
            return ()
        found.extend(ranges)
    return tuple(found)


def words_of(text: bytes) -> list[list[Word]] | None:
    """Split into commands of words, or None when there is anything else in the text."""
    commands: list[list[Word]] = [[]]
    position, fresh = 0, True
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        kind = token.lastgroup or ""
        if kind == "blank":
            fresh = True
        elif kind == "end":
            commands.append([])
            fresh = True
        else:
            start, end = token.span(kind)
            try:
                piece = text[start:end].decode("utf-8")
            except UnicodeDecodeError:
                return None
            words = commands[-1]
            if fresh:
                words.append(Word(piece, start, end, 1, kind == "bare"))
            else:
                last = words[-1]
                words[-1] = Word(last.text + piece, last.start, end, last.pieces + 1, bare=False)
            fresh = False
    return [words for words in commands if words]


def _of_command(words: list[Word], table: Mapping[str, Program]) -> list[tuple[int, int]] | None:
    name = words[0]
    program = table.get(name.text)
    if program is None or not name.bare or name.text in WRAPPERS:
        return None
    argv = [word.text for word in words]
    first = 1
    while program.subcommands:
        found = [i for i in parse(argv, program.grammar, first=first, stop_at_operand=True) if isinstance(i, Operand)]
        below = program.subcommands.get(found[0].value) if found else None
        if below is None:
            return None
        program, first = below, found[0].index + 1
    items = parse(argv, program.grammar, first=first)
    if program.special not in _PLAIN_SPECIALS or any(isinstance(item, Problem) for item in items):
        return None
    places = [item.index for item in items if isinstance(item, Operand)]
    # A word of several pieces ('AKIA…''; rm') is one operand for the shell and a disguise for the eye: not a single literal.
    return [(words[i].start, words[i].end) for i in places if words[i].pieces == 1]
