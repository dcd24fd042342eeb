"""kill -9 at every step between a click and the first released byte: nothing is released, and nothing twice (property 16).

Each step is a fault point of the daemon itself; the truth is a folder at the target that the command would remove.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from blackbox.conftest import World, open_world
from harness.postgres_server import PostgresServer
from interlock.fault_points import RELEASE_PATH

pytestmark = [pytest.mark.blackbox, pytest.mark.asyncio(loop_scope="module")]

COUNTED_FROM = RELEASE_PATH.index("vote.stored")
USED_FROM = RELEASE_PATH.index("consume.stored")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doomed(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> AsyncIterator[World]:
    async with open_world(tmp_path_factory.mktemp("doomed"), server) as opened:
        yield opened


def ends(child: subprocess.Popen[str]) -> int:
    _, _ = child.communicate(timeout=30)
    return child.returncode


@pytest.mark.parametrize("point", RELEASE_PATH)
async def test_killed_on_the_way_to_the_release_nothing_runs_and_nothing_runs_twice(
    doomed: World, tmp_path: Path, point: str
) -> None:
    await asyncio.to_thread(_killed_at, doomed, tmp_path, point)


def _killed_at(world: World, tmp_path: Path, point: str) -> None:
    node = world.node
    condemned = tmp_path / "condemned"
    condemned.mkdir()
    command = f"rm -rf {condemned}"
    node.stop()
    node.start(killed_at=point)
    world.trust_host()
    child = world.start_ssh(command)
    request = world.wait_pending(child)
    node.vote("approve", request["id"], status=None)  # the daemon may be dead before it can answer
    assert ends(child) == 255, "ssh says that the connection broke"
    assert node.process is not None
    assert node.process.wait(30) == -9
    assert condemned.exists(), f"killed at {point}, and the command ran"

    node.kill()
    node.start()
    world.trust_host()
    after = node.json("approvals", "show", request["id"])
    place = RELEASE_PATH.index(point)
    if place >= USED_FROM:
        # Used up in the store and never run: it is not run a second time by itself, nor without another answer.
        assert after["state"] == "consumed"
        again = world.start_ssh(command)
        assert world.wait_pending(again)["id"] != request["id"]
        again.kill()
        again.communicate()
    elif place >= COUNTED_FROM:
        assert after["state"] == "approved"
        assert world.ssh(command).returncode == 0
        assert node.json("approvals", "show", request["id"])["state"] == "consumed"
        assert not condemned.exists()
    else:
        assert (after["state"], after["presence"]) == ("pending", "returned")
        node.vote("deny", request["id"])
        assert world.ssh(command).returncode == 126
    assert condemned.exists() is not (USED_FROM > place >= COUNTED_FROM)
    for row in node.pending():
        node.vote("deny", row["id"])
    world.verify(*world.bundles())
