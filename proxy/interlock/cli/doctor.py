"""`interlock doctor`: what keeps a part from working, found by trying it, and what to do about it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from interlock.cli.checkup import Finding, People, Status, TeamsCheckup
from interlock.cli.client import Client
from interlock.cli.output import Output, data, emit_json, reporting, say
from interlock.cli.sshcheck import SshCheckup
from interlock.cli.targetcheck import TargetCheckup
from interlock.clock import SystemClock, system_entropy
from interlock.config import Config, load
from interlock.control import SOCKET
from interlock.errors import ConfigError

DEFAULT_CONFIG = Path("/etc/interlock/interlock.yaml")

_MARKS = {Status.OK: "ok", Status.FAILED: "FAILED", Status.SKIPPED: "not tried"}


@reporting
def doctor(
    target: Annotated[str | None, typer.Argument(help="A target of the configuration; absent: all of them.")] = None,
    teams: Annotated[bool, typer.Option("--teams", help="Check everything Microsoft Teams needs.")] = False,
    config: Annotated[
        Path, typer.Option("--config", "-c", envvar="INTERLOCK_CONFIG", help="The configuration file.")
    ] = DEFAULT_CONFIG,
    server: Annotated[
        str | None, typer.Option("--server", envvar="INTERLOCK_SERVER", help="The daemon; absent: the socket in data_dir.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Try every step of a set-up, and say what to do where one fails. Exit 1 when any does."""
    if teams and target is not None:
        raise ConfigError("say what to check: `interlock doctor TARGET` or `interlock doctor --teams`")
    if teams:
        found = {"Teams": asyncio.run(_check_teams(config, lambda loaded: _everybody(loaded, server)))}
    else:
        found = {name: _check_target(config, name) for name in ([target] if target is not None else _targets(config))}
    well = all(finding.status is Status.OK for findings in found.values() for finding in findings)
    if output is Output.JSON:
        checks = [
            {**({"target": name} if not teams else {}), "check": f.step, "status": str(f.status), "detail": f.said, "fix": f.fix}
            for name, findings in found.items() for f in findings
        ]  # fmt: skip
        emit_json({"v": 1, "ok": well, "checks": checks})
    else:
        for name, findings in found.items():
            if len(found) > 1:
                data.print(f"{name}:", markup=False)
            _tell(findings, name)
    raise typer.Exit(0 if well else 1)


def _targets(file: Path) -> list[str]:
    """Return every target's name. Raise ConfigError where there is none to check."""
    names = [target.name for target in load(file).targets]
    if not names:
        raise ConfigError(f"{file} has no targets; write some, or check Teams with `interlock doctor --teams`")
    return names


def _check_target(config: Path, name: str) -> list[Finding]:
    kind = SshCheckup if _is_ssh(config, name) else TargetCheckup
    return asyncio.run(kind(config, name, clock=SystemClock(), entropy=system_entropy).run())


def _is_ssh(file: Path, name: str) -> bool:
    """What can't be loaded is told by the checkup."""
    try:
        target = load(file).target(name)
    except ConfigError:
        return False
    return target is not None and target.protocol == "ssh"


async def _check_teams(config: Path, people: People) -> list[Finding]:
    # The daemon calls out with httpx's own roots; whoever calls in (Teams, a browser) trusts what the system trusts.
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        httpx.AsyncClient(trust_env=False, verify=ssl.create_default_context()) as outside,
    ):
        return await TeamsCheckup(config, http=http, outside=outside, clock=SystemClock(), people=people).run()


def _everybody(config: Config, server: str | None) -> Sequence[Mapping[str, Any]]:
    with closing(Client(server or str(config.path(config.node.data_dir) / SOCKET))) as daemon:
        rows: list[Mapping[str, Any]] = daemon.get("/v1/principals")["principals"]
    return rows


def _tell(findings: Sequence[Finding], what: str) -> None:
    for finding in findings:
        data.print(f"{finding.step:14} {_MARKS[finding.status]:10} {finding.said}", markup=False)
        if finding.fix:
            data.print(f"{'':14} {'':10} → {finding.fix}", markup=False)
    failed = sum(finding.status is not Status.OK for finding in findings)
    say(f"everything {what} needs is there." if not failed else f"{failed} of {len(findings)} steps need you.")
