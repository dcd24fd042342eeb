"""A local port whose connections go on to another address as they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

CHUNK = 64 * 1024


def serve(port: int, host: str, there: int, ready: Callable[[int], None]) -> None:
    """Listen on 127.0.0.1 until interrupted. `ready` is told the port."""

    async def run() -> None:
        server = await asyncio.start_server(lambda reader, writer: _join(reader, writer, host, there), "127.0.0.1", port)
        ready(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    try:
        onward, outward = await asyncio.open_connection(host, port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pump(reader, outward), _pump(onward, writer), return_exceptions=True)
    for end in (writer, outward):
        end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
