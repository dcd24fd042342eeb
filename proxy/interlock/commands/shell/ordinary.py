"""Wrappers with ordinary options: a table of what each takes, and one reader of it.

An option that is not listed is opaque. Listed is only what runs and loads nothing: an option that does (`dbus-run-session
--dbus-daemon`, `ltrace -F`) is left out, and that is its entry. Knows no program behind a wrapper. Sources: the programs'
manuals (coreutils 9, util-linux 2.38, sudo 1.9, strace 6.1, ltrace 0.7, numactl 2.0, moreutils, gosu, tini, dumb-init).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from interlock.commands.programs.options import Grammar, Item, Operand, Option, Problem, parse
from interlock.commands.shell.effective import inert
from interlock.commands.shell.inner import Inner


@dataclass(frozen=True, slots=True)
class Ordinary:
    """A wrapper: its options, a number of operands of its own, then the command.

    Of the options some say as whom it runs (`account`; `always`: who it is without one), set a variable (`variables`) or name
    a file that is written (`writes`); the value of one in `shapes` must look like that, or it is opaque.
    """

    flags: str = ""
    values: str = ""
    optional: str = ""
    operands: int = 0
    assignments: bool = False
    digits: bool = False
    account: str = ""
    always: str = ""
    for_account: bool = False  # the first operand is the account
    variables: str = ""
    writes: str = ""
    shapes: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    grammar: Grammar = field(init=False)

    def __post_init__(self) -> None:
        grammar = Grammar(
            frozenset(self.flags.split()), frozenset(self.values.split()), frozenset(self.optional.split()),
            permute=False, digits=self.digits,
        )  # fmt: skip
        object.__setattr__(self, "grammar", grammar)


_TRACED = re.compile(
    r"(?:(?:trace|t|abbrev|a|verbose|v|raw|x|signal|signals|s|read|reads|r|write|writes|w|status|quiet|silent|silence|q|kvm"
    r"|decode-fds?)=)?[!?%/A-Za-z0-9_,@]+"
)
"""What `strace -e` may ask for. `fault` and `inject` change what the program does."""

_LTRACED = re.compile(r"[-+@!.*A-Za-z0-9_]+")
_PERSONALITY = Ordinary(
    "-B -F -I -L -R -S -T -X -Z -3 -v --32bit --fdpic-funcptrs --short-inode --addr-compat-layout --addr-no-randomize"
    " --whole-seconds --sticky-timeouts --read-implies-exec --mmap-page-zero --3gb --4gb --uname-2.6 --verbose"
)

ORDINARY: Mapping[str, Ordinary] = {
    "sudo": Ordinary(
        "-b -E -H -k -n -P -B --background --set-home --non-interactive --preserve-groups --bell --reset-timestamp",
        "-u -g -p -C -T --user --group --prompt --close-from --command-timeout",
        "--preserve-env",
        assignments=True,
        account="-u --user",
        always="root",
    ),
    "doas": Ordinary("-n", "-u", account="-u", always="root"),
    "gosu": Ordinary(for_account=True),
    "su-exec": Ordinary(for_account=True),
    "env": Ordinary("-i -0 -v --ignore-environment --null --debug", "-u --unset", assignments=True),
    "nohup": Ordinary(),
    "setsid": Ordinary("-c -f -w --ctty --fork --wait"),
    "stdbuf": Ordinary("", "-i -o -e --input --output --error"),
    "nice": Ordinary("", "-n --adjustment", digits=True),
    "ionice": Ordinary("-t --ignore", "-c -n --class --classdata"),
    "timeout": Ordinary("-v --preserve-status --foreground --verbose", "-k -s --kill-after --signal", operands=1),
    "time": Ordinary("-p -v --portability --verbose", "-f --format"),
    "command": Ordinary("-p"),
    "builtin": Ordinary(),
    # With -a and -l a program of many names (busybox, uutils) is another one, and dash has none of the three.
    "exec": Ordinary(),
    "prlimit": Ordinary(
        "--raw --noheadings --verbose",
        "",
        "-c -d -e -f -i -l -m -n -q -r -s -t -u -v -x -y --core --data --nice --fsize --sigpending --memlock --rss --nofile"
        " --msgqueue --rtprio --stack --cpu --nproc --as --locks --rttime",
    ),
    "numactl": Ordinary(
        "-a -l -b --all --localalloc --balancing",
        "-i -p -P -m -N -C --interleave --preferred --preferred-many --membind --cpunodebind --physcpubind",
    ),
    "linux32": _PERSONALITY,
    "linux64": _PERSONALITY,
    "setarch": _PERSONALITY,
    "dbus-run-session": Ordinary(),  # --dbus-daemon and --config-file say what else is run
    "chronic": Ordinary("-e -v"),
    "catchsegv": Ordinary(),
    "systemd-inhibit": Ordinary("--no-pager --no-legend", "--what --who --why --mode"),
    "tini": Ordinary("-s -v -g -w", "-p -e"),
    "dumb-init": Ordinary("-c -v --single-child --verbose", "-r --rewrite"),
    "busybox": Ordinary(),
    "toybox": Ordinary(),
    # -p looks at a process that is there already: not this form. -ff writes files of other names.
    "strace": Ordinary(
        "-A -c -C -d -D -f -F -i -k -n -q -r -t -T -v -w -x -y -Y -z -Z --debug --follow-forks --instruction-pointer"
        " --stack-traces --syscall-number --output-append-mode --successful-only --failed-only --no-abbrev --summary-only"
        " --summary --summary-wall-clock",
        "-a -b -e -E -I -o -O -P -s -S -u -U -X --columns --env --interruptible --trace --signal --status --trace-path --abbrev"
        " --verbose --raw --read --write --output --string-limit --const-print-style --summary-sort-by --summary-columns --user",
        "--relative-timestamps --absolute-timestamps --syscall-times --strings-in-hex --decode-fds --quiet --silent",
        account="-u --user",
        variables="-E --env",
        writes="-o --output",
        shapes={"-e": _TRACED, "-o": re.compile(r"[^|!].*", re.DOTALL), "--output": re.compile(r"[^|!].*", re.DOTALL)},
    ),
    "ltrace": Ordinary(
        "-b -c -C -f -i -L -r -S -t -T --no-signals --demangle",
        "-a -A -e -l -n -o -s -u -x --align --indent --library --output",
        account="-u",
        writes="-o --output",
        shapes={"-e": _LTRACED, "-x": _LTRACED},
    ),
}

_ARCHITECTURES = re.compile(
    r"linux32|linux64|uname26|i[3456]86|x86_64|aarch64|arm64|armv?[0-9a-z]*|ppc(?:32|64|64le|le)?|s390x?|riscv(?:32|64)?"
)
_NEEDS_COMMAND = frozenset("sudo doas exec timeout nohup setsid busybox toybox".split())


def ordinary(name: str, wrapper: Ordinary, argv: Sequence[str]) -> Inner | None:
    """Return what the wrapper `name` starts; None when it starts nothing."""
    # setarch takes its first word for an architecture when that is no option.
    first = 2 if name == "setarch" and argv[1:2] and not argv[1].startswith("-") else 1
    items = parse(argv, wrapper.grammar, first=first)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    problems = bool(opaque)
    operands = [i for i in items if isinstance(i, Operand)]
    if first == 2 and not _ARCHITECTURES.fullmatch(argv[1]):
        opaque.append(("unknown-operand", argv[1]))
    opaque.extend(_variables(name, wrapper, items, operands))
    opaque.extend(_shapes(name, wrapper, items))
    if name == "sudo" and any(isinstance(i, Option) and i.name in ("-E", "--preserve-env") for i in items):
        opaque.append(("environment-kept", "-E"))
    if name == "command" and re.match(r"-[pvV]*[vV]", argv[1] if len(argv) > 1 else ""):
        return None
    account = given(items, wrapper.account)[-1:] or ([wrapper.always] if wrapper.always else [])
    if wrapper.for_account and operands:
        account = [operands.pop(0).value.partition(":")[0]]
    del operands[: wrapper.operands]
    if not operands:
        if problems or name in _NEEDS_COMMAND:
            return Inner(opaque=(*opaque, ("no-command", name)))
        return Inner(opaque=tuple(opaque)) if opaque else None
    return Inner(
        argv=(operands[0].index, len(argv)),
        privilege=(account[0] or "root") if account else "",
        writes=tuple(given(items, wrapper.writes)),
        opaque=tuple(opaque),
    )


def given(items: Iterable[Item], names: str) -> list[str]:
    """Return the values of the options that have one of these names, in order."""
    return [i.value or "" for i in items if isinstance(i, Option) and i.name in names.split()]


def assigned(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what is opaque of variables that are set (`NAME=VALUE`) or taken away or over (`NAME`)."""
    for word in words:
        variable, _, value = word.partition("=")
        if not inert(variable, value):
            yield "assignment", variable


def _variables(name: str, wrapper: Ordinary, items: Sequence[Item], operands: list[Operand]) -> Iterator[tuple[str, str]]:
    """Yield what is opaque of the variables that are set, and take those among the operands out."""
    yield from assigned(given(items, wrapper.variables))
    if name == "env":
        yield from assigned(given(items, "-u --unset"))
    if wrapper.assignments:
        while operands and re.match(r"[A-Za-z_][^=]*=", operands[0].value):
            yield from assigned([operands.pop(0).value])


def _shapes(name: str, wrapper: Ordinary, items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    for item in items:
        if isinstance(item, Option) and item.name in wrapper.shapes and not wrapper.shapes[item.name].fullmatch(item.value or ""):
            yield "option-runs-code", item.value or item.name
    follows = sum(isinstance(i, Option) and i.name in ("-f", "--follow-forks") for i in items)
    if name == "strace" and follows > 1 and (files := given(items, wrapper.writes)):
        yield "unknown-operand", f"{files[-1]}.PID"
