"""Where the packs that ship are: `interlock/packs` in an installed wheel, `policies/` in a source checkout."""

from __future__ import annotations

from pathlib import Path

import interlock

DENY_PACKS = ("linux-deny", "postgres-deny")
"""Never in observe mode, whatever their file says."""


def shipped() -> Path:
    """Return the folder of the shipped packs."""
    package = Path(interlock.__file__).parent
    installed = package / "packs"
    return installed if installed.is_dir() else package.parent.parent / "policies"


def names() -> list[str]:
    """Return the names of the shipped packs."""
    return sorted(path.stem for path in shipped().glob("*.yaml"))
