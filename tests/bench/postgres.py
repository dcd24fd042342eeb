"""pgbench through Interlock, through its peers, and directly: A B C A B C in one run.

Classification, policy and transcript are on. CPU is the middle process's own, from /proc/PID/stat. pgbouncer and haproxy take
part where they are installed; haproxy only passes bytes on, so it says what the path itself costs.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.table import Row, cpu_seconds, quiet
from harness.loopback import free_port
from harness.node import Node
from harness.postgres_server import PostgresServer

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
DONE = re.compile(r"number of transactions actually processed: (\d+)")
SELECT = "SELECT abalance FROM pgbench_accounts WHERE aid = "
"""What `pgbench -S` sends, up to the value or its parameter."""
LATENCY = re.compile(r"latency average = ([\d.]+) ms")


@dataclass(frozen=True)
class Way:
    """One way to the same database. `pid` is the process in the middle, None where there is none."""

    name: str
    port: int
    user: str
    database: str
    password: str
    pid: int | None
    tls: bool = False


@dataclass(frozen=True)
class Load:
    """`tls`: the client asks for it. Peers that can't offer it, and the direct way, are left out.

    `cpu` and `latency` are budgets, as ratios to pgbouncer.
    """

    name: str
    mode: str
    clients: int
    tls: bool = False
    cpu: float | None = None
    latency: float | None = None


LOADS = (
    Load("prepared select, 32 clients", "prepared", 32, cpu=1.25),
    Load("extended select, 32 clients", "extended", 32),
    Load("simple select, new literals, 32 clients", "simple", 32, cpu=2.0),
    Load("prepared select, 1 client, p50", "prepared", 1, latency=1.15),
    Load("prepared select, TLS, 8 clients", "prepared", 8, tls=True, cpu=1.3),
)


def run(way: Way, load: Load, pgbench: Path) -> tuple[int, float, float | None]:
    """Return (statements, milliseconds a statement, CPU microseconds a statement of the process in the middle).

    The time is the mean, of one client the median: what others wait for says nothing there.
    """
    with tempfile.TemporaryDirectory(prefix="interlock-pgbench-") as scratch:
        log = ["-l", "--log-prefix", f"{scratch}/log"] if load.clients == 1 else []
        before = quiet(way.pid) if way.pid else None
        done = subprocess.run(
            [pgbench, "-n", "-S", "-M", load.mode, "-c", str(load.clients), "-j", "1", "-T", str(SECONDS), "-h", "127.0.0.1",
             "-p", str(way.port), "-U", way.user, *log, way.database],
            env={**os.environ, "PGPASSWORD": way.password, "PGSSLMODE": "require" if load.tls else "disable"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        after = cpu_seconds(way.pid) if way.pid else None
        times = [int(line.split()[2]) for file in Path(scratch).iterdir() for line in file.read_text().splitlines()]
    count, latency = DONE.search(done.stdout), LATENCY.search(done.stdout)
    if count is not None and count[1] == "0":
        raise SystemExit(
            f"{load.clients} clients got to no statement through {way.name} in {SECONDS} s: set BENCH_SECONDS higher"
        )
    if done.returncode != 0 or count is None or latency is None:
        raise SystemExit(f"pgbench through {way.name} failed:\n{done.stdout}\n{done.stderr}")
    statements = int(count[1])
    cpu = None if before is None or after is None else (after - before) / statements * 1e6
    return statements, median(times) / 1000 if times else float(latency[1]), cpu


def measure(ways: list[Way], pgbench: Path) -> tuple[list[Row], dict[str, int]]:
    """Interleave the ways; return the rows and how many statements each way was sent."""
    rows: list[Row] = []
    sent = dict.fromkeys((way.name for way in ways), 0)
    for load in LOADS:
        taking = [way for way in ways if way.tls or not load.tls]
        latency: dict[str, list[float]] = {way.name: [] for way in taking}
        cpu: dict[str, list[float]] = {way.name: [] for way in taking}
        for _ in range(ROUNDS):
            for way in taking:
                statements, milliseconds, used = run(way, load, pgbench)
                sent[way.name] += statements
                latency[way.name].append(milliseconds * 1000)
                if used is not None:
                    cpu[way.name].append(used)
        for peer in (name for name in latency if name != "interlock"):
            slow, busy = (load.latency, load.cpu) if peer == "pgbouncer" else (None, None)
            rows.append(
                Row(load.name, "µs a statement", "interlock", peer, latency["interlock"], latency[peer], at_most=slow)
            )  # fmt: skip
            if cpu[peer]:
                rows.append(Row(load.name, "CPU µs a statement", "interlock", peer, cpu["interlock"], cpu[peer], at_most=busy))
    return rows, sent


@contextmanager
def pgbouncer(server: PostgresServer, directory: Path, tls: Path) -> Iterator[Way | None]:
    """Session pooling, SCRAM on both sides, like Interlock. None where it is not installed. `tls` holds cert.pem and key.pem."""
    binary = shutil.which("pgbouncer", path="/usr/sbin:" + os.environ.get("PATH", ""))
    if binary is None:
        print("pgbouncer is not installed: `make setup-test` installs it; its rows are left out")
        yield None
        return
    port = free_port()
    directory.mkdir()
    for name in ("cert.pem", "key.pem"):
        shutil.copy(tls / name, directory / name)
    (directory / "users").write_text(f'"app" "{server.password}"\n')
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\napp = host=127.0.0.1 port={server.port} dbname=app\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
        f"listen_port={port}\nunix_socket_dir=\nauth_type=scram-sha-256\nauth_file={directory}/users\npool_mode=session\n"
        f"client_tls_sslmode=allow\nclient_tls_cert_file={directory}/cert.pem\nclient_tls_key_file={directory}/key.pem\n"
        f"default_pool_size=1200\nmax_client_conn=1200\nlogfile={directory}/log\npidfile={directory}/pid\n"
        "ignore_startup_parameters=extra_float_digits\n"
    )
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    if user:
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, user)
    child = subprocess.Popen([binary, "-q", str(directory / "pgbouncer.ini")], user=user, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, child)
        yield Way("pgbouncer", port, "app", "app", server.password, child.pid, tls=True)
    finally:
        child.terminate()
        child.wait()


@contextmanager
def haproxy(server: PostgresServer, directory: Path) -> Iterator[Way | None]:
    """Bytes from one socket to the other, one thread. None where it is not installed."""
    binary = shutil.which("haproxy", path="/usr/sbin:" + os.environ.get("PATH", ""))
    if binary is None:
        print("haproxy is not installed (apt-get install haproxy): its rows are left out")
        yield None
        return
    port = free_port()
    directory.mkdir()
    (directory / "haproxy.cfg").write_text(
        "global\n  nbthread 1\n  maxconn 2000\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n"
        f"listen postgres\n  bind 127.0.0.1:{port}\n  server s 127.0.0.1:{server.port}\n"
    )
    child = subprocess.Popen([binary, "-db", "-f", str(directory / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    try:
        wait_for(port, child)
        yield Way("haproxy", port, "app", "app", server.password, child.pid)
    finally:
        child.terminate()
        child.wait()


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    """Return once the port is taken. Raise SystemExit when the child ended instead."""
    while child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"the process that should listen on {port} exited {child.returncode}")


def interlock_way(node: Node, password: str) -> Way:
    assert node.process is not None
    return Way("interlock", node.port("postgres"), "claude", "orders", password, node.process.pid, tls=True)
