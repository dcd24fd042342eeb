"""The options that many verbs take, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.output import Output

Server = Annotated[str | None, typer.Option("--server", help="URL or unix socket of the daemon.", envvar="INTERLOCK_SERVER")]
Token = Annotated[
    Path | None, typer.Option("--token-file", help="Call with the token in this file.", envvar="INTERLOCK_TOKEN_FILE")
]
Format = Annotated[Output, typer.Option("--output", "-o", help="text or json.")]
PassphraseFile = Annotated[Path | None, typer.Option(help="Read the passphrase from this file instead of the terminal.")]
