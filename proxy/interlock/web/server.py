"""One HTTP server inside the daemon's loop: on an address, or on a unix socket. Knows uvicorn and nothing of what it serves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from interlock.errors import ConfigError
from interlock.listening import bound

DEADLINE = 10.0
"""Seconds a client has for the head of a request."""

PATIENCE = 5
"""Seconds that a stop waits for requests that are under way: what is held at the gate must not wait for a slow client."""


class HttpServer:
    """`start` binds and serves; `close` lets running answers end. `certificate` and `key` are PEM files."""

    def __init__(
        self, name: str, app: ASGIApp, where: str | Path, *, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        """`where` is an address (`host:port`) or the path of a unix socket."""
        self._name = name
        self._where = where
        options: dict[str, Any] = {"lifespan": "off", "log_config": None, "access_log": False, "server_header": False}
        options["proxy_headers"] = False  # or whoever connects from this host says in X-Forwarded-For who it is
        options["timeout_graceful_shutdown"], options["http"] = PATIENCE, Prompt
        if isinstance(where, Path):
            options["uds"] = str(where)
        if certificate is not None and key is not None:
            options["ssl_certfile"], options["ssl_keyfile"] = str(certificate), str(key)
        self._server = _Server(uvicorn.Config(app, **options))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Return the port, 0 for a socket. Raise ConfigError when it can't be had."""
        sockets: list[socket.socket] | None = None
        if isinstance(self._where, Path):
            self._where.unlink(missing_ok=True)
        else:
            sockets = [bound(self._name, self._where)]
        self._task = asyncio.create_task(self._server.serve(sockets), name=f"http-{self._name}")
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            raise ConfigError(f"listen.{self._name}: {self._where} can't be served: {_failure(self._task)}")
        if sockets is not None:
            return int(sockets[0].getsockname()[1])
        assert isinstance(self._where, Path)
        self._where.chmod(0o600)
        return 0

    async def close(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


class Prompt(H11Protocol):
    """HTTP/1.1 whose client must have sent a whole request's head within `DEADLINE`, also the first one.

    uvicorn itself waits for ever for a client that connects and says nothing, or says it letter by letter.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own does
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._disarm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # a pipelined request may have begun meanwhile
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(DEADLINE, self.transport.close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, and with an event for readiness."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn's way to say that an address can't be bound
            return
        if self.started:
            self.ready.set()

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


def _failure(task: asyncio.Task[None]) -> str:
    error = None if task.cancelled() else task.exception()
    return "the server ended" if error is None else str(error)
