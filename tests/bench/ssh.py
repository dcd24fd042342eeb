"""`ssh host true`: directly, through ProxyJump (a second sshd), and through Interlock, interleaved in one run."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from bench.table import Row

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3")) * 3


def timed(argv: list[str]) -> float:
    """Return milliseconds. The command must succeed: a refused one would be quick."""
    start = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    took = (time.perf_counter() - start) * 1000
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} exited {done.returncode}: {done.stderr}")
    return took


def measure(direct: list[str], jump: list[str], ours: list[str], open_ours: list[str], open_direct: list[str]) -> list[Row]:
    """`open_*` run over a connection that is already there (ControlMaster)."""
    ways = {"direct": direct, "proxyjump": jump, "interlock": ours, "open interlock": open_ours, "open direct": open_direct}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, argv in ways.items():
            took[name].append(timed(argv))
    unit = "ms"
    return [
        Row("ssh host true, a fresh connection", unit, "interlock", "proxyjump", took["interlock"], took["proxyjump"]),
        Row("ssh host true, a fresh connection", unit, "interlock", "direct", took["interlock"], took["direct"]),
        Row("exec on an open connection", unit, "interlock", "direct", took["open interlock"], took["open direct"]),
    ]


def options(key: Path, known_hosts: Path) -> list[str]:
    return [
        "-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
        "-o", f"UserKnownHostsFile={known_hosts}", "-o", "IdentityAgent=none",
    ]  # fmt: skip
