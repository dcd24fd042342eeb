"""tar and zip: what goes into an archive, what comes out of it, and what is deleted on the way.

Spec: the GNU tar manual 1.34, chapters 3 and 4; zip(1) of Info-ZIP 3.
"""

from __future__ import annotations

from interlock.commands.model import Stdin
from interlock.commands.programs.options import Operand, Option, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program


def tar(run: Run, program: Program, first: int) -> None:
    argv = run.argv
    if len(argv) > first and not argv[first].startswith("-"):
        run_argv = _old_style(argv[first], argv[first + 1 :], program)
    else:
        run_argv = argv[first:]
    items = parse(run_argv, program.grammar)
    names = {i.name for i in items if isinstance(i, Option)}
    modes = [m for m, options in _TAR_MODES.items() if names & options]
    run.options(program, items)
    if len(modes) != 1:
        run.opaque("unknown-operand", "tar without exactly one mode")
        return
    mode = modes[0]
    archives = [i.value for i in items if isinstance(i, Option) and i.name in ("-f", "--file") and i.value]
    folders = [i.value for i in items if isinstance(i, Option) and i.name in ("-C", "--directory") and i.value]
    for archive in archives:
        if ":" in archive and "--force-local" not in names:
            run.opaque("remote-archive", archive)
    if not archives:
        run.outcome.stdin = Stdin.DATA if mode != "create" else Stdin.IGNORED
        if mode == "append":
            run.opaque("unknown-operand", "tar without an archive")
    for archive in archives:
        if archive == "-":
            run.outcome.stdin = Stdin.DATA if mode != "create" else Stdin.IGNORED
            continue
        run.path("read" if mode in ("extract", "list") else "write", archive)
    if mode == "list":
        if names & {"-d", "--diff", "--compare"}:
            run.recursive = True
            for folder in folders or ["."]:
                run.path("read", folder)  # files are compared with those of the archive
        if not archives or "-" in archives:
            run.add("read", "stdin")
        return
    run.recursive = True
    # -C may stand anywhere and adds up; each operand may be below any of the directories.
    directories = ["", *folders] if len(folders) != 1 or argv[-1] in folders else folders
    members = [i.value for i in items if isinstance(i, Operand)]
    if mode == "extract":
        for folder in ["/"] if names & {"-P", "--absolute-names"} else folders or ["."]:
            run.path("write", folder, detail="unpack")
        return
    for member in members:
        for folder in directories:
            run.path("read", member if not folder or member.startswith("/") else f"{folder}/{member}")


_TAR_MODES = {
    "create": {"-c", "--create"},
    "append": {"-r", "--append", "-u", "--update", "-A", "--catenate", "--concatenate"},
    "extract": {"-x", "--extract", "--get"},
    "list": {"-t", "--list", "-d", "--diff", "--compare"},
}


def _old_style(cluster: str, rest: list[str], program: Program) -> list[str]:
    """Turn `czf archive …` into dashed options: each letter that takes a value takes the next word, in order."""
    out: list[str] = []
    left = list(rest)
    for letter in cluster:
        name = f"-{letter}"
        if name in program.grammar.values and left:
            out += [name, left.pop(0)]
        else:
            out.append(name)
    return out + left


def zip_(run: Run, program: Program, first: int) -> None:
    """The archive, then what goes into it; with -m that is deleted."""
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    moves = any(isinstance(i, Option) and i.name == "-m" for i in items)
    operands = [i.value for i in items if isinstance(i, Operand)]
    if not operands:
        run.opaque("unknown-operand", "zip without an archive")
    for place, operand in enumerate(operands):
        if place == 0 and operand != "-":
            run.path("write", operand)
        elif operand in ("-", "@"):
            run.opaque("arguments-from-stdin", operand)
        else:
            run.path("read", operand)
            if moves:
                run.path("delete", operand)
