"""`explain`: what a command would do and what would be decided, without sending anything anywhere.

The same classification and the same decision as the data path; only the target is missing. Without a configuration
file it uses the shipped packs and, per protocol, a target labelled env=prod. Spec: interface.md, "explain".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.asker import UsageError, find_asker
from interlock.cli.explanation import show
from interlock.cli.output import Output, emit_json, reporting
from interlock.clock import SystemClock
from interlock.commands.model import Analysis, Command, Kind, ShellContext, SqlContext, Wire
from interlock.config import Config, TargetConfig
from interlock.config import load as load_config
from interlock.errors import SENTENCES, InterlockError, NotFoundError
from interlock.identity import principal as who
from interlock.policy import packs
from interlock.policy.engine import PolicySet
from interlock.policy.loader import configured
from interlock.policy.loader import load as load_policies
from interlock.policy.model import Decision, Facts, SessionFacts, Target, Verdict
from interlock.policy.sentences import why
from interlock.ports import Classifier

DEFAULT_CONFIG = Path("/etc/interlock/interlock.yaml")
EXAMPLES = {
    "ssh": Target("web-1", "ssh", {"env": "prod"}, account="deploy"),
    "postgres": Target("orders", "postgres", {"env": "prod"}, role="app", database="orders"),
}
_PROTOCOLS = {"ssh": "ssh", "shell": "ssh", "postgres": "postgres", "sql": "postgres"}
MAX_LINE = 8 << 20
_RETRIES, _SHORT = 4, 4096


@dataclass(frozen=True, slots=True)
class Question:
    """One command to explain, and where."""

    text: bytes
    target: Target
    shell: str = "bash"
    search_path: tuple[str, ...] = ("public", "pg_temp")
    id: Any = None
    has_id: bool = False

    @property
    def command(self) -> Command:
        if self.target.protocol == "postgres":
            context = SqlContext(search_path=self.search_path, assume_tables=True)
            return Command(Wire.POSTGRES, Kind.QUERY, self.text, context=context)
        return Command(Wire.SSH, Kind.EXEC, self.text, context=ShellContext(self.shell))


TargetName = Annotated[str | None, typer.Option("--target", help="A target of the configuration; absent: one with env=prod.")]
File = Annotated[str | None, typer.Option("--file", help="JSON lines {id, protocol, text}; - is standard input.")]
As = Annotated[str, typer.Option("--as", help="A registered handle, or KIND[/HANDLE][:GROUP,…] for somebody described.")]
Policies = Annotated[list[Path] | None, typer.Option("--policy", help="Policy files instead of the configured ones.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", envvar="INTERLOCK_CONFIG", help="The configuration.")]
Server = Annotated[str | None, typer.Option("--server", envvar="INTERLOCK_SERVER", help="Where --as HANDLE is looked up.")]


@reporting
def explain(
    target: TargetName = None,
    shell: Annotated[str | None, typer.Option("--shell", help="A shell command.")] = None,
    sql: Annotated[str | None, typer.Option("--sql", help="SQL.")] = None,
    file: File = None,
    as_: As = "agent",
    policy: Policies = None,
    config: ConfigFile = None,
    server: Server = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Say what a command would do, which rule decides, and why. Exit status 0 whatever the decision."""
    if sum(given is not None for given in (shell, sql, file)) != 1:
        raise UsageError("give one of --shell TEXT, --sql TEXT or --file FILE")
    configuration = _configuration(config)
    surroundings = Surroundings(configuration, policy or [])
    principal = find_asker(as_, server, configuration)
    if file is not None:
        broken = asyncio.run(_lines(surroundings, principal, target, file))
        raise typer.Exit(1 if broken else 0)
    protocol = "postgres" if sql is not None else "ssh"
    text = _bytes(sql if sql is not None else shell or "")
    question = surroundings.question(text, target, protocol)
    answer = asyncio.run(_one(surroundings, principal, question))
    if output is Output.JSON:
        emit_json(answer)
    else:
        show(text, answer)


def _configuration(path: Path | None) -> Config | None:
    if path is None:
        return load_config(DEFAULT_CONFIG) if DEFAULT_CONFIG.exists() else None
    return load_config(path)


class Surroundings:
    """The policies and targets to explain against."""

    def __init__(self, config: Config | None, policies: list[Path]) -> None:
        self.configured = config is not None
        self._config = config
        files, terms = configured(config) if config is not None else ([packs.shipped()], None)
        self.policy: PolicySet = load_policies(policies or files, terms=terms)

    def question(self, text: bytes, name: str | None, protocol: str, *, id_: Any = None, has_id: bool = False) -> Question:
        """Find the target. Raise NotFoundError or UsageError with what to do instead."""
        configured = self._config.targets if self._config is not None else []
        if name is None or self._config is None:
            example = EXAMPLES[protocol]
            named = example if name is None else Target(
                name, protocol, example.labels, account=example.account, role=example.role, database=example.database
            )  # fmt: skip
            return Question(text, named, id=id_, has_id=has_id)
        found = self._config.target(name)
        if found is None:
            known = ", ".join(t.name for t in configured) or "none"
            raise NotFoundError(f"no target {name!r} in the configuration; there is: {known}")
        if found.protocol != protocol:
            raise UsageError(f"{name} speaks {found.protocol}; give --{'sql' if found.protocol == 'postgres' else 'shell'}")
        return Question(text, facts_of(found), found.shell, _search_path(found), id_, has_id)

    def protocol_of(self, name: str | None) -> str | None:
        found = self._config.target(name) if self._config is not None and name is not None else None
        return found.protocol if found is not None else None


def facts_of(target: TargetConfig) -> Target:
    return Target(target.name, target.protocol, target.labels, account=target.account, role=target.role, database=target.database)


