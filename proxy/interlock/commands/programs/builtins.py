"""Builtins that change the shell itself: harmless when nothing follows that would be read or run in another way.

Knows which of their forms run no code at once. Whether something follows is a fact of the place (`Place.alone`), not
looked for here. Spec: POSIX XCU 2.14; bash manual 4.2 and 4.3; zshbuiltins(1).
"""

from __future__ import annotations

import re

from interlock.commands.model import Stdin
from interlock.commands.programs.options import Operand, Option, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

LOOP_NAMES = re.compile(r"[a-z]\Z|(?:item|file|name|line|host|dir)\Z")
"""Names of variables that mean nothing to any program, so that setting them changes nothing."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_STRICT = re.compile(r"[-+][eu]+\Z")
_STRICT_OPTIONS = frozenset("errexit nounset pipefail".split())
_EVALUATED = re.compile(r"[\[$`(?]")
"""Shells evaluate subscripts where they expect a name (`read 'a[$(cmd)]'`), and zsh takes `name?prompt`."""


def stops_early(words: list[str]) -> bool:
    """Tell whether the words of a `set` only make the shell stop at errors: whatever follows runs as before, or not at all."""
    index = 0
    while index < len(words):
        if words[index] in ("-o", "+o") or re.fullmatch(r"[-+][eu]+o", words[index]):
            if index + 1 >= len(words) or words[index + 1] not in _STRICT_OPTIONS:
                return False
            index += 2
        elif _STRICT.match(words[index]):
            index += 1
        else:
            return False
    return bool(words)


def shell_state(run: Run, program: Program, first: int) -> None:
    """set, shopt, alias, unalias, bind: what they change ends with the shell, so alone they do nothing."""
    words = run.argv[first:]
    if run.name == "set" and not words:
        run.add("read", "environment")  # every variable is printed
        return
    run.add("read", "arguments")
    if run.name == "set" and stops_early(words):
        return
    items = parse(run.argv, program.grammar, first=first)
    if run.name == "bind" and items and all(isinstance(item, Option) for item in items):
        return  # only lists: -x runs and -f reads, and neither is listed
    if not run.place.alone:
        run.opaque("changes-shell", " ".join(run.argv)[:200])
    if run.name == "alias":
        _aliases(run, words)
        return
    for item in items:
        if not isinstance(item, Operand):
            if run.name == "bind":
                run.opaque("unknown-option", " ".join(words)[:200])
        elif run.name != "bind" and _EVALUATED.search(item.value):
            run.opaque("arithmetic", item.value)
    if run.name == "set" and any(word[:1] in "-+" and "A" in word for word in words):
        run.opaque("unknown-option", " ".join(words)[:200])  # ksh and zsh: an array by its name


def _aliases(run: Run, words: list[str]) -> None:
    """The text of an alias is kept, not read. zsh has aliases of other kinds by option."""
    for word in words:
        if word != "-p" and not re.fullmatch(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*(?:=.*)?", word, re.DOTALL):
            run.opaque("unknown-option", word)


def read(run: Run, program: Program, first: int) -> None:
    """Reads a line into variables. Only names that mean nothing may be set when something follows."""
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    run.outcome.stdin = Stdin.DATA
    run.add("read", "stdin")
    for item in items:
        if isinstance(item, Operand) and not (LOOP_NAMES if not run.place.alone else _NAME).match(item.value):
            run.opaque("assignment" if _NAME.match(item.value) else "arithmetic", item.value)
