"""`serve`, `check`, `init`, `ls`, `whoami`: the verbs around the daemon itself."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from interlock.cli.client import Client, find_server
from interlock.cli.kept import Kept
from interlock.cli.options import Format, Server
from interlock.cli.output import Output, columns, data, emit_json, reporting, say
from interlock.clock import SystemClock, system_entropy
from interlock.config import Config, TargetConfig, load
from interlock.errors import AuthenticationError, ConfigError, InterlockError

log = structlog.get_logger()

ConfigFile = Annotated[Path, typer.Option("--config", "-c", envvar="INTERLOCK_CONFIG", help="The configuration file.")]

DEFAULT_CONFIG = Path("/etc/interlock/interlock.yaml")

FIRST_CONFIG = """\
# Interlock. `interlock check` validates this file; docs/configuration.md explains every key.
version: 1
node: {name: gw-1, data_dir: ./data}
listen: {ssh: "127.0.0.1:2222", postgres: "127.0.0.1:6432", http: "127.0.0.1:8443"}
targets: []
#  - {name: web-1, protocol: ssh, address: "10.0.0.5:22", account: deploy, labels: {env: prod},
#     credentials: {kind: key, key: "file:web-1.key"}, host_keys: file:known_hosts}
#  - {name: orders, protocol: postgres, address: "10.0.0.9:5432", database: orders, role: app_ro, labels: {env: prod},
#     tls: verify-full, credentials: {kind: password, from: "env:ORDERS_PW"}}   # or file:PATH, vault:PATH#FIELD
policies: []   # empty: the packs that ship with Interlock
"""


TURN = 0.001
"""Seconds that a thread keeps the interpreter at most while the loop wants it. Sealing works in threads; with Python's own 5 ms
each packet waits so long for its turn, and a transfer beside a seal is ten times slower."""


@reporting
def serve(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the proxy in the foreground. SIGHUP reloads the policies, SIGTERM drains and stops."""
    loaded = load(config)
    _configure_logs()
    os.umask(0o077)
    sys.setswitchinterval(TURN)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(loaded))


async def _serve(config: Config) -> None:
    from interlock.app import Daemon

    daemon = Daemon(config)
    stop = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.get_running_loop().create_task(daemon.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop = asyncio.get_running_loop()
    try:
        addresses = await daemon.start()
    except (InterlockError, OSError):
        raise
    except Exception as error:
        log.exception("interlock.start_failed", error=type(error).__name__)
        raise InterlockError(f"the proxy did not start: {type(error).__name__}; the log line above says where") from None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    for name in daemon.gate.policies.current.observed:
        say(f"observe mode: {name} is recorded and does not count")
    # What is there now stays: half a million objects that every full collection would go through, for half a second, while all
    # sessions wait. What comes and goes is collected as before.
    gc.collect()
    gc.freeze()
    say(f"ready: ssh {addresses.ssh or 'off'}, postgres {addresses.postgres or 'off'}, http {addresses.http or 'off'}")
    try:
        await stop.wait()
    finally:
        await daemon.close()


@reporting
def check(config: ConfigFile = DEFAULT_CONFIG, output: Format = Output.TEXT) -> None:
    """Validate the configuration and its policies, whole, without starting anything."""
    from interlock.policy.lint import unmatched
    from interlock.policy.loader import configured
    from interlock.policy.loader import load as load_policies
    from interlock.policy.question import facts_of

    loaded = load(config)
    files, terms = configured(loaded)
    policies = load_policies(files, terms=terms)
    for target in loaded.targets:
        _check_target(loaded, target)
    warnings = [*policies.warnings, *unmatched(policies.rules, policies.access, list(map(facts_of, loaded.targets)))]
    warnings += [
        f"target {target.name}: unsafe_client_settings is for tests: nothing that is sent there can be known"
        for target in loaded.targets if target.unsafe_client_settings
    ]  # fmt: skip
    if output is Output.JSON:
        counts = {"targets": len(loaded.targets), "rules": len(policies.rules)}
        emit_json({"v": 1, "ok": True, **counts, "policy": policies.digest, "warnings": list(map(str, warnings))})
        return
    say(f"{config}: {len(loaded.targets)} targets, {len(policies.rules)} rules, policy {policies.digest}")
    for warning in warnings:
        say(f"warning: {warning}")


def _check_target(config: Config, target: TargetConfig) -> None:
    """Read what a target rests on, as `serve` does before it starts. Raise ConfigError, TargetError."""
    target.credentials.check(config.base)
    if target.protocol == "ssh":
        from interlock.ssh import credentials
        from interlock.ssh.dialling import host_keys_path, read_host_keys

        read_host_keys(host_keys_path(config, target), target.name)
        credentials.load(config, target, clock=SystemClock(), entropy=system_entropy)


@reporting
def init(config: Annotated[Path, typer.Option("--config", "-c", help="Where to write it.")] = Path("interlock.yaml")) -> None:
    """Write a first configuration. Never overwrites."""
    try:
        with config.open("x") as file:
            file.write(FIRST_CONFIG)
    except FileExistsError:
        raise ConfigError(f"{config} exists; name another place with --config") from None
    say(f"wrote {config}; next: edit its targets, then `interlock serve --config {config}`")


@reporting
def list_targets(server: Server = None, output: Format = Output.TEXT) -> None:
    """List the targets you may open."""
    rows = _client(server).get("/v1/targets")["targets"]
    if output is Output.JSON:
        emit_json({"v": 1, "targets": rows})
        return
    table = [("NAME", "PROTOCOL", "ACCOUNT OR ROLE", "LABELS")]
    for row in rows:
        labels = ", ".join(f"{k}={v}" for k, v in row["labels"].items())
        table.append((row["name"], row["protocol"], row["account"] or row["role"], labels))
    columns(table)


@reporting
def whoami(server: Server = None, output: Format = Output.TEXT) -> None:
    """Say who the daemon takes you for."""
    row: dict[str, Any] = _client(server).get("/v1/whoami")
    if output is Output.JSON:
        emit_json({"v": 1, **row})
        return
    owner = f", owned by {row['owner']}" if row["owner"] else ""
    data.print(f"{row['handle']} ({row['kind']}{owner}) in {', '.join(row['groups']) or 'no groups'}", markup=False)


def _client(server: str | None) -> Client:
    """Speak as INTERLOCK_TOKEN says, or as who is logged in there. Raise AuthenticationError at a URL without either."""
    at = find_server(server)
    given = os.environ.get("INTERLOCK_TOKEN")
    if given:
        return Client(at, token=given)
    try:
        return Client(at, token=Kept(at).session().secret())
    except AuthenticationError:
        if at.startswith(("http://", "https://")):
            raise
        return Client(at)


def _configure_logs() -> None:
    """JSON lines on stderr; the libraries' own logs from warnings up, and asyncssh never with commands in them."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
