"""Runs the benches, prints ratios, writes them as JSON, and fails unless the transcript holds what was sent."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proxy"), str(ROOT / "tests")]

from bench import approvals, evidence, logins, postgres, results, ssh  # noqa: E402  after the path is set
from bench.table import Figure, Row, earlier, keep, show  # noqa: E402
from blackbox.conftest import World, open_world  # noqa: E402
from harness.postgres_server import running_server  # noqa: E402
from interlock.evidence.disclosure import parse_line  # noqa: E402

SCALE = 1
SETTINGS = "log_statement=none\nmax_connections=3500"


async def main() -> int:
    if sys.argv[1:2] == ["ssh"]:
        return await only_ssh(only_bulk=sys.argv[2:] == ["bulk"])
    if sys.argv[1:] == ["logins"]:
        return await logins.main()
    only_postgres = sys.argv[1:] == ["postgres"]
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as scratch, running_server(SETTINGS) as server:
        directory = Path(scratch)
        directory.chmod(0o755)
        pgbench = server.binaries / "pgbench"
        subprocess.run([pgbench, "-i", "-q", "-s", str(SCALE), server.dsn()], check=True, capture_output=True)
        results.prepare(server)
        tls = certificate(directory / "tls")
        ends = {"certificate": f"{tls}/cert.pem", "key": f"{tls}/key.pem"}
        async with open_world(directory, server, adjust=ssh.cold_target, tls=ends) as world:
            rows, figures, problems = await asyncio.to_thread(measure_postgres, world, pgbench, directory, tls)
            if not only_postgres:
                ssh_rows, ssh_figures = await ssh.measure(world)
                rows, figures = rows + ssh_rows, figures + ssh_figures
        out = ROOT / "bench.json"
        show(rows, earlier(out))
        server.run("CREATE TABLE t (id int)")
        answering = directory / "answering"
        answering.mkdir(mode=0o755)
        if not only_postgres:
            await approvals.measure(answering, server)
            figures += await evidence.measure()
            logging_in = directory / "logging-in"
            logging_in.mkdir(mode=0o755)
            figures += await logins.measure(logging_in, server)
        for figure in figures:
            print(figure)
        if only_postgres:
            return done(problems)  # not kept: the next whole run is compared with a whole one
        if not problems:
            keep(out, rows, figures)
            print(f"written to {out.name}")
        return done(problems)


def done(problems: list[str]) -> int:
    for problem in problems:
        print(f"FAIL: {problem}", file=sys.stderr)
    return 1 if problems else 0


async def only_ssh(*, only_bulk: bool) -> int:
    """`python -m tests.bench ssh`: the rows of SSH alone, printed and not kept. `ssh bulk` leaves all but bulk out."""
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as scratch, running_server(SETTINGS) as server:
        directory = Path(scratch)
        directory.chmod(0o755)
        async with open_world(directory, server, adjust=ssh.cold_target) as world:
            rows, figures = await ssh.measure(world, only_bulk=only_bulk)
    show(rows)
    for figure in figures:
        print(figure)
    return 0


def certificate(directory: Path) -> Path:
    """Make a certificate for 127.0.0.1, for the ways that offer TLS."""
    directory.mkdir(mode=0o755)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    return directory


def measure_postgres(world: World, pgbench: Path, directory: Path, tls: Path) -> tuple[list[Row], list[Figure], list[str]]:
    server = world.postgres
    password = world.node.json("principals", "password", "claude", "--ttl", "2h")["password"]
    direct = postgres.Way("direct", server.port, "app", "app", server.password, None)
    with (
        postgres.pgbouncer(server, directory / "pgbouncer", tls) as bouncer,
        postgres.haproxy(server, directory / "haproxy") as passing,
    ):
        ours = postgres.interlock_way(world.node, password)
        ways = [direct, *(peer for peer in (bouncer, passing) if peer is not None), ours]
        idle_rows, idle = results.measure_idle(ways)  # first: later, sessions fit into what others have left
        rows, sent = postgres.measure(ways, pgbench)
        rows += [*results.measure(ways), *idle_rows]
    world.node.stop()
    recorded = forwarded(world)
    print(f"statements sent through Interlock: {sent['interlock']}; in its transcripts: {recorded}")
    problems: list[str] = []
    if recorded != sent["interlock"]:
        problems.append(f"{sent['interlock']} statements were sent, {recorded} are in the transcripts")
    world.node.start()
    world.trust_host()  # it listens on another port now
    return rows, [idle], problems


def forwarded(world: World) -> int:
    """Count the releases of pgbench's select in every transcript: one forward a Query or Bind of that text."""
    count = 0
    for bundle in world.bundles():
        selects = selects_of(bundle)
        decisions: dict[int, int] = {}
        with (bundle / "events.jsonl").open("rb") as lines:
            for line in lines:
                if b'"type":"decision"' not in line and b'"type":"forward"' not in line:
                    continue
                event = json.loads(line)
                if event["type"] == "decision":
                    decisions[event["seq"]] = event["ref"]
                elif decisions[event["ref"]] in selects:
                    count += 1
    return count


def selects_of(bundle: Path) -> set[int]:
    """Return the events, but for Parse, that commit to pgbench's own select; pgbench also asks for the tables' sizes."""
    texts: set[int] = set()
    with (bundle / "disclosures.jsonl").open("rb") as lines:
        for line in lines:
            disclosed = parse_line(line)
            if disclosed.name == "text" and str(disclosed.value).startswith(postgres.SELECT):
                texts.add(disclosed.seq)
    with (bundle / "events.jsonl").open("rb") as lines:
        return texts.difference(json.loads(line)["seq"] for line in lines if b'"type":"pg.parse"' in line)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
