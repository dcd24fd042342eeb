"""`interlock ca`: the authority that signs the certificates of logins."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from interlock.cli.client import Client
from interlock.cli.options import Format, Server
from interlock.cli.output import Output, data, emit_json, reporting, say

app = typer.Typer(help="The authority that signs login certificates.", no_args_is_help=True)


@app.command()
@reporting
def show(server: Server = None, output: Format = Output.TEXT) -> None:
    """Show its public key, and earlier ones whose certificates still count."""
    row = Client(server, token=os.environ.get("INTERLOCK_TOKEN")).get("/v1/ca")
    if output is Output.JSON:
        emit_json({"v": 1, **row})
        return
    data.print(row["key"], markup=False)
    for old in row["previous"]:
        say(f"until {old['until']} also {old['key']}")


@app.command()
@reporting
def rotate(
    now: Annotated[bool, typer.Option("--now", help="End every certificate at once: the key may be in other hands.")] = False,
    server: Server = None,
    output: Format = Output.TEXT,
) -> None:
    """Sign with a new key from now on. Certificates of the old one count until they end."""
    row = Client(server, token=os.environ.get("INTERLOCK_TOKEN")).post("/v1/ca/rotate", {"at_once": now})
    if output is Output.JSON:
        emit_json({"v": 1, **row})
        return
    say(f"signing with {row['fingerprint']}" + (f"; {row['ended']} certificates have ended" if now else ""))
