"""`interlock approvals`, `grants` and `sessions kill` as a person or a script runs them, against a real daemon's API."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.desk import PASSPHRASE
from harness.house import SCOPED, House, open_house
from harness.requests import SHELL, TERMS
from harness.screen import on_terminal
from interlock.approvals.model import Proof, State
from interlock.cli.documents import DOCUMENTS
from interlock.policy.model import Risk, StepUp

pytestmark = pytest.mark.blackbox

CRITICAL = replace(TERMS, risk=Risk.CRITICAL, step_up=StepUp.PASSKEY)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as made:
        (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
        yield made


@dataclass
class Ran:
    code: int
    out: str
    err: str

    def document(self, verb: str) -> dict[str, Any]:
        """Return what was printed, held to the verb's own model: exactly its keys, each of its type."""
        DOCUMENTS[verb].model_validate_json(self.out)
        return dict(json.loads(self.out))


async def interlock(house: House, *words: str, env: dict[str, str] | None = None) -> Ran:
    argv = [sys.executable, "-m", "interlock", *words, "--server", house.socket]
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    out, err = await child.communicate()
    assert child.returncode is not None
    return Ran(child.returncode, out.decode(), err.decode())


def as_bob(tmp_path: Path, *more: str) -> list[str]:
    return ["--as", "bob", "--passphrase-file", str(tmp_path / "passphrase"), *more]


# -- json: one schema a verb --------------------------------------------------------------------------------------------


async def test_what_verbs_print_is_what_their_schema_says(house: House, tmp_path: Path) -> None:
    first, second = await house.ask(said="the disk is full"), await house.ask_sql("DELETE FROM orders")
    third, scoped = await house.ask(command=replace(SHELL, text=b"rm -rf /srv/c")), await house.ask_scoped()
    session = await house.live()
    (tmp_path / "text").write_text("DELETE FROM orders WHERE id = 7\n")

    async def ran(verb: str, *words: str, token: str = "") -> dict[str, Any]:
        done = await interlock(house, *words, "-o", "json", env={"INTERLOCK_TOKEN": token} if token else None)
        assert done.code == 0, done.err
        return done.document(verb)

    listed = await ran("approvals-list", "approvals", "list")
    assert [row["id"] for row in listed["approvals"]] == sorted([r.id for r in (first, second, third, scoped)], reverse=True)
    shown = await ran("approvals-show", "approvals", "show", first.id)
    assert shown["said"] == "the disk is full" and shown["words"]
    approved = await ran(
        "approvals-approve", "approvals", "approve", scoped.id, *as_bob(tmp_path, "--scope", "exact", "--for", "30m")
    )
    assert approved["votes"][0]["scope"] == "exact"
    denied = await ran("approvals-deny", "approvals", "deny", third.id, *as_bob(tmp_path, "--reason", "no"))
    assert denied["state"] == "denied"
    edited = await ran("approvals-edit", "approvals", "edit", second.id, *as_bob(tmp_path, "--edit-file", str(tmp_path / "text")))
    assert edited["text"] == "DELETE FROM orders WHERE id = 7" and edited["edited_from"] == second.id
    gone = await ran("approvals-withdraw", "approvals", "withdraw", first.id, "--reason", "not needed")
    assert gone["state"] == "cancelled"
    (grant,) = (await ran("grants-list", "grants", "list"))["grants"]
    assert (await ran("grants-revoke", "grants", "revoke", grant["id"]))["state"] == "revoked"
    assert (await ran("sessions-live", "sessions", "live"))["sessions"][0]["id"] == session
    assert (await ran("sessions-list", "sessions", "list"))["sessions"][0]["id"] == session
    assert (await ran("sessions-show", "sessions", "show", session))["id"] == session
    assert (await ran("sessions-kill", "sessions", "kill", session))["killed"] is True
    bobs = await house.token("bob")  # at a URL nobody is somebody without a token or a login
    assert (await ran("whoami", "whoami", token=bobs))["handle"] == "bob"
    await ran("ls", "ls", token=bobs)


async def test_watch_without_a_terminal_prints_a_line_a_change(house: House) -> None:
    argv = [sys.executable, "-m", "interlock", "approvals", "watch", "--server", house.socket, "-o", "json"]
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL)
    assert child.stdout is not None
    try:
        asking = asyncio.create_task(child.stdout.readline())
        number = 0
        while not asking.done():  # until it listens: what was asked before is no change
            request = await house.ask(command=replace(SHELL, text=b"rm -rf /srv/%d\x1b[2J" % number))
            number += 1
            await asyncio.wait([asking], timeout=0.2)
        line = asking.result().decode()
    finally:
        child.kill()
        await child.wait()
    DOCUMENTS["approvals-watch"].model_validate_json(line)
    assert "\x1b" not in line and json.loads(line)["state"] == "pending"
    assert request.id


