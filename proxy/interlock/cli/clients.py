"""`interlock ssh`, `psql`, `tunnel`, `config ssh`: the stock clients, told where the proxy is and who you are.

The client replaces this process, so that its status, its terminal and its signals are its own. A password travels in its
environment, never in an argument.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer

from interlock.cli import certified
from interlock.cli.client import Client, find_server
from interlock.cli.kept import Kept
from interlock.cli.options import Server
from interlock.cli.output import reporting, say
from interlock.errors import InterlockError, NotFoundError, Reason

config = typer.Typer(help="Settings for the clients that you use.", no_args_is_help=True)

Target = Annotated[str, typer.Argument(help="A name that `interlock ls` lists; ACCOUNT@TARGET or TARGET/DATABASE for another.")]
Rest = Annotated[list[str] | None, typer.Argument(help="After --: what the client is given.")]

DOMAIN = "interlock"
"""`ssh web-1.interlock`: what stands in ssh's own configuration."""

_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,254}\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
"""What a daemon may say that becomes a line of ssh's configuration: one that was taken over must not run programs here."""


@reporting
def ssh(target: Target, command: Rest = None, server: Server = None) -> None:
    """Run ssh at a target."""
    kept, about = _ready(server)
    place = _listener(about, "ssh")
    options = [word for name, value in _options(kept) for word in ("-o", f"{name}={_quoted(value)}")]
    _become("ssh", [*options, "-p", str(place["port"]), "-l", target, "--", str(place["host"]), *(command or [])])


@reporting
def psql(target: Target, arguments: Rest = None, server: Server = None) -> None:
    """Run psql at a target."""
    at = find_server(server)
    client = Client(at, token=Kept(at).session().secret())
    place = _listener(client.get("/v1/connect"), "postgres")
    issued = client.post("/v1/password")
    os.environ["PGPASSWORD"] = str(issued["password"])
    words = {"host": place["host"], "port": place["port"], "user": issued["handle"], "dbname": target, "passfile": os.devnull}
    # The password proves the server, too: it is bound to the certificate of exactly this connection (RFC 5929).
    words |= {"sslmode": "require", "channel_binding": "require"} if place["tls"] else {"sslmode": "disable"}
    _become("psql", ["-d", " ".join(f"{name}={_conninfo(str(value))}" for name, value in words.items()), *(arguments or [])])


@reporting
def tunnel(
    target: Target,
    port: Annotated[int, typer.Option("--port", help="Local port; one that is free when left out.")] = 0,
    server: Server = None,
) -> None:
    """Open a local port that leads to a Postgres target, for clients that want an address."""
    from interlock.cli.relay import serve

    at = find_server(server)
    client = Client(at, token=Kept(at).session().secret())
    rows = client.get("/v1/targets")["targets"]
    found = next((row for row in rows if row["name"] == target.partition("/")[0]), None)
    if found is None:
        raise NotFoundError(f"no target {target} is open to you; `interlock ls` lists them")
    if found["protocol"] != "postgres":
        raise InterlockError(f"{target} is reached with `interlock ssh {target}`", reason=Reason.REQUEST_NOT_OFFERED)
    place = _listener(client.get("/v1/connect"), "postgres")
    handle = client.get("/v1/whoami")["handle"]

    def ready(local: int) -> None:
        say(f"postgresql://{handle}@127.0.0.1:{local}/{quote(target, safe='')} until you press Ctrl-C")
        say("the password is what `interlock token` prints")

    serve(port, str(place["host"]), int(place["port"]), ready)


@config.command("ssh")
@reporting
def config_ssh(server: Server = None) -> None:
    """Print what belongs into ~/.ssh/config, so that plain ssh, scp and git know the targets."""
    kept, about = _ready(server)
    place = _listener(about, "ssh")
    rows = Client(kept.server, token=kept.session().secret()).get("/v1/targets")["targets"]
    program = shutil.which("interlock")
    words = _quoted(program) if program is not None else f"{_quoted(sys.executable)} -m interlock"
    lines = [f"# Interlock at {kept.server}, written by `interlock config ssh`"]
    for row in rows:
        if row["protocol"] == "ssh" and _NAME.match(str(row["name"])):
            lines += [f"Host {row['name']}.{DOMAIN}", f"  User {row['name']}"]
    lines += [
        f"Host *.{DOMAIN}", f"  HostName {place['host']}", f"  Port {place['port']}",
        f"  ProxyCommand {words} connect --server {_quoted(kept.server)} %h %p", "  ProxyUseFdpass yes",
        *(f"  {name} {_quoted(value)}" for name, value in _options(kept)),
    ]  # fmt: skip
    sys.stdout.write("\n".join(lines) + "\n")


@reporting
def connect(host: str, port: int, server: Server = None) -> None:
    """For ProxyCommand: connect, and give ssh the connection. Says what to do when you are not logged in."""
    kept = Kept(find_server(server))
    kept.session()
    if not certified.fresh(kept):
        raise InterlockError("your certificate has ended; run `interlock login --renew`", reason=Reason.NOT_AUTHENTICATED)
    try:
        reached = socket.create_connection((host, port), timeout=15)
    except OSError as error:
        raise InterlockError(f"the proxy does not answer at {host}:{port} ({error.strerror})",
                             reason=Reason.TARGET_UNREACHABLE) from None  # fmt: skip
    reached.settimeout(None)
    # ssh_config(5), ProxyUseFdpass: ssh takes the descriptor over and this process is not in between.
    with socket.socket(fileno=os.dup(sys.stdout.fileno())) as ours:
        socket.send_fds(ours, [b"\0"], [reached.fileno()])


def _ready(server: str | None) -> tuple[Kept, dict[str, Any]]:
    """Return what the login left behind, with a certificate that is good for another minute."""
    kept = Kept(find_server(server))
    session = kept.session()
    if not certified.fresh(kept):
        certified.renew(kept, Client(kept.server, token=session.secret()))
    return kept, kept.about()


def _options(kept: Kept) -> list[tuple[str, str]]:
    """Return how ssh proves who we are and knows the proxy: by what the login left behind, and nothing else."""
    return [
        ("IdentityFile", str(kept.key)), ("CertificateFile", str(kept.certificate)), ("IdentitiesOnly", "yes"),
        ("UserKnownHostsFile", str(kept.known_hosts)), ("GlobalKnownHostsFile", os.devnull), ("StrictHostKeyChecking", "yes"),
        ("UpdateHostKeys", "no"),
    ]  # fmt: skip


def _listener(about: dict[str, Any], kind: str) -> dict[str, Any]:
    place = about.get(kind)
    if not isinstance(place, dict):
        raise InterlockError(f"this proxy has no {kind} listener", reason=Reason.REQUEST_NOT_OFFERED)
    if not _HOST.match(str(place.get("host"))) or type(place.get("port")) is not int:
        raise InterlockError(
            f"the daemon says that its {kind} listener is at a place that is none; tell an administrator, do not connect",
            reason=Reason.CONFIG_INVALID,
        )
    return place


def _quoted(value: str) -> str:
    """ssh_config(5): arguments with spaces are quoted. `%` begins a token there, also in our own paths."""
    doubled = value.replace("%", "%%")
    return f'"{doubled}"' if " " in doubled else doubled


def _conninfo(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _become(program: str, arguments: list[str]) -> NoReturn:
    found = shutil.which(program)
    if found is None:
        raise InterlockError(f"{program} is not installed on this machine", reason=Reason.NOT_FOUND)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(found, [program, *arguments])  # noqa: S606  the person's own client, with words of its own
