from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench


@pytest_asyncio.fixture
async def target() -> AsyncIterator[OpenSshServer]:
    server = OpenSshServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def bench(tmp_path: Path, target: OpenSshServer) -> AsyncIterator[SshBench]:
    proxy = SshBench(tmp_path / "proxy", target)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest_asyncio.fixture
async def ordinary_bench(tmp_path: Path) -> AsyncIterator[SshBench]:
    """The same with a target account that is not root: sshd delivers signals to such commands only."""
    server = OpenSshServer(ordinary=True)
    await server.start()
    proxy = SshBench(tmp_path / "proxy", server)
    await proxy.start()
    yield proxy
    await proxy.stop()
    await server.stop()
