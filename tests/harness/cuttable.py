"""A stretch of network before a real server that a test can cut, or let fall silent as a forgotten NAT entry does."""

from __future__ import annotations

import asyncio

from interlock.config import split_address


class CuttableWay:
    """Forwards TCP connections to `address`. `made` counts them."""

    def __init__(self, address: str) -> None:
        self._host, self._port = split_address(address)
        self._writers: list[asyncio.StreamWriter] = []
        self._work: set[asyncio.Task[None]] = set()
        self._passing: list[asyncio.Event] = []
        self.made = 0
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End every connection that there is now, without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def silence(self) -> None:
        """From now on nothing passes on the connections that there are; new ones are not concerned."""
        for passing in self._passing:
            passing.clear()

    def speak(self) -> None:
        """What was kept back by `silence` arrives after all."""
        for passing in self._passing:
            passing.set()

    async def stop(self) -> None:
        self.cut()
        self._server.close()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, far_writer]
        passing = asyncio.Event()
        passing.set()
        self._passing.append(passing)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.get_running_loop().create_task(_pass(source, sink, passing))
            self._work.add(task)
            task.add_done_callback(self._work.discard)


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter, passing: asyncio.Event) -> None:
    try:
        while data := await source.read(65536):
            await passing.wait()
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()
