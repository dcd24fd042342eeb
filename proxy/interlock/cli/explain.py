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
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.asker import UsageError, find_asker
from interlock.cli.explanation import show
from interlock.cli.output import Output, emit_json, reporting
from interlock.clock import SystemClock
from interlock.config import Config
from interlock.config import load as load_config
from interlock.errors import InterlockError, NotFoundError
from interlock.identity import principal as who
from interlock.policy import packs
from interlock.policy.engine import PolicySet
from interlock.policy.loader import configured
from interlock.policy.loader import load as load_policies
from interlock.policy.model import Target
from interlock.policy.question import EXAMPLES, Question, facts_of, search_path
from interlock.policy.question import answer as asked
from interlock.ports import Classifier

DEFAULT_CONFIG = Path("/etc/interlock/interlock.yaml")
_PROTOCOLS = {"ssh": "ssh", "shell": "ssh", "operation": "ssh", "postgres": "postgres", "sql": "postgres"}
MAX_LINE = 8 << 20


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
    operation: Annotated[
        str | None, typer.Option("--operation", help="A file operation or a push, as the record shows it: sftp put /srv/x")
    ] = None,
    file: File = None,
    as_: As = "agent",
    policy: Policies = None,
    config: ConfigFile = None,
    server: Server = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Say what a command would do, which rule decides, and why. Exit status 0 whatever the decision."""
    if sum(given is not None for given in (shell, sql, operation, file)) != 1:
        raise UsageError("give one of --shell TEXT, --sql TEXT, --operation TEXT or --file FILE")
    configuration = _configuration(config)
    surroundings = Surroundings(configuration, policy or [])
    principal = find_asker(as_, server, configuration)
    if file is not None:
        broken = asyncio.run(_lines(surroundings, principal, target, file))
        raise typer.Exit(1 if broken else 0)
    protocol = "postgres" if sql is not None else "ssh"
    text = _bytes(sql if sql is not None else shell or operation or "")
    question = replace(surroundings.question(text, target, protocol), operation=operation is not None)
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
        return Question(text, facts_of(found), found.shell, search_path(found), id_, has_id)

    def protocol_of(self, name: str | None) -> str | None:
        found = self._config.target(name) if self._config is not None and name is not None else None
        return found.protocol if found is not None else None


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
                question = replace(
                    surroundings.question(_bytes(asked["text"]), target, protocol, id_=id_, has_id=True),
                    operation=asked.get("protocol") == "operation",
                )
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
    now, access = SystemClock().now(), surroundings.configured
    return (await asked(surroundings.policy, principal, question, classify, now, access=access))[1]
