"""What is still to be written about something that has ended already, beside whoever ended it.

It ended in memory, so a store that is slow or down prolongs nothing; what could not be written is logged, and whoever owns the
rows finds it at the next start. Must not know rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from interlock.errors import InterlockError

log = structlog.get_logger()


class Aftermath:
    """The unfinished writes of one part of the identity package, which `source` names in the log."""

    def __init__(self, source: str) -> None:
        self._failed = f"{source}.not_written"
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, work: Coroutine[Any, Any, object]) -> None:
        """Do this work soon."""
        task = asyncio.get_running_loop().create_task(self._reported(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let what is being written end, and what that begins."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _reported(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except InterlockError as error:
            log.error(self._failed, reason=str(error.code))
