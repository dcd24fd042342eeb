"""test and [: each operator says whether it looks at a file or compares text; numbers are evaluated by some shells.

Spec: POSIX XCU, test; bash manual 6.4.
"""

from __future__ import annotations

import re

from interlock.commands.programs.run import Run
from interlock.commands.programs.schema import Program

_TEST_FILE = frozenset("-a -b -c -d -e -f -g -h -k -p -r -s -u -w -x -G -L -N -O -S".split())
_TEST_TEXT = frozenset("-n -z -t".split())
_TEST_BINARY = frozenset("= == != < > -nt -ot -ef".split())
_TEST_NUMBER = frozenset("-eq -ne -lt -le -gt -ge".split())


def test(run: Run, program: Program, first: int) -> None:
    words = run.argv[first:]
    if run.name == "[":
        if not words or words[-1] != "]":
            run.opaque("unknown-operand", " ".join(words))
            return
        words = words[:-1]
    if risky := [w for w in words if w in ("-v", "-R")]:
        run.opaque("arithmetic", risky[0])  # bash evaluates subscripts in the name that follows
        return
    if not words or all(not w.startswith("-") for w in words):
        run.add("read", "arguments")
    index = 0
    while index < len(words):
        left = len(words) - index
        if words[index] in ("!", "(", ")", "-a", "-o") and not (left == 2 and words[index] == "-a"):
            index += 1
        elif left >= 3 and words[index + 1] in _TEST_BINARY:
            if words[index + 1] in ("-nt", "-ot", "-ef"):
                run.path("list", words[index])
                run.path("list", words[index + 2])
            run.add("read", "arguments")
            index += 3
        elif left >= 3 and words[index + 1] in _TEST_NUMBER:
            run.add("read", "arguments")
            # Shells evaluate arithmetic in these operands: a[$(cmd)] would run.
            for operand in (words[index], words[index + 2]):
                if not re.fullmatch(r"[+-]?[0-9]+", operand):
                    run.opaque("arithmetic", operand)
            index += 3
        elif left >= 2 and words[index] in _TEST_FILE:
            run.path("list", words[index + 1])
            index += 2
        elif left >= 2 and words[index] in _TEST_TEXT:
            run.add("read", "arguments")
            if words[index] == "-t" and not words[index + 1].isdigit():
                run.opaque("arithmetic", words[index + 1])
            index += 2
        elif not words[index].startswith("-"):
            index += 1
        else:
            run.opaque("unknown-option", words[index])
            return
