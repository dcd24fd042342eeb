"""Commands with the analysis that the real classifier gives them, for tests that need no running proxy."""

from __future__ import annotations

from functools import cache

from interlock.commands.model import Analysis, BindValue, Command, HeldInput, Kind, ShellContext, SqlContext, Wire
from interlock.commands.pool import ShellPool
from interlock.commands.programs.loader import programs, sensitive_paths
from interlock.commands.programs.rules import Rules
from interlock.commands.shell import queries
from interlock.commands.shell.analysis import Asked, analyze_shell
from interlock.commands.shell.grammars import Parse, Parsed, Query
from interlock.commands.sql.analysis import analyze_sql


@cache
def _grammars() -> tuple[ShellPool, Rules]:
    return ShellPool(1, wall=10), Rules(programs(), sensitive_paths())


def answer(pool: ShellPool, request: Parse | Query) -> Parsed | Analysis:
    """Answer in the calling thread, SQL without a child."""
    if isinstance(request, Parse):
        return pool.parse_here(request)
    return analyze_sql(request.text, queries.CONTEXT, Kind.QUERY)


def shell(text: str, stdin: bytes | None = None) -> tuple[Command, Analysis]:
    pool, rules = _grammars()
    held = None if stdin is None else HeldInput(stdin)
    command = Command(Wire.SSH, Kind.EXEC, text.encode(), held, context=ShellContext("bash", utf8_locale=True))
    asking = analyze_shell(Asked(command.text, ShellContext("bash", utf8_locale=True), held, "", False), rules)
    try:
        request = next(asking)
        while True:
            request = asking.send(answer(pool, request))
    except StopIteration as done:
        analysis: Analysis = done.value
        return command, analysis


def sql(text: str, *binds: BindValue) -> tuple[Command, Analysis]:
    context = SqlContext(assume_tables=True)
    kind = Kind.BIND if binds else Kind.QUERY
    return Command(Wire.POSTGRES, kind, text.encode(), binds=binds, context=context), analyze_sql(text.encode(), context, kind)
