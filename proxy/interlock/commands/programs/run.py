"""One evaluation of a program: what its options and operands do, collected in the order of the arguments.

The special programs (special.py) are given one. Must not know the table, nor which of its entries there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from interlock.commands.bounds import EFFECTS, TooMany
from interlock.commands.model import Effect, Stdin
from interlock.commands.programs.options import Operand, Option, Problem
from interlock.commands.programs.path_effects import path_effects, touching
from interlock.commands.programs.paths import Sensitive, resolved
from interlock.commands.programs.place import Place
from interlock.commands.programs.schema import PATH_VERBS, Program, Spec, Specs


@dataclass(slots=True)
class Outcome:
    """What was found so far. `opaque` holds (reason, text) pairs."""

    effects: list[Effect] = field(default_factory=list)
    opaque: list[tuple[str, str]] = field(default_factory=list)
    stdin: Stdin = Stdin.IGNORED


class Run:
    """An argument list at work, and what was found so far."""

    def __init__(self, sensitive: Sensitive, program: Program, argv: Sequence[str], place: Place) -> None:
        self.sensitive = sensitive
        self.argv = list(argv)
        self.place = place
        self.name = program.name
        self.recursive = program.always_recursive
        self.force = False
        self.outcome = Outcome(stdin=program.stdin)
        self._found: set[Effect] = set()
        self._placed: set[tuple[str, str, bool, bool]] = set()

    def finish(self) -> Outcome:
        if not self.outcome.effects:
            # Options without an operand may act on everything (`pkill -u bob`, `mount -a`): no effect is not "harmless".
            if not self.outcome.opaque:
                self.opaque("unknown-operand", " ".join(self.argv)[:200])
            self.add("execute", self.name)
        return self.outcome

    def is_help(self, first: int) -> bool:
        return self.argv[first:] in (["--help"], ["--version"])

    def walk(self, program: Program, items: Sequence[Option | Operand | Problem]) -> None:
        """Apply options, then operands."""
        if self.is_help(1) and program.grammar.long:
            self.add("read", "arguments")
            return
        self.options(program, items)
        self.operands(program, [i for i in items if isinstance(i, Operand)], {i.name for i in items if isinstance(i, Option)})

    def options(self, program: Program, items: Iterable[Option | Operand | Problem]) -> None:
        seen = [i for i in items if not isinstance(i, Operand)]
        names = {i.name for i in seen if isinstance(i, Option)}
        self.recursive = self.recursive or bool(names & program.recursive)
        self.force = self.force or bool(names & program.force)
        for item in seen:
            match item:
                case Problem(reason, text):
                    self.opaque(reason, text)
                case Option(name, value):
                    self.specs(program.option_effects.get(name, ()), value if value is not None else "")
                    self._hidden_path(value or "")

    def _hidden_path(self, value: str) -> None:
        """A secret path inside a value that is "no path" is read all the same (`-o go-template-file=/etc/shadow`)."""
        candidates = [value.partition("=")[2]] + ([value.lstrip("@")] if value[:1] in ("/", "@") else [])
        if found := re.match(r"[a-z-]+-file=(.+)", value, re.DOTALL):
            self.path("read", found[1])  # kubectl -o jsonpath-file=…, custom-columns-file=…
        for candidate in candidates:
            if candidate and any(self.sensitive.is_secret(p) for p in resolved(candidate, self.place.directories)):
                self.path("read", candidate)

    def operands(self, program: Program, given: Sequence[Operand], options: set[str]) -> None:
        rule = program.operands
        left = [o.value for o in given]
        if not options & program.always_unless:
            self.specs(program.always, "")
        for value in left:
            if rule.secrets and rule.secrets & set(re.split(r"[/,.]", value.lower())):
                self.add("secret", value)
        if program.stdin is Stdin.CODE and ((left and left[0] != "-") or options & program.code_unless):
            self.outcome.stdin = Stdin.DATA  # the code is elsewhere; what comes in is its data
        named = False  # whether an operand named what is read, so that standard input is not
        if rule.first is not None and not options & rule.first_unless and left:
            named = any(spec.verb in PATH_VERBS for spec in rule.first)
            self._operand(program, rule.first, left.pop(0))
        if rule.last is not None and left and not options & rule.last_unless:
            # One operand alone is a source: the target is the working directory.
            target = left.pop() if len(left) > 1 else "."
            self.specs(rule.last, target)
            for source in left:  # when the target is a directory, the source's name decides what is written
                self.specs(rule.last, f"{target}/{source.rstrip('/').rpartition('/')[2]}")
        if left and rule.rest is None:
            self.opaque("unknown-operand", left[0])
            left = []
        for value in left:
            self._operand(program, rule.rest or (), value)
        if not left and not named and program.filter:
            if self.recursive:
                self.path("read", ".")  # grep -r without a file
            else:
                self._stdin()
        if not given and not options & rule.absent_unless:
            self.specs(rule.absent, "")

    def _operand(self, program: Program, specs: Specs, value: str) -> None:
        if value == "-" and program.filter:
            self._stdin()
        else:
            self.specs(specs, value)

    def read(self, path: str) -> None:
        """Read a path, or standard input when it is `-`."""
        if path == "-":
            self._stdin()
        else:
            self.path("read", path)

    def _stdin(self) -> None:
        self.outcome.stdin = Stdin.DATA
        self.add("read", "stdin")

    # -- effects --------------------------------------------------------------------------------------------------

    def specs(self, specs: Specs, value: str) -> None:
        for spec in specs:
            self._spec(spec, value)

    def _spec(self, spec: Spec, value: str) -> None:
        if spec.verb == "opaque":
            self.opaque(spec.detail or "option-runs-code", value)
            return
        if spec.verb in PATH_VERBS and spec.object is not None and (spec.object == "." or spec.object.startswith("/")):
            self.path(spec.verb, spec.object, detail=spec.detail)
        elif spec.object is not None:
            self.add("read" if spec.verb == "list" else spec.verb, spec.object.replace("{}", value), detail=spec.detail)
        elif spec.verb == "read" and value == "-":
            self._stdin()
        elif spec.verb == "output":
            if value != "-":
                self.path("write", value, detail=spec.detail)
        elif spec.verb in PATH_VERBS:
            self._place(spec.verb, value, spec.detail)
        elif spec.verb == "network" and value.lower().startswith("file:"):
            # curl decodes %41, expands {a,b}, and may write (`-w '%output{…}'`): what is read is not certain, so both are said.
            self.path("read", "/" + value[5:].lstrip("/").removeprefix("localhost/"))
            self.add("network", value, detail="local-file")
        elif spec.verb == "network":
            self.network(value, detail=spec.detail)
        else:
            self.add(spec.verb, value, detail=spec.detail)

    def _place(self, verb: str, value: str, detail: str) -> None:
        """A path; or an address where a program takes one for a path (`openssl x509 -in http://…`), as any of them may."""
        if value.lower().startswith("file:"):
            self.path(verb, re.sub(r"\A/{2,}", "/", value[5:]), detail=detail)
        elif re.match(r"https?://|ftp://", value, re.IGNORECASE):
            self.network(value)
        self.path(verb, value, detail=detail)

    def add(self, verb: str, target: str, *, detail: str = "", host: str = "") -> None:
        if target == "{}" and self.place.unknown.issuperset(self.place.items):
            target = ", ".join(self.place.items) or target  # a process or service that only an xargs knows
        base = self.base(detail)
        effect = touching(base, verb, target, detail, False)
        if host and not effect.host:
            effect = replace(effect, host=host)
        self._keep(effect)

    def network(self, target: str, *, detail: str = "") -> None:
        self.add("network", target, detail=detail, host=host_of(target))

    def path(self, verb: str, path: str, *, detail: str = "") -> None:
        if "{}" in path and self.place.items:
            # A word with `{}` stands for every item, however it goes on: once is enough for a thousand such words.
            placed = (verb, detail, self.recursive, self.force)
            if placed in self._placed:
                return
            self._placed.add(placed)
        for effect in path_effects(self.sensitive, verb, path, self.base(detail), self.place, recursive=self.recursive):
            self._keep(effect)

    def _keep(self, effect: Effect) -> None:
        if effect in self._found:
            return
        self._found.add(effect)
        self.outcome.effects.append(effect)
        if len(self._found) > EFFECTS:
            raise TooMany

    def base(self, detail: str = "") -> Effect:
        place = self.place
        program = self.argv[0].rpartition("/")[2]
        return Effect(
            "read", "", program, tuple(self.argv), place.via, place.origin, self.recursive, self.force, place.host, detail=detail
        )

    def opaque(self, reason: str, text: str) -> None:
        self.outcome.opaque.append((reason, text))


def host_of(target: str) -> str:
    """Return the host of a URL or `user@host:path`, as far as it is written there."""
    rest = re.sub(r"\A[A-Za-z][A-Za-z0-9+.-]*:/+", "", target)  # curl takes one slash, or three, for two
    rest = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest.partition(":")[0]
