"""`interlock grants`: what was allowed beyond once, and how to end it."""

from __future__ import annotations

import typer

from interlock.cli.approvals import connect
from interlock.cli.description import safe
from interlock.cli.options import Format, Server, Token
from interlock.cli.output import Output, columns, emit_json, reporting, say

app = typer.Typer(help="See and end what was allowed beyond once.", no_args_is_help=True)


@app.command("list")
@reporting
def list_(server: Server = None, token_file: Token = None, output: Format = Output.TEXT) -> None:
    """List the grants in force."""
    rows = connect(server, token_file).get("/v1/grants")["grants"]
    if output is Output.JSON:
        emit_json({"v": 1, "grants": rows})
        return
    if not rows:
        say("no grant is in force.")
        return
    table: list[tuple[str, ...]] = [("ID", "WHO", "UNTIL", "BY", "COVERS")]
    for row in rows:
        cells = (row["id"], row["principal"], row["valid_until"], ", ".join(row["approved_by"]), row["words"])
        table.append(tuple(map(safe, cells)))
    columns(table)


@app.command()
@reporting
def revoke(grant: str, server: Server = None, token_file: Token = None, output: Format = Output.TEXT) -> None:
    """End a grant now."""
    row = connect(server, token_file).delete(f"/v1/grants/{grant}")
    if output is Output.JSON:
        emit_json({"v": 1, **row})
    else:
        say(f"{row['id']} is {row['state']}")
