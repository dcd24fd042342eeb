"""Which programs have arguments that the table can't describe, and the small ones among them.

Each function takes the run, the entry and the index of the first argument, and adds effects; whatever it does not
recognise is opaque. The larger ones have modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from interlock.commands.model import Stdin
from interlock.commands.programs import (
    archives,
    builtins,
    conditions,
    processes,
    remotes,
    repositories,
    scripts,
    searches,
    servers,
    transfers,
)
from interlock.commands.programs.options import Grammar, Operand, Option, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

Special = Callable[[Run, Program, int], None]

_DD_PLAIN = frozenset("bs ibs obs cbs count skip seek iseek oseek conv iflag oflag status".split())


def dd(run: Run, program: Program, first: int) -> None:
    read = False
    for word in run.argv[first:]:
        key, equals, value = word.partition("=")
        if not equals:
            run.opaque("unknown-operand", word)
        elif key == "if":
            read = True
            run.path("read", value)
        elif key == "of":
            run.path("write", value)
        elif key not in _DD_PLAIN:
            run.opaque("unknown-operand", word)
    if not read:
        run.outcome.stdin = Stdin.DATA
        run.add("read", "stdin")


def chmod(run: Run, program: Program, first: int) -> None:
    """A mode may begin with a dash (`chmod -x file`); a set-id bit is a privilege of its own."""
    words = run.argv[first:]
    modes = [w for w in words if re.fullmatch(r"-[rwxXstugo]+(?:[,+=-][rwxXstugo]*)*", w) and not re.fullmatch(r"-R", w)]
    rest = [w for w in words if w not in modes]
    items = parse(rest, program.grammar)
    run.options(program, items)
    operands = [i.value for i in items if isinstance(i, Operand)]
    names = {i.name for i in items if isinstance(i, Option)}
    if "--reference" in names:
        modes = ["reference"]
    mode = modes[0] if modes else operands.pop(0) if operands else ""
    if not operands:
        run.opaque("unknown-operand", "chmod without a file")
    for operand in operands:
        run.path("write", operand, detail="mode")
        if re.fullmatch(r"0*[2-7][0-7]{3}", mode) or re.search(r"[+=][rwxXt]*s", mode):
            run.add("privilege", operand, detail="set-id")


def cd(run: Run, program: Program, first: int) -> None:
    words = [w for w in run.argv[first:] if w not in ("-P", "-L", "--")]
    if len(words) > 1 or (words and words[0].startswith("-")):
        run.opaque("unknown-option", " ".join(words))
    elif words:
        run.path("list", words[0])
    else:
        run.add("read", "home")


def date(run: Run, program: Program, first: int) -> None:
    """An operand that is not a format sets the clock."""
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    run.add("read", "clock")
    for item in items:
        if isinstance(item, Operand) and not item.value.startswith("+"):
            run.add("kernel", item.value, detail="clock")


def sysctl(run: Run, program: Program, first: int) -> None:
    """`name` shows a setting, `name=value` changes it."""
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    run.add("read", "system")
    writes = any(isinstance(i, Option) and i.name in ("-w", "--write") for i in items)
    for item in items:
        if isinstance(item, Operand) and (writes or not re.fullmatch(r"[A-Za-z0-9_./*-]+", item.value)):
            run.add("kernel", item.value, detail="setting")


def echo(run: Run, program: Program, first: int) -> None:
    run.add("read", "arguments")


_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?\Z")


def printf(run: Run, program: Program, first: int) -> None:
    """zsh and ksh evaluate the arguments of `%d` as arithmetic, and `a[$(cmd)]` runs there even from single quotes."""
    words = run.argv[first:]
    if words[:1] == ["--"]:
        words = words[1:]
    if not words or words[0].startswith("-"):
        run.opaque("unknown-option", " ".join(words)[:200])
        return
    run.add("read", "arguments")
    conversions = re.sub(r"%%|%[-0-9.]*[sbc]", "", words[0])
    if "%" in conversions:
        for word in words[1:]:
            if not _NUMBER.match(word):
                run.opaque("arithmetic", word)


def exit_status(run: Run, program: Program, first: int) -> None:
    """zsh and mksh evaluate the status as arithmetic."""
    run.add("read", "arguments")
    for word in run.argv[first:]:
        if not re.fullmatch(r"-?[0-9]+", word):
            run.opaque("arithmetic", word)


def umask(run: Run, program: Program, first: int) -> None:
    """Looked at, or made such that nobody else may write what comes after it; of a wider one no effect would tell."""
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    run.add("read", "environment")
    for item in items:
        if isinstance(item, Operand) and not re.fullmatch(r"0?[0-7]?[2367][2367]", item.value):
            run.opaque("unknown-operand", item.value)


FLOCK = Grammar(
    frozenset("-s -x -e -u -n -o -F --shared --exclusive --unlock --nonblock --close --no-fork --verbose".split()),
    frozenset("-w -E --timeout --wait --conflict-exit-code".split()),
    permute=False,
)
"""Of util-linux. `-c` is none of them: it stands behind the file."""


def flock(run: Run, program: Program, first: int) -> None:
    """The file is made when it is not there; a number alone is a descriptor that is already open."""
    items = parse(run.argv, FLOCK, first=first)
    run.options(program, items)
    operands = [i for i in items if isinstance(i, Operand)]
    if len(operands) > 1:
        run.path("write", operands[0].value, detail="touch")
        run.add("execute", "flock", detail="wrapper")
    elif operands and operands[0].value.isdecimal():
        run.add("read", "arguments")
    else:
        run.opaque("no-command", "flock")


SPECIALS: dict[str, Special] = {
    "find": searches.find, "test": conditions.test, "tar": archives.tar, "zip": archives.zip_, "dd": dd,
    "ps": processes.ps, "kill": processes.kill, "lsof": processes.lsof,
    "sed": scripts.sed, "awk": scripts.awk, "jq": scripts.jq,
    "curl": transfers.curl,
    "ssh": remotes.ssh, "psql": remotes.psql, "flock": flock, "copies": transfers.copies, "git": repositories.git,
    "git-server": servers.git,
    "chmod": chmod, "cd": cd, "echo": echo, "date": date, "printf": printf, "umask": umask, "exit": exit_status, "sysctl": sysctl,
    "shell-state": builtins.shell_state, "read": builtins.read,
}  # fmt: skip
