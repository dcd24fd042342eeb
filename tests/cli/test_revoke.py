"""`interlock revoke` against the real routes on a real socket: what is sent, what each answer is, and who may lift."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.desk import PASSPHRASE, Desk, open_desk
from harness.webnode import open_web
from interlock.cli import revoke as verbs
from interlock.cli.documents import DOCUMENTS
from interlock.identity.principal import Kind


@dataclass
class Terminal:
    """Runs the verbs in a thread, as a process of its own would, while the daemon answers on the loop."""

    desk: Desk
    url: str
    folder: Path
    token: str = ""

    async def run(self, *words: str) -> Any:
        runner = CliRunner(env={"INTERLOCK_TOKEN": self.token or None})
        return await asyncio.to_thread(runner.invoke, verbs.app, [*words, "--server", self.url])

    async def json(self, *words: str, form: str = "revoke") -> dict[str, Any]:
        done = await self.run(*words, "--output", "json")
        assert done.exit_code == 0, done.stderr
        DOCUMENTS[form].model_validate_json(done.stdout)
        return dict(json.loads(done.stdout))

    def standing(self) -> list[tuple[str, str]]:
        return [(str(one.kind), one.value) for one in self.desk.revocations.standing()]


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with open_desk(tmp_path) as desk, open_web(desk, local=True) as url:
        yield Terminal(desk, url, tmp_path)


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with open_desk(tmp_path) as desk, open_web(desk, local=False) as url:
        token = await desk.directory.issue_token("carol")
        yield Terminal(desk, url, tmp_path, token.secret.reveal())


async def test_each_kind_is_revoked_listed_and_lifted(local: Terminal) -> None:
    robot = local.desk.entry("claude").identity
    serial = f"{0x00AB:016x}"
    asked = {
        ("credential", "tok_1"): ("credential", "tok_1"),
        ("serial", str(0x00AB)): ("credential", serial),
        ("serial", "0x" + serial): ("credential", serial),
        ("subject", "https://idp.example:repo:a/b"): ("subject", "https://idp.example:repo:a/b"),
        ("agent", "claude"): ("agent", str(robot)),
        ("target", "web-1"): ("target", "web-1"),
        ("everything",): ("everything", ""),
    }
    for words, meant in asked.items():
        row = await local.json(*words, "--reason", "looks odd")
        assert (row["kind"], row["value"], row["reason"]) == (*meant, "looks odd")
    assert local.standing() == list(asked.values())
    listed = await local.json("list", form="revoke-list")
    shown = await local.run("list")
    for row in listed["revocations"]:
        assert row["id"] in shown.stdout and row["value"] in shown.stdout
        assert (await local.json("lift", row["id"], form="revoke-lift")) == {"v": 1, "id": row["id"], "state": "lifted"}
    assert local.standing() == []
    assert "nothing is revoked" in (await local.run("list")).stderr


async def test_what_can_not_be_meant_has_its_exit_code(local: Terminal) -> None:
    done = await local.run("agent", "alice")
    assert done.exit_code == 2 and "revoked as a subject" in done.stderr
    assert (await local.run("lift", "rvk_none")).exit_code == 1
    assert (await local.run("agent")).exit_code == 2
    assert (await local.run("subject", "https://idp.example:a\u202eb")).exit_code == 2  # what a terminal would act on
    assert (await local.run("serial", "1234567890123456")).exit_code == 2  # decimal, or hexadecimal?
    assert local.standing() == []


async def test_over_the_network_an_administrator_s_token_revokes_and_a_passphrase_lifts(remote: Terminal) -> None:
    row = await remote.json("target", "web-1")
    refused = await remote.run("lift", row["id"])
    assert refused.exit_code == 3 and "step-up" in refused.stderr
    assert remote.standing() == [("target", "web-1")]
    phrase = remote.folder / "phrase"
    phrase.write_text("not this one")
    assert (await remote.run("lift", row["id"], "--as", "carol", "--passphrase-file", str(phrase))).exit_code == 3
    phrase.write_text(PASSPHRASE + "\n")
    assert (await remote.run("lift", row["id"], "--as", "bob", "--passphrase-file", str(phrase))).exit_code == 1  # reviews only
    assert remote.standing() == [("target", "web-1")]
    done = await remote.run("lift", row["id"], "--as", "carol", "--passphrase-file", str(phrase))
    assert done.exit_code == 0, done.stderr
    assert remote.standing() == []


async def test_who_is_no_administrator_revokes_nothing(remote: Terminal) -> None:
    await remote.desk.directory.add("eve", Kind.HUMAN)
    remote.token = (await remote.desk.directory.issue_token("eve")).secret.reveal()
    for words in (("everything",), ("agent", "claude"), ("list",), ("lift", "rvk_x")):
        assert (await remote.run(*words)).exit_code == 1
    remote.token = "ilk_not-a-token"
    assert (await remote.run("everything")).exit_code == 3
    assert remote.standing() == []
