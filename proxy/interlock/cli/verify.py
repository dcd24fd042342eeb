"""`interlock verify`: the stand-alone verifier (interlock.verify) behind the usual command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.output import Output
from interlock.verify.__main__ import run


def verify(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE…", help="Folders of sealed sessions or journals.")],
    trust: Annotated[
        Path | None,
        typer.Option(help="Folder with allowed_signers, obtained from the operator's auditors. INTERLOCK_TRUST names it too."),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Check signed transcripts: signature, chain, texts, and that every release had its permission. Exit 8 when not."""
    raise typer.Exit(run(bundles, trust, as_json=output is Output.JSON))
