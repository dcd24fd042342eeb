"""analyze_shell: bytes of a shell command into an Analysis. A generator that asks the grammars and waits for nothing.

    character gate → shfmt's tree → bash's own reading must equal it → effective commands → wrappers, programs → effects

Closed by construction: whatever is not understood is opaque, and only what has nothing opaque gets a rendering to send.
Knows nothing of policy, people or targets. Spec: commands.md, "Shell".
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from interlock.commands.bounds import EFFECTS, TooMany, bounded, refused
from interlock.commands.model import Analysis, Effect, HeldInput, Opaque, ShellContext, Stdin, Unreadable
from interlock.commands.programs.pagers import pages
from interlock.commands.programs.rules import Outcome, Place, Rules, identity
from interlock.commands.shell import characters, grammars, queries, rendering, tree
from interlock.commands.shell.apart import ACCOUNTS
from interlock.commands.shell.carried import carried, scheduled
from interlock.commands.shell.effective import Blind, Effective, Input, effective, repeats
from interlock.commands.shell.grammars import Asking
from interlock.commands.shell.inner import Inner
from interlock.commands.shell.shells import SHELLS
from interlock.commands.shell.syntax import Redirection, Script, Simple, Word
from interlock.commands.shell.wrappers import READ_BY_XARGS, WRAPPERS, unwrap
from interlock.errors import Reason

PARSER = "shfmt+bash"
MAX_TEXTS = 16
"""Texts parsed for one command (itself and what `sh -c` and others hold)."""

MAX_DEPTH = 8
MAX_COMMANDS = 256
MAX_DIRECTORIES = 8
POSIX_SHELLS = frozenset("unknown posix sh bash dash ash ksh mksh zsh busybox".split())
"""Account shells in which single-quoted words mean what they say. fish, tcsh and whatever else there is do not."""

PLAIN_SHELLS = frozenset("posix sh dash ash busybox".split())
"""Account shells that read forms of bash (`$'…'`, `<<<`, `&>`, `|&`) otherwise than bash does."""

_SCRIPT = "\0script"
"""Stands for the standard input of commands that are themselves read from it."""

_ORDER = (Stdin.IGNORED, Stdin.PROTOCOL, Stdin.DATA, Stdin.CODE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is analysed: the text, and everything besides it that changes the answer."""

    text: bytes
    context: ShellContext = ShellContext()
    stdin: HeldInput | None = None
    cwd: str = ""
    pty: bool = False


def analyze_shell(asked: Asked, rules: Rules) -> Asking[Analysis]:
    """Analyse one command. Never raises on any text."""
    decoded = characters.check(asked.text)
    if isinstance(decoded, Unreadable):
        return Analysis(unreadable=decoded, parser=PARSER)
    if len(asked.text) > characters.MAX_CLASSIFIED:
        return unknown("too-large-to-classify", asked.text)
    script, blind = yield from _read(decoded)
    if isinstance(script, Unreadable):
        return Analysis(unreadable=script, parser=PARSER)
    if script is None:
        return unknown(blind[0].reason if blind else "parser-crash", asked.text)
    analyst = _Analyst(rules, asked)
    for found in blind:
        analyst.blind(found)
    analyst.surroundings(decoded, script)
    try:
        yield from analyst.script(script, None, 0)
    except TooMany:
        return refused(Analysis(parser=PARSER))
    return bounded(analyst.analysis(script))


def unknown(reason: str, text: bytes) -> Analysis:
    """Return the analysis of a text of which nothing could be known: for a human only."""
    shown = text[:200].decode("utf-8", "replace")
    return Analysis(opaque=(Opaque(reason, shown, 0, len(text)),), stdin=Stdin.DATA, parser=PARSER)


def _read(text: str) -> Asking[tuple[Script | Unreadable | None, list[Blind]]]:
    """Read a text with both grammars. No script means that even its structure is not known."""
    source = text.encode()
    parsed = yield from grammars.parsed(source)
    whole = (text[:200], 0, len(source))
    if parsed.failure:
        return None, [Blind(parsed.failure, *whole)]
    if parsed.tree is None:
        return Unreadable(Reason.SYNTAX_ERROR, f"shell syntax: {parsed.error[:200]}", _offset(text, parsed.error)), []
    try:
        script = tree.read(parsed.tree, source)
    except tree.GrammarError as error:
        return Unreadable(Reason.DECEPTIVE_TEXT, str(error), error.offset), []
    except (tree.NestingError, RecursionError):
        return None, [Blind("nesting", *whole)]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, [Blind("unknown-construct", *whole)]
    if not script.body:
        return Unreadable(Reason.EMPTY_COMMAND, "the command holds only comments"), []
    if not _same(script, parsed.printed_tree, parsed.printed):
        return script, [Blind("grammars-disagree", *whole)]
    return script, []


def _same(script: Script, printed_tree: Mapping[str, Any] | None, printed: bytes | None) -> bool:
    if printed_tree is None or printed is None:
        return False
    try:
        return tree.read(printed_tree, printed) == script
    except (tree.NestingError, tree.GrammarError, RecursionError, KeyError, TypeError, ValueError, AttributeError):
        return False


def _offset(text: str, error: str) -> int | None:
    line, _, rest = error.partition(":")
    column = rest.partition(":")[0]
    if not (line.isdigit() and column.isdigit()):
        return None
    lines = text.encode().split(b"\n")
    return sum(len(one) + 1 for one in lines[: int(line) - 1]) + int(column) - 1


