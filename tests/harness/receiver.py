"""A webhook receiver on loopback that answers as a test says: a status, a redirect, silence, or a cut connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

HANG, DROP = "hang", "drop"


@dataclass(frozen=True)
class Got:
    headers: dict[str, str]
    body: bytes

    @property
    def ident(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def kind(self) -> str:
        return str(self.message["type"])

    def signed_by(self, key: bytes) -> bool:
        """Check the signature, as the standard words it and not as our code does."""
        signed = f"{self.ident}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return hmac.compare_digest(expected, self.headers["webhook-signature"])


@dataclass
class Receiver:
    """`answers` are used up one a delivery, then `usual`: a status, (status, headers), HANG or DROP."""

    url: str = ""
    usual: Any = 204
    answers: deque[Any] = field(default_factory=deque)
    got: list[Got] = field(default_factory=list)
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def received(self, count: int) -> list[Got]:
        """Return once that many deliveries have come."""
        async with asyncio.timeout(45), self._more:
            await self._more.wait_for(lambda: len(self.got) >= count)
        return list(self.got)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                answer = self.answers.popleft() if self.answers else self.usual
                async with self._more:
                    self.got.append(Got({**headers, ":request": head[0]}, body))
                    self._more.notify_all()
                if answer == HANG:
                    await asyncio.Event().wait()
                if answer == DROP:
                    writer.transport.abort()
                    return
                status, more = answer if isinstance(answer, tuple) else (answer, {})
                lines = [f"HTTP/1.1 {status} X", "content-length: 0", *(f"{k}: {v}" for k, v in more.items())]
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def receiving(receiver: Receiver, *, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Receiver]:
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(receiver.serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls)
    receiver.url = f"http{'s' if tls else ''}://localhost:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
