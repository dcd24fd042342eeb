"""File operations in words: one line of text for each, and what it would do.

    sftp get '/var/log/app.log'
    sftp put '/tmp/report.csv' create=yes truncate=yes mode=0644
    sftp rename '/srv/a' '/srv/b' replace=yes resolved=/data/a resolved-to=/data/b
    scp put '/srv/app/config' mode=0644

The text is what is decided, shown, recorded and matched, and the request to the target is made of it again, so it has
exactly one form: what does not read back to itself is refused. Effects are those of the program that does the same to
the same path (`cat`, `tee`, `rm`, `chmod`): a rule on paths holds for both ways. Knows no SFTP packet and no policy. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from interlock.commands.bounds import bounded
from interlock.commands.model import Analysis, Effect, Opaque, Stdin, Unreadable
from interlock.commands.programs.place import Place
from interlock.commands.programs.rules import Rules
from interlock.commands.shell import characters
from interlock.errors import Reason

PARSER = "sftp"
MAX_PATH = 4096
"""Bytes of a path (PATH_MAX of Linux)."""

_PATHS = {
    "get": 1, "put": 1, "append": 1, "ls": 1, "stat": 1, "lstat": 1, "readlink": 1, "realpath": 1, "expand": 1, "statvfs": 1,
    "rm": 1, "rmdir": 1, "mkdir": 1, "rename": 2, "symlink": 2, "hardlink": 2, "setstat": 1, "lsetstat": 1,
}  # fmt: skip
"""How many paths each operation has. Of `symlink` the first is what the link says."""

_PROGRAMS = {"sftp": frozenset(_PATHS), "scp": frozenset({"get", "put", "ls", "mkdir"})}
"""Which operations come by which program. Those of `scp` are the names in its old protocol (ssh/transfers/scp.py)."""

_OPTIONS = ("create", "exclusive", "truncate", "read", "replace", "mode", "owner", "size", "times", "resolved", "resolved-to")
"""In the order in which they stand in the text."""

_VALUES = {
    **dict.fromkeys(("create", "exclusive", "truncate", "read", "replace"), re.compile("yes")),
    "mode": re.compile("[0-7]{4}"), "owner": re.compile("[0-9]{1,10}:[0-9]{1,10}"), "size": re.compile("[0-9]{1,20}"),
    "times": re.compile("[0-9]{1,10},[0-9]{1,10}"),
    **dict.fromkeys(("resolved", "resolved-to"), re.compile("(?s:.+)")),
}  # fmt: skip

_WRITES = frozenset({"put", "append"})
_SET_ID = 0o7000


@dataclass(frozen=True, slots=True)
class FileOperation:
    """One operation on files. `options` is in the order of the text; values are text as shown.

    `resolved` (and `resolved-to`) is where the target says that a path leads, when it leads elsewhere: then the operation
    is done there, and what is decided is the one and the other.
    """

    verb: str
    paths: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    program: str = "sftp"

    def option(self, name: str) -> str:
        return dict(self.options).get(name, "")

    def with_options(self, **values: str) -> FileOperation:
        """Return the operation with these options set; `_` in a name stands for `-`."""
        merged = {**dict(self.options), **{name.replace("_", "-"): value for name, value in values.items() if value}}
        return replace(self, options=tuple((name, merged[name]) for name in _OPTIONS if name in merged))

    @property
    def places(self) -> tuple[str, ...]:
        """The paths that the target is told: where it said that they lead, else as they were asked."""
        places = (self.option("resolved"), self.option("resolved-to"))
        return tuple(place or path for path, place in zip(self.paths, (*places, ""), strict=False))

    @property
    def text(self) -> bytes:
        words = [self.program, self.verb, *map(shlex.quote, self.paths)]
        words += [f"{name}={shlex.quote(value)}" for name, value in self.options]
        return " ".join(words).encode("utf-8", "surrogateescape")


def parse(text: str) -> FileOperation | None:
    """Read a text back. None for anything that no operation has as its text."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    if len(words) < 3 or words[1] not in _PROGRAMS.get(words[0], ()):
        return None
    count = _PATHS[words[1]]
    options = tuple((name, value) for name, sep, value in (word.partition("=") for word in words[2 + count :]) if sep)
    read = FileOperation(words[1], tuple(words[2 : 2 + count]), options, words[0])
    known = [name for name, _ in options]
    ordered = known == [name for name in _OPTIONS if name in known] and all(_VALUES[name].fullmatch(v) for name, v in options)
    return read if ordered and len(read.paths) == count and read.text == text.encode("utf-8", "surrogateescape") else None


