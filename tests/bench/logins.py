"""Logins a second, and what a running session feels of them.

    python -m tests.bench logins        (LOGINS=200 SECONDS=20 in the environment)

A login is everything: begun, its code redeemed at a provider, its ID token verified, the login and its certificate written
down, on disk, and answered. They come at a fixed rate, whether or not the ones before are done. Meanwhile a Postgres session
of the same daemon asks `SELECT 1` again and again; its latency without logins is measured first, in the same run. The
provider and the clients are processes of this machine, too: they take their share of its cores.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import parse_qs, urlsplit

import asyncssh
import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proxy"), str(ROOT / "tests")]

from bench.table import cpu_seconds  # noqa: E402  after the path is set
from blackbox.conftest import World, open_world  # noqa: E402
from harness.issuer import public_jwk  # noqa: E402
from harness.postgres_server import running_server  # noqa: E402

RATE = int(os.environ.get("LOGINS", "200"))
SECONDS = int(os.environ.get("SECONDS", "20"))
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


# -- the provider: signs an ID token for every code, which is the nonce ----------------------------------------------------


def provide(told: Connection) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    keys = json.dumps({"keys": [public_jwk(key, "k1")]}).encode()
    issuer = ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        people = 0
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            lines = head.decode().lower().split("\r\n")
            size = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
            form = {name: values[0] for name, values in parse_qs((await reader.readexactly(size)).decode()).items()}
            path = head.split(b" ")[1].decode()
            if path == "/keys":
                body = keys
            elif path == "/token":
                people, now = people + 1, int(time.time())  # noqa: TID251  the provider's own clock
                claims = {"iss": issuer, "sub": f"person-{people % 50}", "aud": "cli", "iat": now, "exp": now + 600,
                          "nonce": form["code"], "preferred_username": f"person-{people % 50}", "groups": ["dba"]}  # fmt: skip
                body = json.dumps({"id_token": jwt.encode(claims, key, "ES256", headers={"kid": "k1"})}).encode()
            else:
                body = json.dumps({"issuer": issuer, "jwks_uri": issuer + "/keys", "authorization_endpoint": issuer + "/auth",
                                   "token_endpoint": issuer + "/token"}).encode()  # fmt: skip
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def run() -> None:
        nonlocal issuer
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        told.send(issuer)
        await server.serve_forever()

    asyncio.run(run())


# -- the people ---------------------------------------------------------------------------------------------------------------


class Person:
    """One connection to the daemon, with as little of an HTTP client as will do."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def post(self, path: str, body: dict[str, object], token: str = "") -> dict[str, str]:
        data = json.dumps(body).encode()
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{bearer}"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.split("content-length:")[1].split("\r\n")[0])
        answer: dict[str, str] = json.loads(await self._reader.readexactly(size))
        assert head.startswith(("http/1.1 200", "http/1.1 201")), answer
        return answer

    async def log_in(self, public: str) -> float:
        start = time.perf_counter()
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        begun = await self.post("/v1/login/browser", {"port": 4711, "challenge": CHALLENGE})
        nonce = parse_qs(urlsplit(begun["address"]).query)["nonce"][0]
        answer = {"flow": begun["flow"], "state": begun["state"], "code": nonce, "verifier": VERIFIER}
        opened = await self.post("/v1/login/browser/finish", answer)
        await self.post("/v1/certificate", {"public_key": public}, opened["token"])
        self._writer.close()
        return time.perf_counter() - start


def arrive(port: int, told: Connection) -> None:
    """Log in RATE times a second for SECONDS, in step with the clock; send what each took, and how long all took."""

    async def run() -> tuple[list[float], int, float]:
        public = " ".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[:2])
        start, tasks = time.perf_counter(), []
        for number in range(RATE * SECONDS):
            await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
            tasks.append(asyncio.create_task(Person(port).log_in(public)))
        done = await asyncio.gather(*tasks, return_exceptions=True)
        took = [each for each in done if isinstance(each, float)]
        return took, len(done) - len(took), time.perf_counter() - start

    told.send(asyncio.run(run()))


async def feel(world: World, seconds: float, until: Connection | None = None) -> list[float]:
    """Ask `SELECT 1` for that long (or until something came), with a pause between; return the latencies in ms."""
    link, found = await world.asyncpg(), []
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and not (until is not None and until.poll()):
            start = time.perf_counter()
            await link.fetchval("SELECT 1")
            found.append((time.perf_counter() - start) * 1000)
            await asyncio.sleep(0.005)
    finally:
        await link.close()
    return found


def spread(values: list[float]) -> str:
    cuts = quantiles(values, n=100)
    return f"p50 {median(values):.2f} ms, p99 {cuts[98]:.2f} ms, longest {max(values):.2f} ms"


async def main() -> int:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    provider = spawn.Process(target=provide, args=(theirs,), daemon=True)
    provider.start()
    issuer = await asyncio.to_thread(ours.recv)
    identity = {
        "issuers": [{"name": "idp", "issuer": issuer, "audience": "interlock"}],
        "login": {"issuer": "idp", "cli": {"client_id": "cli"}},
    }
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as scratch, running_server() as server:
        folder = Path(scratch)
        folder.chmod(0o755)
        async with open_world(folder, server, identity=identity) as world:
            quiet = await feel(world, 5)
            assert world.node.process is not None
            before = cpu_seconds(world.node.process.pid)
            people = spawn.Process(target=arrive, args=(world.node.port("http"), theirs), daemon=True)
            people.start()
            busy = await feel(world, SECONDS * 10, until=ours)
            took, failed, whole = await asyncio.to_thread(ours.recv)
            spent = cpu_seconds(world.node.process.pid) - before
            people.join(30)
    provider.terminate()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} around")
    print(f"logins: {len(took)} done, {failed} failed, {len(took) / whole:.0f} a second at {RATE} offered for {SECONDS} s")
    print(f"a login, with its certificate: {spread([seconds * 1000 for seconds in took])}" if took else "no login succeeded")
    print(f"CPU of the daemon for a login, the session's questions included: {spent / max(1, len(took)) * 1000:.1f} ms")
    print(f"a session without logins: {spread(quiet)}")
    print(f"a session meanwhile:      {spread(busy)}")
    return 1 if failed else 0
