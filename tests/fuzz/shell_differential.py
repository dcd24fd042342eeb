"""What shells execute is among what was predicted, whenever the answer is static; and what would be sent does the same.

For each text with a static answer: bash runs the text; bash, dash and busybox run what would be sent instead of it. Every
argument list that was executed must have been predicted, and both texts must have executed the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fuzz.shell_grammars import BatchGrammars
from fuzz.shell_sandbox import HOME, Argv, Run, Sandbox, Task, ends, safe
from fuzz.shell_strings import NAMES, Strings
from interlock.commands.model import Analysis
from interlock.commands.programs.loader import programs
from interlock.commands.shell.shells import SHELLS
from interlock.commands.shell.wrappers import WRAPPERS

BATCH = 250
_HOLDS_CODE = SHELLS | {"watch"}
"""Programs among whose words is a text that is sent re-rendered: the words differ, what they run may not."""

_BASH_BUILTINS = frozenset("bind builtin history jobs shopt type".split())
"""Builtins of bash that another shell looks for as programs, and does not find: it does less, never more."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A text that ran otherwise than was said."""

    text: str
    shell: str
    sent: str | None
    executed: Run
    expected: tuple[Argv, ...]
    what: str

    def __str__(self) -> str:
        return (
            f"{self.what} in {self.shell}\n  text      {self.text!r}\n  sent      {self.sent!r}\n"
            f"  executed  {list(self.executed)}\n  expected  {list(self.expected)}"
        )


@dataclass(slots=True)
class Tally:
    """What a run did, and what it found."""

    strings: int = 0
    refused: int = 0
    opaque: int = 0
    static: int = 0
    unsafe: int = 0  # static, but not run here
    endless: int = 0  # not run for its loop, or cut short
    ran: int = 0  # static, and at least one program was executed
    executions: int = 0  # texts run, in all shells
    commands: int = 0  # programs executed, in all shells
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name in ("strings", "refused", "opaque", "static", "unsafe", "endless", "ran", "executions", "commands"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.violations += other.violations

    def __str__(self) -> str:
        of = max(1, self.strings)
        return (
            f"{self.strings} strings: {self.static} static ({self.static / of:.1%}), {self.ran} of them ran a program "
            f"({self.ran / of:.1%}), {self.opaque} opaque, {self.refused} refused; {self.unsafe} not run, {self.endless} without "
            f"end; {self.executions} runs in bash, dash and busybox, {self.commands} programs executed; "
            f"{len(self.violations)} violations"
        )


class Differential:
    """Generates, analyses, runs and compares in batches. Close it."""

    def __init__(self, seed: int) -> None:
        self.strings = Strings(seed)
        self.grammars = BatchGrammars()
        self.sandbox = Sandbox({*programs(), *NAMES, *(WRAPPERS - {"eval", "exec", "builtin"})})
        self.tally = Tally()
        self._seen: set[str] = set()

    def close(self) -> None:
        self.sandbox.close()

    def batch(self, size: int = BATCH) -> list[Violation]:
        """Judge that many new texts; return what is wrong with them."""
        texts: list[str] = []
        while len(texts) < size:
            text = self.strings.text()
            if text not in self._seen:
                self._seen.add(text)
                texts.append(text)
        return self.judge(texts)

    def judge(self, texts: Sequence[str]) -> list[Violation]:
        tally = self.tally
        tally.strings += len(texts)
        static: dict[int, tuple[str, Analysis]] = {}
        for key, (text, analysis) in enumerate(zip(texts, self.grammars.analyse(texts), strict=True)):
            if analysis.unreadable is not None:
                tally.refused += 1
            elif analysis.opaque:
                tally.opaque += 1
            else:
                tally.static += 1
                if not (safe(text) and safe(analysis.sent or "")):
                    tally.unsafe += 1
                elif not ends(text):
                    tally.endless += 1
                else:
                    static[key] = text, analysis
        raw = self._run("bash", {key: text for key, (text, _) in static.items()})
        # `time` is a keyword in bash only: no other shell is sent a text that has it.
        candidates = [key for key, (_, analysis) in static.items() if "time " in (analysis.sent or "")]
        elsewhere = self.grammars.analyse([static[key][0] for key in candidates], "unknown")
        timed = {key for key, analysis in zip(candidates, elsewhere, strict=True) if not analysis.static}
        sent = {
            shell: self._run(shell, {key: analysis.sent or "" for key, (_, analysis) in static.items()})
            for shell in ("bash", "dash", "busybox")
        }
        found: list[Violation] = []
        for key, (text, analysis) in static.items():
            if key not in raw:
                tally.endless += 1
                continue
            tally.ran += bool(raw[key])
            for shell, runs in sent.items():
                if shell != "bash" and key in timed:
                    continue
                violation = judge(text, analysis, shell, raw[key], runs.get(key))
                if violation is not None and self._again(violation, analysis):
                    found.append(violation)
                    break
        tally.violations += found
        return found

    def _run(self, shell: str, texts: dict[int, str]) -> dict[int, Run]:
        done = self.sandbox.run(shell, [Task(key, text) for key, text in texts.items()])
        self.tally.executions += len(done)
        self.tally.commands += sum(map(len, done.values()))
        return done

    def _again(self, violation: Violation, analysis: Analysis) -> bool:
        """Tell whether it comes again with the text alone: a `timeout` or a limit of this machine may cut one run short."""
        raw = self.sandbox.run("bash", [Task(0, violation.text)]).get(0)
        sent = self.sandbox.run(violation.shell, [Task(0, violation.sent or "")]).get(0)
        return raw is not None and judge(violation.text, analysis, violation.shell, raw, sent) is not None


def judge(text: str, analysis: Analysis, shell: str, raw: Run, sent: Run | None) -> Violation | None:
    """Compare what was executed with what was predicted. `sent` of None: that run did not end."""
    predicted = {e.argv for e in analysis.effects}
    for argv in raw:
        if _as_written(argv) not in predicted:
            return Violation(text, "bash", analysis.sent, raw, tuple(sorted(predicted)), "executed and not predicted")
    if sent is None:
        return Violation(text, shell, analysis.sent, raw, (), "what is sent does not end")
    for argv in _plain(sent):
        if _as_written(argv) not in predicted:
            return Violation(text, shell, analysis.sent, sent, tuple(sorted(predicted)), "sent, executed and not predicted")
    known = shell == "bash" or _BASH_BUILTINS.isdisjoint(argv[0] for argv in predicted if argv)
    if known and _plain(sent) != _plain(raw):
        return Violation(text, shell, analysis.sent, sent, raw, "what is sent does something else than the text")
    return None


def _plain(run: Run) -> Run:
    return tuple(argv for argv in run if _HOLDS_CODE.isdisjoint(argv))


def _as_written(argv: Argv) -> Argv:
    """Put the tilde back that became the account's home."""
    return tuple("~" + word[len(HOME) :] if word == HOME or word.startswith(HOME + "/") else word for word in argv)
