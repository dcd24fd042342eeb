"""What was found in one text and in the texts inside it: effects, what stayed opaque, and who reads the standard input."""

from __future__ import annotations

from collections import Counter

from interlock.commands.bounds import EFFECTS, TooMany
from interlock.commands.model import Analysis, Effect, Opaque, Stdin
from interlock.commands.shell import rendering
from interlock.commands.shell.asked import Asked
from interlock.commands.shell.effective import Blind, Effective, Input
from interlock.commands.shell.reading import PARSER
from interlock.commands.shell.syntax import Script, Word

ON_STDIN = "\0script"
"""Stands for the standard input of commands that are themselves read from it."""
_ORDER = (Stdin.IGNORED, Stdin.PROTOCOL, Stdin.DATA, Stdin.CODE)


class Findings:
    """Collects. Must not know commands: what they do is command.py, which texts there are is analyst.py."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.effects: dict[Effect, None] = {}
        self.opaque: dict[Opaque, None] = {}
        self.stdin = Stdin.IGNORED
        self.readers = 0  # commands that read the standard input of the whole
        self.fed: Counter[str] = Counter()  # readers of one here-document
        self.run: set[str] = set()  # here-documents that a shell executes
        self.assumed: dict[str, None] = {}  # names in SQL that were taken for tables of `public`
        self.replaced: dict[int, tuple[Word, str]] = {}
        self._detached = False  # a command of the text runs in the background, or its status is turned round
        self._span: tuple[int, int] | None = None  # where a nested text stands in the outermost one
        self._whole = (0, len(asked.text))

    def analysis(self, script: Script) -> Analysis:
        if self.stdin is Stdin.CODE and self.readers > 1:
            self.say("stdin-shared", "several commands read the same standard input")
        if any(self.fed[text] > 1 for text in self.run):
            # What one leaves of it, another would execute from the middle.
            self.say("stdin-shared", "several commands read the same here-document")
        if not self.effects and not self.opaque:
            self.say("no-command", "")
        sent: str | None = None
        if not self.opaque:
            try:
                sent = rendering.render(script, self.replaced)
            except rendering.NotStaticError as error:
                self.say("unknown-construct", str(error))
        stdin = Stdin.DATA if self.opaque and self.stdin is Stdin.IGNORED and self._unsure() else self.stdin
        return Analysis(
            effects=tuple(self.effects), opaque=tuple(self.opaque), sent=sent, stdin=stdin,
            statements=len(script.body), parser=PARSER, assumed=tuple(self.assumed),
        )  # fmt: skip

    def _unsure(self) -> bool:
        """Whether something opaque could read standard input: everything but words whose program is known."""
        harmless = {"parameter", "glob", "tilde", "brace-expansion", "assignment", "foreign-shell", "locale"}
        return any(o.reason not in harmless for o in self.opaque)

    def _effect(self, effect: Effect) -> None:
        self.effects.setdefault(effect)
        if len(self.effects) > EFFECTS:
            raise TooMany

    def blind(self, found: Blind) -> None:
        start, end = self._span or (found.start, found.end)
        self.opaque.setdefault(Opaque(found.reason, found.text[:400], start, end))

    def say(self, reason: str, text: str, found: Effective | None = None) -> None:
        start, end = self._span or ((found.start, found.end) if found is not None else self._whole)
        self.opaque.setdefault(Opaque(reason, text[:400], start, end))

    def _reads(self, stdin: Stdin, found: Effective) -> None:
        """Note what a command does with its standard input, when that is the input of the whole."""
        if stdin is Stdin.IGNORED:
            return
        if stdin is Stdin.PROTOCOL and (
            self._detached or found.redirections or found.assignments or found.input is not Input.INHERITED
        ):
            self.say("transfer-not-alone", " ".join(w.shown for w in found.words), found)
            stdin = Stdin.DATA
        if found.input is Input.TEXT and found.text == ON_STDIN:
            self.say("script-reads-itself", " ".join(w.shown for w in found.words), found)
        elif found.input is Input.TEXT:
            self.fed[found.text] += 1
        if found.input is Input.INHERITED:
            self.readers += 1
            self.stdin = max(self.stdin, stdin, key=_ORDER.index)