def _search_path(target: TargetConfig) -> tuple[str, ...]:
    return tuple(part.strip().strip('"') for part in target.search_path.split(","))


@asynccontextmanager
async def classifier() -> AsyncIterator[Classifier]:
    """Start the parsers that the data path uses."""
    from interlock.commands.analyzer import Analyzer
    from interlock.commands.pool import ShellPool

    analyzer = Analyzer(ShellPool(workers=os.cpu_count() or 1))
    await analyzer.start()
    try:
        yield analyzer
    finally:
        await analyzer.close()


async def classified(classify: Classifier, command: Command) -> Analysis:
    """Classify as the data path does. A short text that ran out of time is read again: here the answer is about the
    text, not about how busy the machine is at the moment."""
    analysis = classify.classify_now(command) or await classify.classify(command)
    for _ in range(_RETRIES if len(command.text) <= _SHORT else 0):
        if not any(part.reason == "parser-limit" for part in analysis.opaque):
            break
        analysis = await classify.classify(command)
    return analysis


async def _one(surroundings: Surroundings, principal: who.Principal, question: Question) -> dict[str, Any]:
    async with classifier() as classify:
        return await answer(surroundings, principal, question, classify)


async def _lines(surroundings: Surroundings, principal: who.Principal, target: str | None, file: str) -> int:
    """Answer one line each, in order, as they come. Return how many lines could not be read."""
    broken = 0
    async with classifier() as classify:
        for line in _read_lines(file):
            id_: Any = None
            try:
                asked = json.loads(line)
                id_ = asked.get("id") if isinstance(asked, dict) else None
                if not isinstance(asked, dict) or not isinstance(asked.get("text"), str):
                    raise UsageError('a line is an object {"id": …, "protocol": "ssh" or "postgres", "text": "…"}')
                protocol = _PROTOCOLS.get(str(asked.get("protocol") or surroundings.protocol_of(target)))
                if protocol is None:
                    raise UsageError('"protocol" is ssh or postgres')
                question = surroundings.question(_bytes(asked["text"]), target, protocol, id_=id_, has_id=True)
                given = await answer(surroundings, principal, question, classify)
            except (InterlockError, ValueError) as error:
                broken += 1
                given = {"v": 1, "id": id_, "error": str(error)}
            sys.stdout.write(json.dumps(given, ensure_ascii=True) + "\n")
            sys.stdout.flush()
    return broken


def _read_lines(file: str) -> Iterator[str]:
    if file == "-":
        yield from _bounded(sys.stdin)
        return
    try:
        with Path(file).open(encoding="utf-8") as lines:
            yield from _bounded(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}") from None


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if len(line) > MAX_LINE:
            raise UsageError(f"a line of more than {MAX_LINE} characters")
        if line.strip():
            yield line


def _bytes(text: str) -> bytes:
    """Undo how Python and JSON carry bytes that are not UTF-8 (lone surrogates)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


async def answer(
    surroundings: Surroundings, principal: who.Principal, question: Question, classify: Classifier
) -> dict[str, Any]:
    """Classify and decide as the data path does, and return the JSON of interface.md."""
    command = question.command
    analysis = await classified(classify, command)
    now = SystemClock().now()
    decision = decide(surroundings.policy, principal, question.target, command, analysis, now)
    shown = to_json(question, analysis, decision)
    facts = Facts(principal, question.target, command, analysis, SessionFacts(id="explain"), now)
    shown["why"] = why(surroundings.policy, facts, decision)
    if surroundings.configured:
        access = surroundings.policy.may_open(principal, question.target)
        shown["access"] = {"granted": access.granted, "rule": access.rule}
    return shown


def decide(
    policy: PolicySet, principal: who.Principal, target: Target, command: Command, analysis: Analysis, now: datetime
) -> Decision:
    if analysis.unreadable is not None:
        return Decision(
            Verdict.DENY, "interlock/unreadable", analysis.unreadable.message, policy.digest,
            hint=SENTENCES[analysis.unreadable.reason],
        )  # fmt: skip
    return policy.decide(Facts(principal, target, command, analysis, SessionFacts(id="explain"), now))


def to_json(question: Question, analysis: Analysis, decision: Decision) -> dict[str, Any]:
    """Return the stable JSON of `explain` (interface.md); durations in seconds, offsets in bytes."""
    terms = decision.review
    shown: dict[str, Any] = {"v": 1}
    if question.has_id:
        shown["id"] = question.id
    shown |= {
        "protocol": question.target.protocol,
        "target": question.target.name,
        "text_sha256": sha256(question.text).hexdigest(),
        "effects": [effect.to_json() for effect in analysis.effects],
        "opaque": [part.to_json() for part in analysis.opaque],
        "sent": analysis.sent,
        "decision": str(decision.verdict),
        "rule": decision.rule,
        "reason": decision.reason,
        "policy": decision.policy,
        "review": None,
        "hint": decision.hint,
        "matched": list(decision.matched),
        "observed": list(decision.observed),
        "errors": list(decision.errors),
        "assumed": list(analysis.assumed),
        "notes": list(analysis.notes),
        "statements": analysis.statements,
        "stdin": str(analysis.stdin),
        "parser": analysis.parser,
    }
    if terms is not None:
        shown["review"] = {
            "groups": list(terms.all_groups), "quorum": terms.people, "expires": terms.expires, "step_up": str(terms.step_up),
            "needs": [{"groups": list(need.groups), "quorum": need.quorum} for need in terms.needs],
            "hold": terms.hold, "escalate": terms.escalate, "return": terms.returns,
            "risk": str(terms.risk), "scopes": list(terms.scopes),
        }  # fmt: skip
    if analysis.unreadable is not None:
        shown["reason_code"] = str(analysis.unreadable.reason)
    return shown