# -- exit codes and sentences -------------------------------------------------------------------------------------------


async def test_exit_codes_say_what_happened(house: House, tmp_path: Path) -> None:
    request = await house.ask()
    (tmp_path / "wrong").write_text("wrong\n")
    cases: list[tuple[list[str], int, str]] = [
        (["approvals", "approve", request.id, "--as", "bob"], 3, "--passphrase-file"),
        (["approvals", "approve", request.id, "--as", "bob", "--passphrase-file", str(tmp_path / "wrong")], 3, "wrong"),
        (["approvals", "approve", request.id, *as_bob(tmp_path, "--scope", "exact")], 2, "--for"),
        (["approvals", "approve", request.id, *as_bob(tmp_path, "--scope", "exact", "--for", "soon")], 2, "30m"),
        (["approvals", "approve", request.id, *as_bob(tmp_path, "--for", "30m")], 2, "once"),
        (["approvals", "approve", request.id, *as_bob(tmp_path, "--scope", "exact", "--for", "5m")], 1, "not offered"),
        (["approvals", "approve", request.id, *as_bob(tmp_path, "--break-glass")], 2, "passkey"),
        (["approvals", "approve", request.id, *as_bob(tmp_path, "--edit")], 2, "--edit-file"),
        (["approvals", "show", "req_none"], 1, "no request"),
        (["approvals", "approve", request.id], 2, "--as"),
        (["grants", "revoke", "grt_none"], 1, "no such grant"),
        (["sessions", "kill", "none"], 1, "no live session"),
    ]
    answers = await asyncio.gather(*(interlock(house, *words) for words, _, _ in cases))
    for (words, code, said), done in zip(cases, answers, strict=True):
        assert (done.code, done.out) == (code, ""), (words, done)
        assert said in done.err, (words, done.err)
        assert "Traceback" not in done.err
    assert await house.state(request) is State.PENDING
    away = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "interlock", "approvals", "list", "--server", str(tmp_path / "nobody.sock"),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await away.wait() == 7


async def test_a_hostile_request_prints_no_control_character(house: House, tmp_path: Path) -> None:
    hostile = "ls \x1b]0;x\x07\x1b[2J\x9b1m\u202e\u2028\r\nrm -rf /".encode()
    request = await house.ask(command=replace(SHELL, text=hostile), said="\x1b[2J\u202e", facts=("\x1b[31mrows",))
    for words in (["list"], ["show", request.id], ["deny", request.id, *as_bob(tmp_path, "--reason", "\x1b[2J")]):
        done = await interlock(house, "approvals", *words)
        assert done.code == 0, done.err
        for char in done.out + done.err:
            assert char == "\n" or char.isprintable(), (words, hex(ord(char)))
        assert "\u202e" not in done.out + done.err


# -- edit ---------------------------------------------------------------------------------------------------------------


async def test_the_editor_gets_the_text_and_its_answer_is_proposed(house: House, tmp_path: Path) -> None:
    request = await house.ask_sql("DELETE FROM orders")
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf \'%s WHERE id = 7\\n\' "$(cat "$1")" > "$1"\n')
    editor.chmod(0o755)
    argv = [sys.executable, "-m", "interlock", "approvals", "approve", request.id, "--edit", "--as", "bob",
            "--server", house.socket]  # fmt: skip
    async with on_terminal(argv, {**os.environ, "VISUAL": str(editor)}) as terminal:
        await terminal.until("passphrase of bob:")
        terminal.type(PASSPHRASE + "\n")
        await terminal.until("waits in place of")
        assert await terminal.ended() == 0
        assert PASSPHRASE.encode() not in terminal.screen.raw
    (new,) = await house.desk.inbox.list(State.PENDING)
    assert (new.draft.command.text, new.edited_from) == (b"DELETE FROM orders WHERE id = 7", request.id)


# -- signatures of one's own --------------------------------------------------------------------------------------------


async def keygen(path: Path, passphrase: str = "") -> str:
    child = await asyncio.create_subprocess_exec(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "bob", "-f", str(path)
    )
    assert await child.wait() == 0
    return path.with_suffix(".pub").read_text()


