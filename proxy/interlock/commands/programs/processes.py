"""ps, kill and lsof, whose arguments follow no rule of getopt.

Spec: ps(1) and kill(1) of procps-ng 4; the fallbacks of ps are in its parser.c (`try_bsd`).
"""

from __future__ import annotations

import re

from interlock.commands.programs.options import Item, Option, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

_BSD_LETTERS = re.compile(r"[AaCcefgHhjLlmNnrSsTuVvwXxZ]+\Z")
"""Options of the BSD kind that take no value. `e` among them shows the environment of processes."""

_MAY_FAIL = frozenset("-u -U -g -G -s --user --User --group --sid".split())
"""Options whose value has to exist. When it does not, ps reads the whole line again in the BSD way, dashes or not."""


def ps(run: Run, program: Program, first: int) -> None:
    words = run.argv[first:]
    bundled = [w for w in words if not w.startswith("-")]
    items = parse(words, program.grammar)
    run.options(program, items)
    run.add("read", "process-table")
    if _read_again(items, words):
        run.add("secret", "process-environment")
    for index, word in enumerate(words):
        follows_value = index > 0 and words[index - 1] in program.grammar.values
        if "environ" in word:
            run.add("secret", "process-environment")
        if word in bundled and not follows_value and not re.fullmatch(r"[a-zA-Z]+|[0-9,]+", word):
            run.opaque("unknown-operand", word)
        elif word in bundled and not follows_value and re.fullmatch(r"[a-zA-Z]*e[a-zA-Z]*", word):
            run.add("secret", "process-environment")  # BSD `e` shows the environment of processes


def _read_again(items: list[Item], words: list[str]) -> bool:
    """Tell whether a line that fails in the one way shows environments in the other."""
    doubtful = [i.value or "" for i in items if isinstance(i, Option) and i.name in _MAY_FAIL]
    if not any(_BSD_LETTERS.match(value) for value in doubtful):
        return False
    return any("e" in word for word in words if _BSD_LETTERS.match(word.removeprefix("-")))


def lsof(run: Run, program: Program, first: int) -> None:
    """`-i @HOST` looks the host up. An address is a word of its own, or stands behind the letter."""
    run.walk(program, parse(run.argv, program.grammar, first=first))
    for word in run.argv[first:]:
        host = word.rpartition("@")[2].partition(":")[0]
        if "@" in word and not re.fullmatch(r"[0-9.]+|\[[0-9A-Fa-f:.]+\]?", host):
            run.add("network", host, detail="lookup")


def kill(run: Run, program: Program, first: int) -> None:
    words = run.argv[first:]
    index = 0
    if words and words[0] in ("-l", "-L", "--list", "--table"):
        run.add("read", "arguments")
        return
    if words and words[0] in ("-s", "-n", "--signal") and len(words) > 1:
        run.force = words[1].upper().removeprefix("SIG") in ("KILL", "9")
        index = 2
    elif words and re.fullmatch(r"-(?:[0-9]+|[A-Za-z][A-Za-z0-9+-]*)", words[0]):
        run.force = words[0][1:].upper().removeprefix("SIG") in ("KILL", "9")
        index = 1
    if index < len(words) and words[index] == "--":
        index += 1
    for word in words[index:]:
        if not re.fullmatch(r"-?[0-9]+", word):
            run.opaque("unknown-operand", word)
        run.add("process", word, detail="all" if word in ("-1", "0") else "")
    if index >= len(words):
        run.opaque("unknown-operand", "kill without a process")
