"""What a push changes in a repository, in words: one line of text, and what it would do.

    git-push /srv/app.git update=refs/heads/main:4b825dc…..9daeafb… delete=refs/tags/old:77d8… option=ci.skip

The text is what is decided, shown, recorded and matched, and the commands that receive-pack gets are made of it again, so
it has exactly one form: what does not read back to itself is refused. Object names say what comes, but not whether it has
what was there in its history, so that a ref is moved counts as done by force. Knows no pkt-line and no policy. Pure.

Spec: gitprotocol-pack(5), "Reference Update Request"; git-check-ref-format(1).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from interlock.commands.bounds import bounded
from interlock.commands.model import Analysis, Effect, Kind, Opaque, Stdin, Unreadable
from interlock.commands.programs.place import Place
from interlock.commands.programs.rules import Rules
from interlock.commands.programs.servers import repositories
from interlock.commands.shell import characters
from interlock.errors import Reason

PARSER = "git-push"
_OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_WORD = re.compile(r"(create|delete|update)=(.+):([0-9a-f]+)(?:\.\.([0-9a-f]+))?", re.DOTALL)
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|\Z)|[/.]\Z")


@dataclass(frozen=True, slots=True)
class RefChange:
    """One command of a push. An object of zeros is none: the ref is made, or deleted."""

    name: str
    old: str
    new: str

    @property
    def kind(self) -> str:
        return "create" if not self.old.strip("0") else "delete" if not self.new.strip("0") else "update"

    @property
    def sound(self) -> bool:
        """Whether git would take it for a command: a ref's name, and two different objects of one kind."""
        objects = _OBJECT.fullmatch(self.old) and _OBJECT.fullmatch(self.new) and len(self.old) == len(self.new)
        return bool(objects) and self.old != self.new and is_ref(self.name)

    @property
    def word(self) -> str:
        objects = {"create": self.new, "delete": self.old}.get(self.kind, f"{self.old}..{self.new}")
        return f"{self.kind}={self.name}:{objects}"


@dataclass(frozen=True, slots=True)
class Push:
    """All commands of one push, and what goes to the hooks of the repository with them (`git push -o`)."""

    repository: str
    changes: tuple[RefChange, ...]
    atomic: bool = False
    shallow: tuple[str, ...] = ()  # commits whose parents the client does not have
    options: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        words = [self.repository, *(change.word for change in self.changes), *(["atomic=yes"] if self.atomic else [])]
        words += [*(f"shallow={one}" for one in self.shallow), *(f"option={one}" for one in self.options)]
        return " ".join(["git-push", *map(shlex.quote, words)]).encode("utf-8", "surrogateescape")


def kind_of(text: str) -> Kind:
    """Return what a text of a transfer is asked as: a push, or an operation on files (`commands.sftp`)."""
    return Kind.PUSH if text.startswith("git-push ") else Kind.FILE


def is_ref(name: str) -> bool:
    """Tell whether git takes a name for that of a ref. `HEAD` and its like are none that a push may change."""
    return name.startswith("refs/") and name.count("/") > 1 and not _NO_REF.search(name)


def parse(text: str) -> Push | None:
    """Read a text back. None for anything that no push has as its text."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    if len(words) < 3 or words[0] != "git-push":
        return None
    kinds: dict[str, list[str]] = {"atomic": [], "shallow": [], "option": []}
    changes: list[RefChange] = []
    for word in words[2:]:
        kind, _, value = word.partition("=")
        if kind in kinds:
            kinds[kind].append(value)
        elif (found := _WORD.fullmatch(word)) is not None:
            changes.append(_change(*found.groups(default="")))
        else:
            return None
    read = Push(words[1], tuple(changes), bool(kinds["atomic"]), tuple(kinds["shallow"]), tuple(kinds["option"]))
    sound = changes and all(c.sound for c in changes) and all(_OBJECT.fullmatch(one) for one in read.shallow)
    return read if sound and read.text == text.encode("utf-8", "surrogateescape") else None


def _change(kind: str, name: str, first: str, second: str) -> RefChange:
    nothing = "0" * len(first)
    return RefChange(name, nothing if kind == "create" else first, nothing if kind == "delete" else second or first)


def analyze_push(text: bytes, rules: Rules) -> Analysis:
    """Say what one push would do. Never raises on any text."""
    decoded = characters.check(text)
    if isinstance(decoded, Unreadable):
        message = decoded.message.replace("the command", "the push")
        return Analysis(unreadable=replace(decoded, message=message, position=None), parser=PARSER)
    push = parse(decoded)
    if push is None:
        return Analysis(unreadable=Unreadable(Reason.SYNTAX_ERROR, "this is no push"), parser=PARSER)
    opaque: tuple[Opaque, ...] = ()
    if any(not one.isascii() for one in (push.repository, *(c.name for c in push.changes))):
        opaque = (Opaque("look-alike", "a name with letters of other scripts", 0, len(text)),)
    effects = dict.fromkeys((*_to_the_repository(push, rules), *_to_refs(push)))
    analysis = Analysis(
        tuple(effects), opaque, sent=None if opaque else decoded, stdin=Stdin.PROTOCOL, statements=len(push.changes),
        parser=PARSER,
    )  # fmt: skip
    return bounded(analysis)


def _base(push: Push) -> Effect:
    return Effect("write", "", "git-receive-pack", ("git-receive-pack", push.repository), ("git",), "push", detail="repository")


def _to_the_repository(push: Push, rules: Rules) -> Iterator[Effect]:
    """Objects are written to it, and its hooks run: both are its own, like those of a commit there."""
    place = Place(via=("git",), origin="push")
    for path in repositories(push.repository)[0]:
        yield from rules.path_effects("write", path, _base(push), place, recursive=True)


def _to_refs(push: Push) -> Iterator[Effect]:
    for change in push.changes:
        verb = "delete" if change.kind == "delete" else "write"
        yield replace(
            _base(push), verb=verb, object=change.name, detail=f"ref-{change.kind}", force=change.kind != "create",
        )  # fmt: skip
    for option in push.options:
        yield replace(_base(push), verb="interpret", object=option, detail="push-option")
