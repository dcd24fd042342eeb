"""`policy simulate`: which recorded decisions another policy would change, before it is put in force (policy.md)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.asker import UsageError
from interlock.cli.explanation import plain
from interlock.cli.options import Format, Server
from interlock.cli.output import Output, columns, data, emit_json, reporting, say
from interlock.cli.policyfiles import ConfigFile, Files, meant
from interlock.cli.sessions import DataDir, Source, open_source
from interlock.clock import SystemClock
from interlock.config import load as load_config
from interlock.control import SOCKET
from interlock.errors import InterlockError, Reason
from interlock.policy.history import REASONS
from interlock.policy.simulation import Change, Simulation

_SINCE = re.compile(r"([1-9]\d{0,4})(m|h|d|w)\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_UNREADABLE = frozenset((Reason.EVIDENCE_INVALID, Reason.EVIDENCE_INCOMPLETE, Reason.EVIDENCE_UNAVAILABLE, Reason.NOT_FOUND))
MAX_TEXT = 100


@reporting
def simulate(
    files: Files = None,
    since: Annotated[str, typer.Option("--since", help="How far back: a number and m, h, d or w.")] = "30d",
    config: ConfigFile = None,
    server: Server = None,
    data_dir: DataDir = None,
    output: Format = Output.TEXT,
) -> None:
    """Decide recorded commands again under this policy and list every decision that would change. Changes nothing."""
    policy = meant(files, config)
    simulation = Simulation(policy, SystemClock().now() - _duration(since))
    source = open_source(server or _socket_of(config), data_dir)
    for session in _sessions(source, simulation.since):
        try:
            simulation.feed((recorded.event, recorded.disclosed) for recorded in source.recorded(session))
        except InterlockError as error:
            if error.code not in _UNREADABLE:
                raise
            simulation.lose()
    if output is Output.JSON:
        emit_json(_json(simulation))
    else:
        _show(simulation)


def _socket_of(config: Path | None) -> str | None:
    """Return the socket of the daemon that a configuration is of."""
    if config is None:
        return None
    loaded = load_config(config)
    return str(loaded.path(loaded.node.data_dir) / SOCKET)


def _duration(text: str) -> timedelta:
    found = _SINCE.match(text)
    if found is None:
        raise UsageError("--since is a number and m, h, d or w, such as 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _sessions(source: Source, since: datetime) -> Iterator[str]:
    """Yield the sessions that may hold something of the time that is meant."""
    for row in source.list():
        closed = row.get("closed")
        if row.get("kind") == "session" and (not closed or datetime.fromisoformat(closed) >= since):
            yield row["id"]


def _json(simulation: Simulation) -> dict[str, Any]:
    return {
        "v": 1, "policy": simulation.policy.digest, "since": simulation.since.isoformat(), "sessions": simulation.sessions,
        "commands": simulation.commands, "same": simulation.same, "other_rule": simulation.other_rule,
        "unknown": dict(simulation.unknown), "changes": [change.to_json() for change in simulation.changes],
    }  # fmt: skip


def _show(simulation: Simulation) -> None:
    if not simulation.sessions:
        say("no sessions were recorded in that time.")
    if simulation.changes:
        columns([("TIMES", "WAS", "WOULD BE", "RULE", "WHO", "TARGET", "COMMAND"), *_rows(simulation.changes)])
        data.print()
    directions = Counter(change.direction for change in simulation.changes)
    detail = ", ".join(f"{count} {direction}" for direction, count in sorted(directions.items()))
    data.print(
        f"{simulation.commands} commands of {simulation.sessions} sessions: {simulation.same} would be answered as they were, "
        f"{len(simulation.changes)} otherwise{f' ({detail})' if detail else ''}"
    )
    for reason, count in simulation.unknown.most_common():
        what = "sessions" if reason == "session-not-readable" else "commands"
        data.print(f"{count} {what} can't be decided again: {REASONS[reason]} ({reason})")


def _rows(changes: list[Change]) -> Iterator[tuple[object, ...]]:
    """Yield one row for commands that are alike, the most frequent first."""
    alike: Counter[tuple[str, ...]] = Counter()
    for change in changes:
        facts = change.past.facts
        text = change.past.text
        shown = plain(text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…")
        would = str(change.would.verdict)
        if change.direction == "asks others" and change.would.review is not None:
            would = "review by " + " and ".join("|".join(need.groups) for need in change.would.review.needs)
        alike[str(change.past.verdict), would, change.would.rule, facts.principal.handle, facts.target.name, shown] += 1
    for (was, would, rule, who, target, text), count in alike.most_common():
        yield count, was, plain(would), rule, plain(who), plain(target), text
