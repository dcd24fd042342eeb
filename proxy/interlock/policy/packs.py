"""Where the packs that ship are: `interlock/packs` in an installed wheel, `policies/` in a source checkout.

The packs in the folder itself are loaded where a configuration names no policy; those in `optional/` only by their name.
"""

from __future__ import annotations

from pathlib import Path

import interlock

DENY_PACKS = ("linux-deny", "postgres-deny")
"""Never in observe mode, whatever their file says."""

OPTIONAL = "optional"


def shipped() -> Path:
    """Return the folder of the shipped packs."""
    package = Path(interlock.__file__).parent
    installed = package / "packs"
    return installed if installed.is_dir() else package.parent.parent / "policies"


def names() -> list[str]:
    """Return the names of the shipped packs, the optional ones among them."""
    return sorted(_paths())


def find(name: str) -> Path | None:
    """Return the file of a shipped pack, or None when there is none of that name."""
    return _paths().get(name)


def _paths() -> dict[str, Path]:
    return {path.stem: path for folder in (shipped(), shipped() / OPTIONAL) for path in folder.glob("*.yaml")}
