"""The `interlock` command: one verb a thing people do (interface.md). Verbs load what they need when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock import __version__
from interlock.cli import approvals, principals, serve, sessions
from interlock.cli.explain import explain
from interlock.cli.policy import app as policy
from interlock.cli.verify import verify

app = typer.Typer(
    name="interlock",
    help="One command, one decision, one proof.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold secrets
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"interlock {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Interlock stands between agents and SSH or Postgres targets."""


app.command()(serve.serve)
app.command()(serve.check)
app.command()(serve.init)
app.command(name="ls")(serve.list_targets)
app.command()(serve.whoami)
app.command()(explain)
app.command()(verify)
app.add_typer(approvals.app, name="approvals")
app.add_typer(principals.app, name="principals")
app.add_typer(sessions.app, name="sessions")
app.add_typer(policy, name="policy")


def main() -> None:
    app()
