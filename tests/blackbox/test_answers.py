"""Answers beyond yes once and no, with stock clients at real servers: edits, wider scopes, people of two groups, a kill."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from blackbox.conftest import World, open_world
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient
from interlock.cli.client import Client
from interlock.clock import SystemClock, rfc3339
from interlock.control import SOCKET

pytestmark = [pytest.mark.blackbox, pytest.mark.asyncio(loop_scope="module")]

RULES = """\
version: 1
pack: ours
default: {review: {groups: [sre]}}
access:
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
rules:
  - {id: reading, title: Reading, decide: allow, when: 'effect.verb in ["select", "read", "function", "nothing"]'}
  - id: removal
    title: Removing files
    match: {protocol: ssh, verbs: [delete]}
    decide: review
    review: {groups: [sre], scopes: [once, exact, rule_in_session]}
  - id: ledger
    title: The ledger belongs to two teams
    match: {protocol: postgres, verbs: [delete]}
    when: effects.exists(e, e.object.endsWith("ledger"))
    decide: review
    review: {needs: [{groups: [sre]}, {groups: [dba]}]}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("answers")

    def with_rules(_: dict[str, Any]) -> None:
        (directory / "node/policies/ours.yaml").write_text(RULES)

    async with open_world(directory, server, adjust=with_rules) as opened:
        for handle, groups in (("bob", ["sre", "dba"]), ("carol", ["sre", "interlock-admins"])):
            words = [word for group in groups for word in ("--group", group)]
            await asyncio.to_thread(opened.node.run, "principals", "set", handle, *words)
        yield opened


