"""A client's cancel on its way to the server, so that it hits what it was meant for, or nothing.

Knows: the pipeline, and a way to send a CancelRequest. Must not know: keys, sockets, what is held (asking.py).

A CancelRequest names a process and no statement: the server stops whatever that process runs when it comes. Between a client and
a server the client can wait until the server has taken it. A proxy stretches that time by a connection of its own, and so

* nothing that the client sends after its cancel goes on before the server has taken it: the next statement is never hit;
* a cancel is not sent any more when everything that it could be meant for has been answered;
* a statement and its cancel that came to us a while apart can leave together, when the machine is busy. A server that takes the
  cancel first forgets it (PostgresMain: an idle backend resets it). So it is sent again while its statement has no answer and
  nothing else was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from interlock.postgres.wire.pipeline import Asked, Pipeline, Step

AGAIN_AFTER = (0.1, 0.5, 2.0)
"""Seconds after which a cancel is sent again, each after the one before."""


class CancelServer(Protocol):
    """Sends one CancelRequest, unless `wanted` says no by then; returns once the server has taken it. Never raises."""

    def __call__(self, wanted: Callable[[], bool] = ...) -> Coroutine[Any, Any, None]: ...


class Cancelling:
    """The cancels of one session. `go_on` is called when the client's messages may go on again."""

    def __init__(
        self, pipeline: Pipeline, server: CancelServer, go_on: Callable[[], None], *, again_after: tuple[float, ...] = AGAIN_AFTER
    ) -> None:
        self._pipeline = pipeline
        self._server = server
        self._go_on = go_on
        self._again_after = again_after
        self._sending = 0
        self._waiting: list[Callable[[], None]] = []
        self._again: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def under_way(self) -> bool:
        """A cancel has left that the server has not taken: nothing new may be sent."""
        return self._sending > 0

    def afterwards(self, step: Callable[[], None]) -> None:
        """Take a step as soon as no cancel is under way."""
        self._waiting.append(step)

    async def cancel(self) -> None:
        """Cancel what runs at the server; return when the server has taken it. To be called while something is in flight."""
        meant = self._pipeline.last
        await self._send(lambda: len(self._pipeline) > 0)
        if self._again is None and meant is not None and not self._stopped and self._runs_alone(meant):
            self._again = asyncio.get_running_loop().create_task(self._send_again(meant))

    def stop(self) -> None:
        """The session has ended: it sees to what still runs itself."""
        self._stopped = True
        self._waiting.clear()
        if self._again is not None:
            self._again.cancel()

    async def _send(self, wanted: Callable[[], bool]) -> None:
        self._sending += 1
        try:
            await self._server(wanted)
        finally:
            self._sending -= 1
        if not self.under_way:
            waiting, self._waiting = self._waiting, []
            for step in waiting:
                step()
            self._go_on()

    async def _send_again(self, meant: Asked) -> None:
        try:
            for pause in self._again_after:
                await asyncio.sleep(pause)
                if not self._runs_alone(meant):
                    return
                await self._send(lambda: self._runs_alone(meant))
        finally:
            self._again = None

    def _runs_alone(self, meant: Asked) -> bool:
        """Whether what was sent last is still what would be hit: it has not failed, and nothing stands around it."""
        head = self._pipeline.head
        return (
            head is not None
            and self._pipeline.last is meant
            and head.step is not Step.SYNC
            and not head.failed
            and self._pipeline.one_unit
        )
