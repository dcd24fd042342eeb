"""Wrappers that run a command over a terminal, under a debugger, or many times: recorded, when files change, for each argument.

What they run is told; where how it is run depends on what is read only then, it stays opaque. Sources: script(1) of
util-linux 2.38, entr(1) 5.3, parallel(1), run-parts(8) of Debian, gdb(1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from interlock.commands.programs.options import Grammar, Operand, Option, Problem, parse
from interlock.commands.shell.inner import Inner
from interlock.commands.shell.ordinary import given

READ_BY_PARALLEL = "what parallel reads"

_LOGS = "-I -O -B -T --log-in --log-out --log-io --log-timing"
_SCRIPT = Grammar(
    frozenset("-a -e -f -q --append --return --flush --quiet".split()),
    frozenset(f"-c --command -E --echo -m --logging-format -o --output-limit {_LOGS}".split()),
)


def _script(argv: Sequence[str]) -> Inner:
    """script records a terminal into a file; `-c text` is for the shell that $SHELL names."""
    items = parse(argv, _SCRIPT, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    texts = given(items, "-c --command")
    places = [k for k in range(1, len(argv)) if argv[k] == texts[-1]] if texts else []
    files = [i.value for i in items if isinstance(i, Operand)]
    opaque.extend(("unknown-operand", file) for file in files[1:])
    opaque.append(("foreign-shell", "$SHELL") if len(places) == 1 else ("interpreter-code", "script"))
    logs = given(items, _LOGS)
    recorded = files[:1] or ([] if logs else ["typescript"])
    return Inner(script=places[0] if len(places) == 1 else None, writes=(*recorded, *logs), opaque=tuple(opaque))


def _gdb(argv: Sequence[str]) -> Inner:
    """A debugger runs what it is told to, from its own files as well: nothing of it is known. Behind `--args` is a command."""
    opaque = (("interpreter-code", "gdb"),)
    place = argv.index("--args") + 1 if "--args" in argv else len(argv)
    command = next((k for k in range(place, len(argv)) if not argv[k].startswith("-")), None)
    return Inner(argv=None if command is None else (command, len(argv)), facts=(("interpret", "gdb", ""),), opaque=opaque)


_ENTR = Grammar(frozenset("-a -c -d -n -p -r -s -x -z".split()), permute=False)


def _entr(argv: Sequence[str]) -> Inner:
    """entr reads names and runs the command when one of the files changes; `/_` becomes such a name, `-s` is for $SHELL."""
    items = parse(argv, _ENTR, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    operands = [i for i in items if isinstance(i, Operand)]
    if not operands:
        return Inner(reads=True, opaque=(*opaque, ("no-command", "entr")))
    opaque.extend(("placeholder-in-word", i.value) for i in operands if "/_" in i.value)
    first = operands[0].index
    if any(isinstance(i, Option) and i.name == "-s" for i in items):
        # Whatever stands behind the text is `$1` and so on in it.
        return Inner(script=first, reads=True, closed_input=True, opaque=(*opaque, ("foreign-shell", "$SHELL")))
    return Inner(argv=(first, len(argv)), reads=True, closed_input=True, opaque=tuple(opaque))


_PARALLEL = Grammar(
    frozenset("-0 -k -u -v -t -X -m --null --keep-order --ungroup --verbose --dry-run --progress --bar --will-cite".split()),
    frozenset("-j -n -N -I --jobs --max-args --max-replace-args --delay --timeout --retries --halt".split()),
    permute=False,
)
_SOURCES = re.compile(r"::::?\+?")


def _parallel(argv: Sequence[str]) -> Inner:
    """Its words and what they are filled with are joined for $SHELL, by rules of which there are two programs of this name."""
    items = parse(argv, _PARALLEL, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    opaque.append(("arguments-from-stdin", "parallel"))
    operands = [i for i in items if isinstance(i, Operand)]
    end = next((i.index for i in operands if _SOURCES.fullmatch(i.value)), len(argv))
    command = [i.index for i in operands if i.index < end]
    place = (command[0], end) if command else None
    named = [argv[k] for k in range(end, len(argv)) if not _SOURCES.fullmatch(argv[k])]
    names = (*named, READ_BY_PARALLEL) if "::::" in argv or not named else tuple(named)
    opaque.append(("foreign-shell", "$SHELL"))
    more = 0 if command and any("{" in argv[k] for k in range(command[0], end)) else 1
    return Inner(argv=place, items=names, more=more, reads=not named, closed_input=True, opaque=tuple(opaque))


_RUN_PARTS = Grammar(
    frozenset("-v -d --test --list --verbose --debug --report --reverse --exit-on-error --lsbsysinit --new-session".split()),
    frozenset("-u -a --umask --arg --regex".split()),
)


def _run_parts(argv: Sequence[str]) -> Inner | None:
    """Every file of a directory runs: which, nobody knows before. With `--test` or `--list` none does: its entry says that."""
    items = parse(argv, _RUN_PARTS, first=1)
    if any(isinstance(i, Option) and i.name in ("--test", "--list") for i in items):
        return None
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    directories = [i.value for i in items if isinstance(i, Operand)]
    opaque.extend(("unknown-operand", value) for value in directories[1:])
    if not directories:
        return Inner(opaque=(*opaque, ("no-command", "run-parts")))
    return Inner(verb="execute", object=directories[0], opaque=(*opaque, ("script-file", directories[0])))


REPEATERS: Mapping[str, Callable[[Sequence[str]], Inner | None]] = {
    "script": _script, "gdb": _gdb, "entr": _entr, "parallel": _parallel, "run-parts": _run_parts,
}  # fmt: skip
