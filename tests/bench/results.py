"""Large results and idle sessions: what a middle process costs beside statements.

The queries have a WHERE, because the shipped rules ask a person about whole tables. Tiny rows are a race against the direct way,
with a client that only counts bytes; wide rows say how much a second of CPU of the process in the middle carries; idle sessions
how much memory each holds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.postgres import Way
from bench.table import Figure, Row, cpu_seconds, quiet
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
TINY = int(os.environ.get("BENCH_ROWS", "2000000"))
WIDE = TINY // 5
IDLE = int(os.environ.get("BENCH_IDLE", "1000"))
KILOBYTES = 48
"""Budget of an idle session."""
READY = b"Z\0\0\0\5I"


def prepare(server: PostgresServer) -> None:
    """Make the two tables, before the daemon reads the catalog."""
    server.run(
        f"CREATE TABLE tiny AS SELECT i FROM generate_series(1, {TINY}) i; "
        f"CREATE TABLE wide AS SELECT i, repeat('x', 1000) AS v FROM generate_series(1, {WIDE}) i; "
        "ANALYZE tiny; ANALYZE wide"
    )


def read(way: Way, text: str) -> tuple[float, int]:
    """Run a query and read its result to the end; return seconds and bytes."""
    with WireClient.connect(way.port, way.user, way.database, way.password) as client:
        start = time.perf_counter()
        client.send(WireClient.query(text))
        size, end = 0, b""
        while not end.endswith(READY):
            data = client.socket.recv(1 << 20)
            if not data:
                raise SystemExit(f"{way.name} closed the connection in the middle of a result")
            size += len(data)
            end = (end + data)[-len(READY) :]
        seconds = time.perf_counter() - start
    if size < TINY:
        raise SystemExit(f"{way.name} answered {text!r} with {size} bytes only")
    return seconds, size


def measure(ways: list[Way]) -> list[Row]:
    """`ways` begin with the direct one. Both figures say more is better."""
    speed: dict[str, list[float]] = {way.name: [] for way in ways}
    carried: dict[str, list[float]] = {way.name: [] for way in ways if way.pid}
    for _ in range(ROUNDS):
        for way in ways:
            if way.pid:
                quiet(way.pid)
            seconds, size = read(way, "SELECT i FROM tiny WHERE i > 0")
            speed[way.name].append(size / seconds / 1e6)
        for way in ways:
            if way.pid is None:
                continue
            before = quiet(way.pid)
            _, size = read(way, "SELECT v FROM wide WHERE i > 0")
            carried[way.name].append(size / 1e6 / max(cpu_seconds(way.pid) - before, 0.01))
    rows = [
        Row(
            f"{TINY} tiny rows",
            "MB a second",
            "interlock",
            peer,
            speed["interlock"],
            theirs,
            at_least=0.95 if peer == "direct" else None,
        )
        for peer, theirs in speed.items()
        if peer != "interlock"
    ]
    rows += [
        Row(
            f"{WIDE} rows of 1 kB",
            "MB a CPU second",
            "interlock",
            peer,
            carried["interlock"],
            theirs,
            at_least=3 if peer == "pgbouncer" else None,
        )
        for peer, theirs in carried.items()
        if peer != "interlock"
    ]
    return rows


def measure_idle(ways: list[Way]) -> tuple[list[Row], Figure]:
    """Open IDLE sessions through each process in the middle and say what each session holds of its memory."""
    held = {way.name: kilobytes_each(way) for way in ways if way.pid}
    rows = [
        Row(f"{IDLE} idle sessions", "KB each", "interlock", peer, [held["interlock"]], [theirs])
        for peer, theirs in held.items()
        if peer != "interlock"
    ]
    return rows, Figure(f"{IDLE} idle Postgres sessions", "KB each", [held["interlock"]], at_most=KILOBYTES)


def kilobytes_each(way: Way) -> float:
    assert way.pid is not None
    WireClient.connect(way.port, way.user, way.database, way.password).socket.close()  # what the first of all allocates
    before = resident(way.pid)
    clients: list[WireClient] = []
    try:
        while len(clients) < IDLE:
            clients.append(WireClient.connect(way.port, way.user, way.database, way.password))
        return max(resident(way.pid) - before, 1.0) / IDLE  # a few sessions fit into what a peer has allocated before
    finally:
        for client in clients:
            client.socket.close()


def resident(pid: int) -> float:
    """Kilobytes of memory that the process holds (proc(5), VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise SystemExit(f"process {pid} has ended")
