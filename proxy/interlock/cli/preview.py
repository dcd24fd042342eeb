"""`policy preview`: what a policy would make of commands that you have: a shell history, a log of statements.

Says how many would run at once, be asked about or be refused, and why people would be asked, the commonest reason first.
Nothing is run and nothing is sent anywhere.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.asker import UsageError, parse_who
from interlock.cli.explain import classifier
from interlock.cli.explanation import plain
from interlock.cli.options import Format
from interlock.cli.output import Output, columns, data, emit_json, reporting
from interlock.cli.policyfiles import ConfigFile, meant
from interlock.clock import SystemClock
from interlock.commands.model import Analysis
from interlock.policy.engine import PolicySet
from interlock.policy.model import Decision, Verdict
from interlock.policy.question import EXAMPLES, Question, classified, decide

_PROTOCOLS = {"ssh": "ssh", "shell": "ssh", "postgres": "postgres", "sql": "postgres"}
AT_ONCE = 4
"""Texts in the parsers at the same time."""
SHOWN = 25


@dataclass(frozen=True, slots=True)
class Previewed:
    """One command, what is known of it, and what would be decided."""

    text: str
    analysis: Analysis
    decision: Decision
    asking: tuple[str, ...] = ()  # the rules that want a person

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return why a person would be asked: the rules that ask, or what can't be known."""
        if self.decision.verdict is not Verdict.REVIEW or self.asking:
            return self.asking
        unknown = sorted({_unknown(part.reason, part.text) for part in self.analysis.opaque})
        return tuple(unknown) or ("no rule",)


def _unknown(reason: str, text: str) -> str:
    """Name the program or option that is not known: that is what would have to be learnt."""
    named = reason in ("unknown-program", "unknown-subcommand", "unknown-option") and text
    return f"{reason} {text[:40]}" if named else reason


async def preview(policy: PolicySet, texts: Iterable[tuple[str, str]], now: datetime) -> list[Previewed]:
    """Classify and decide (protocol, text) pairs as the data path does, for an agent without groups."""
    places = asyncio.Semaphore(AT_ONCE)
    agent = parse_who("agent")
    asking = {rule.name for rule in policy.rules if rule.verdict is Verdict.REVIEW}
    async with classifier() as classify:

        async def one(protocol: str, text: str) -> Previewed:
            target = EXAMPLES[protocol]
            command = Question(text.encode("utf-8", "surrogatepass"), target).command
            async with places:
                analysis = await classified(classify, command)
            decision = decide(policy, agent, target, command, analysis, now)
            wanted = decision.verdict is Verdict.REVIEW
            return Previewed(text, analysis, decision, tuple(n for n in decision.matched if wanted and n in asking))

        return list(await asyncio.gather(*(one(protocol, text) for protocol, text in texts)))


@dataclass(frozen=True, slots=True)
class Report:
    """The shares of many commands, and why people would be asked."""

    seen: Sequence[Previewed]

    def shares(self) -> dict[str, int]:
        """Return how many are known whole, would run at once, be asked about, be refused by a rule, or can't be read."""
        verdicts = Counter(str(one.decision.verdict) for one in self.seen if one.analysis.unreadable is None)
        return {
            "commands": len(self.seen), "static": sum(one.analysis.static for one in self.seen),
            "allow": verdicts["allow"], "review": verdicts["review"], "deny": verdicts["deny"],
            "reject": sum(one.analysis.unreadable is not None for one in self.seen),
        }  # fmt: skip

    def reasons(self) -> list[tuple[str, int, int]]:
        """Return (reason, commands with it, commands with nothing else), the one that alone holds up most first."""
        with_it: Counter[str] = Counter()
        alone: Counter[str] = Counter()
        for one in self.seen:
            with_it.update(one.reasons)
            if len(one.reasons) == 1:
                alone.update(one.reasons)
        return sorted(((name, count, alone[name]) for name, count in with_it.items()), key=lambda row: (-row[2], -row[1], row[0]))


@reporting
def show_preview(
    file: Annotated[Path, typer.Argument(help='Commands: one a line, or JSON lines {"protocol", "text"}.')],
    policy: Annotated[list[Path] | None, typer.Option("--policy", help="Policy files instead of the configured ones.")] = None,
    config: ConfigFile = None,
    sql: Annotated[bool, typer.Option("--sql", help="Lines without a protocol are SQL.")] = False,
    output: Format = Output.TEXT,
) -> None:
    """Say how many of your commands would run at once, be asked about or be refused, and why. Nothing is run."""
    texts = list(_read(file, "postgres" if sql else "ssh"))
    report = Report(asyncio.run(preview(meant(policy, config), texts, SystemClock().now())))
    if output is Output.JSON:
        emit_json(
            {
                "v": 1, **report.shares(),
                "reasons": [{"reason": name, "commands": count, "alone": alone} for name, count, alone in report.reasons()],
                "answers": [
                    {"text": one.text, "decision": str(one.decision.verdict), "rule": one.decision.rule, "reasons": one.reasons}
                    for one in report.seen
                ],
            }
        )  # fmt: skip
        return
    for line in lines(report):
        data.print(line, markup=False)
    columns([("ASKED BECAUSE OF", "COMMANDS", "AND NOTHING ELSE"), *[(plain(n), c, a) for n, c, a in report.reasons()[:SHOWN]]])


def lines(report: Report) -> Iterator[str]:
    """Yield the shares as people read them."""
    shares = report.shares()
    total = shares["commands"] or 1
    words = {
        "static": "are known whole beforehand", "allow": "would run at once", "review": "would wait for a person",
        "deny": "would be refused by a rule", "reject": "can't be read at all, and would be refused",
    }  # fmt: skip
    yield f"{shares['commands']} commands"
    for name, meaning in words.items():
        yield f"  {name:<7} {shares[name]:>6}  {100 * shares[name] / total:5.1f} %  {meaning}"


def _read(file: Path, protocol: str) -> Iterator[tuple[str, str]]:
    """Yield (protocol, text). Raise UsageError with the line that is wrong."""
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        if not line.startswith('{"'):
            yield protocol, line
            continue
        try:
            row: dict[str, Any] = json.loads(line)
            yield _PROTOCOLS[row.get("protocol", protocol)], str(row["text"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(f'{file}:{number}: a JSON line is {{"protocol": "ssh" or "postgres", "text": "…"}}') from None
