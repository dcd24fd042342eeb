"""What a customer would try first: stock psql, ssh and a driver against `interlock serve` with real servers."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from blackbox.conftest import World, open_world
from harness.loopback import free_port
from harness.postgres_server import PostgresServer

pytestmark = [pytest.mark.blackbox, pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]


async def test_a_held_delete_inside_begin_is_denied_and_the_connection_lives(world: World) -> None:
    world.postgres.run("TRUNCATE t; INSERT INTO t SELECT generate_series(1, 5)")
    before = len(world.postgres.log)
    script = "BEGIN;\nDELETE FROM t;\nSELECT 1;\nROLLBACK;\nSELECT 'alive', count(*) FROM t;\n"
    psql = await asyncio.to_thread(world.start_psql, script)
    request = await asyncio.to_thread(world.wait_pending, psql)
    assert request["text"] == "DELETE FROM t;" or request["text"] == "DELETE FROM t"
    assert world.postgres.run("SELECT count(*) FROM t") == "5"

    await asyncio.to_thread(world.node.vote, "deny", request["id"], reason="use a WHERE")

    out, err = await asyncio.to_thread(psql.communicate)
    assert "held for approval" in err
    assert "denied by bob: use a WHERE" in err
    assert "current transaction is aborted" in err  # the server's own state, not ours
    assert "alive|5" in out
    assert "statement: DELETE FROM t" not in world.postgres.log[before:]


async def test_an_executemany_of_sixty_thousand_rows_passes(world: World) -> None:
    world.postgres.run("TRUNCATE bulk")
    link = await world.asyncpg("scratch")
    try:
        await link.executemany("INSERT INTO bulk VALUES ($1, $2)", [(n, f"row {n}") for n in range(60_000)])
    finally:
        await link.close()
    assert world.postgres.run("SELECT count(*), sum(id) FROM bulk") == f"60000|{sum(range(60_000))}"


async def test_psql_through_a_tunnel_comes_to_the_same_front_end(world: World) -> None:
    """`ssh -L` to a Postgres target: our own front end, with its own login, gated as ever. Never the server itself."""
    port = free_port()
    words = ["-o", "ExitOnForwardFailure=yes", "-N", "-l", "claude", "-L", f"127.0.0.1:{port}:orders:5432"]
    tunnel = await asyncio.create_subprocess_exec(*world.ssh_argv("", *words)[:-2], "127.0.0.1", stderr=asyncio.subprocess.PIPE)
    dsn = f"host=127.0.0.1 port={port} user=claude dbname=orders"

    async def psql(password: str, sql: str) -> tuple[int, str]:
        argv = ["psql", "-XAt", "-d", f"{dsn} password={password}", "-c", sql]
        child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        said, _ = await asyncio.wait_for(child.communicate(), 60)
        return child.returncode or 0, said.decode()

    try:
        async with asyncio.timeout(60):
            while "refused" in (said := (await psql(world.password, "SELECT 41 + 1"))[1]):  # ssh has not bound its port yet
                assert tunnel.returncode is None, await tunnel.communicate()
        assert said == "42\n"
        assert (await psql("wrong", "SELECT 1"))[0] != 0
        status, said = await psql(world.password, "DROP DATABASE app")
        assert status != 0
        assert "denied-by-policy" in said
        assert "statement: DROP DATABASE" not in world.postgres.log
    finally:
        if tunnel.returncode is None:
            tunnel.terminate()
        await tunnel.wait()


async def test_a_reload_makes_connections_to_targets_anew_and_ends_nothing_that_runs(world: World) -> None:
    await asyncio.to_thread(_reloaded, world)


def _reloaded(world: World) -> None:
    node = world.node
    assert node.process is not None
    with world.start_ssh("cat", stdin=subprocess.PIPE) as running:

        def echoed(word: str) -> str:
            assert running.stdin is not None and running.stdout is not None
            running.stdin.write(f"{word}\n")
            running.stdin.flush()
            return running.stdout.readline().strip()

        assert echoed("before") == "before"
        first = _line_of_another(world)
        assert first["reused"], "one connection carries both"
        times = sum("policy.reloaded" in line for line in node.said)
        node.process.send_signal(signal.SIGHUP)
        node.wait_said("policy.reloaded", times=times + 1)
        second = _line_of_another(world)
        assert (second["reused"], second["line"] != first["line"], second["port"] != first["port"]) == (False, True, True)
        assert echoed("after") == "after", "what ran then runs on"
    assert running.returncode == 0
    third = _line_of_another(world)
    assert (third["line"], third["reused"]) == (second["line"], True)


def _line_of_another(world: World) -> dict[str, Any]:
    """Run one more command, and return what its transcript says of the connection to the target."""
    before = set(world.bundles())
    assert world.ssh("true").returncode == 0
    (bundle,) = set(world.bundles()) - before
    events = map(json.loads, (bundle / "events.jsonl").read_text().splitlines())
    return next(event for event in events if event["type"] == "channel.open" and event["side"] == "target")


async def test_a_held_rm_is_approved_from_a_second_terminal_and_its_exit_status_arrives(world: World, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    ssh = await asyncio.to_thread(world.start_ssh, f"rm -rf {victim} /proc/nothing; exit 7")
    request = await asyncio.to_thread(world.wait_pending, ssh)
    assert victim.exists()
    for person in ("alice",):  # she owns the agent
        said = await asyncio.to_thread(world.node.vote, "approve", request["id"], person, status=1)
        assert "owns the agent" in said
    assert victim.exists()

    await asyncio.to_thread(world.node.vote, "approve", request["id"], "bob")

    _, err = await asyncio.to_thread(ssh.communicate)
    assert "approved by bob" in err
    assert ssh.returncode == 7
    assert not victim.exists()
    assert world.sshd.forced() == 1  # the certificate carried the bytes


async def test_the_agent_itself_can_not_approve(world: World) -> None:
    ssh = await asyncio.to_thread(world.start_ssh, "rm -rf /srv/nothing")
    request = await asyncio.to_thread(world.wait_pending, ssh)
    token = (await asyncio.to_thread(world.node.json, "principals", "token", "issue", "claude"))["token"]
    done = subprocess.run(
        ["curl", "-s", "-X", "POST", "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json", "-d",
         json.dumps({"verdict": "approve", "digest": request["digest"]}),
         f"{world.node.url}/v1/approvals/{request['id']}/decision"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["reason"] == "not-a-person"
    await asyncio.to_thread(world.node.vote, "deny", request["id"])
    await asyncio.to_thread(ssh.communicate)
    assert ssh.returncode == 126


async def test_exit_75_then_once_after_approval_then_it_waits_again(impatient: World, tmp_path: Path) -> None:
    world = impatient
    log = tmp_path / "ran"
    command = f"rm -rf {tmp_path / 'nothing'}; echo ran >> {log}"

    first = await asyncio.to_thread(world.ssh, command)
    assert first.returncode == 75 and "run the same command again after approval" in first.stderr
    (request,) = await asyncio.to_thread(world.node.pending)
    await asyncio.to_thread(world.node.vote, "approve", request["id"])
    assert not log.exists()

    second = await asyncio.to_thread(world.ssh, command)
    assert (second.returncode, log.read_text()) == (0, "ran\n")

    third = await asyncio.to_thread(world.ssh, command)
    assert third.returncode == 75 and log.read_text() == "ran\n"
    (again,) = await asyncio.to_thread(world.node.pending)
    assert again["id"] != request["id"]


@pytest_asyncio.fixture(loop_scope="module")
async def impatient(tmp_path: Path, server: PostgresServer) -> AsyncIterator[World]:
    """A node that gives commands back after a second."""
    async with open_world(tmp_path, server, approvals={"hold": "1s", "expires": "15m"}) as opened:
        yield opened


async def test_psql_describe_commands_pass_without_a_human(world: World) -> None:
    for command in (
        "\\d",
        "\\dt+",
        "\\d described",
        "\\d+ described",
        "\\di",
        "\\dv",
        "\\ds",
        "\\dn",
        "\\df",
        "\\du",
        "\\l",
        "\\dT",
    ):
        done = await asyncio.to_thread(world.psql, command + "\n")
        complaints = [line for line in done.stderr.splitlines() if not line.startswith("Did not find any")]
        assert (done.returncode, complaints) == (0, []), command
    assert await asyncio.to_thread(world.node.pending) == []


async def test_asyncpg_introspection_passes_without_a_human(world: World) -> None:
    link = await world.asyncpg()
    try:
        assert await link.fetchval("SELECT m FROM moods WHERE id = $1", 1) == "ok"
        assert await link.fetchval("SELECT ms FROM moods WHERE id = 1") == ["bad"]
    finally:
        await link.close()


async def test_a_full_export_is_held_and_denied(world: World) -> None:
    before = len(world.postgres.log)
    for text in ("COPY customers TO STDOUT;", "SELECT * FROM customers;"):
        psql = await asyncio.to_thread(world.start_psql, text + "\n")
        request = await asyncio.to_thread(world.wait_pending, psql)
        await asyncio.to_thread(world.node.vote, "deny", request["id"], reason="not at 2:13")
        _, err = await asyncio.to_thread(psql.communicate)
        assert "not at 2:13" in err
        assert text.rstrip(";") not in world.postgres.log[before:]


async def test_everything_that_happened_is_in_transcripts_that_verify(impatient: World) -> None:
    world = impatient
    await asyncio.to_thread(world.ssh, "echo seen by the transcript")
    await asyncio.to_thread(world.psql, "SELECT 42;\n")
    jump = shlex.join([*world.ssh_argv("", "-W", "web-1:22", "-l", "claude")[:-2], "127.0.0.1"])
    words = ["-o", f"ProxyCommand={jump}", "-o", f"HostKeyAlias=[127.0.0.1]:{world.node.port('ssh')}"]
    tunnelled = await asyncio.create_subprocess_exec(*world.ssh_argv("echo came through a tunnel", *words))
    assert await asyncio.wait_for(tunnelled.wait(), 60) == 0
    await asyncio.to_thread(world.node.stop)
    sealed = [b for b in world.bundles() if (b / "seal.json").exists()]
    assert len(sealed) == len(world.bundles()) >= 2
    said = await asyncio.to_thread(world.verify, *sealed)
    assert "echo seen by the transcript" in said.replace("'", "") and "SELECT 42" in said
    assert "echo came through a tunnel" in said.replace("'", "")
    for bundle in sealed:
        with (bundle / "seal.json").open("rb") as seal:
            checked = subprocess.run(
                ["ssh-keygen", "-Y", "verify", "-f", world.node.data_dir / "trust/allowed_signers", "-I", "test",
                 "-n", "session-seal@interlock", "-s", bundle / "seal.json.sig"],
                stdin=seal, capture_output=True, text=True, check=False,
            )  # fmt: skip
        assert checked.returncode == 0, checked.stderr


async def test_no_access_rule_means_no_access(world: World) -> None:
    await asyncio.to_thread(world.node.run, "principals", "add", "stranger", "--kind", "agent", "--owner", "alice")
    password = await asyncio.to_thread(world.node.password, "stranger")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(
            host="127.0.0.1", port=world.node.port("postgres"), user="stranger", database="orders", password=password, ssl=False
        )