class Person:
    """A reviewer at the API, stepped up just now."""

    def __init__(self, world: World, handle: str) -> None:
        self._socket = str(world.node.data_dir / SOCKET)
        passphrase = (world.node.directory / f"{handle}.passphrase").read_text()
        self._token: str | None = None
        self._token = self._post("/v1/step-up", {"handle": handle, "passphrase": passphrase})["token"]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with closing(Client(self._socket, token=self._token)) as client:
            answer: dict[str, Any] = client.post(path, body)
        return answer

    def _get(self, path: str) -> dict[str, Any]:
        with closing(Client(self._socket, token=self._token)) as client:
            answer: dict[str, Any] = client.get(path)
        return answer

    def answers(self, request: dict[str, Any], verdict: str, **more: Any) -> dict[str, Any]:
        return self._post(f"/v1/approvals/{request['id']}/decision", {"verdict": verdict, "digest": request["digest"], **more})

    def edits(self, request: dict[str, Any], text: str) -> dict[str, Any]:
        body = {"text": text, "digest": request["digest"], "reason": "the old ones only"}
        return self._post(f"/v1/approvals/{request['id']}/edit", body)

    def sees(self, request: str) -> dict[str, Any]:
        return self._get(f"/v1/approvals/{request}")

    def kills(self, session: str, why: str) -> None:
        self._post(f"/v1/sessions/{session}/kill", {"reason": why})

    def sessions(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._get("/v1/sessions/live")["sessions"]
        return rows


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = child.communicate(timeout=30)
    return child.returncode, err


async def test_an_edited_command_is_shown_to_the_agent_and_runs_when_it_runs_it(world: World, tmp_path: Path) -> None:
    await asyncio.to_thread(_edited, world, tmp_path)


def _edited(world: World, tmp_path: Path) -> None:
    everything, old = tmp_path / "data", tmp_path / "data/old"
    old.mkdir(parents=True)
    bob, carol = Person(world, "bob"), Person(world, "carol")
    child = world.start_ssh(f"rm -rf {everything}")
    request = world.wait_pending(child)
    edited = bob.edits(request, f"rm -rf {old}")
    status, said = ended(child)
    assert status == 75
    assert f"edited by bob as {edited['id']}" in said
    assert f"rm -rf {old}" in said
    assert everything.exists()

    with pytest.raises(Exception, match="can't answer"):
        bob.answers(edited, "approve")
    carol.answers(edited, "approve")
    assert world.ssh(f"rm -rf {old}").returncode == 0
    assert everything.exists()
    assert not old.exists()
    assert bob.sees(request["id"])["state"] == "superseded"
    assert bob.sees(edited["id"])["state"] == "consumed"


async def test_exactly_this_runs_again_without_a_question(world: World, tmp_path: Path) -> None:
    await asyncio.to_thread(_exactly, world, tmp_path)


def _exactly(world: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = f"rm -rf {cache}"
    bob = Person(world, "bob")
    cache.mkdir()
    child = world.start_ssh(command)
    until = rfc3339(SystemClock().now() + timedelta(minutes=5))
    bob.answers(world.wait_pending(child), "approve", scope="exact", valid_until=until)
    assert ended(child)[0] == 0
    cache.mkdir()
    assert world.ssh(command).returncode == 0
    assert not cache.exists()
    (grant,) = world.node.json("grants", "list")["grants"]
    world.node.run("grants", "revoke", grant["id"])
    cache.mkdir()
    child = world.start_ssh(command)
    bob.answers(world.wait_pending(child), "deny")
    assert ended(child)[0] == 126
    assert cache.exists()


async def test_people_of_two_groups_are_needed(world: World) -> None:
    await asyncio.to_thread(_two_groups, world)


def _two_groups(world: World) -> None:
    bob, carol = Person(world, "bob"), Person(world, "carol")
    child = world.start_psql("DELETE FROM ledger WHERE id = 1;")
    request = world.wait_pending(child)
    assert [need["groups"] for need in bob.sees(request["id"])["needs"]] == [["sre"], ["dba"]]
    assert bob.answers(request, "approve")["state"] == "pending"  # a member of both groups is one person
    assert world.postgres.run("SELECT count(*) FROM ledger").strip() == "1"
    assert carol.answers(request, "approve")["state"] in ("approved", "consumed")
    assert ended(child)[0] == 0
    assert world.postgres.run("SELECT count(*) FROM ledger").strip() == "0"


async def test_a_killed_session_ends_at_once_and_says_why(world: World) -> None:
    connection = await world.asyncpg()
    assert await connection.fetchval("SELECT 1") == 1
    carol = await asyncio.to_thread(Person, world, "carol")
    (session,) = [s for s in await asyncio.to_thread(carol.sessions) if s["target"] == "orders"]
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    connection.add_termination_listener(lambda _: gone.done() or gone.set_result(None))
    await asyncio.to_thread(carol.kills, session["id"], "an incident")
    await asyncio.wait_for(gone, 10)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    bundle = world.node.data_dir / "sessions" / session["id"]
    await asyncio.to_thread(_sealed, carol, bundle)
    closed = [json.loads(line) for line in (bundle / "events.jsonl").read_text().splitlines()][-1]
    assert (closed["type"], closed["reason"]) == ("session.close", "session-killed")
    await asyncio.to_thread(world.verify, bundle)


async def test_somebody_disabled_loses_what_is_open_and_what_is_asked(world: World) -> None:
    await asyncio.to_thread(world.node.add_agent, "rover")
    password = await asyncio.to_thread(world.node.password, "rover")
    port = world.node.port("postgres")
    running, asking = [
        await asyncio.to_thread(WireClient.connect, port, "rover", "orders", password) for _ in range(2)
    ]  # fmt: skip
    with running, asking:
        running.send(WireClient.query("SELECT pg_sleep(600)"))
        asking.send(WireClient.query("DELETE FROM ledger WHERE id = 7"))
        request = await asyncio.to_thread(world.wait_pending)
        await asyncio.to_thread(world.node.run, "principals", "set", "rover", "--disable")
        for client in (running, asking):
            assert (await asyncio.to_thread(client.fatal))["C"] == "28000"
    carol = await asyncio.to_thread(Person, world, "carol")
    while (seen := await asyncio.to_thread(carol.sees, request["id"]))["state"] == "pending":
        pass
    assert seen["state"] == "cancelled"
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
    while await asyncio.to_thread(world.postgres.run, asleep, user="postgres") != "0":
        pass


def _sealed(person: Person, bundle: Path) -> None:
    """The client is told before the last line is written: ask the daemon something else until it has sealed the bundle."""
    for _ in range(400):
        if (bundle / "seal.json").exists():
            return
        person.sessions()
    raise AssertionError(f"{bundle.name} was not sealed")


async def test_every_transcript_of_these_verifies(world: World) -> None:
    done = [bundle for bundle in world.bundles() if (bundle / "seal.json").exists()]
    assert len(done) >= 5
    await asyncio.to_thread(world.verify, *done)
