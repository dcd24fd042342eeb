"""Reads `data/*.yaml` once, checks every entry, and gives the table. The only file access of this package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import yaml

from interlock.commands.programs.paths import Sensitive
from interlock.commands.programs.schema import Program, SchemaError, program


@cache
def programs() -> Mapping[str, Program]:
    """Return every known program by its base name. Raise SchemaError: a wrong entry stops the start."""
    found: dict[str, Program] = {}
    folder = resources.files("interlock.commands.programs") / "data"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".yaml") or file.name == "paths.yaml":
            continue
        entries = yaml.safe_load(file.read_text("utf-8"))
        for names, entry in entries.items():
            for name in str(names).split():
                if name in found:
                    raise SchemaError(f"{file.name}: {name} stands twice")
                try:
                    found[name] = program(name, entry or {}, found)
                except SchemaError as error:
                    raise SchemaError(f"{file.name}: {error}") from None
    return found


@cache
def sensitive_paths() -> Sensitive:
    """Return the paths whose reading or writing is never ordinary."""
    text = (resources.files("interlock.commands.programs") / "data" / "paths.yaml").read_text("utf-8")
    return Sensitive.from_mapping(yaml.safe_load(text))