async def test_a_critical_request_is_approved_with_a_signature_of_ones_own_key(house: House, tmp_path: Path) -> None:
    await house.desk.directory.add_ssh_key("bob", await keygen(tmp_path / "mine"))
    await keygen(tmp_path / "strange")
    request = await house.ask(terms=CRITICAL)
    unsigned = await interlock(house, "approvals", "approve", request.id, *as_bob(tmp_path))
    assert unsigned.code == 2 and "--sign" in unsigned.err
    strange = await interlock(
        house, "approvals", "approve", request.id, *as_bob(tmp_path, "--sign", "--key", str(tmp_path / "strange"))
    )
    assert strange.code == 1 and await house.state(request) is State.PENDING
    done = await interlock(
        house, "approvals", "approve", request.id, *as_bob(tmp_path, "--sign", "--key", str(tmp_path / "mine"), "-o", "json")
    )
    assert done.code == 0, done.err
    (vote,) = done.document("approvals-approve")["votes"]
    assert vote["proof"] == "personal" and vote["signed"]["kind"] == "sshsig"
    assert (await house.desk.inbox.get(request.id)).votes[0].proof is Proof.PERSONAL


async def test_ssh_keygen_asks_for_the_passphrase_of_the_key_at_the_terminal(house: House, tmp_path: Path) -> None:
    await house.desk.directory.add_ssh_key("bob", await keygen(tmp_path / "mine", "key passphrase"))
    request = await house.ask(terms=CRITICAL)
    argv = [sys.executable, "-m", "interlock", "approvals", "approve", request.id, *as_bob(tmp_path), "--sign",
            "--key", str(tmp_path / "mine"), "--server", house.socket]  # fmt: skip
    async with on_terminal(argv, os.environ) as terminal:
        await terminal.until("Enter passphrase")
        terminal.type("key passphrase\n")
        await terminal.until(f"{request.id} is approved")
        assert await terminal.ended() == 0
        assert b"key passphrase" not in terminal.screen.raw


async def test_a_key_that_an_agent_holds_signs(house: House, tmp_path: Path) -> None:
    public = await keygen(tmp_path / "mine")
    await house.desk.directory.add_ssh_key("bob", public)
    socket = tmp_path / "agent.sock"
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(socket), stdout=asyncio.subprocess.PIPE)
    assert agent.stdout is not None
    await agent.stdout.readline()
    env = {"SSH_AUTH_SOCK": str(socket)}
    try:
        for key in ("mine", "other"):
            if key == "other":
                await keygen(tmp_path / key)
            added = await asyncio.create_subprocess_exec(
                "ssh-add", "-q", str(tmp_path / key), env={**os.environ, **env}, stderr=asyncio.subprocess.DEVNULL
            )
            assert await added.wait() == 0
        (tmp_path / "mine").unlink()
        request = await house.ask(terms=CRITICAL)
        several = await interlock(house, "approvals", "approve", request.id, *as_bob(tmp_path, "--sign"), env=env)
        assert several.code == 1 and "agent:SHA256:" in several.err
        child = await asyncio.create_subprocess_exec(
            "ssh-keygen", "-lf", str(tmp_path / "mine.pub"), stdout=asyncio.subprocess.PIPE
        )
        named = (await child.communicate())[0].split()[1].decode()
        done = await interlock(
            house, "approvals", "approve", request.id, *as_bob(tmp_path, "--sign", "--key", f"agent:{named}"), env=env
        )
        assert done.code == 0, done.err
    finally:
        agent.terminate()
        await agent.wait()
    assert (await house.desk.inbox.get(request.id)).votes[0].proof is Proof.PERSONAL


async def test_a_signature_binds_the_scope_that_it_was_made_for(house: House, tmp_path: Path) -> None:
    """Whoever holds the answer on its way can't widen it: the signed statement names scope and end."""
    from interlock.cli.signing import sign

    await house.desk.directory.add_ssh_key("bob", await keygen(tmp_path / "mine"))
    request = await house.ask(terms=replace(SCOPED, step_up=StepUp.PASSKEY))
    row = {"digest": request.digest, "nonce": request.nonce}
    proof = await asyncio.to_thread(sign, row, "deny", "once", None, str(tmp_path / "mine"))
    async with house.client(await house.stepped_up("bob")) as http:
        body = {"verdict": "approve", "digest": request.digest, "proof": proof}
        answer = await http.post(f"/v1/approvals/{request.id}/decision", json=body)
        assert (answer.status_code, answer.json()["reason"]) == (403, "proof-rejected")
    assert await house.state(request) is State.PENDING
