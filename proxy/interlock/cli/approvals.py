"""`interlock approvals`: the reviewer's terminal. Deciding asks for the passphrase anew (identity.md)."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.cli.asker import UsageError
from interlock.cli.client import Client
from interlock.cli.deciding import Answer, Desk, ask_passphrase, end_of
from interlock.cli.description import describe, safe, table
from interlock.cli.options import Format, PassphraseFile, Server, Token
from interlock.cli.output import Output, columns, data, emit_json, reporting, say
from interlock.cli.signing import AGENT, sign
from interlock.errors import InterlockError, Reason

app = typer.Typer(help="Answer what agents ask.", no_args_is_help=True)

PAGE = 200

Reviewer = Annotated[str, typer.Option("--as", help="Your handle in the directory.", envvar="INTERLOCK_REVIEWER")]
Sign = Annotated[bool, typer.Option("--sign", help="Sign the answer with a key of your own.")]
SigningKey = Annotated[
    str,
    typer.Option("--key", help=f"Key to sign with: a file, `{AGENT}`, or `{AGENT}:SHA256:…`.", envvar="INTERLOCK_SIGNING_KEY"),
]


class Scope(StrEnum):
    ONCE = "once"
    EXACT = "exact"
    RULE_IN_SESSION = "rule_in_session"


@app.command("list")
@reporting
def list_(
    server: Server = None,
    token_file: Token = None,
    state: Annotated[str, typer.Option(help="pending, approved, denied, … or all.")] = "pending",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = PAGE,
    output: Format = Output.TEXT,
) -> None:
    """List requests, newest first."""
    client = connect(server, token_file)
    rows: list[dict[str, Any]] = []
    before = ""
    while len(rows) < limit:
        wanted = {"limit": str(min(PAGE, limit - len(rows))), **({} if state == "all" else {"state": state})}
        page = client.get("/v1/approvals", **wanted, **({"before": before} if before else {}))
        rows += page["approvals"]
        before = page["next"] or ""
        if not before:
            break
    if output is Output.JSON:
        emit_json({"v": 1, "approvals": rows})
        return
    if not rows:
        say("nothing waits." if state == "pending" else "none.")
        return
    columns(table(rows))
    if before:
        say(f"there are more than {limit}; --limit shows more of them")


@app.command()
@reporting
def show(request: str, server: Server = None, token_file: Token = None, output: Format = Output.TEXT) -> None:
    """Show one request whole, with everything that could deceive made visible."""
    row = connect(server, token_file).get(f"/v1/approvals/{request}")
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
    scope: Annotated[Scope, typer.Option(help="How far the approval goes, of what the request offers.")] = Scope.ONCE,
    duration: Annotated[str, typer.Option("--for", help="How long a wider scope lasts, such as 30m.")] = "",
    edit: Annotated[bool, typer.Option("--edit", help="Propose another text instead, in your editor.")] = False,
    edit_file: Annotated[Path | None, typer.Option(help="Propose the text in this file instead.")] = None,
    signed: Sign = False,
    key: SigningKey = "",
    break_glass: Annotated[bool, typer.Option("--break-glass", hidden=True)] = False,
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Approve a request, exactly as shown."""
    if break_glass:
        raise UsageError("breaking the glass takes a passkey, and a terminal has none: open the request's page in the console")
    if edit or edit_file is not None:
        _edit(request, reviewer, server, reason, edit_file, passphrase_file, output)
        return
    answer = Answer("approve", reason, scope, end_of(scope, duration))
    _decide(answer, request, reviewer, server, key if signed or key else None, passphrase_file, output)


