"""What the gate gives: permission to send exactly these bytes."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.commands.model import Analysis, HeldInput

EVENTS_OF_A_RELEASE = 3
"""The command, its decision, its forward: appended in one write."""


@dataclass(frozen=True, slots=True)
class Release:
    """Permission to send exactly `payload`.

    `stdin` is the held input to send with EOF; None means: stream it (only for allowed commands whose analysis says
    so). `approved` means that a human looked: under `pin: reviewed` the target itself must enforce the bytes.
    """

    payload: bytes
    decision: int
    forward: int
    analysis: Analysis
    stdin: HeldInput | None = None
    approved: bool = False
    request: str | None = None
