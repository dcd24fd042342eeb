"""One command where it stands: what its words, its redirections and its program do there."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace

from interlock.commands.model import Effect, Stdin
from interlock.commands.programs.pagers import pages
from interlock.commands.programs.place import Place, identity
from interlock.commands.programs.rules import Rules
from interlock.commands.programs.run import Outcome
from interlock.commands.shell.apart import ACCOUNTS
from interlock.commands.shell.asked import Asked
from interlock.commands.shell.effective import Effective, Input
from interlock.commands.shell.findings import Findings
from interlock.commands.shell.inner import Inner
from interlock.commands.shell.wrappers import READ_BY_XARGS, WRAPPERS

MAX_DIRECTORIES = 8

_REDIRECTED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "<": (("read", ""),),
    ">": (("write", ""),),
    ">|": (("write", ""),),
    ">>": (("write", "append"),),
    "<>": (("read", ""), ("write", "")),
}


class Commands(Findings):
    """The part of an analysis that knows where a command is: in which directory, on which machine, behind which wrappers."""

    def __init__(self, rules: Rules, asked: Asked) -> None:
        super().__init__(asked)
        self.rules = rules
        self.directories: tuple[str, ...] = (asked.cwd,)
        self._homes = False  # a `~` was met that stands for the account's home
        self._alone = True

    def _evaluate(self, argv: list[str], place: Place, found: Effective) -> None:
        try:
            outcome = self.rules.evaluate(argv, place)
        except (IndexError, ValueError) as error:
            outcome = Outcome(opaque=[("unknown-option", type(error).__name__)], stdin=Stdin.DATA)
        if self.asked.pty and pages(identity(argv[0]), argv):
            outcome.opaque.append(("pager", argv[0]))
        for effect in outcome.effects:
            self._effect(effect)
        for reason, text in outcome.opaque:
            self.say(reason, text, found)
        if outcome.stdin is Stdin.CODE and found.input is not Input.NONE:
            self.say("stdin-code", f"{argv[0]} reads code from standard input", found)
        self._reads(outcome.stdin, found)

    def _of_the_wrapper(self, inner: Inner, argv: list[str], via: tuple[str, ...], found: Effective) -> None:
        """What it does itself, besides starting something."""
        base = Effect("write", "", via[-1], tuple(argv), via, found.origin, host=found.host)
        for verb, thing, detail in inner.facts:
            self._effect(replace(base, verb=verb, object=thing, detail=detail))
        for path in inner.writes:
            for effect in self.rules.path_effects("write", path, base, self._place(found)):
                self._effect(effect)

    def _without_names(self, argv: list[str], found: Effective) -> None:
        """xargs that reads nothing runs its command once, and some then work on the directory they are in."""
        name = identity(argv[0])
        if name in self.rules.table and name not in WRAPPERS:
            for effect in self.rules.evaluate(argv, self._place(found)).effects:
                if effect.verb != "execute":
                    self._effect(effect)

    def _tildes(self, found: Effective) -> None:
        """`~` is where relative paths begin, unless another account, machine or directory is what they begin at here."""
        words = (*found.words, *(r.target for r in found.redirections if r.target is not None))
        homes = {w.shown for w in words if w.home}
        self._homes = self._homes or bool(homes)
        elsewhere = found.host or self.asked.cwd or not ACCOUNTS.isdisjoint(found.via)
        # A quoted tilde is a name. Which of two equal words an effect is about could not be told any more.
        confused = [w for w in words if not w.home and w.shown.startswith("~") and w.static is not None and self._homes]
        if (homes and elsewhere) or confused:
            self.say("tilde", confused[0].shown if confused else min(homes), found)

    def _place(self, found: Effective) -> Place:
        unknown = frozenset(w.source for w in found.words if w.static is None) | {READ_BY_XARGS}
        return Place(found.via, found.origin, found.host, self.directories, found.items, unknown, self._alone, self._homes)

    def _redirections(self, found: Effective, argv: list[str]) -> None:
        program = argv[0].rpartition("/")[2] if argv else ""
        base = Effect("write", "", program, tuple(argv), found.via, found.origin, host=found.host)
        place = self._place(found)
        for redirection in found.redirections:
            if redirection.target is None or redirection.op in ("<&", ">&", "<<"):
                continue
            path = redirection.target.shown
            if path.startswith(("/dev/tcp/", "/dev/udp/")):
                self._effect(replace(base, verb="network", object=path, host=path.split("/")[3] if path.count("/") > 2 else ""))
                self.say("network-redirection", path, found)
                continue
            for verb, detail in _REDIRECTED.get(redirection.op, ()):
                for effect in self.rules.path_effects(verb, path, replace(base, detail=detail), place):
                    self._effect(effect)

    def _look_alikes(self, found: Effective, argv: list[str]) -> None:
        """Letters of other scripts are fine in arguments, never in a command name or an option."""
        if not argv[0].isascii():
            self.say("look-alike", argv[0], found)
        for word in argv[1:]:
            if not word.isascii() and (
                unicodedata.category(word[0]) == "Pd" or (word.startswith("-") and not word.partition("=")[0].isascii())
            ):
                self.say("look-alike", word, found)

    def _moved(self, path: str, found: Effective) -> None:
        """After a `cd` relative paths may name either place: it may have failed, or have happened in a subshell."""
        moved = [path if path.startswith("/") else f"{d}/{path}" if d else path for d in self.directories]
        self.directories = tuple(dict.fromkeys((*self.directories, *moved)))
        if len(self.directories) > MAX_DIRECTORIES:
            self.say("working-directory", path, found)
            self.directories = self.directories[:MAX_DIRECTORIES]
