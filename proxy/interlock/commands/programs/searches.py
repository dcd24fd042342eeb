"""find: starting points, then an expression of tests and actions, some of which write, delete or run.

`-exec` and its like are unwrapped by `shell.wrappers`, not here. Spec: find(1) of GNU findutils 4.9.
"""

from __future__ import annotations

import re

from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

_FIND_FLAGS = frozenset("-H -L -P".split())
_FIND_ALONE = frozenset(
    """-a -and -o -or -not ! ( ) , -true -false -print -print0 -ls -prune -quit -depth -d -daystart -follow -mount -xdev
    -noleaf -ignore_readdir_race -noignore_readdir_race -warn -nowarn -empty -executable -readable -writable -nouser
    -nogroup""".split()
)
_FIND_VALUE = frozenset(
    """-name -iname -path -ipath -wholename -iwholename -lname -ilname -regex -iregex -regextype -type -xtype -size -mtime
    -atime -ctime -mmin -amin -cmin -user -group -uid -gid -perm -maxdepth -mindepth -links -inum -fstype -used -printf
    -context""".split()
)
_FIND_READ = re.compile(r"-(?:samefile|newer|anewer|cnewer|newer[aBcm][aBcmt])\Z")
FIND_EXEC = frozenset("-exec -execdir -ok -okdir".split())


def find_roots(argv: list[str], first: int) -> tuple[list[str], int]:
    """Return the starting points of a find and the index where its expression begins."""
    index = first
    while index < len(argv) and (argv[index] in _FIND_FLAGS or re.fullmatch(r"-O[0-3]", argv[index])):
        index += 1
    roots: list[str] = []
    while index < len(argv) and not argv[index].startswith("-") and argv[index] not in ("(", "!", ","):
        roots.append(argv[index])
        index += 1
    return roots or ["."], index


def find(run: Run, program: Program, first: int) -> None:
    argv = run.argv
    if argv[first:] in (["-version"], ["--version"], ["-help"], ["--help"]):
        run.add("read", "arguments")
        return
    roots, index = find_roots(argv, first)
    run.recursive = True
    for root in roots:
        run.path("list", root)
    while index < len(argv):
        word = argv[index]
        following = argv[index + 1] if index + 1 < len(argv) else None
        if word in _FIND_ALONE:
            index += 1
        elif word == "-delete":
            for root in roots:
                run.path("delete", root)
            index += 1
        elif word in FIND_EXEC:
            while index < len(argv) and argv[index] != ";" and not (argv[index] == "+" and argv[index - 1] == "{}"):
                index += 1
            index += 1
        elif following is not None and (word in _FIND_VALUE or _FIND_READ.match(word)):
            if following in run.place.unknown:
                run.path("read", following)  # which files it looks for is decided when it runs
            index += 2
        elif following is not None and word in ("-fprint", "-fprint0", "-fls"):
            run.path("write", following)
            index += 2
        elif word == "-fprintf" and index + 2 < len(argv):
            run.path("write", argv[index + 1])
            index += 3
        else:
            run.opaque("unknown-option", word)
            return
