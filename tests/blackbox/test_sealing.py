"""Killed or told to stop while a long session is being sealed: there is a seal, and it verifies.

The readers of transcripts are stopped (SIGSTOP) before the session ends, so each test knows that one is at work when it strikes.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from blackbox.conftest import World, open_world
from harness.children import children
from harness.postgres_server import PostgresServer
from interlock.evidence.readback import MODULE

pytestmark = [pytest.mark.blackbox, pytest.mark.asyncio(loop_scope="module")]

LONG = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> AsyncIterator[World]:
    async with open_world(tmp_path_factory.mktemp("sealing"), server) as opened:
        (opened.sshd.home / "long").write_bytes(os.urandom(LONG))
        yield opened


async def test_a_reader_that_is_killed_is_replaced_and_the_seal_is_whole(world: World) -> None:
    await asyncio.to_thread(_reader_killed, world)


def _reader_killed(world: World) -> None:
    bundle, reader = caught_at_work(world)
    os.kill(reader, signal.SIGKILL)
    seal = sealed(bundle)
    world.node.wait_said("transcript reader failed")
    assert (seal["status"], seal["cast"] is not None) == ("closed", True)
    world.node.run("sessions", "replay", bundle.name, "--check")
    world.verify(bundle)


async def test_a_daemon_that_is_killed_leaves_no_reader_and_its_successor_seals(world: World) -> None:
    await asyncio.to_thread(_daemon_killed, world)


def _daemon_killed(world: World) -> None:
    bundle, reader = caught_at_work(world)
    world.node.kill()
    os.kill(reader, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{reader}").exists(), "the reader lives on")
    assert not (bundle / "seal.json").exists()
    restart(world)
    assert sealed(bundle)["status"] == "aborted"
    world.verify(bundle)


async def test_a_daemon_that_is_told_to_stop_does_not_wait_for_a_recording(world: World) -> None:
    await asyncio.to_thread(_stopped, world)


def _stopped(world: World) -> None:
    bundle, _ = caught_at_work(world)  # and nobody wakes it: who waited for it would wait for ever
    assert world.node.stop() == 0
    seal = sealed(bundle)
    assert (seal["status"], seal["cast"]) == ("closed", None)
    restart(world)
    world.verify(bundle)
    refused = world.node.run("sessions", "replay", bundle.name, "--check", status=None)
    assert refused.returncode != 0 and "no recording was sealed" in refused.stderr


# -- what the tests do -------------------------------------------------------------------------------------------------


def caught_at_work(world: World) -> tuple[Path, int]:
    """End a long session while no reader can move; return its transcript, and the reader that was asked of it."""
    transfer(world)
    until(lambda: readers(world), "a long session has no reader")
    until(lambda: all((b / "seal.json").exists() for b in world.bundles()), "not sealed")
    stopped = readers(world)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    before = set(world.bundles())
    transfer(world)
    (bundle,) = set(world.bundles()) - before
    until(lambda: any(map(asked, stopped)), "no reader was asked")
    return bundle, next(filter(asked, stopped))


def transfer(world: World) -> None:
    done = subprocess.run(world.ssh_argv("cat long"), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert (done.returncode, len(done.stdout)) == (0, LONG), done.stderr


def restart(world: World) -> None:
    world.node.start()
    world.trust_host()


def readers(world: World) -> list[int]:
    assert world.node.process is not None
    return children(world.node.process.pid, MODULE)


def asked(reader: int) -> bool:
    """Whether there is something in its standard input that it has not read."""
    fd = os.open(f"/proc/{reader}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        (waiting,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))
    finally:
        os.close(fd)
    return bool(waiting)


def sealed(bundle: Path) -> dict[str, Any]:
    until((bundle / "seal.json").exists, "not sealed")
    seal: dict[str, Any] = json.loads((bundle / "seal.json").read_bytes())
    return seal


def until(condition: Callable[[], object], otherwise: str) -> None:
    """Wait for what another process does and nobody tells of."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)
