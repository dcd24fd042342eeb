"""`interlock principals`: the directory. Secrets come from the terminal or a file, never from the command line."""

from __future__ import annotations

import getpass
import os
import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from interlock.cli.client import Client
from interlock.cli.options import Format, PassphraseFile, Server
from interlock.cli.output import Output, columns, data, emit_json, reporting, say
from interlock.errors import ConfigError

app = typer.Typer(help="Register people, agents and services.", no_args_is_help=True)
tokens = typer.Typer(help="Opaque tokens: an SSH password or API bearer for agents.", no_args_is_help=True)
keys = typer.Typer(help="SSH public keys.", no_args_is_help=True)
app.add_typer(tokens, name="token")
app.add_typer(keys, name="key")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Kind(StrEnum):
    HUMAN = "human"
    AGENT = "agent"
    SERVICE = "service"


Groups = Annotated[list[str] | None, typer.Option("--group", help="May be given several times.")]
KeyFile = Annotated[Path, typer.Argument(help="A .pub file.")]
Teams = Annotated[str | None, typer.Option("--teams", metavar="TENANT/OID", help="Microsoft Entra tenant and object id.")]
Slack = Annotated[str | None, typer.Option("--slack", metavar="TEAM/USER", help="Slack team and user id.")]
Lifetime = Annotated[str | None, typer.Option("--ttl", help="Such as 15m, 8h or 30d.")]
Issuer = Annotated[str | None, typer.Option(help="The issuer of an identity, as in identity.issuers.")]
Subject = Annotated[str | None, typer.Option(help="Its subject (sub).")]
Account = Annotated[str | None, typer.Option(help="Another handle of the same person.")]


@app.command("list")
@reporting
def list_(server: Server = None, output: Format = Output.TEXT) -> None:
    """List everybody."""
    with _daemon(server) as daemon:
        rows = daemon.get("/v1/principals")["principals"]
    if output is Output.JSON:
        emit_json({"v": 1, "principals": rows})
        return
    if not rows:
        say("nobody is registered; begin with `interlock principals add NAME --reviewer`.")
        return
    table = [("HANDLE", "KIND", "OWNER", "GROUPS", "LOGS IN WITH", "STATE")]
    for row in rows:
        means = [
            *(["passphrase"] if row["reviewer"] else []), *([f"{len(row['ssh_keys'])} keys"] if row["ssh_keys"] else []),
            *([f"{len(row['tokens'])} tokens"] if row["tokens"] else []), *(["Teams"] if row["teams"] else []),
            *(["Slack"] if row["slack"] else []), *([f"{len(row['passkeys'])} passkeys"] if row["passkeys"] else []),
        ]  # fmt: skip
        state = "disabled" if row["disabled"] else "active"
        table.append((row["handle"], row["kind"], row["owner"] or "", ", ".join(row["groups"]), ", ".join(means), state))
    columns(table)


@app.command()
@reporting
def show(handle: str, server: Server = None, output: Format = Output.TEXT) -> None:
    """Show one entry: groups, keys, tokens, links."""
    with _daemon(server) as daemon:
        row = daemon.get(_at(handle))
    _tell(row, output)


