"""The two ways to a database that a run compares: straight to a server, and through a node to a server made the same way.

Each way has a server of its own, so that what a suite leaves behind on one is never seen on the other. The node is the
daemon as a user runs it; policy is `permissive.yaml` or the packs that ship.

Suites write names into their tests: they connect as `postgres`, to `postgres`. So the agent has that name, and each
database is a target of its own name: the address is the same both ways but for port and password.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness.node import Node
from harness.postgres_server import PostgresServer, running_server

HERE = Path(__file__).parent
USER = "postgres"
"""The role at the server, and the agent's handle at the node."""
DATABASES = ("postgres", "work", "restored", "shop", "test", "pgx_test", "pqgo", "regression")
MADE_BY_SUITES = ("testdb", "asyncpg_intro_test")
"""Databases that a suite creates itself and then connects to."""

SERVER = "log_statement=none\nmax_prepared_transactions=20\nmax_wal_senders=4\nwal_level=logical\n"
"""Of both servers: what the suites of PostgreSQL and of drivers expect of a server under test."""

SHIPPED = """\
version: 1
packs: [postgres, postgres-deny]
default: {review: {groups: [sre]}}
access:
  - {who: {groups: [agents]}, targets: {env: compat}, roles: ["*"]}
"""


@dataclass(frozen=True)
class Way:
    """How to reach a database. `through` is the node when there is one. `server` is for setting up and looking, around it."""

    name: str
    port: int
    password: str
    server: PostgresServer
    through: Node | None = None
    host: str = "127.0.0.1"

    def dsn(self, database: str = "postgres") -> str:
        return f"host={self.host} port={self.port} user={USER} dbname={database} password={self.password}"

    def url(self, database: str = "postgres", scheme: str = "postgresql") -> str:
        return f"{scheme}://{USER}:{quote(self.password, safe='')}@{self.host}:{self.port}/{database}"

    def env(self, database: str = "postgres") -> dict[str, str]:
        """The environment of a child that reaches this way by libpq's variables."""
        return {
            **os.environ, "PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": USER, "PGPASSWORD": self.password,
            "PGDATABASE": database, "PGAPPNAME": "compat",
        }  # fmt: skip

    def folder(self, scratch: Path) -> Path:
        """Return a place for what a check writes on this way."""
        folder = scratch / "runs" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def create_database(self, name: str) -> None:
        """Make it anew, around the proxy."""
        for sql in (f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}"):
            self.server.run(sql, user=USER, database="postgres")


@contextmanager
def direct(settings: str = SERVER) -> Iterator[Way]:
    with running_server(settings) as server:
        yield Way("direct", server.port, server.password, server)


@contextmanager
def through(folder: Path, policy: str = "", settings: str = SERVER) -> Iterator[Way]:
    """A server behind a node. `policy` is the text of a policy file; none is `permissive`, with free settings."""
    folder.mkdir(parents=True, exist_ok=True)
    with running_server(settings) as server:
        (folder / "target_password").write_text(server.password)
        (folder / "policy.yaml").write_text(policy or (HERE / "permissive.yaml").read_text())
        targets = [
            {
                "name": name, "protocol": "postgres", "address": f"127.0.0.1:{server.port}",
                "database": name, "role": USER, "tls": "disable", "labels": {"env": "compat"},
                "credentials": {"kind": "password", "from": "file:target_password"},
                **({} if policy else {"unsafe_client_settings": True}),
            }
            for name in (*DATABASES, *MADE_BY_SUITES)
        ]  # fmt: skip
        for name in DATABASES[1:]:
            server.run(f"CREATE DATABASE {name}", user=USER, database="postgres")
        node = Node(
            folder / "node",
            {
                "listen": {"postgres": "127.0.0.1:0"}, "targets": targets, "policies": [str(folder / "policy.yaml")],
                "approvals": {"hold": "60s", "expires": "15m", "validity": "24h"},
            },
        )  # fmt: skip
        # The password's reference is taken from the configuration's folder.
        (node.directory / "target_password").write_text(server.password)
        try:
            node.start()
            node.add_people()
            node.add_agent(USER)
            yield Way("through", node.port("postgres"), _password(node), server, node)
        finally:
            node.stop(patience=900)  # it seals what was open first, and a suite leaves transcripts of a hundred megabytes


def _password(node: Node) -> str:
    """Return a password that outlives every suite; the usual one ends after 15 minutes, and its sessions with it.

    One without an H or a P: SQLAlchemy's test of several hosts puts its URL together by replacing these letters, also there.
    """
    while True:
        password = str(node.json("principals", "password", USER, "--ttl", "8h")["password"])
        if not {"H", "P"} & set(password):
            return password


def run(*argv: str | Path, env: dict[str, str], stdin: str = "", timeout: float = 120, cwd: Path | None = None) -> str:
    """Run a program and return what it said and how it ended, as one text. Both streams, in the order they came."""
    done = subprocess.run(
        [str(word) for word in argv], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        check=False, env=env, cwd=cwd, errors="replace",
    )  # fmt: skip
    return f"{done.stdout}(exit {done.returncode})\n"
