"""Applies an entry of the table to one argument list: effects, what stays opaque, and what standard input is.

Allow-lists only: an unknown program, subcommand, option or operand is opaque. Knows nothing of shell text, policy or
people. docs/commands.md says what each verb and object means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interlock.commands.model import Effect, Stdin
from interlock.commands.programs import calls
from interlock.commands.programs.options import Operand, Problem, parse
from interlock.commands.programs.path_effects import path_effects
from interlock.commands.programs.paths import Sensitive
from interlock.commands.programs.place import Place, identity
from interlock.commands.programs.run import Outcome, Run
from interlock.commands.programs.schema import Program
from interlock.commands.programs.special import SPECIALS


class Rules:
    """The table of programs, the sensitive paths, and how they apply."""

    def __init__(self, table: Mapping[str, Program], sensitive: Sensitive) -> None:
        self.table = table
        self.sensitive = sensitive

    def evaluate(self, argv: Sequence[str], place: Place) -> Outcome:
        """Say what `argv` would do. `argv[0]` is not empty."""
        name = identity(argv[0])
        program = self.table.get(name) if name is not None else None
        if program is None:
            shown = argv[0]
            effect = Effect("execute", shown, shown, tuple(argv), place.via, place.origin, host=place.host, detail="unknown")
            return Outcome([effect], [("unknown-program", shown)], Stdin.DATA)
        run = Run(self.sensitive, program, argv, place)
        _apply(run, program, 1)
        return run.finish()

    def path_effects(self, verb: str, path: str, base: Effect, place: Place, *, recursive: bool = False) -> list[Effect]:
        """Return the effects of reading, listing, writing or deleting a path: the ordinary one and what it amounts to."""
        return path_effects(self.sensitive, verb, path, base, place, recursive=recursive)


def _apply(run: Run, program: Program, first: int) -> None:
    """Walk the arguments from `first` with the entry, going down into subcommands."""
    if program.subcommands:
        _subcommand(run, program, first)
        return
    if program.special:
        SPECIALS[program.special](run, program, first)
        return
    run.walk(program, parse(run.argv, program.grammar, first=first))


def _subcommand(run: Run, program: Program, first: int) -> None:
    items = parse(run.argv, program.grammar, first=first, stop_at_operand=True)
    found = items[-1] if items and isinstance(items[-1], Operand) else None
    if program.verbs and first == 1:
        calls.surroundings(run, program)
    below = program.subcommands.get(found.value) if found is not None else None
    if found is not None and below is None and program.verbs:
        run.options(program, items[:-1])
        calls.classify(run, program, found.index)
        return
    if found is None or (below is None and program.default_subcommand):
        if program.default_subcommand:
            run.walk(program, parse(run.argv, program.grammar, first=first))
        elif found is None and not any(isinstance(i, Problem) for i in items) and run.is_help(first):
            run.add("read", "arguments")
        else:
            run.opaque("unknown-subcommand", " ".join(run.argv[first:])[:200])
        return
    if below is None:
        run.opaque("unknown-subcommand", found.value)
        return
    run.options(program, items[:-1])
    run.outcome.stdin = below.stdin
    run.recursive = run.recursive or below.always_recursive
    _apply(run, below, found.index + 1)
