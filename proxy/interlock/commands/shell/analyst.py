"""A text, its commands, and the texts inside them: what `sh -c`, `eval`, here-documents, cron and psql are given.

effective commands → wrappers, programs → effects → the texts that something inside will read → the same again
"""

from __future__ import annotations

import re
from dataclasses import replace

from interlock.commands.model import Effect, Stdin, Unreadable
from interlock.commands.programs.place import identity
from interlock.commands.programs.rules import Rules
from interlock.commands.shell import characters, queries, reading, rendering
from interlock.commands.shell.asked import Asked
from interlock.commands.shell.carried import carried, scheduled
from interlock.commands.shell.command import Commands
from interlock.commands.shell.dialect import HANDED_ON, POSIX_SHELLS, foreign, reader
from interlock.commands.shell.effective import Blind, Effective, Input, effective, repeats
from interlock.commands.shell.findings import ON_STDIN
from interlock.commands.shell.grammars import Asking
from interlock.commands.shell.inner import Inner
from interlock.commands.shell.shells import SHELLS
from interlock.commands.shell.syntax import Script, Simple, Word
from interlock.commands.shell.wrappers import WRAPPERS, unwrap

MAX_TEXTS = 16
"""Texts parsed for one command (itself and what `sh -c` and others hold)."""

MAX_DEPTH = 8
MAX_COMMANDS = 256

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:@%+,-]+")
"""A word that every shell reads as itself, however often."""

_BUILTINS = frozenset("eval exec builtin command".split())
_PARSES = SHELLS | HANDED_ON | {"eval", "command", "builtin", "watch", "su", "script", "capsh"}
"""What is around a command that a shell finds; other wrappers look for a program."""


