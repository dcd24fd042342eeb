"""Programs that start another one: how to find the command inside, exactly, or say that it can't be found.

A wrapper stays in the list as a fact. An unknown option of a wrapper is opaque: it could run anything. A program that
could start another and is not in this table is unknown to `programs` too, and so opaque. Spec: commands.md, item 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from interlock.commands.programs.options import Grammar, Operand, Option, Problem, parse
from interlock.commands.programs.searches import FIND_EXEC, find_roots
from interlock.commands.shell.effective import inert
from interlock.commands.shell.inner import Inner
from interlock.commands.shell.launchers import LAUNCHERS


@dataclass(frozen=True, slots=True)
class _Plain:
    """A wrapper with ordinary options, a number of operands of its own, then the command."""

    flags: str = ""
    values: str = ""
    optional: str = ""
    operands: int = 0
    assignments: bool = False
    digits: bool = False
    grammar: Grammar = field(init=False)

    def __post_init__(self) -> None:
        grammar = Grammar(
            frozenset(self.flags.split()), frozenset(self.values.split()), frozenset(self.optional.split()),
            permute=False, digits=self.digits,
        )  # fmt: skip
        object.__setattr__(self, "grammar", grammar)


_PLAIN: Mapping[str, _Plain] = {
    "sudo": _Plain(
        "-b -E -H -k -n -P -B --background --set-home --non-interactive --preserve-groups --bell --reset-timestamp",
        "-u -g -p -C -T --user --group --prompt --close-from --command-timeout",
        "--preserve-env",
        assignments=True,
    ),
    "doas": _Plain("-n", "-u"),
    "env": _Plain("-i -0 -v --ignore-environment --null --debug", "-u --unset", assignments=True),
    "nohup": _Plain(),
    "setsid": _Plain("-c -f -w --ctty --fork --wait"),
    "stdbuf": _Plain("", "-i -o -e --input --output --error"),
    "nice": _Plain("", "-n --adjustment", digits=True),
    "ionice": _Plain("-t --ignore", "-c -n --class --classdata"),
    "timeout": _Plain("-v --preserve-status --foreground --verbose", "-k -s --kill-after --signal", operands=1),
    "time": _Plain("-p -v --portability --verbose", "-f --format"),
    "command": _Plain("-p"),
    "builtin": _Plain(),
    # With -a and -l a program of many names (busybox, uutils) is another one, and dash has none of the three.
    "exec": _Plain(),
    "prlimit": _Plain(
        "--raw --noheadings --verbose",
        "",
        "-c -d -e -f -i -l -m -n -q -r -s -t -u -v -x -y --core --data --nice --fsize --sigpending --memlock --rss --nofile"
        " --msgqueue --rtprio --stack --cpu --nproc --as --locks --rttime",
    ),
    "systemd-inhibit": _Plain("--no-pager --no-legend", "--what --who --why --mode"),
    "tini": _Plain("-s -v -g -w", "-p -e"),
    "dumb-init": _Plain("-c -v --single-child --verbose", "-r --rewrite"),
    "busybox": _Plain(),
    "toybox": _Plain(),
    "xargs": _Plain(
        "-0 -r -t -x -o --null --no-run-if-empty --verbose --exit --open-tty --show-limits",
        "-n -L -P -s -d -E -I -a --max-args --max-lines --max-procs --max-chars --delimiter --arg-file",
        "-i -e -l --replace --eof",
    ),
}
SHELLS = frozenset("sh bash dash ash ksh zsh mksh".split())
WRAPPERS = frozenset(_PLAIN) | SHELLS | frozenset(LAUNCHERS) | {"su", "find", "watch", "kubectl", "docker", "podman", "eval"}
_SHELL_OPTIONS = frozenset("errexit nounset pipefail noglob xtrace verbose noclobber allexport posix noexec notify".split())


def unwrap(name: str, argv: Sequence[str], feeder: Sequence[str] = ()) -> Inner | list[Inner] | None:
    """Return what `argv` (of a program called `name`) starts, or None when it starts nothing.

    `feeder` is the command whose output is its input, when that is known.
    """
    if name in SHELLS:
        return _shell(argv)
    match name:
        case "su":
            return _su(argv)
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
    if (launcher := LAUNCHERS.get(name)) is not None:
        return launcher(argv)
    plain = _PLAIN.get(name)
    return _plain(name, plain, argv) if plain is not None else None


def _plain(name: str, plain: _Plain, argv: Sequence[str]) -> Inner | None:
    items = parse(argv, plain.grammar, first=1)
    problems = tuple((i.reason, i.text) for i in items if isinstance(i, Problem))
    operands = [i for i in items if isinstance(i, Operand)]
    options = {i.name: i.value for i in items if isinstance(i, Option)}
    opaque = list(problems)
    if name == "env":
        unset = [i.value or "" for i in items if isinstance(i, Option) and i.name in ("-u", "--unset")]
        opaque.extend(("assignment", variable) for variable in unset if not inert(variable, ""))
    if plain.assignments:
        while operands and re.match(r"[A-Za-z_][^=]*=", operands[0].value):
            variable, _, value = operands.pop(0).value.partition("=")
            if not inert(variable, value):
                opaque.append(("assignment", variable))
    if name == "sudo" and options.keys() & {"-E", "--preserve-env"}:
        opaque.append(("environment-kept", "-E"))
    if name == "command" and re.match(r"-[pvV]*[vV]", argv[1] if len(argv) > 1 else ""):
        return None
    del operands[: plain.operands]
    if not operands:
        if problems or name in ("sudo", "doas", "exec", "timeout", "nohup", "setsid", "busybox", "toybox"):
            return Inner(opaque=(*opaque, ("no-command", name)))
        return Inner(opaque=tuple(opaque)) if opaque else None
    user = options.get("-u") or options.get("--user") or "root"
    return Inner(
        argv=(operands[0].index, len(argv)),
        privilege=user if name in ("sudo", "doas") else "",
        opaque=tuple(opaque),
    )


READ_BY_XARGS = "what xargs reads"
"""The object of effects on names that come from somewhere unknown."""

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
    items = parse(argv, _PLAIN["xargs"].grammar, first=1)
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
        return Inner(items=found, opaque=tuple(opaque))
    first = operands[0].index
    if "-I" not in options and not options.keys() & {"-i", "--replace"}:
        one = options.get("-n", options.get("--max-args", "")) == "1"
        return Inner(
            argv=(first, len(argv)), items=found, more=1 if one else 2, closed_input=True, opaque=tuple(opaque),
            optional=not options.keys() & {"-r", "--no-run-if-empty"},
        )  # fmt: skip
    mark = options.get("-I") or options.get("-i") or options.get("--replace") or "{}"
    inner = argv[first:]
    if mark in inner[0]:
        opaque.append(("placeholder-in-command", inner[0]))
    elif inner[0] not in _ONLY_PRINTS:
        opaque.extend(("placeholder-in-word", word) for word in inner[1:] if mark in word and word != mark)
    return Inner(argv=(first, len(argv)), items=found, mark=mark, closed_input=True, opaque=tuple(opaque))


def _shell(argv: Sequence[str]) -> Inner | None:
    """sh, bash, dash, …: `-c text`, a script file, or commands on standard input (POSIX sh, OPTIONS)."""
    index, has_text = 1, False
    opaque: list[tuple[str, str]] = []
    from_stdin = False
    while index < len(argv):
        word = argv[index]
        if word in ("-", "--"):
            index += 1
            break
        if word in ("-o", "+o") or re.fullmatch(r"[-+][abefhlmnuvxsc]*o", word):
            has_text = has_text or (word[0] == "-" and "c" in word)
            if index + 1 >= len(argv) or argv[index + 1] not in _SHELL_OPTIONS:
                opaque.append(("unknown-option", word))
            index += 2
            continue
        if word in ("--norc", "--noprofile", "--posix", "--login", "--noediting"):
            index += 1
            continue
        if re.fullmatch(r"-[abefhlmnuvxsc]+", word) or re.fullmatch(r"\+[abefhmnuvx]+", word):
            has_text = has_text or "c" in word
            from_stdin = from_stdin or "s" in word
            index += 1
            continue
        if word in ("--version", "--help") and len(argv) == 2:
            return None
        if word[:1] in ("-", "+") and len(word) > 1:
            opaque.append(("unknown-option", word))
            has_text = has_text or (re.match(r"-[a-zA-Z]*c\Z", word) is not None)
            index += 1
            continue
        break
    if has_text:
        if index >= len(argv):
            return Inner(opaque=(*opaque, ("no-command", argv[0])))
        return Inner(script=index, opaque=tuple(opaque))
    if index < len(argv) and not from_stdin:
        return Inner(verb="execute", object=argv[index], opaque=(*opaque, ("script-file", argv[index])))
    return Inner(reads_script=True, opaque=tuple(opaque))


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


def _su(argv: Sequence[str]) -> Inner:
    grammar = Grammar(
        frozenset("- -l -m -p --login --preserve-environment".split()),
        frozenset("-c --command -s --shell -g --group".split()),
    )
    items = parse(argv, grammar, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    users = [i.value for i in items if isinstance(i, Operand) and i.value != "-"]
    text: int | None = None
    for item in items:
        if isinstance(item, Option) and item.name in ("-c", "--command"):
            places = [k for k in range(1, len(argv)) if argv[k] == item.value]
            text = places[0] if len(places) == 1 else None
            if text is None:
                opaque.append(("interpreter-code", item.value or ""))
        if isinstance(item, Option) and item.name in ("-s", "--shell"):
            opaque.append(("foreign-shell", item.value or ""))
    if len(users) > 1:
        opaque.append(("unknown-operand", users[1]))
    # The shell of the other account is not known, so the text stays a human's matter even when it reads well.
    opaque.append(("foreign-shell", users[0] if users else "root"))
    return Inner(script=text, privilege=users[0] if users else "root", opaque=tuple(opaque))


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
