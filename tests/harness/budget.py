"""How much is tried of what has no end: a part of it while somebody waits (`make unit`), all of it in `make test`, and a great
deal with fresh seeds in `make fuzz`.
"""

from __future__ import annotations

import os

FUZZ = bool(os.environ.get("FUZZ"))
UNIT = bool(os.environ.get("UNIT")) and not FUZZ


def examples(whole: int, *, fuzz: int | None = None) -> int:
    """Return how many examples a property is tried with, where `make test` tries `whole`."""
    if FUZZ:
        return fuzz if fuzz is not None else whole
    return max(10, whole // 4) if UNIT else whole