class _Analyst:
    """Collects what the commands of one text, and of the texts inside it, would do."""

    def __init__(self, rules: Rules, asked: Asked) -> None:
        self.rules = rules
        self.asked = asked
        self.effects: dict[Effect, None] = {}
        self.opaque: dict[Opaque, None] = {}
        self.stdin = Stdin.IGNORED
        self.readers = 0  # commands that read the standard input of the whole
        self.fed: Counter[str] = Counter()  # readers of one here-document
        self.run: set[str] = set()  # here-documents that a shell executes
        self.assumed: dict[str, None] = {}  # names in SQL that were taken for tables of `public`
        self.directories: tuple[str, ...] = (asked.cwd,)
        self.replaced: dict[int, tuple[Word, str]] = {}
        self._homes = False  # a `~` was met that stands for the account's home
        self._alone = True
        self._detached = False  # a command of the text runs in the background, or its status is turned round
        self._texts = 1
        self._commands = 0
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

    def surroundings(self, text: str, script: Script) -> None:
        """Facts about the account that make the text's meaning uncertain."""
        shell = self.asked.context.shell.rpartition("/")[2]
        if shell not in POSIX_SHELLS:
            self.say("foreign-shell", self.asked.context.shell)
        elif _foreign(script, shell):
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
        script, blind = yield from _read(text)
        if isinstance(script, Unreadable):
            self.say("nested-syntax-error", text)
            return None
        if script is not None and _foreign(script, self._reader(source)):
            # What is sent would be plain POSIX; but a reviewer approves the text, which such a shell reads otherwise.
            self.say("dialect", text, source)
        outer, self._span = self._span, self._span or (source.start, source.end)
        for one in blind:
            self.blind(one)
        if script is not None:
            yield from self.script(script, source, depth + 1)
        self._span = outer
        return script

    def _reader(self, source: Effective) -> str:
        """Return the shell that parses a text at this place: the innermost one around it, or the account's."""
        inside = [name for name in source.via if name in SHELLS or name in _HANDED_ON]
        if inside and inside[-1] == "ssh":
            return "unknown"
        return "sh" if inside and inside[-1] != "bash" else "bash" if inside else self.asked.context.shell.rpartition("/")[2]

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

    def _of_the_wrapper(self, inner: Inner, argv: list[str], via: tuple[str, ...], found: Effective) -> None:
        """What it does itself, besides starting something."""
        base = Effect("write", "", via[-1], tuple(argv), via, found.origin, host=found.host)
        for verb, thing, detail in inner.facts:
            self._effect(replace(base, verb=verb, object=thing, detail=detail))
        for path in inner.writes:
            for effect in self.rules.path_effects("write", path, base, self._place(found)):
                self._effect(effect)

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
            case Input.TEXT if found.text == _SCRIPT:
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
        yield from self.nested(text.removesuffix("\n"), replace(source, text=_SCRIPT), depth)

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

    def _reads(self, stdin: Stdin, found: Effective) -> None:
        """Note what a command does with its standard input, when that is the input of the whole."""
        if stdin is Stdin.IGNORED:
            return
        if stdin is Stdin.PROTOCOL and (
            self._detached or found.redirections or found.assignments or found.input is not Input.INHERITED
        ):
            self.say("transfer-not-alone", " ".join(w.shown for w in found.words), found)
            stdin = Stdin.DATA
        if found.input is Input.TEXT and found.text == _SCRIPT:
            self.say("script-reads-itself", " ".join(w.shown for w in found.words), found)
        elif found.input is Input.TEXT:
            self.fed[found.text] += 1
        if found.input is Input.INHERITED:
            self.readers += 1
            self.stdin = max(self.stdin, stdin, key=_ORDER.index)

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
            return found.text if found.text != _SCRIPT else None
        if found.input is Input.INHERITED and self.asked.stdin is not None:
            held = characters.check(self.asked.stdin.data) if self.asked.stdin.data.strip() else ""
            return held if isinstance(held, str) else None
        return None

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

    # -- what was found -------------------------------------------------------------------------------------------

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


_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:@%+,-]+")
"""A word that every shell reads as itself, however often."""

_BUILTINS = frozenset("eval exec builtin command".split())
_HANDED_ON = frozenset("ssh at batch crontab tar git".split())
"""What hands a text to a shell that is not the account's own: of another machine, or `sh`, later."""

_PARSES = SHELLS | _HANDED_ON | {"eval", "command", "builtin", "watch", "su", "script", "capsh"}
"""What is around a command that a shell finds; other wrappers look for a program."""

_REDIRECTED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "<": (("read", ""),),
    ">": (("write", ""),),
    ">|": (("write", ""),),
    ">>": (("write", "append"),),
    "<>": (("read", ""), ("write", "")),
}


def _foreign(script: Script, shell: str) -> bool:
    """Tell whether the shell may read the script otherwise than bash, or read what is sent instead of it otherwise.

    Written anew, most forms of bash are plain. `time` stays, and where it is no keyword it is a program.
    """
    return (script.dialect and shell in PLAIN_SHELLS) or (script.timed and shell == "unknown")


def _deeper(found: Effective) -> str:
    return "wrapper" if found.origin == "direct" else found.origin


__all__ = ["Asked", "Redirection", "analyze_shell", "unknown"]
