"""`interlock revoke`: the kill switch. What is revoked stays so, on every way in, until somebody lifts it.

Revoking takes authority away, so an administrator's token is enough; lifting gives some back and asks for a passphrase, except on
the daemon's own socket.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.asker import UsageError
from interlock.cli.client import Client
from interlock.cli.deciding import ask_passphrase
from interlock.cli.description import safe
from interlock.cli.options import Format, Server
from interlock.cli.output import Output, columns, emit_json, reporting, say

app = typer.Typer(
    help="Revoke a credential, somebody, an agent, a target or everything, until it is lifted.", no_args_is_help=True
)

Why = Annotated[str, typer.Option("--reason", help="For the record, and for who lists it.")]


@app.command()
@reporting
def credential(
    ident: Annotated[str, typer.Argument(help="A token's or password's id, a key's fingerprint, a JWT's jti.")],
    server: Server = None, reason: Why = "", output: Format = Output.TEXT,
) -> None:  # fmt: skip
    """Revoke one credential, what was made from it, and its sessions."""
    _revoke("credential", ident, server, reason, output)


@app.command()
@reporting
def serial(
    serial: Annotated[str, typer.Argument(help="As `ssh-keygen -L` or the journal shows it: decimal, or 16 hexadecimal digits.")],
    server: Server = None, reason: Why = "", output: Format = Output.TEXT,
) -> None:  # fmt: skip
    """Revoke one SSH certificate, and its sessions."""
    _revoke("credential", _hexadecimal(serial), server, reason, output)


@app.command()
@reporting
def subject(
    identity: Annotated[str, typer.Argument(help="ISSUER:SUBJECT, as `interlock principals show` has it.")],
    server: Server = None, reason: Why = "", output: Format = Output.TEXT,
) -> None:  # fmt: skip
    """Revoke somebody, whoever acts for them, and the agents that they own."""
    _revoke("subject", identity, server, reason, output)


@app.command()
@reporting
def agent(handle: str, server: Server = None, reason: Why = "", output: Format = Output.TEXT) -> None:
    """Revoke an agent or service by its handle, and whoever acts for it."""
    _revoke("agent", handle, server, reason, output)


@app.command()
@reporting
def target(name: str, server: Server = None, reason: Why = "", output: Format = Output.TEXT) -> None:
    """End every session at a target, and let no new one begin."""
    _revoke("target", name, server, reason, output)


@app.command()
@reporting
def everything(server: Server = None, reason: Why = "", output: Format = Output.TEXT) -> None:
    """End every session, and let no new one begin. The API stays open: else nobody could lift it."""
    _revoke("everything", "", server, reason, output)


@app.command("list")
@reporting
def list_(server: Server = None, output: Format = Output.TEXT) -> None:
    """List what is revoked."""
    with _daemon(server) as daemon:
        rows = daemon.get("/v1/revocations")["revocations"]
    if output is Output.JSON:
        emit_json({"v": 1, "revocations": rows})
        return
    if not rows:
        say("nothing is revoked.")
        return
    table: list[tuple[str, ...]] = [("ID", "KIND", "VALUE", "AT", "BY", "REASON")]
    table += [tuple(safe(row[name]) for name in ("id", "kind", "value", "at", "by", "reason")) for row in rows]
    columns(table)


@app.command()
@reporting
def lift(
    ident: Annotated[str, typer.Argument(metavar="ID", help="As `interlock revoke list` shows it: rvk_…")],
    admin: Annotated[
        str | None, typer.Option("--as", metavar="ADMIN", help="Your own handle, over the network.", envvar="INTERLOCK_REVIEWER")
    ] = None,
    server: Server = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="Read the passphrase from a file.")] = None,
    output: Format = Output.TEXT,
) -> None:
    """Take a revocation back. Over the network, your passphrase is asked for."""
    session = None
    with _daemon(server) as daemon:
        if admin is not None:
            opened = daemon.post("/v1/step-up", {"handle": admin, "passphrase": ask_passphrase(admin, passphrase_file)})
            session = opened["token"]
        daemon.delete(f"/v1/revocations/{ident}", token=session)
    if output is Output.JSON:
        emit_json({"v": 1, "id": ident, "state": "lifted"})
    else:
        say(f"{ident} is lifted")


def _revoke(kind: str, value: str, server: str | None, reason: str, output: Output) -> None:
    with _daemon(server) as daemon:
        row: dict[str, Any] = daemon.post("/v1/revocations", {"kind": kind, "value": value, "reason": reason})
    if output is Output.JSON:
        emit_json({"v": 1, **row})
        return
    what = f"{row['kind']} {row['value']}" if row["value"] else row["kind"]
    say(f"revoked: {safe(what)}; `interlock revoke lift {row['id']}` takes it back")


def _hexadecimal(serial: str) -> str:
    """Return a serial as the register has it. Raise UsageError for sixteen digits that may be either."""
    plain = serial.lower()
    if plain.startswith("0x") and len(plain) <= 18 and plain[2:].isalnum():
        return plain[2:].zfill(16)
    if len(plain) == 16 and plain.isdecimal():
        raise UsageError(f"{serial} may be decimal or hexadecimal: write 0x{serial} or 0{serial}")
    return f"{int(plain):016x}" if plain.isascii() and plain.isdecimal() else plain


@contextmanager
def _daemon(server: str | None) -> Iterator[Client]:
    client = Client(server, token=os.environ.get("INTERLOCK_TOKEN"))
    try:
        yield client
    finally:
        client.close()
