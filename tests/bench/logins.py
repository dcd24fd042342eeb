"""Logins a second, what each costs the daemon, and what a running session feels of them.

    python -m tests.bench logins        (LOGINS=200 SECONDS=6 in the environment)

A login here: a person's browser grant is begun, the code is redeemed at the provider's token endpoint, the ID token is verified
(ES256), the login is in the register and an SSH certificate is issued for it, both on disk, and the token that is answered opens
the API, SSH and (over TLS) Postgres. Two requests of the person and one of ours to the provider. They come at a fixed rate,
whether or not the ones before are done, and each person has logged in before: the first time registers them, which is said apart.

Meanwhile a Postgres session of the same daemon asks `SELECT 1` again and again; its latency without logins is measured before and
after, in the same run. The daemon's loop says itself how late it is (`interlock_loop_lag_seconds`). Provider, people, session and
PostgreSQL are processes of this machine, too: they take their share of its cores.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import sys
import tempfile
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proxy"), str(ROOT / "tests")]

from bench.identity_provider import provide  # noqa: E402  after the path is set
from bench.people import Arrived, arrive  # noqa: E402
from bench.table import Figure, cpu_seconds  # noqa: E402
from blackbox.conftest import World, open_world  # noqa: E402
from harness.loopback import free_port  # noqa: E402
from harness.postgres_server import PostgresServer, running_server  # noqa: E402

RATE = int(os.environ.get("LOGINS", "200"))
SECONDS = int(os.environ.get("SECONDS", "6"))
PEOPLE = int(os.environ.get("PEOPLE", "200"))
PAUSE_S = 0.005
"""Between two questions of the session."""

CPU_MS = 5.0
"""Budget of a login: 200 a second then leave the daemon's core, and all of the other one, to sessions and clients."""


async def feel(world: World, until: asyncio.Future[object] | asyncio.Task[object]) -> list[float]:
    """Ask `SELECT 1` until something is done, with a pause between; return the latencies in ms."""
    link, found = await world.asyncpg(), []
    try:
        while not until.done():
            start = time.perf_counter()
            await link.fetchval("SELECT 1")
            found.append((time.perf_counter() - start) * 1000)
            await asyncio.sleep(PAUSE_S)
    finally:
        await link.close()
    return found


def spread(values: list[float]) -> str:
    cuts = quantiles(values, n=100)
    return f"p50 {median(values):.2f} ms, p99 {cuts[98]:.2f} ms, longest {max(values):.2f} ms"


def lateness(port: int) -> dict[float, float]:
    """Return how many times the daemon's loop was at most so late, by seconds (cumulative)."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(r'interlock_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    return {float(bound): float(count) for bound, count in found}


def late(before: dict[float, float], after: dict[float, float]) -> str:
    counts = {bound: after[bound] - before[bound] for bound in after}
    every = counts[float("inf")]
    shares = ", ".join(f"≤ {bound * 1000:g} ms {counts[bound] / every:.1%}" for bound in (0.001, 0.005, 0.025, 0.1))
    return f"{shares} of {every:.0f} looks"


async def measure(directory: Path, server: PostgresServer) -> list[Figure]:
    """Print what was found; return the figures that have a budget."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    orders, taken = spawn.Pipe()
    provider = spawn.Process(target=provide, args=(theirs, PEOPLE), daemon=True)
    people = spawn.Process(target=arrive, args=(taken,), daemon=True)
    provider.start()
    people.start()
    issuer, metrics = await asyncio.to_thread(ours.recv), free_port()
    identity = {
        "issuers": [{"name": "idp", "issuer": issuer, "audience": "interlock"}],
        "login": {"issuer": "idp", "cli": {"client_id": "cli"}},
    }

    def adjust(config: dict[str, object]) -> None:
        listen = config["listen"]
        assert isinstance(listen, dict)
        listen["metrics"] = f"127.0.0.1:{metrics}"

    try:
        async with open_world(directory, server, adjust=adjust, identity=identity) as world:
            return await _measure(world, orders, metrics)
    finally:
        orders.close()
        provider.terminate()
        people.terminate()
        provider.join(30)
        people.join(30)


async def _measure(world: World, orders: Connection, metrics: int) -> list[Figure]:
    assert world.node.process is not None
    pid, port = world.node.process.pid, world.node.port("http")

    def come(rate: float, count: int) -> Arrived:
        orders.send((port, rate, count))
        done = orders.recv()
        assert isinstance(done, Arrived)
        return done

    async def quietly(seconds: float) -> list[float]:
        return await feel(world, asyncio.ensure_future(asyncio.sleep(seconds)))

    first = await asyncio.to_thread(come, 1000, PEOPLE)
    await asyncio.to_thread(come, 100, 100)
    before = cpu_seconds(pid)
    alone = await asyncio.to_thread(come, RATE, RATE * SECONDS)
    spent = (cpu_seconds(pid) - before) / max(1, len(alone.took)) * 1000
    quiet = await quietly(SECONDS / 2)
    told = lateness(metrics)
    people = asyncio.ensure_future(asyncio.to_thread(come, RATE, RATE * SECONDS))
    busy = await feel(world, people)
    beside = people.result()
    lag = late(told, lateness(metrics))
    quiet += await quietly(SECONDS / 2)

    print(f"logins, on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} around; {PEOPLE} people, each logged in before")
    print(f"  {PEOPLE} first ones at once, each person registered: {first.whole:.2f} s, {len(first.took)} done")
    for name, arrived in (("alone", alone), ("beside a session", beside)):
        rate = len(arrived.took) / arrived.whole
        print(f"  {name}: {len(arrived.took)} done, {rate:.0f} a second of {RATE} offered for {SECONDS} s; refused: "
              f"{dict(arrived.refused) or 'none'}")  # fmt: skip
        if len(arrived.took) > 1:
            print(f"    each took {spread([seconds * 1000 for seconds in arrived.took])}")
    print(f"  CPU of the daemon for a login: {spent:.2f} ms")
    print(f"  the session without logins: {spread(quiet)}")
    print(f"  the session meanwhile:      {spread(busy)}")
    print(f"  the daemon's loop meanwhile was late {lag}")
    return [
        Figure("CPU of the daemon for a login", "µs", [spent * 1000], at_most=CPU_MS * 1000),
        Figure(f"logins of {RATE} a second that were done", "a second", [len(beside.took) / beside.whole], at_least=RATE * 0.95),
    ]


async def main() -> int:
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as scratch, running_server() as server:
        folder = Path(scratch)
        folder.chmod(0o755)
        for figure in await measure(folder, server):
            print(figure)
    return 0
