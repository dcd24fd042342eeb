"""Programs that start another one: how to find the command inside, exactly, or say that it can't be found.

A wrapper stays in the list as a fact. An unknown option of a wrapper is opaque: it could run anything. A program that
could start another and is not in this table is unknown to `programs` too, and so opaque. Spec: commands.md, item 4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from interlock.commands.programs.options import Grammar, Operand, Option, Problem, parse
from interlock.commands.programs.searches import FIND_EXEC, find_roots
from interlock.commands.shell.apart import APART
from interlock.commands.shell.inner import Inner
from interlock.commands.shell.launchers import LAUNCHERS
from interlock.commands.shell.ordinary import ORDINARY, ordinary
from interlock.commands.shell.repeaters import REPEATERS
from interlock.commands.shell.shells import SHELLS, shell

_OTHERS = {**LAUNCHERS, **APART, **REPEATERS}
WRAPPERS = frozenset((*ORDINARY, *SHELLS, *_OTHERS, "xargs", "find", "watch", "kubectl", "docker", "podman", "eval"))


def unwrap(name: str, argv: Sequence[str], feeder: Sequence[str] = ()) -> Inner | list[Inner] | None:
    """Return what `argv` (of a program called `name`) starts, or None when it starts nothing.

    `feeder` is the command whose output is its input, when that is known.
    """
    if name in SHELLS:
        return shell(argv)
    match name:
        case "find":
            return _find(argv) or None
        case "watch":
            return _watch(argv)
        case "xargs":
            return _xargs(argv, feeder)
        case "eval":
            return Inner(joined=(1, len(argv))) if len(argv) > 1 else None
        case "kubectl":
            return _kubectl(argv)
        case "docker" | "podman":
            return _docker(argv)
    if (other := _OTHERS.get(name)) is not None:
        return other(argv)
    wrapper = ORDINARY.get(name)
    return ordinary(name, wrapper, argv) if wrapper is not None else None


READ_BY_XARGS = "what xargs reads"
"""The object of effects on names that come from somewhere unknown."""

_XARGS = Grammar(
    frozenset("-0 -r -t -x -o --null --no-run-if-empty --verbose --exit --open-tty --show-limits".split()),
    frozenset("-n -L -P -s -d -E -I -a --max-args --max-lines --max-procs --max-chars --delimiter --arg-file".split()),
    frozenset("-i -e -l --replace --eof".split()),
    permute=False,
)
_XARGS_EXACT = frozenset(
    "-0 --null -r --no-run-if-empty -n --max-args -P --max-procs -t --verbose -x --exit -s --max-chars -I".split()
)
"""Options with which every item that ends in a zero byte is one argument, whatever characters it has."""

_ONLY_PRINTS = frozenset("echo basename dirname true".split())
"""Programs that do nothing but print, whatever their arguments and options are: then nobody needs to know them."""

_FIND_PRINTS = re.compile(r"-(?:print|printf|ls|fprint0?|fprintf|fls|exec|execdir|ok|okdir)\Z")


def found_by(feeder: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Return what the command before the pipe prints as names, and whether it prints exactly that, each with a zero byte.

    Names below a starting point begin with it, so none of them is an option.
    """
    if not feeder or feeder[0] not in ("find", "/usr/bin/find", "/bin/find"):
        return (), False
    roots, index = find_roots(list(feeder), 1)
    expression = feeder[index:]
    exact = "-print0" in expression and not any(_FIND_PRINTS.match(word) for word in expression)
    return tuple(roots), exact


