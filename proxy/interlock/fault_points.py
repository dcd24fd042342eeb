"""Named places on the path from an answer to the first released byte, where a test kills the process.

In the daemon a point is an empty call: nothing that a user sets can turn one on. Tests start the daemon from a program of
their own that puts a killer in place of `reached` (tests/blackbox). The order of `RELEASE_PATH` is the order of the path.
"""

from __future__ import annotations

from collections.abc import Callable

RELEASE_PATH = (
    "vote.arrived",
    "vote.minuted",
    "vote.stored",
    "gate.woken",
    "consume.checked",
    "consume.stored",
    "release.recorded",
    "release.synced",
)


def _nothing(_: str) -> None:
    """What the daemon does at a point."""


hook: Callable[[str], None] = _nothing


def reached(point: str) -> None:
    hook(point)
