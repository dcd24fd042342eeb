"""Calls of a cloud's command line that are not listed one by one: which class of thing they do, by the words in them.

A class gives a call its name for people and for policy (`cloud/read`, `cloud/write`, `cloud/delete`, `identity`,
`secret`). It makes nothing known: options that are not listed may read or write any file, so such a call stays opaque.
The words are data (`verbs:` in clouds.yaml).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from interlock.commands.programs.options import Operand, Option, Problem, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program, Specs

_ADDRESS = re.compile(r"(fileb?|https?)://([^,\]}\"'\s]*)")
_PLACE_OPTIONS = frozenset("--region --zone".split())
_WORDS = 6
"""How many words a call is looked through for: groups, verb, and what it is done to."""


def classify(run: Run, program: Program, first: int) -> None:
    """Say what an unlisted call may do. `program` is the entry of the whole command line, as far as it is known."""
    items = parse(run.argv, program.grammar, first=first)
    known = next((k for k, item in enumerate(items) if isinstance(item, Problem)), len(items))
    before = [i.value for i in parse(run.argv[:first], program.grammar, first=1) if isinstance(i, Operand)]
    words = [*before, *[i.value for i in items[:known] if isinstance(i, Operand)]]
    call = " ".join(words[:4])
    run.options(program, [i for i in items[:known] if isinstance(i, Option)])
    for verb, detail in sorted(_classes(words[:_WORDS], program.verbs)):
        run.add(verb, call, detail=detail)
    run.opaque("unknown-subcommand", call)


def _classes(words: list[str], table: Mapping[str, Specs]) -> set[tuple[str, str]]:
    """Return (verb, detail) of every class that a word belongs to. Reading alone changes no rights."""
    found = {
        (spec.verb, spec.detail)
        for pattern, specs in table.items()
        for spec in specs
        if any(fnmatchcase(word, pattern) for word in words)
    }
    changes = found & {("cloud", "write"), ("cloud", "delete")}
    if changes:
        found.discard(("cloud", "read"))
    elif ("cloud", "read") in found:
        found = {one for one in found if one[0] != "identity"}
    else:
        found.add(("cloud", ""))
    return found


def surroundings(run: Run, program: Program) -> None:
    """What any value of any call may do: name a file, an address, or a region that leads to another host."""
    for word in run.argv[1:]:
        for scheme, rest in _ADDRESS.findall(word):
            if scheme.startswith("file"):
                run.path("read", rest)
                run.add("network", "file", detail="upload")
            else:
                run.network(f"{scheme}://{rest}")
    for item in parse(run.argv, program.grammar, first=1):
        if isinstance(item, Option) and item.name in _PLACE_OPTIONS and not re.fullmatch(r"[a-z0-9-]+", item.value or ""):
            run.opaque("unknown-operand", item.value or "")
