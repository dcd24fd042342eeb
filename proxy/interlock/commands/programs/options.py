"""Option parsing as getopt_long does it: clusters, attached values, `--`, permutation, abbreviations.

Knows which options take values; knows no meanings. An option that is not listed is a problem, never skipped. Spec: GNU
libc manual 26.2; POSIX XBD 12.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grammar:
    """The options of one program. Names are written with their dashes (`-n`, `--lines`; `-name` when `single_dash`)."""

    flags: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()  # the value is attached or the next argument
    optional: frozenset[str] = frozenset()  # the value is attached or absent
    permute: bool = True
    complete: bool = False  # every long option is listed, so a unique abbreviation is what it seems
    digits: bool = False  # -5 is a flag
    single_dash: bool = False  # -name is one long option (find, terraform)

    @property
    def long(self) -> list[str]:
        return [o for o in (*self.flags, *self.values, *self.optional) if o.startswith("--")]


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Operand:
    value: str
    index: int


@dataclass(frozen=True, slots=True)
class Problem:
    """reason: unknown-option | abbreviated-option | missing-value | unexpected-value."""

    reason: str
    text: str


Item = Option | Operand | Problem


def parse(arguments: Sequence[str], grammar: Grammar, *, first: int = 0, stop_at_operand: bool = False) -> list[Item]:
    """Split `arguments[first:]`. With `stop_at_operand` the first operand ends the parsing and is the last item."""
    items: list[Item] = []
    index, ended = first, False
    while index < len(arguments):
        word = arguments[index]
        if ended or word == "-" or not word.startswith("-") or word == "":
            items.append(Operand(word, index))
            if stop_at_operand:
                return items
            ended = ended or not grammar.permute
            index += 1
        elif word == "--":
            ended = True
            index += 1
        elif word.startswith("--") or (grammar.single_dash and len(word) > 2 and not _cluster_known(word, grammar)):
            index = _long(arguments, index, grammar, items)
        else:
            index = _cluster(arguments, index, grammar, items)
    return items


def _cluster_known(word: str, grammar: Grammar) -> bool:
    return word.partition("=")[0] not in grammar.flags | grammar.values | grammar.optional and word[:2] in grammar.values


def _long(arguments: Sequence[str], index: int, grammar: Grammar, items: list[Item]) -> int:
    word = arguments[index]
    name, equals, attached = word.partition("=")
    known = grammar.flags | grammar.values | grammar.optional
    if name not in known:
        matches = [o for o in grammar.long if o.startswith(name)] if name.startswith("--") else []
        if len(matches) != 1:
            items.append(Problem("unknown-option", word))
            return index + 1
        if not grammar.complete:
            items.append(Problem("abbreviated-option", word))
        name = matches[0]
    if name in grammar.flags and name not in grammar.optional:
        items.append(Problem("unexpected-value", word) if equals else Option(name))
        return index + 1
    if equals or name in grammar.optional:
        items.append(Option(name, attached if equals else None))
        return index + 1
    if index + 1 >= len(arguments):
        items.append(Problem("missing-value", word))
        return index + 1
    items.append(Option(name, arguments[index + 1]))
    return index + 2


def _cluster(arguments: Sequence[str], index: int, grammar: Grammar, items: list[Item]) -> int:
    word = arguments[index]
    if grammar.digits and re.fullmatch(r"-[0-9]+", word):
        return index + 1
    # `head -5c file`: an old form in which a letter after digits takes no value. Not guessed: below, a digit is unknown.
    for place in range(1, len(word)):
        name, rest = f"-{word[place]}", word[place + 1 :]
        if name in grammar.optional:
            items.append(Option(name, rest or None))
            return index + 1
        if name in grammar.values:
            if rest:
                items.append(Option(name, rest))
                return index + 1
            if index + 1 >= len(arguments):
                items.append(Problem("missing-value", word))
                return index + 1
            items.append(Option(name, arguments[index + 1]))
            return index + 2
        if name in grammar.flags:
            items.append(Option(name))
            continue
        items.append(Problem("unknown-option", word))
        return index + 1
    return index + 1