def analyze_sftp(text: bytes, rules: Rules) -> Analysis:
    """Say what one operation would do. Never raises on any text."""
    decoded = characters.check(text)
    if isinstance(decoded, Unreadable):
        return Analysis(unreadable=_named(decoded), parser=PARSER)
    operation = parse(decoded)
    if operation is None:
        return Analysis(unreadable=Unreadable(Reason.SYNTAX_ERROR, "this is no file operation"), parser=PARSER)
    if any(not path or len(path.encode()) > MAX_PATH for path in operation.paths):
        return Analysis(unreadable=Unreadable(Reason.TOO_LARGE, f"a path has 1 to {MAX_PATH} bytes"), parser=PARSER)
    effects: dict[Effect, None] = {}
    opaque: dict[Opaque, None] = {}
    place = Place(via=(operation.program,), origin=operation.program)
    for one in _readings(operation):
        for argv in _equivalents(one):
            outcome = rules.evaluate(argv, place)
            effects.update(dict.fromkeys(e for e in outcome.effects if (e.verb, e.object) != ("read", "stdin")))
            opaque.update(dict.fromkeys(Opaque(reason, shown, 0, len(text)) for reason, shown in outcome.opaque))
    analysis = Analysis(
        tuple(effects), tuple(opaque), sent=None if opaque else decoded, parser=PARSER,
        stdin=Stdin.DATA if operation.verb in _WRITES else Stdin.IGNORED,
    )  # fmt: skip
    return bounded(analysis)


def _named(unreadable: Unreadable) -> Unreadable:
    return replace(unreadable, message=unreadable.message.replace("the command", "the path"), position=None)


def _readings(operation: FileOperation) -> Iterator[FileOperation]:
    """The operation as asked, and as it comes out where the target's links lead."""
    yield operation
    if operation.places != operation.paths:
        yield replace(operation, paths=operation.places)


def _equivalents(operation: FileOperation) -> Iterator[list[str]]:
    """Return the programs that do the same."""
    first, last = operation.paths[0], operation.paths[-1]
    match operation.verb:
        case "get":
            yield ["cat", "--", first]
        case "put" | "append":
            yield ["tee", *(["-a"] if operation.verb == "append" else []), "--", first]
            if operation.option("read"):
                yield ["cat", "--", first]
        case "ls" | "stat" | "readlink" | "realpath" | "rm" | "rmdir" | "mkdir":
            yield [operation.verb, "--", first]
        case "lstat" | "statvfs" | "expand":
            yield ["stat", "--", first]
        case "rename":
            yield ["mv", "-T", "-f" if operation.option("replace") else "-n", "--", first, last]
        case "symlink":
            yield ["ln", "-s", "-T", "--", first, last]
        case "hardlink":
            yield ["ln", "-T", "--", first, last]
        case _:
            pass
    yield from _attributes(operation, first)


def _attributes(operation: FileOperation, path: str) -> Iterator[list[str]]:
    mode = operation.option("mode")
    changes = operation.verb in ("setstat", "lsetstat")
    if mode and (changes or int(mode, 8) & _SET_ID):
        yield ["chmod", mode, "--", path]
    if owner := operation.option("owner"):
        yield ["chown", owner, "--", path]
    if size := operation.option("size"):
        yield ["truncate", "-s", size, "--", path]
    if times := operation.option("times"):
        yield ["touch", "-d", f"@{times.partition(',')[0]}", "--", path]
    if changes and not (mode or owner or size or times):
        yield ["stat", "--", path]
