"""A real PostgreSQL for a test session: SCRAM, every statement logged, thrown away afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.loopback import free_port

ADMIN = "postgres"
APP = "app"


def binaries() -> Path:
    """Return the folder of the newest installed server. Debian keeps them off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    if not found:
        raise RuntimeError("no PostgreSQL server is installed: run `make setup-test`")
    return found[-1].parent


@dataclass(frozen=True)
class PostgresServer:
    """A running server. `password` is that of both roles: `postgres` (superuser) and `app` (owns database `app`)."""

    port: int
    password: str
    folder: Path
    binaries: Path

    @property
    def log(self) -> str:
        """Everything it logged: log_statement=all, so every statement that reached it is here."""
        return (self.folder / "log").read_text(errors="replace")

    def dsn(self, user: str = APP, database: str = "app") -> str:
        return f"host=127.0.0.1 port={self.port} user={user} dbname={database} password={self.password}"

    def run(self, sql: str, *, user: str = APP, database: str = "app") -> str:
        """Run SQL directly, around the proxy; return what psql -At printed. Raise when it fails."""
        done = subprocess.run(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(user, database), "-c", sql],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout.strip()


@contextmanager
def running_server(settings: str = "", hba: str = "") -> Iterator[PostgresServer]:
    """Start a server in a folder of its own and remove both afterwards. As root it runs as another user."""
    where = binaries()
    folder = Path(tempfile.mkdtemp(prefix="interlock-pg-"))
    as_user = _unprivileged(folder)
    password = secrets.token_hex(12)
    (folder / "pw").write_text(password)
    if as_user:
        shutil.chown(folder / "pw", "postgres")
    data = folder / "data"

    def run(*argv: str) -> None:
        subprocess.run([*as_user, *argv], check=True, capture_output=True, timeout=60, cwd=folder)

    run(
        str(where / "initdb"), "-D", str(data), "-U", ADMIN, "-A", "scram-sha-256", f"--pwfile={folder / 'pw'}",
        "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
    )  # fmt: skip
    port = free_port()
    with (data / "postgresql.conf").open("a") as conf:
        conf.write(
            f"port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{folder}'\nfsync=off\nfull_page_writes=off\n"
            f"log_statement=all\nlog_line_prefix='%p %a '\nmax_connections=100\nshared_buffers=32MB\n"
            "authentication_timeout=600s\n"  # of a busy machine's client
            f"password_encryption='scram-sha-256'\n{settings}\n"
        )
    if hba:
        (data / "pg_hba.conf").write_text(hba)
    log = folder / "log"
    run(str(where / "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-t", "30", "start")
    server = PostgresServer(port, password, folder, where)
    try:
        server.run(f"CREATE ROLE {APP} LOGIN PASSWORD '{password}'", user=ADMIN, database="postgres")
        server.run(f"CREATE DATABASE app OWNER {APP}", user=ADMIN, database="postgres")
        server.run(f"GRANT ALL ON SCHEMA public TO {APP}", user=ADMIN)
        yield server
    finally:
        run(str(where / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> list[str]:
    """Return the words before a command that drop root, which PostgreSQL refuses to run as."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "postgres")
    folder.chmod(0o755)
    return ["runuser", "-u", "postgres", "--"]
