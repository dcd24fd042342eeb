"""What a shell analysis is asked."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.commands.model import HeldInput, ShellContext


@dataclass(frozen=True, slots=True)
class Asked:
    """What is analysed: the text, and everything besides it that changes the answer."""

    text: bytes
    context: ShellContext = ShellContext()
    stdin: HeldInput | None = None
    cwd: str = ""
    pty: bool = False
