"""A client before the gate that waits for nothing: what it asks is recorded, and handed back when a person is needed."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.approvals.wording import Notice, Refusal
from interlock.commands.model import Analysis, Command, HeldInput


@dataclass
class Impatient:
    said: str = ""
    max_hold: float | None = 0.0

    async def read_input(self) -> HeldInput:
        return HeldInput(b"")

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        return ()

    async def ready_to_wait(self) -> Refusal | None:
        return None

    def notify(self, notice: Notice) -> None:
        pass
