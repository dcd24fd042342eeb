"""Which policy a verb means: the files that it is given, else those of the configuration, else the packs that ship."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from interlock.config import load as load_config
from interlock.policy import packs
from interlock.policy.engine import PolicySet
from interlock.policy.loader import configured, load

Files = Annotated[
    list[Path] | None, typer.Argument(help="Policy files or folders; absent: those of the configuration, else the shipped packs.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", envvar="INTERLOCK_CONFIG", help="The configuration file.")]


def meant(files: Sequence[Path] | None, config: Path | None) -> PolicySet:
    """Load the policy with the review terms that the configuration gives. Raise PolicyError or ConfigError."""
    paths, terms = configured(load_config(config)) if config is not None else ([packs.shipped()], None)
    return load(list(files) if files else paths, terms=terms)
