"""People who log in, as many a second as are asked for, whether or not the ones before are done.

A process of its own. Each has a connection of their own and an address of loopback of their own, as people have, and as little
of an HTTP client as will do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from base64 import urlsafe_b64encode
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

import asyncssh
import uvloop

VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Arrived:
    """What became of them: seconds of each login that was done, statuses of those that were not, seconds of all together."""

    took: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    whole: float = 0.0


class RefusedError(Exception):
    """An answer that is no success."""


class Person:
    def __init__(self, port: int, number: int, public: str) -> None:
        self._port = port
        self._source = f"127.{1 + number // 250 % 100}.{number // 25_000 % 250}.{1 + number % 250}"
        self._public = public

    async def _post(self, path: str, body: dict[str, object]) -> dict[str, str]:
        data = json.dumps(body).encode()
        self._writer.write(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (path.encode(), len(data), data)
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.split("content-length:")[1].split("\r\n")[0])
        answer: dict[str, str] = json.loads(await self._reader.readexactly(size))
        if not head.startswith(("http/1.1 200", "http/1.1 201")):
            raise RefusedError(f"{head[9:12]} {answer.get('reason')}")
        return answer

    async def log_in(self) -> float:
        """Begin, come back with what the provider gave, and get login and certificate."""
        start = time.perf_counter()
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._source, 0))
        try:
            begun = await self._post("/v1/login/browser", {"port": 4711, "challenge": CHALLENGE})
            nonce = parse_qs(urlsplit(begun["address"]).query)["nonce"][0]
            opened = await self._post(
                "/v1/login/browser/finish",
                {
                    "flow": begun["flow"], "state": begun["state"], "code": nonce, "verifier": VERIFIER,
                    "public_key": self._public,
                },
            )  # fmt: skip
            assert opened["token"] and opened["certificate"]
        finally:
            self._writer.close()
        return time.perf_counter() - start


async def arrivals(port: int, rate: float, count: int) -> Arrived:
    public = " ".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[:2])
    arrived, start, tasks = Arrived(), time.perf_counter(), []
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(Person(port, number, public).log_in()))
    for done in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(done, float):
            arrived.took.append(done)
        else:
            arrived.refused[str(done) if isinstance(done, RefusedError) else type(done).__name__] += 1
    arrived.whole = time.perf_counter() - start
    return arrived


def arrive(asked: Connection) -> None:
    """Do what comes over the pipe, (port, rate, count), until it is closed; send what became of it."""
    while True:
        try:
            port, rate, count = asked.recv()
        except EOFError:
            return
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            asked.send(runner.run(arrivals(port, rate, count)))
