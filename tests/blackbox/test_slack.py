"""A held command is answered in Slack: the daemon as a process between a stock ssh, a real sshd and the Slack of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blackbox.conftest import World, open_world
from harness import slack as fake
from harness.postgres_server import PostgresServer
from harness.slack import APP, BOB, CHANNEL, STRANGER, TEAM, FakeSlack, deliver, signed

pytestmark = [pytest.mark.blackbox, pytest.mark.interop]


@dataclass
class Shop:
    world: World
    slack: FakeSlack

    async def send(self, payload: dict[str, Any]) -> None:
        if self.slack.opened:
            assert (await self.slack.send(payload))["envelope_id"]
        else:
            assert (await deliver(self.world.node.url, *signed(payload))).status_code == 200


@contextlib.asynccontextmanager
async def open_shop(tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, mode: str) -> AsyncIterator[Shop]:
    monkeypatch.setenv("SLACK_BOT_TOKEN", fake.BOT_TOKEN)
    monkeypatch.setenv("SLACK_APP_TOKEN", fake.APP_TOKEN)
    monkeypatch.setenv("SLACK_SIGNING_SECRET", fake.SIGNING_SECRET)
    async with fake.running() as slack:
        secret = {"app_token": "env:SLACK_APP_TOKEN"} if mode == "socket" else {"signing_secret": "env:SLACK_SIGNING_SECRET"}
        configured = {
            "mode": mode, "team": TEAM, "app": APP, "bot_token": "env:SLACK_BOT_TOKEN", "channel": CHANNEL,
            "api_url": f"{slack.url}/api/", **secret,
        }  # fmt: skip
        approvals = {"hold": "60s", "expires": "15m", "channels": {"slack": configured}}
        async with open_world(tmp_path, server, approvals=approvals) as world:
            await asyncio.to_thread(world.node.run, "principals", "link", "bob", "--slack", f"{TEAM}/{BOB}")
            yield Shop(world, slack)


def wait_remembered(world: World) -> None:
    """Wait until the store says which message shows the request: killed before that, the node would post a second one."""
    for _ in range(4000):
        with contextlib.closing(sqlite3.connect(f"file:{world.node.data_dir}/interlock.db?mode=ro", uri=True)) as store:
            if store.execute("SELECT 1 FROM messages").fetchone():
                return
    raise AssertionError("the message was not remembered")


@pytest.mark.parametrize("mode", ["socket", "http"])
async def test_a_held_command_is_approved_from_slack_and_the_transcript_says_by_whom(
    tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    async with open_shop(tmp_path, server, monkeypatch, mode) as shop:
        world, slack = shop.world, shop.slack
        ssh = await asyncio.to_thread(world.start_ssh, f"rm -rf {victim}; exit 7")
        key, _ = await slack.message("A command waits for you")

        await shop.send(slack.click(key, "approve", user=STRANGER))
        assert "linked to nobody" in await slack.whisper()
        assert victim.exists() and ssh.poll() is None

        await shop.send(slack.click(key, "approve"))
        _, err = await asyncio.to_thread(ssh.communicate)
        assert "approved by bob" in err and ssh.returncode == 7 and not victim.exists()
        await slack.message("and the command was released")
        await asyncio.to_thread(world.node.stop)

        told = "".join(file.read_text() for file in world.node.data_dir.rglob("*.jsonl"))
        votes = [json.loads(line) for line in told.splitlines() if '"type":"vote"' in line]
        assert [(vote["counted"], vote["channel"]) for vote in votes] == [(False, "slack"), (True, "slack")]
        assert votes[1]["proof"] == "channel"
        for bundle in world.bundles():
            world.verify(bundle)
        everything = told + "".join(world.node.said)
        for secret in (fake.BOT_TOKEN, fake.APP_TOKEN, fake.SIGNING_SECRET, "ticket-"):
            assert secret not in everything


async def test_a_message_outlives_the_daemon_and_is_true_again_after_it(
    tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 while a command is held: its message comes to say that the agent left, can still be answered, once."""
    async with open_shop(tmp_path, server, monkeypatch, "socket") as shop:
        world, slack = shop.world, shop.slack
        ssh = await asyncio.to_thread(world.start_ssh, "rm -rf /srv/nothing")
        key, _ = await slack.message("A command waits for you")
        await asyncio.to_thread(wait_remembered, world)
        await asyncio.to_thread(world.node.kill)
        await asyncio.to_thread(ssh.communicate)
        await asyncio.to_thread(world.node.start)
        again, _ = await slack.message("has left")
        assert again == key and len(slack.messages) == 1
        await shop.send(slack.click(key, "deny"))
        await slack.until(lambda: slack.forms)
        await shop.send(slack.submit(slack.forms[0], values={"reason": "too late"}))
        await slack.message("bob denied it (slack): too late")