@app.command()
@reporting
def add(
    handle: str,
    server: Server = None,
    kind: Annotated[Kind, typer.Option(help="A person, an AI agent, or a program that is neither.")] = Kind.HUMAN,
    owner: Annotated[str | None, typer.Option(help="The person who answers for an agent. Required for agents.")] = None,
    group: Groups = None,
    ssh_key: Annotated[list[Path] | None, typer.Option(help="A .pub file. May be given several times.")] = None,
    teams: Teams = None,
    reviewer: Annotated[bool, typer.Option("--reviewer", help="May answer requests: asks for a passphrase.")] = False,
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Register somebody."""
    body: dict[str, Any] = {
        "handle": handle, "kind": str(kind), "owner": owner, "groups": group or [],
        "ssh_keys": [_public_key(path) for path in ssh_key or []], "teams": [teams] if teams else [],
    }  # fmt: skip
    if reviewer or passphrase_file is not None:
        body["passphrase"] = _new_passphrase(handle, passphrase_file)
    with _daemon(server) as daemon:
        row = daemon.post("/v1/principals", body)
    if output is Output.JSON:
        emit_json({"v": 1, **row})
    else:
        say(f"{handle} is registered as {row['identity']}")


@app.command("set")
@reporting
def set_(
    handle: str,
    server: Server = None,
    group: Groups = None,
    no_groups: Annotated[bool, typer.Option("--no-groups", help="Take all groups away.")] = False,
    owner: Annotated[str | None, typer.Option(help="Give an agent to another person.")] = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Stop, or let in again.")] = None,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a new passphrase.")] = False,
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Change somebody. --group replaces all groups."""
    body: dict[str, Any] = {}
    if group or no_groups:
        body["groups"] = group or []
    if owner is not None:
        body["owner"] = owner
    if disable is not None:
        body["disabled"] = disable
    if passphrase or passphrase_file is not None:
        body["passphrase"] = _new_passphrase(handle, passphrase_file)
    if not body:
        raise ConfigError("say what to change: --group, --no-groups, --owner, --disable, --enable or --passphrase")
    with _daemon(server) as daemon:
        row = daemon.patch(_at(handle), body)
    _tell(row, output)


@app.command()
@reporting
def remove(handle: str, server: Server = None) -> None:
    """Take somebody out for ever; live sessions end, and agents that they own stop."""
    with _daemon(server) as daemon:
        daemon.delete(_at(handle))
    say(f"{handle} is removed")


@app.command()
@reporting
def link(
    handle: str,
    server: Server = None,
    teams: Teams = None,
    slack: Slack = None,
    issuer: Issuer = None,
    subject: Subject = None,
    account: Account = None,
    output: Format = Output.TEXT,
) -> None:
    """Say which other accounts are the same person or agent."""
    named = {"teams": teams, "slack": slack, "issuer": issuer, "subject": subject, "account": account}
    body = {name: value for name, value in named.items() if value is not None}
    with _daemon(server) as daemon:
        row = daemon.post(_at(handle, "links"), body)
    _tell(row, output)


@app.command()
@reporting
def unlink(
    handle: str,
    server: Server = None,
    teams: Teams = None,
    slack: Slack = None,
    issuer: Issuer = None,
    subject: Subject = None,
    account: Account = None,
    output: Format = Output.TEXT,
) -> None:
    """Take a link back."""
    named = {"teams": teams, "slack": slack, "issuer": issuer, "subject": subject, "account": account}
    query = urlencode({name: value for name, value in named.items() if value is not None})
    with _daemon(server) as daemon:
        row = daemon.delete(_at(handle, "links") + f"?{query}")
    _tell(row, output)


@app.command()
@reporting
def password(handle: str, server: Server = None, ttl: Lifetime = None, output: Format = Output.TEXT) -> None:
    """Issue a short-lived Postgres password. It is shown once."""
    with _daemon(server) as daemon:
        row = daemon.post(_at(handle, "passwords"), _lifetime(ttl))
    _issued(row, "password", output)


@app.command()
@reporting
def passkeys(
    handle: str,
    server: Server = None,
    remove: Annotated[str | None, typer.Option("--remove", metavar="ID", help="Take this passkey back.")] = None,
    output: Format = Output.TEXT,
) -> None:
    """List a person's passkeys, or take one back. Only the person itself adds one, in the console."""
    with _daemon(server) as daemon:
        row = daemon.get(_at(handle)) if remove is None else daemon.delete(_at(handle, "passkeys", remove))
    if output is Output.JSON:
        emit_json({"v": 1, "handle": row["handle"], "passkeys": row["passkeys"]})
        return
    if remove is not None:
        say("the passkey is taken back")
    if not row["passkeys"]:
        say(f"{handle} has no passkey; registering one is at /console/passkeys, for {handle} alone")
    for passkey in row["passkeys"]:
        data.print(_passkey(passkey), markup=False)


@app.command()
@reporting
def confirm(
    handle: str,
    admin: Annotated[str, typer.Option("--as", metavar="ADMIN", help="Your own handle.", envvar="INTERLOCK_REVIEWER")],
    server: Server = None,
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Say, as another administrator, that what a person gained lately is meant: they may answer requests at once."""
    with _daemon(server) as daemon:
        row = daemon.get(_at(handle))
        if output is Output.TEXT:
            for line in _lines(row):
                say(line)
        opened = daemon.post("/v1/step-up", {"handle": admin, "passphrase": _passphrase(admin, passphrase_file)})
        row = daemon.post(_at(handle, "confirm"), {"changed": row["changed"]}, token=opened["token"])
    if output is Output.JSON:
        emit_json({"v": 1, **row})
    else:
        say(f"{handle} is confirmed")


@tokens.command("issue")
@reporting
def issue(handle: str, server: Server = None, ttl: Lifetime = None, output: Format = Output.TEXT) -> None:
    """Issue a token. It is shown once."""
    with _daemon(server) as daemon:
        row = daemon.post(_at(handle, "tokens"), _lifetime(ttl))
    _issued(row, "token", output)


@tokens.command("revoke")
@reporting
def revoke(handle: str, ident: Annotated[str, typer.Argument(metavar="ID")], server: Server = None) -> None:
    """Revoke a token by its id (tok_…). Sessions that it opened end."""
    with _daemon(server) as daemon:
        daemon.delete(_at(handle, "tokens", ident))
    say(f"{ident} is revoked")


@keys.command("add")
@reporting
def add_key(handle: str, file: KeyFile, server: Server = None, output: Format = Output.TEXT) -> None:
    """Register one more SSH public key."""
    with _daemon(server) as daemon:
        row = daemon.patch(_at(handle), {"add_ssh_key": _public_key(file)})
    _tell(row, output)


@keys.command("remove")
@reporting
def remove_key(handle: str, fingerprint: str, server: Server = None, output: Format = Output.TEXT) -> None:
    """Take back a key by its fingerprint (SHA256:…). Sessions that it opened end."""
    with _daemon(server) as daemon:
        row = daemon.patch(_at(handle), {"remove_ssh_key": fingerprint})
    _tell(row, output)


# -- what the verbs share ----------------------------------------------------------------------------------------------


def _daemon(server: str | None) -> closing[Client]:
    return closing(Client(server, token=os.environ.get("INTERLOCK_TOKEN")))


def _at(handle: str, *more: str) -> str:
    return "/".join(["/v1/principals", *(quote(part, safe="") for part in (handle, *more))])


def _tell(row: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        emit_json({"v": 1, **row})
        return
    for line in _lines(row):
        data.print(line, markup=False)


def _passkey(row: dict[str, Any]) -> str:
    return f"{row['id']}  {row['name']}, {row['fingerprint']}, since {row['created']}"


def _lines(row: dict[str, Any]) -> list[str]:
    lines = [f"{row['handle']}  {row['kind']}{'  disabled' if row['disabled'] else ''}", f"  identity  {row['identity']}"]
    lines += [f"  owner     {row['owner']}"] if row["owner"] else []
    lines += [f"  groups    {', '.join(row['groups']) or 'none'}"]
    lines += ["  reviewer  yes, with a passphrase"] if row["reviewer"] else []
    lines += [f"  key       {key['fingerprint']} {key['comment']}".rstrip() for key in row["ssh_keys"]]
    lines += [f"  token     {token['id']} until {token['expires']}" for token in row["tokens"]]
    lines += [f"  teams     {account}" for account in row["teams"]]
    lines += [f"  slack     {account}" for account in row["slack"]]
    lines += [f"  passkey   {_passkey(passkey)}" for passkey in row["passkeys"]]
    if row["kind"] == "human":
        lines.append(f"  changed   {row['changed']}, {'confirmed' if row['confirmed'] else 'not confirmed'}")
    lines += [f"  same as   {other}" for other in row["linked"]]
    return lines


def _issued(row: dict[str, Any], name: str, output: Output) -> None:
    """The secret goes to stdout alone, so that it can be piped; everything about it goes to stderr."""
    if output is Output.JSON:
        emit_json({"v": 1, **row})
        return
    say(f"{name} {row['id']} of {row['handle']}, valid until {row['expires']}; it is not shown again:")
    sys.stdout.write(row[name] + "\n")


def _lifetime(ttl: str | None) -> dict[str, int]:
    if ttl is None:
        return {}
    count, unit = ttl[:-1], ttl[-1:]
    if unit not in UNITS or not count.isdecimal():
        raise ConfigError("write a lifetime as a number and s, m, h or d, such as 15m")
    return {"lifetime": int(count) * UNITS[unit]}


def _public_key(path: Path) -> str:
    """Read a .pub file and check it here: a private key given by mistake never leaves this machine."""
    from interlock.identity import sshkey

    try:
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if len(lines) != 1:
        raise ConfigError(f"{path} must hold one public key; give the .pub file")
    sshkey.parse(lines[0])
    return lines[0]


def _new_passphrase(handle: str, file: Path | None) -> str:
    if file is not None or not sys.stdin.isatty():
        return _passphrase(handle, file)
    first = getpass.getpass(f"passphrase for {handle} (at least 12 characters): ")
    if first != getpass.getpass("again: "):
        raise ConfigError("the two passphrases differ")
    return first


def _passphrase(handle: str, file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask for the passphrase; use --passphrase-file")
    return getpass.getpass(f"passphrase of {handle}: ")
