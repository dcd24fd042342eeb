"""`interlock approvals`: the reviewer's terminal. Deciding asks for the passphrase anew (identity.md)."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.client import Client
from interlock.cli.output import Output, columns, data, emit_json, reporting, say
from interlock.errors import AuthenticationError, Reason

app = typer.Typer(help="Answer what agents ask.", no_args_is_help=True)

Server = Annotated[str | None, typer.Option("--server", help="URL or unix socket of the daemon.", envvar="INTERLOCK_SERVER")]
Format = Annotated[Output, typer.Option("--output", "-o", help="text or json.")]
Reviewer = Annotated[str, typer.Option("--as", help="Your handle in the directory.", envvar="INTERLOCK_REVIEWER")]
PassphraseFile = Annotated[Path | None, typer.Option(help="Read the passphrase from this file instead of the terminal.")]


@app.command("list")
@reporting
def list_(
    server: Server = None,
    state: Annotated[str, typer.Option(help="pending, approved, denied, … or all.")] = "pending",
    output: Format = Output.TEXT,
) -> None:
    """List requests, newest first."""
    rows = Client(server).get("/v1/approvals", **({} if state == "all" else {"state": state}))["approvals"]
    if output is Output.JSON:
        emit_json({"v": 1, "approvals": rows})
        return
    if not rows:
        say("nothing waits." if state == "pending" else "none.")
        return
    header = ("ID", "STATE", "WHO", "TARGET", "RULE", "COMMAND")
    columns(
        [
            header,
            *((r["id"], r["state"], r["principal"], r["target"], r["rule"], _first_line(r["display"]["lines"])) for r in rows),
        ]
    )


@app.command()
@reporting
def show(request: str, server: Server = None, output: Format = Output.TEXT) -> None:
    """Show one request whole, with everything that could deceive made visible."""
    row = Client(server).get(f"/v1/approvals/{request}")
    if output is Output.JSON:
        emit_json({"v": 1, **row})
        return
    for line in describe(row):
        data.print(line, markup=False)


@app.command()
@reporting
def approve(
    request: str,
    reviewer: Reviewer,
    server: Server = None,
    reason: Annotated[str, typer.Option(help="Kept in the transcript.")] = "",
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Approve a request once, exactly as shown."""
    _decide("approve", request, reviewer, server, reason, passphrase_file, output)


@app.command()
@reporting
def deny(
    request: str,
    reviewer: Reviewer,
    server: Server = None,
    reason: Annotated[str, typer.Option(help="Told to the agent.")] = "",
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Deny a request."""
    _decide("deny", request, reviewer, server, reason, passphrase_file, output)


@app.command()
@reporting
def watch(server: Server = None, output: Format = Output.TEXT) -> None:
    """Print every change of a request as it happens, until interrupted."""
    client = Client(server)
    try:
        for line in client.lines("/v1/events"):
            event = json.loads(line)
            if output is Output.JSON:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            else:
                data.print(
                    f"{event['id']}  {event['state']:<9} {event['principal']} at {event['target']}: "
                    f"{_first_line(event['display']['lines'])}",
                    markup=False,
                )
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def describe(row: dict[str, Any]) -> list[str]:
    """Return the lines a reviewer reads before deciding."""
    chain = f" for {', '.join(row['acting_for'])}" if row["acting_for"] else ""
    owner = f" (owned by {row['owner']})" if row["owner"] else ""
    lines = [
        f"request   {row['id']}  {row['state']}",
        f"who       {row['principal']}{chain}{owner}",
        f"target    {row['target']}",
        f"held by   {row['rule']}: {row['reason']}",
        f"expires   {row['expires']}",
        "command",
        *(f"  {number:>4}  {line}" for number, line in enumerate(row["display"]["lines"], 1)),
    ]
    lines += [f"  warning: {deception}" for deception in row["display"]["deceptions"]]
    lines += ["effects", *(f"  - {effect['verb']} {effect['object']}".rstrip() for effect in row["effects"])]
    lines += [f"  - not known: {o['reason']} {o['text']}".rstrip() for o in row["opaque"]]
    for vote in row["votes"]:
        lines.append(f"vote      {vote['verdict']} by {vote['reviewer']} through {vote['channel']} at {vote['at']}")
    return lines


def _decide(
    verdict: str, request: str, reviewer: str, server: str | None, reason: str, passphrase_file: Path | None, output: Output
) -> None:
    client = Client(server)
    row = client.get(f"/v1/approvals/{request}")
    if output is Output.TEXT:
        for line in describe(row):
            say(line)
    opened = client.post("/v1/step-up", {"handle": reviewer, "passphrase": _passphrase(reviewer, passphrase_file)})
    answer = client.post(
        f"/v1/approvals/{request}/decision",
        {"verdict": verdict, "digest": row["digest"], "scope": "once", "reason": reason},
        token=opened["token"],
    )
    if output is Output.JSON:
        emit_json({"v": 1, **answer})
    else:
        say(f"{answer['id']} is {answer['state']}")


def _passphrase(reviewer: str, file: Path | None) -> str:
    if file is not None:
        return file.read_text().rstrip("\n")
    if not sys.stdin.isatty():
        raise AuthenticationError(
            "there is no terminal to ask for the passphrase; use --passphrase-file", reason=Reason.STEP_UP_REQUIRED
        )
    return getpass.getpass(f"passphrase of {reviewer}: ")


def _first_line(lines: list[str]) -> str:
    first = lines[0] if lines else ""
    return first[:77] + "…" if len(first) > 78 or len(lines) > 1 else first
