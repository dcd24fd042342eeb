"""Programs whose arguments are a language of their own: find, test, tar, dd, ps, kill, sed, awk, chmod, cd, date, echo.

Each function takes the run, the entry and the index of the first argument, and adds effects; whatever it does not
recognise is opaque. `find -exec` is unwrapped by `shell.wrappers`, not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from interlock.commands.model import Stdin
from interlock.commands.programs import builtins, filters
from interlock.commands.programs.options import Operand, Option, parse

if TYPE_CHECKING:
    from interlock.commands.programs.rules import _Run
    from interlock.commands.programs.schema import Program

Special = Callable[["_Run", "Program", int], None]

# -- find (GNU findutils) ----------------------------------------------------------------------------------------------

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


def find(run: _Run, program: Program, first: int) -> None:
    argv = run.argv
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


# -- test and [ ---------------------------------------------------------------------------------------------------------

_TEST_FILE = frozenset("-a -b -c -d -e -f -g -h -k -p -r -s -u -w -x -G -L -N -O -S".split())
_TEST_TEXT = frozenset("-n -z -t".split())
_TEST_BINARY = frozenset("= == != < > -nt -ot -ef".split())
_TEST_NUMBER = frozenset("-eq -ne -lt -le -gt -ge".split())


def test(run: _Run, program: Program, first: int) -> None:
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


# -- tar (GNU) ----------------------------------------------------------------------------------------------------------


def tar(run: _Run, program: Program, first: int) -> None:
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


# -- dd, ps, kill -------------------------------------------------------------------------------------------------------

_DD_PLAIN = frozenset("bs ibs obs cbs count skip seek iseek oseek conv iflag oflag status".split())


def dd(run: _Run, program: Program, first: int) -> None:
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


def ps(run: _Run, program: Program, first: int) -> None:
    words = run.argv[first:]
    bundled = [w for w in words if not w.startswith("-")]
    items = parse(words, program.grammar)
    run.options(program, items)
    run.add("read", "process-table")
    for index, word in enumerate(words):
        follows_value = index > 0 and words[index - 1] in program.grammar.values
        if "environ" in word:
            run.add("secret", "process-environment")
        if word in bundled and not follows_value and not re.fullmatch(r"[a-zA-Z]+|[0-9,]+", word):
            run.opaque("unknown-operand", word)
        elif word in bundled and not follows_value and re.fullmatch(r"[a-zA-Z]*e[a-zA-Z]*", word):
            run.add("secret", "process-environment")  # BSD `e` shows the environment of processes


def kill(run: _Run, program: Program, first: int) -> None:
    words = run.argv[first:]
    index = 0
    if words and words[0] in ("-l", "-L", "--list", "--table"):
        run.add("read", "arguments")
        return
    if words and words[0] in ("-s", "-n", "--signal") and len(words) > 1:
        run.force = words[1].upper().removeprefix("SIG") in ("KILL", "9")
        index = 2
    elif words and re.fullmatch(r"-(?:[0-9]+|[A-Za-z][A-Za-z0-9+-]*)", words[0]):
        run.force = words[0][1:].upper().removeprefix("SIG") in ("KILL", "9")
        index = 1
    if index < len(words) and words[index] == "--":
        index += 1
    for word in words[index:]:
        if not re.fullmatch(r"-?[0-9]+", word):
            run.opaque("unknown-operand", word)
        run.add("process", word, detail="all" if word in ("-1", "0") else "")
    if index >= len(words):
        run.opaque("unknown-operand", "kill without a process")


# -- sed and awk: code, but for what filters.py recognises -----------------------------------------------------------------


def sed(run: _Run, program: Program, first: int) -> None:
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
    for operand in operands:
        if operand == "-" and not in_place:
            _reads_stdin(run)
            continue
        run.path("read", operand)
        if in_place:
            run.path("write", operand)
    if not operands:
        _reads_stdin(run)


def awk(run: _Run, program: Program, first: int) -> None:
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


def _names_inside(run: _Run, code: str) -> bool:
    """Whether names that are found when it runs become a part of the code."""
    return (bool(run.place.items) and "{}" in code) or run.place.is_home(code)


def _reads_stdin(run: _Run) -> None:
    run.outcome.stdin = Stdin.DATA
    run.add("read", "stdin")


# -- small ones ---------------------------------------------------------------------------------------------------------


def chmod(run: _Run, program: Program, first: int) -> None:
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


def cd(run: _Run, program: Program, first: int) -> None:
    words = [w for w in run.argv[first:] if w not in ("-P", "-L", "--")]
    if len(words) > 1 or (words and words[0].startswith("-")):
        run.opaque("unknown-option", " ".join(words))
    elif words:
        run.path("list", words[0])
    else:
        run.add("read", "home")


def date(run: _Run, program: Program, first: int) -> None:
    """An operand that is not a format sets the clock."""
    items = parse(run.argv, program.grammar, first=first)
    run.options(program, items)
    run.add("read", "clock")
    for item in items:
        if isinstance(item, Operand) and not item.value.startswith("+"):
            run.add("kernel", item.value, detail="clock")


def echo(run: _Run, program: Program, first: int) -> None:
    run.add("read", "arguments")


_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?\Z")


def printf(run: _Run, program: Program, first: int) -> None:
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


def exit_status(run: _Run, program: Program, first: int) -> None:
    """zsh and mksh evaluate the status as arithmetic."""
    run.add("read", "arguments")
    for word in run.argv[first:]:
        if not re.fullmatch(r"-?[0-9]+", word):
            run.opaque("arithmetic", word)


def jq(run: _Run, program: Program, first: int) -> None:
    """A filter does nothing but read its input, except that `import` and `include` read any file of a directory."""
    items = parse(run.argv, program.grammar, first=first)
    operands = [i.value for i in items if isinstance(i, Operand)]
    if operands:
        run.add("interpret", "jq", detail="filter")
    run.walk(program, items)
    if operands and (_names_inside(run, operands[0]) or re.search(r"(?<![.\w])(?:import|include|modulemeta)\b", operands[0])):
        run.opaque("interpreter-code", operands[0])


SPECIALS: dict[str, Special] = {
    "find": find, "test": test, "tar": tar, "dd": dd, "ps": ps, "kill": kill,
    "sed": sed, "awk": awk, "chmod": chmod, "cd": cd, "echo": echo, "date": date,
    "printf": printf, "exit": exit_status, "jq": jq, "shell-state": builtins.shell_state, "read": builtins.read,
}  # fmt: skip