@app.command()
@reporting
def deny(
    request: str,
    reviewer: Reviewer,
    server: Server = None,
    reason: Annotated[str, typer.Option(help="Told to the agent.")] = "",
    signed: Sign = False,
    key: SigningKey = "",
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Deny a request; one that is approved and was not run yet, too."""
    _decide(Answer("deny", reason), request, reviewer, server, key if signed else None, passphrase_file, output)


@app.command()
@reporting
def edit(
    request: str,
    reviewer: Reviewer,
    server: Server = None,
    reason: Annotated[str, typer.Option(help="Told to the agent and to the next reviewer.")] = "",
    edit_file: Annotated[Path | None, typer.Option(help="Propose the text in this file, and open no editor.")] = None,
    passphrase_file: PassphraseFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Propose another text. It becomes a request of its own, which somebody else than you must approve."""
    _edit(request, reviewer, server, reason, edit_file, passphrase_file, output)


@app.command()
@reporting
def withdraw(
    request: str,
    server: Server = None,
    token_file: Token = None,
    reason: Annotated[str, typer.Option(help="Kept in the transcript.")] = "",
    output: Format = Output.TEXT,
) -> None:
    """End a request of your own, or any as an administrator."""
    _told(connect(server, token_file).post(f"/v1/approvals/{request}/withdraw", {"reason": reason}), output)


@app.command()
@reporting
def watch(
    server: Server = None,
    token_file: Token = None,
    reviewer: Annotated[str, typer.Option("--as", help="Your handle, to answer from here.", envvar="INTERLOCK_REVIEWER")] = "",
    output: Format = Output.TEXT,
) -> None:
    """The inbox, live: read and answer in a terminal. Without a terminal, print every change as it happens."""
    client = connect(server, token_file)
    drawn = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if output is Output.TEXT and drawn:
        from interlock.cli.inbox.watch import run

        run(client, reviewer)
        return
    try:
        for event in client.events("/v1/events"):
            if event.kind != "approval":
                continue
            if output is Output.JSON:
                sys.stdout.write(json.dumps({"v": 1, **event.json()}) + "\n")
                sys.stdout.flush()
            else:
                row = event.json()
                data.print(
                    safe(f"{row['id']}  {row['state']:<9} {row['principal']} at {row['target']}: {row['first']}"), markup=False
                )
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    raise InterlockError("the daemon ended the stream, so nothing is watched any more", reason=Reason.TARGET_UNREACHABLE)


def connect(server: str | None, token_file: Path | None) -> Client:
    """Return the client of a verb; with a token when one is named."""
    return Client(server, token=token_file.read_text().strip() if token_file is not None else None)


def _decide(
    answer: Answer, request: str, reviewer: str, server: str | None, key: str | None, passphrase_file: Path | None,
    output: Output,
) -> None:  # fmt: skip
    """`key` is None for an answer without a signature, "" for the agent's only key."""
    client = Client(server)
    row = client.get(f"/v1/approvals/{request}")
    _read(row, output)
    if answer.verdict == "approve" and row["critical"] and key is None:
        raise UsageError("this rule asks for a signature of your own: add --sign --key FILE, or sign with a passkey on its page")
    desk = Desk(client, reviewer)
    desk.step_up(ask_passphrase(reviewer, passphrase_file))
    proof = None
    if key is not None:
        nonce = desk.request(request)["nonce"]
        proof = sign({**row, "nonce": nonce}, answer.verdict, answer.scope, answer.valid_until, key or AGENT)
    _told(desk.decide(row, answer, proof), output)


def _edit(
    request: str, reviewer: str, server: str | None, reason: str, file: Path | None, passphrase_file: Path | None, output: Output
) -> None:
    client = Client(server)
    row = client.get(f"/v1/approvals/{request}")
    _read(row, output)
    text = edited(row["text"]) if file is None else file.read_text()
    if "\n" not in row["text"]:
        text = text.rstrip("\n")  # the line end that editors add is not part of a one-line command
    if text == row["text"]:
        raise UsageError("the text is the same, so nothing was proposed")
    desk = Desk(client, reviewer)
    desk.step_up(ask_passphrase(reviewer, passphrase_file))
    made = desk.edit(row, text, reason)
    if output is Output.JSON:
        emit_json({"v": 1, **made})
        return
    say(f"{made['id']} waits in place of {row['id']}; somebody else than you must approve it")


def edited(text: str) -> str:
    """Return what the person's editor makes of a text. Raise UsageError without an editor or a terminal."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command or not sys.stdin.isatty():
        raise UsageError("there is no $VISUAL or $EDITOR, or no terminal for it; use --edit-file")
    with tempfile.NamedTemporaryFile("w+", suffix=".txt", prefix="interlock-", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        done = subprocess.run([*shlex.split(command), file.name], check=False)
        if done.returncode != 0:
            raise UsageError(f"the editor ended with {done.returncode}, so nothing was proposed")
        return Path(file.name).read_text(encoding="utf-8")


def _read(row: dict[str, Any], output: Output) -> None:
    if output is Output.TEXT:
        for line in describe(row):
            say(line)


def _told(answer: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        emit_json({"v": 1, **answer})
    else:
        say(f"{answer['id']} is {answer['state']}")
