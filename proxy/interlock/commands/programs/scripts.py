"""sed, awk and jq: an argument is a script, and all of it is code but what `filters` recognises.

Knows where the script stands and what is read and written beside it.
"""

from __future__ import annotations

import re

from interlock.commands.model import Stdin
from interlock.commands.programs import filters
from interlock.commands.programs.options import Operand, Option, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program


def sed(run: Run, program: Program, first: int) -> None:
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    names = {i.name for i in items if isinstance(i, Option)}
    scripts = [i.value or "" for i in items if isinstance(i, Option) and i.name in ("-e", "--expression")]
    operands = [i.value for i in items if isinstance(i, Operand)]
    if not scripts and not names & {"-f", "--file"}:
        if not operands:
            run.opaque("unknown-operand", "sed without a script")
            return
        scripts.append(operands.pop(0))
    for script in scripts:
        if _names_inside(run, script) or not filters.sed_only_rewrites(script):
            run.opaque("interpreter-code", script)
        run.add("interpret", "sed", detail="harmless-form" if not run.outcome.opaque else "")
    in_place = bool(names & {"-i", "--in-place"})
    suffix = next((i.value for i in items if isinstance(i, Option) and i.name in ("-i", "--in-place") and i.value), "")
    for operand in operands:
        if operand == "-" and not in_place:
            _reads_stdin(run)
            continue
        run.path("read", operand)
        if in_place:
            run.path("write", operand)
        if suffix:
            run.path("write", _backup(operand, suffix))
    if not operands:
        _reads_stdin(run)


def _backup(path: str, suffix: str) -> str:
    """Return where sed keeps the old file: `*` in a suffix is the file's name, and a slash leads to another directory."""
    folder, _, base = path.rpartition("/")
    kept = suffix.replace("*", base) if "*" in suffix else base + suffix
    return kept if "/" in kept or not folder else f"{folder}/{kept}"


def awk(run: Run, program: Program, first: int) -> None:
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    names = {i.name for i in items if isinstance(i, Option)}
    operands = [i.value for i in items if isinstance(i, Operand)]
    if not names & {"-f", "--file"}:
        if not operands:
            run.opaque("unknown-operand", "awk without a program")
            return
        code = operands.pop(0)
        for item in items:
            if isinstance(item, Option) and item.name in ("-v", "--assign") and not filters.awk_variable(item.value or ""):
                run.opaque("assignment", item.value or "")
        if _names_inside(run, code) or not filters.awk_only_rewrites(code):
            run.opaque("interpreter-code", code)
        run.add("interpret", "awk", detail="harmless-form" if not run.outcome.opaque else "")
    for operand in operands:
        if operand == "-":
            _reads_stdin(run)
        elif re.match(r"[A-Za-z_][A-Za-z0-9_]*=", operand):
            run.opaque("assignment", operand)
        elif re.match(r"/inet[46]?/", operand):
            run.add("network", operand)  # gawk opens a connection
        else:
            run.path("read", operand)
    if not operands:
        _reads_stdin(run)


def _names_inside(run: Run, code: str) -> bool:
    """Whether names that are found when it runs become a part of the code."""
    return (bool(run.place.items) and "{}" in code) or run.place.is_home(code)


def _reads_stdin(run: Run) -> None:
    run.outcome.stdin = Stdin.DATA
    run.add("read", "stdin")


def jq(run: Run, program: Program, first: int) -> None:
    """A filter does nothing but read its input, except that `import` and `include` read any file of a directory."""
    items = parse(run.argv, program.grammar, first=first)
    operands = [i.value for i in items if isinstance(i, Operand)]
    if operands:
        run.add("interpret", "jq", detail="filter")
        if re.search(r"(?<![.\w])env\b|\$ENV", operands[0]):
            run.add("read", "environment")
    run.walk(program, items)
    if operands and (_names_inside(run, operands[0]) or re.search(r"(?<![.\w])(?:import|include|modulemeta)\b", operands[0])):
        run.opaque("interpreter-code", operands[0])