class Analyst(Commands):
    """Goes through the text of what is asked, and through all that it holds, within bounds."""

    def __init__(self, rules: Rules, asked: Asked) -> None:
        super().__init__(rules, asked)
        self._texts = 1
        self._commands = 0

    def surroundings(self, text: str, script: Script) -> None:
        """Facts about the account that make the text's meaning uncertain."""
        shell = self.asked.context.shell.rpartition("/")[2]
        if shell not in POSIX_SHELLS:
            self.say("foreign-shell", self.asked.context.shell)
        elif foreign(script, shell):
            self.say("dialect", shell)
        if not self.asked.context.utf8_locale:
            self.say("locale", "the account's locale is not UTF-8")

    # -- scripts --------------------------------------------------------------------------------------------------

    def script(self, script: Script, source: Effective | None, depth: int) -> Asking[None]:
        before = self.directories
        self._detached = self._detached or any(one.background or one.negated for one in script.body)
        self._alone = self._alone and len(script.body) == 1 and isinstance(script.body[0].command, Simple)
        for found in effective(script.body, source):
            if isinstance(found, Blind):
                self.blind(found)
                continue
            self._commands += 1
            if self._commands > MAX_COMMANDS:
                self.say("too-many-commands", "")
                return
            yield from self.command(found, depth)
        if self.directories != before and repeats(script.body):
            # The second round of a loop begins where the first one has gone: paths before the `cd` were read too early.
            self.say("working-directory", "cd in a loop")

    def nested(self, text: str, source: Effective, depth: int) -> Asking[Script | None]:
        """Read a text that a shell inside will parse, and analyse it in the place of `source`."""
        self._texts += 1
        if self._texts > MAX_TEXTS or depth >= MAX_DEPTH:
            self.say("nesting", text)
            return None
        if len(text.encode()) > characters.MAX_CLASSIFIED:
            self.say("too-large-to-classify", "")
            return None
        if (found := characters.deceptive(text)) is not None:
            self.say("deceptive-code", found[0])
            return None
        if not text.strip(" \t\n"):
            return Script(())
        script, blind = yield from reading.read(text)
        if isinstance(script, Unreadable):
            self.say("nested-syntax-error", text)
            return None
        if script is not None and foreign(script, reader(source.via, self.asked.context.shell.rpartition("/")[2])):
            # What is sent would be plain POSIX; but a reviewer approves the text, which such a shell reads otherwise.
            self.say("dialect", text, source)
        outer, self._span = self._span, self._span or (source.start, source.end)
        for one in blind:
            self.blind(one)
        if script is not None:
            yield from self.script(script, source, depth + 1)
        self._span = outer
        return script

    # -- commands -------------------------------------------------------------------------------------------------

    def command(self, found: Effective, depth: int) -> Asking[None]:
        argv = [w.shown for w in found.words]
        self._tildes(found)
        self._redirections(found, argv)
        if not argv:
            return
        place = self._place(found)
        if found.words[0].static is None or not argv[0]:
            if found.words[0].static == "":
                self.say("unknown-program", "''", found)
            self._effect(Effect("execute", argv[0], "", tuple(argv), place.via, place.origin, host=place.host, detail="unknown"))
            self._reads(Stdin.DATA, found)
            return
        self._look_alikes(found, argv)
        name = identity(argv[0])
        if name == "exec" and found.redirections:
            self.say("exec-redirection", " ".join(argv), found)
        if name in _BUILTINS and found.via and found.via[-1] not in _PARSES:
            # `nice eval …` looks for a program of that name: there should be none, and its words would not be read again.
            self.say("unknown-program", name, found)
            name = ""
        if name in WRAPPERS:
            inner = unwrap(name, argv, found.feeder)
        else:
            entry = self.rules.table.get(name or "")
            inner = carried(name or "", argv, entry.grammar if entry is not None else None)
        if inner is None or isinstance(inner, list):
            self._evaluate(argv, place, found)
        if name == "psql" and name in self.rules.table:
            yield from self._queries(argv, found)
        if name == "crontab" and (len(argv) == 1 or argv[-1] == "-"):
            yield from self._crontab(found, depth)
        if name == "cd" and len(argv) > 1:
            self._moved(argv[-1].lstrip("~").lstrip("/") if found.words[-1].home else argv[-1], found)
        for one in inner if isinstance(inner, list) else [inner] if inner is not None else []:
            yield from self._inner(name or argv[0], one, argv, found, depth)

    def _inner(self, name: str, inner: Inner, argv: list[str], found: Effective, depth: int) -> Asking[None]:
        via = (*found.via, name)
        if not inner.name:
            base = Effect("execute", name, name, tuple(argv), found.via, found.origin, host=found.host, detail="wrapper")
            if inner.privilege:
                base = replace(base, verb="privilege", object=inner.privilege, via=via, detail="")
            elif inner.verb:
                base = replace(base, verb=inner.verb, object=inner.object)
            self._effect(base)
        self._of_the_wrapper(inner, argv, via, found)
        for reason, text in inner.opaque:
            self.say(reason, text, found)
        if inner.reads:
            self._reads(Stdin.DATA, found)
        if any(word in ("-execdir", "-okdir") for word in argv) and inner.name == "find":
            self.say("working-directory", "-execdir", found)
        # A `{}` among the starting points is what the `find` around this one finds.
        items = tuple(i for item in inner.items for i in (found.items if item == "{}" and found.items else (item,)))
        below = replace(
            found, via=via, redirections=(), assignments=(), items=items or found.items, feeder=(),
            input=Input.NONE if inner.closed_input else found.input,
        )  # fmt: skip
        if inner.host:
            below = replace(below, host=inner.host, origin="remote")
        here = self.directories
        if inner.host:
            self.directories = ("",)  # where it begins there is not where this account is
        yield from self._below(name, inner, below, found, depth)
        if inner.host:
            self.directories = here

    def _below(self, name: str, inner: Inner, below: Effective, found: Effective, depth: int) -> Asking[None]:
        if inner.argv is not None:
            words = found.words[inner.argv[0] : inner.argv[1]]
            if inner.optional:
                self._without_names([w.shown for w in words], below)
            if inner.mark:
                words = tuple(replace(w, static="{}") if w.static == inner.mark else w for w in words)
            yield from self.command(replace(below, words=(*words, *[Word("{}")] * inner.more)), depth)
        elif inner.script is not None:
            yield from self._code(found.words[inner.script], replace(below, origin=_deeper(below)), depth)
        elif inner.text:
            # A part of a word is sent as it is: nothing around it may be static.
            self.say("option-runs-code", inner.text, found)
            yield from self.nested(inner.text, replace(below, origin=_deeper(below)), depth)
        elif inner.joined is not None:
            yield from self._joined(found.words[inner.joined[0] : inner.joined[1]], replace(below, origin=_deeper(below)), depth)
        elif inner.reads_script:
            yield from self._script_on_stdin(name, below, depth)
        elif inner.opaque:
            self._reads(Stdin.DATA, found)

    # -- texts inside commands ------------------------------------------------------------------------------------

    def _code(self, word: Word, source: Effective, depth: int) -> Asking[None]:
        if word.static is None:
            return  # already said where the word was met
        if "{}" in word.static and source.items:
            self.say("placeholder-in-code", word.static, source)
        script = yield from self.nested(word.static, source, depth)
        self._send_rendered(word, script)

    def _joined(self, words: tuple[Word, ...], source: Effective, depth: int) -> Asking[None]:
        if any(w.static is None for w in words):
            self.say("eval", " ".join(w.shown for w in words), source)
            return
        if source.items and any("{}" in (w.static or "") for w in words):
            self.say("placeholder-in-code", " ".join(w.shown for w in words), source)
        script = yield from self.nested(" ".join(w.static or "" for w in words), source, depth)
        if len(words) == 1:
            self._send_rendered(words[0], script)
        elif script is not None and script.body and not all(_PLAIN_WORD.fullmatch(w.static or "") for w in words):
            # The words are joined and parsed again at the target: only the joined rendering would be what was read.
            self.say("eval", "several words", source)

    def _send_rendered(self, word: Word, script: Script | None) -> None:
        """What a shell inside will parse is re-rendered too, so that its dialect does not matter."""
        if script is None or not script.body:
            return
        try:
            self.replaced[id(word)] = word, rendering.render(script, self.replaced)
        except rendering.NotStaticError as error:
            if not self.opaque:
                self.say("unknown-construct", str(error))

    def _script_on_stdin(self, name: str, found: Effective, depth: int) -> Asking[None]:
        match found.input:
            case Input.TEXT if found.text == ON_STDIN:
                self.say("script-reads-itself", name, found)
            case Input.TEXT:
                self.fed[found.text] += 1
                self.run.add(found.text)
                yield from self._fed(found.text, replace(found, origin="here-doc", input=Input.TEXT), depth)
            case Input.INHERITED:
                self._reads(Stdin.CODE, found)
                if self.asked.stdin is None:
                    self.say("stdin-code", f"{name} reads commands from standard input", found)
                    return
                text = characters.check(self.asked.stdin.data) if self.asked.stdin.data.strip() else ""
                if isinstance(text, Unreadable):
                    self.say("stdin-code", text.message, found)
                    return
                yield from self._fed(text, replace(found, origin="stdin", input=Input.TEXT), depth)
            case Input.PIPE | Input.FILE:
                self.say("stdin-code", f"{name} reads commands that are not known yet", found)
            case Input.NONE:
                pass

    def _fed(self, text: str, source: Effective, depth: int) -> Asking[None]:
        """Commands that a shell reads from its input. The bytes reach it as they are, so its dialect matters."""
        yield from self.nested(text.removesuffix("\n"), replace(source, text=ON_STDIN), depth)

    def _crontab(self, found: Effective, depth: int) -> Asking[None]:
        """What cron would run later, when it is known which text that is."""
        commands, opaque = scheduled(self._input(found) or "")
        for reason, text in opaque:
            self.say(reason, text, found)
        kind = "here-doc" if found.input is Input.TEXT else "stdin"
        here, self.directories = self.directories, ("",)
        for command in commands:
            below = replace(
                found, via=(*found.via, "crontab"), redirections=(), assignments=(), feeder=(), input=Input.NONE,
                origin=kind if found.origin == "direct" else found.origin,
            )  # fmt: skip
            yield from self.nested(command, below, depth)
        self.directories = here

    def _queries(self, argv: list[str], found: Effective) -> Asking[None]:
        """SQL that psql is given. Whatever it does, the command has said already that a person must see it."""
        base = Effect("interpret", "", "psql", tuple(argv), found.via, _deeper(found), host=found.host)
        given = queries.given(argv, self.rules.table["psql"].grammar)
        for text in given.texts:
            if not any(text in (word.static or "") for word in found.words):
                continue  # what stands there is not the text
            if found.items and "{}" in text:
                self.say("placeholder-in-code", text, found)
            yield from self._query(text, base, found, typed=False)
        if given.stdin and (typed := self._input(found)) is not None:
            kind = "here-doc" if found.input is Input.TEXT else "stdin"
            below = replace(base, origin=kind if found.origin == "direct" else found.origin)
            yield from self._query(typed, below, found, typed=True)

    def _query(self, text: str, base: Effect, found: Effective, *, typed: bool) -> Asking[None]:
        if queries.beside(text):
            self._texts += 1
            if self._texts > MAX_TEXTS:
                self.say("nesting", text, found)
                return
        query = yield from queries.read(text, base, typed=typed)
        for effect in query.effects:
            self._effect(effect)
        for reason, part in query.opaque:
            self.say(reason, part, found)
        self.assumed.update(dict.fromkeys(query.assumed))

    def _input(self, found: Effective) -> str | None:
        """Return what a command reads, when that is known."""
        if found.input is Input.TEXT:
            return found.text if found.text != ON_STDIN else None
        if found.input is Input.INHERITED and self.asked.stdin is not None:
            held = characters.check(self.asked.stdin.data) if self.asked.stdin.data.strip() else ""
            return held if isinstance(held, str) else None
        return None


def _deeper(found: Effective) -> str:
    return "wrapper" if found.origin == "direct" else found.origin
