"""SQL inside of shell commands: what `psql` is given to run, and what it would do.

A client stands between the text and the server: backslash commands run here and variables are replaced, so a text with
either is not read. Which role, search_path and catalog the session has is not known: names without a schema are taken
for tables of `public`, and the command stays a person's matter. Knows psql's rules and no policy. Spec: psql(1) 15.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from interlock.commands.model import Effect, Kind, SqlContext
from interlock.commands.programs.options import Grammar, Option, parse
from interlock.commands.programs.remotes import psql_reads
from interlock.commands.shell.grammars import Asking, queried
from interlock.commands.sql.analysis import analyze_sql, in_process
from interlock.errors import Reason

CONTEXT = SqlContext(assume_tables=True)
"""What is known of the session: nothing."""

_VARIABLE = re.compile(r"(?<!:):(?:[A-Za-z0-9_\x80-\U0010ffff'\"]|\{\?)")
"""`:name`, `:'name'`, `:"name"`, `:{?name}`; a cast (`::`) is none."""

_QUOTED = re.compile(r"(')[^']*'|(\")[^\"]*\"|--[^\n]*|/\*.*?\*/|(\$(?:[A-Za-z_]\w*)?\$).*?\3", re.DOTALL)
"""Where psql replaces nothing. Exact without backslashes; what it takes for a quote and is none, the grammar rejects."""


@dataclass(frozen=True, slots=True)
class Given:
    """The texts of `-c`, in order, and whether psql also reads commands from its standard input."""

    texts: tuple[str, ...]
    stdin: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What one text does: effects, (reason, part) of what can't be known, and names that were taken for tables."""

    effects: tuple[Effect, ...] = ()
    opaque: tuple[tuple[str, str], ...] = ()
    assumed: tuple[str, ...] = ()


def given(argv: Sequence[str], grammar: Grammar) -> Given:
    items = parse(argv, grammar, first=1)
    texts = tuple(i.value or "" for i in items if isinstance(i, Option) and i.name in ("-c", "--command"))
    return Given(texts, psql_reads(items))


def beside(text: str) -> bool:
    """Tell whether a child reads the text: it is long, or opens code blocks."""
    return not in_process(text.encode("utf-8", "surrogateescape"))


def read(text: str, base: Effect, *, typed: bool) -> Asking[Found]:
    """Read one text. `typed`: it comes line by line, so that psql looks for its own commands and variables in all of it."""
    if text.startswith("\\") or (typed and "\\" in text):
        # Also inside of quotes: whether a backslash ends a string depends on a setting of the server.
        return Found(opaque=(("psql-command", text),))
    if typed and _VARIABLE.search(_QUOTED.sub(r"\1\1\2\2", text)):
        return Found(opaque=(("psql-variable", text),))
    source = text.encode("utf-8", "surrogateescape")
    analysis = (yield from queried(source)) if beside(text) else analyze_sql(source, CONTEXT, Kind.QUERY)
    if analysis.unreadable is not None:
        deceives = analysis.unreadable.reason is not Reason.SYNTAX_ERROR
        return Found(opaque=(("deceptive-code" if deceives else "nested-syntax-error", text),))
    via = (*base.via, "psql")
    effects = tuple(
        replace(e, program=base.program, argv=base.argv, via=(*via, *e.via), origin=base.origin, host=base.host)
        for e in analysis.effects
    )
    opaque = tuple((o.reason, o.text) for o in analysis.opaque)
    return Found(effects, opaque, analysis.assumed)
