"""ps and kill, whose arguments follow no rule of getopt.

Spec: ps(1) and kill(1) of procps-ng 4; the fallbacks of ps are in its parser.c (`try_bsd`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from interlock.commands.programs.options import parse

if TYPE_CHECKING:
    from interlock.commands.programs.rules import _Run
    from interlock.commands.programs.schema import Program


def ps(run: _Run, program: Program, first: int) -> None:
    words = run.argv[first:]
    bundled = [w for w in words if not w.startswith("-")]
    items = parse(words, program.grammar)
    run.options(program, items)
    run.add("read", "process-table")
    for index, word in enumerate(words):
        follows_value = index > 0 and words[index - 1] in program.grammar.values
        if "environ" in word:
            run.add("secret", "process-environment")
        if word in bundled and not follows_value and not re.fullmatch(r"[a-zA-Z]+|[0-9,]+", word):
            run.opaque("unknown-operand", word)
        elif word in bundled and not follows_value and re.fullmatch(r"[a-zA-Z]*e[a-zA-Z]*", word):
            run.add("secret", "process-environment")  # BSD `e` shows the environment of processes


def kill(run: _Run, program: Program, first: int) -> None:
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
