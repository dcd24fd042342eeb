"""curl, rsync and scp: which of their words are files of this machine, and which are elsewhere.

Spec: curl(1) 8.10, where each option named here says what an `@` at its beginning means; rsync(1) 3.2; scp(1) 9.
"""

from __future__ import annotations

import re

from interlock.commands.programs import servers
from interlock.commands.programs.options import Operand, Option, parse
from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

_AT_FILE = frozenset("-d --data --data-ascii --data-binary --json -H --header -w --write-out".split())
_FORM = frozenset("-F --form".split())
_COOKIES = frozenset("-b --cookie".split())
_OUTPUT = re.compile(r"%output\{(?:>>)?([^}]*)\}?")


def curl(run: Run, program: Program, first: int) -> None:
    items = parse(run.argv, program.grammar, first=first)
    run.walk(program, items)
    for item in items:
        if not isinstance(item, Option) or item.value is None:
            continue
        for path in _files(item.name, item.value):
            run.read(path)
        if item.name in ("-w", "--write-out"):
            for path in _OUTPUT.findall(item.value):
                run.path("write", path)


def _files(name: str, value: str) -> list[str]:
    """Return the files that the value of an option names; `-` is standard input."""
    if name in _AT_FILE:
        return [value[1:]] if value.startswith("@") else []
    if name == "--data-urlencode":
        found = re.match(r"[^=@]*@(.+)", value, re.DOTALL)
        return [found[1]] if found else []
    if name in _FORM:
        content = value.partition("=")[2]
        # Several files may stand behind one `@`, each with `;type=…` behind it.
        return [part.partition(";")[0].strip('"') for part in content[1:].split(",")] if content[:1] in ("@", "<") else []
    if name in _COOKIES:
        return [] if "=" in value else [value]
    return []


_DELETES = frozenset("--delete --delete-before --delete-during --delete-after --delete-excluded --delete-delay".split())


def copies(run: Run, program: Program, first: int) -> None:
    """Sources, then a target; what has a colon before its first slash is on another machine."""
    if program.name == "scp" and servers.is_scp_end(run.argv):
        servers.scp(run, program, first)
        return
    if program.name == "rsync" and "--server" in run.argv:
        servers.rsync(run, program, first)
        return
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    names = {i.name for i in items if isinstance(i, Option)}
    places = [i.value for i in items if isinstance(i, Operand)]
    if not places:
        run.opaque("unknown-operand", "a copy of nothing")
        return
    *sources, target = places if len(places) > 1 else [*places, ""]
    for source in sources:
        _end(run, source, "read")
        if "--remove-source-files" in names:
            _end(run, source, "delete")
    if not target:
        return  # one place alone is listed
    _end(run, target, "write")
    for source in sources:  # when the target is a directory, the source's name decides what is written
        if _host(target) is None:
            run.path("write", f"{target}/{source.rstrip('/').rpartition('/')[2].rpartition(':')[2]}")
    if names & _DELETES:
        run.recursive = True
        _end(run, target, "delete")


def _host(place: str) -> str | None:
    if place.startswith("rsync://"):
        return place[8:].partition("/")[0].rpartition("@")[2].partition(":")[0]
    before, colon, _ = place.partition(":")
    return before.rpartition("@")[2] if colon and "/" not in before else None


def _end(run: Run, place: str, verb: str) -> None:
    host = _host(place)
    if host is None and "://" not in place:
        run.path(verb, place)
    else:
        run.add("network", place, detail="upload" if verb == "write" else "", host=host or "")
