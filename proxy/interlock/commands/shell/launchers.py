"""Programs that start a command at another place or time: on another machine, behind a lock, later, in another tree.

Each function takes the words and says where the command or text inside stands, as `wrappers` does; what it can't say is
opaque. A list means that the program's own entry in the table says what it does itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from interlock.commands.programs.options import Grammar, Operand, Option, Problem, parse
from interlock.commands.programs.remotes import ssh_call
from interlock.commands.programs.special import FLOCK
from interlock.commands.shell.inner import Inner


def _ssh(argv: Sequence[str]) -> list[Inner] | None:
    """ssh joins the words behind the destination with blanks, and the other account's shell parses them: it is not known."""
    call = ssh_call(argv)
    if call.command is None or call.has("-N", "-O", "-s", "-W"):
        return None  # a session, a subsystem or a connection without a command: the entry says so
    host = call.host or call.destination
    opaque = (("foreign-shell", call.destination),)
    place = (call.command, len(argv))
    return [Inner(joined=place, name="ssh", host=host, closed_input=call.has("-n", "-f"), opaque=opaque)]


def _flock(argv: Sequence[str]) -> list[Inner] | None:
    """`flock FILE command …`, or `flock FILE -c text` for the shell that $SHELL names (util-linux flock.c)."""
    operands = [i for i in parse(argv, FLOCK, first=1) if isinstance(i, Operand)]
    if len(operands) < 2:
        return None  # a descriptor that is already open
    command = operands[1].index
    if argv[command] not in ("-c", "--command"):
        return [Inner(argv=(command, len(argv)), name="flock")]
    if len(operands) != 3:
        return [Inner(name="flock", opaque=(("no-command", "flock"),))]
    return [Inner(script=command + 1, name="flock", opaque=(("foreign-shell", "$SHELL"),))]


def _later(argv: Sequence[str]) -> list[Inner] | None:
    """at and batch read commands for `sh`, which runs them later; listing, removing and `-f FILE` read nothing."""
    grammar = Grammar(frozenset("-l -r -d -b -m -v -M".split()), frozenset("-f -t -q".split()))
    given = {i.name for i in parse(argv, grammar, first=1) if isinstance(i, Option)}
    return None if given & {"-l", "-r", "-d", "-f"} else [Inner(reads_script=True, name="at")]


def _chroot(argv: Sequence[str]) -> Inner:
    """Paths and programs are those of another tree, whoever made it."""
    grammar = Grammar(frozenset({"--skip-chdir"}), frozenset({"--userspec", "--groups"}), permute=False)
    items = parse(argv, grammar, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    operands = [i for i in items if isinstance(i, Operand)]
    root = operands[0].value if operands else ""
    opaque.append(("unknown-program", f"programs below {root}") if len(operands) > 1 else ("no-command", "chroot"))
    place = (operands[1].index, len(argv)) if len(operands) > 1 else None
    return Inner(argv=place, verb="privilege", object=f"chroot:{root}", host=f"chroot:{root}", opaque=tuple(opaque))


def _scheduled(argv: Sequence[str], grammar: Grammar, first: re.Pattern[str]) -> Inner:
    """`first` is what the operand before the command looks like. With -p they change a process: not these forms."""
    items = parse(argv, grammar, first=1)
    opaque = [(i.reason, i.text) for i in items if isinstance(i, Problem)]
    operands = [i for i in items if isinstance(i, Operand)]
    if len(operands) < 2 or not first.fullmatch(operands[0].value):
        return Inner(opaque=(*opaque, ("no-command", argv[0])))
    return Inner(argv=(operands[1].index, len(argv)), opaque=tuple(opaque))


def _taskset(argv: Sequence[str]) -> Inner:
    grammar = Grammar(frozenset("-a -c --all-tasks --cpu-list".split()), permute=False)
    return _scheduled(argv, grammar, re.compile(r"(?:0[xX])?[0-9A-Fa-f,:-]+"))


def _chrt(argv: Sequence[str]) -> Inner:
    flags = "-b -f -i -o -r -R -v --batch --fifo --idle --other --rr --reset-on-fork --verbose"
    return _scheduled(argv, Grammar(frozenset(flags.split()), permute=False), re.compile(r"[0-9]+"))


LAUNCHERS: Mapping[str, Callable[[Sequence[str]], Inner | list[Inner] | None]] = {
    "ssh": _ssh, "flock": _flock, "at": _later, "batch": _later, "chroot": _chroot, "taskset": _taskset, "chrt": _chrt,
}  # fmt: skip
