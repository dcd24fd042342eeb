"""`interlock teams`: what Microsoft Teams has to be given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock import __version__
from interlock.approvals.channels.teams.package import ACCENT, AppDetails
from interlock.approvals.channels.teams.package import package as packed
from interlock.cli.output import reporting, say
from interlock.config import load
from interlock.errors import ConfigError

app = typer.Typer(help="Prepare Microsoft Teams.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="INTERLOCK_CONFIG", help="Where app_id and public_url are read from.")
]


@app.callback()
def _group() -> None:
    """Keeps `package` a verb of its own while it is the only one."""


@app.command()
@reporting
def package(
    config: ConfigFile = None,
    app_id: Annotated[str | None, typer.Option(help="The bot's application id, instead of the configuration's.")] = None,
    public_url: Annotated[str | None, typer.Option(help="This proxy's https address, instead of the configuration's.")] = None,
    out: Annotated[Path, typer.Option(help="The zip to write. Never overwrites.")] = Path("interlock-teams.zip"),
    name: Annotated[str, typer.Option(help="What the app is called in Teams.")] = "Interlock",
    developer: Annotated[str, typer.Option(help="Your organisation, as Teams shows it.")] = "Interlock",
    website: Annotated[str, typer.Option(help="Support page; absent: public_url.")] = "",
    privacy: Annotated[str, typer.Option(help="Privacy statement; absent: public_url.")] = "",
    terms: Annotated[str, typer.Option(help="Terms of use; absent: public_url.")] = "",
    accent: Annotated[str, typer.Option(help="Colour behind the icon.")] = ACCENT,
    version: Annotated[str, typer.Option(help="Raise it with every package that you upload again.")] = __version__,
) -> None:
    """Write the app package for the Teams admin centre: manifest and icons in a zip."""
    if app_id is None or public_url is None:
        if config is None:
            raise ConfigError("say which bot: --config FILE, or --app-id with --public-url")
        loaded = load(config)
        teams = loaded.approvals.channels.teams
        if teams is None and app_id is None:
            raise ConfigError(f"{config} has no approvals.channels.teams; add it, or name the bot with --app-id")
        app_id = app_id or (teams.app_id if teams else "")
        public_url = public_url or loaded.public_url
    details = AppDetails(
        app_id=app_id, public_url=public_url, version=version, name=name, developer=developer, website=website,
        privacy=privacy, terms=terms, accent=accent,
    )  # fmt: skip
    content = packed(details)
    try:
        with out.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise ConfigError(f"{out} exists; name another place with --out") from None
    say(f"wrote {out}; next: Teams admin centre, Teams apps, Manage apps, Actions, Upload new app (docs/teams.md)")
