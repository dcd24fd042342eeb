"""The `interlock` command: one verb a thing people do (interface.md).

A verb's module is imported when the verb runs, and not before: `interlock approvals list` should not wait for parsers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from interlock import __version__

VERBS: dict[str, tuple[str, str, str]] = {
    "serve": ("serve", "serve", "Run the proxy in the foreground."),
    "check": ("serve", "check", "Validate the configuration and its policies."),
    "init": ("serve", "init", "Write a first configuration."),
    "login": ("login", "login", "Log in, and get a certificate for ssh."),
    "logout": ("login", "logout", "End the login and everything that came from it."),
    "token": ("login", "token", "Print a short-lived Postgres password."),
    "ssh": ("clients", "ssh", "Run ssh at a target."),
    "psql": ("clients", "psql", "Run psql at a target."),
    "tunnel": ("clients", "tunnel", "Open a local port that leads to a target."),
    "config": ("clients", "config", "Print settings for the clients that you use."),
    "connect": ("clients", "connect", "Connect to the proxy, for ssh's ProxyCommand."),
    "ls": ("serve", "list_targets", "List the targets you may open."),
    "whoami": ("serve", "whoami", "Say who the daemon takes you for."),
    "principals": ("principals", "app", "Register people, agents and services."),
    "explain": ("explain", "explain", "Say what a command would do, which rule decides, and why."),
    "approvals": ("approvals", "app", "Answer what agents ask."),
    "grants": ("grants", "app", "See and end what was allowed beyond once."),
    "sessions": ("sessions", "app", "Read what was recorded, and end what is live."),
    "revoke": ("revoke", "app", "Revoke somebody or something, until it is lifted."),
    "ca": ("authority", "app", "Show or rotate the authority of login certificates."),
    "verify": ("verify", "verify", "Check signed transcripts."),
    "policy": ("policy", "app", "Check, test and try policies."),
    "doctor": ("doctor", "doctor", "Try every step of a set-up, and say what to do where one fails."),
    "teams": ("teams", "app", "Prepare Microsoft Teams."),
}
"""Verb → module of this package, name in it (a function or a group of verbs), and the line `--help` shows."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"interlock {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Interlock stands between agents and SSH or Postgres targets."""


def _listed() -> None:
    """Stands in the list of verbs for one that was not asked for, and never runs."""


def build(words: Sequence[str]) -> typer.Typer:
    """Return the command line with the verb among `words` loaded; the others only listed. Completion loads all."""
    app = typer.Typer(
        name="interlock",
        help="One command, one decision, one proof.",
        no_args_is_help=True,
        pretty_exceptions_show_locals=False,  # locals hold secrets
        rich_markup_mode=None,
    )
    app.callback()(_root)
    asked = next((word for word in words if not word.startswith("-")), None)
    everything = "_INTERLOCK_COMPLETE" in os.environ
    for verb, (module, name, line) in VERBS.items():
        if verb != asked and not everything:
            app.command(verb, help=line)(_listed)
            continue
        found = getattr(import_module(f"interlock.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=verb)
        else:
            app.command(verb)(found)
    return app


def main() -> None:
    build(sys.argv[1:])()