def _xargs(argv: Sequence[str], feeder: Sequence[str]) -> Inner:
    """What xargs reads becomes arguments: names of a `find -print0` are as good as those of its -exec, others are opaque."""
    items = parse(argv, _XARGS, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    options = {i.name: i.value or "" for i in items if isinstance(i, Option)}
    operands = [i for i in items if isinstance(i, Operand)]
    roots, exact = found_by(feeder)
    exact = exact and options.keys() <= _XARGS_EXACT and bool(options.keys() & {"-0", "--null"})
    if options.keys() & {"-a", "--arg-file"}:
        roots = ()
        opaque.append(("arguments-from-file", "-a"))
    elif not exact:
        opaque.append(("arguments-from-stdin", "xargs"))
    found = roots if roots and exact else (*roots, READ_BY_XARGS)  # names are split at blanks: any path may come of one
    if (operands[0].value if operands else "echo") in _ONLY_PRINTS:
        opaque = [(reason, text) for reason, text in opaque if reason != "arguments-from-stdin"]
    if not operands:
        return Inner(items=found, reads=True, opaque=tuple(opaque))
    first = operands[0].index
    if "-I" not in options and not options.keys() & {"-i", "--replace"}:
        one = options.get("-n", options.get("--max-args", "")) == "1"
        return Inner(
            argv=(first, len(argv)), items=found, more=1 if one else 2, closed_input=True, reads=True, opaque=tuple(opaque),
            optional=not options.keys() & {"-r", "--no-run-if-empty"},
        )  # fmt: skip
    mark = options.get("-I") or options.get("-i") or options.get("--replace") or "{}"
    inner = argv[first:]
    if mark in inner[0]:
        opaque.append(("placeholder-in-command", inner[0]))
    elif inner[0] not in _ONLY_PRINTS:
        opaque.extend(("placeholder-in-word", word) for word in inner[1:] if mark in word and word != mark)
    return Inner(argv=(first, len(argv)), items=found, mark=mark, closed_input=True, reads=True, opaque=tuple(opaque))


_WATCH = Grammar(
    frozenset("-b -c -C -d -e -g -p -t -w -x --beep --color --errexit --chgexit --precise --no-title --exec".split()),
    frozenset("-n --interval".split()),
    frozenset({"--differences"}),
    permute=False,
)


def _watch(argv: Sequence[str]) -> Inner:
    """watch joins its words for `sh -c`, or with -x runs them as they are (procps watch(1))."""
    items = parse(argv, _WATCH, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    operands = [i for i in items if isinstance(i, Operand)]
    if not operands:
        return Inner(opaque=(*opaque, ("no-command", "watch")))
    place = (operands[0].index, len(argv))
    if any(isinstance(i, Option) and i.name in ("-x", "--exec") for i in items):
        return Inner(argv=place, opaque=tuple(opaque))
    return Inner(joined=place, opaque=tuple(opaque))


def _find(argv: Sequence[str]) -> list[Inner]:
    roots, index = find_roots(list(argv), 1)
    found: list[Inner] = []
    while index < len(argv):
        if argv[index] in FIND_EXEC:
            end = index + 1
            while end < len(argv) and argv[end] != ";" and not (argv[end] == "+" and argv[end - 1] == "{}"):
                end += 1
            if end == index + 1 or end >= len(argv):
                found.append(Inner(opaque=(("no-command", argv[index]),)))
            else:
                opaque: tuple[tuple[str, str], ...] = ()
                if "{}" in argv[index + 1]:
                    opaque = (("placeholder-in-command", argv[index + 1]),)
                # A placeholder beside other text makes any path of what is found: `cat /srv/.{}`, `cat {}/../shadow`.
                glued = [w for w in argv[index + 2 : end] if "{}" in w and w != "{}"]
                opaque += tuple(("placeholder-in-word", word) for word in glued)
                # With `+` there may be any number of names, and for some programs the second one is another thing.
                more = 1 if argv[end] == "+" else 0
                found.append(Inner(argv=(index + 1, end), items=tuple(roots), more=more, opaque=opaque, name="find"))
            index = end
        index += 1
    return found


_KUBECTL = Grammar(
    frozenset("-i -t --stdin --tty -q --quiet".split()),
    frozenset("-n --namespace -c --container --context --cluster --request-timeout --pod-running-timeout".split()),
)


def _kubectl(argv: Sequence[str]) -> Inner | None:
    if "exec" not in argv:
        return None
    split = argv.index("--") if "--" in argv else len(argv)
    items = parse(argv[:split], _KUBECTL, first=1)
    operands = [i.value for i in items if isinstance(i, Operand)]
    if not operands or operands[0] != "exec":
        return None
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    if len(operands) != 2 or split >= len(argv) - 1:
        opaque.append(("no-command", "kubectl exec"))
    pod = operands[1] if len(operands) > 1 else ""
    interactive = any(isinstance(i, Option) and i.name in ("-i", "--stdin") for i in items)
    return Inner(
        argv=(split + 1, len(argv)) if split < len(argv) - 1 else None,
        host=f"pod:{pod}", verb="cluster", object=pod, closed_input=not interactive, opaque=tuple(opaque),
    )  # fmt: skip


_DOCKER_EXEC = Grammar(
    frozenset("-i -t -d --interactive --tty --detach".split()),
    frozenset("-u --user -w --workdir --detach-keys".split()),
    permute=False,
)


def _docker(argv: Sequence[str]) -> Inner | None:
    start = 2 if argv[1:2] == ["exec"] or tuple(argv[1:2]) == ("exec",) else 3
    if tuple(argv[1:start]) not in (("exec",), ("container", "exec")):
        return None
    items = parse(argv, _DOCKER_EXEC, first=start)
    operands = [i for i in items if isinstance(i, Operand)]
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    if len(operands) < 2:
        opaque.append(("no-command", "docker exec"))
    container = operands[0].value if operands else ""
    interactive = any(isinstance(i, Option) and i.name in ("-i", "--interactive") for i in items)
    return Inner(
        argv=(operands[1].index, len(argv)) if len(operands) > 1 else None,
        host=f"container:{container}", verb="container", object=container, closed_input=not interactive, opaque=tuple(opaque),
    )  # fmt: skip
