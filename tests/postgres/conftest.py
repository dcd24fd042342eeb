"""One PostgreSQL for the run, and a proxy in front of it for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer, running_server

DENIED = frozenset({"drop", "copy_program"})
REVIEWED = frozenset({"delete", "truncate"})


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        running.run("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE bulk (id int, v text)")
        yield running


@pytest.fixture(scope="module")
def proxy(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    with running_proxy(configuration(server, folder), folder, VerbPolicy(deny=DENIED, review=REVIEWED)) as running:
        yield running


@pytest.fixture
def table(server: PostgresServer) -> str:
    """Ten rows in `t`."""
    server.run("TRUNCATE t, bulk; INSERT INTO t SELECT i, 'x' FROM generate_series(1, 10) i")
    return "t"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
