"""`interlock principals` against the real routes on a real socket: what is sent, what is shown, what never leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typer.testing import CliRunner

from harness.loopback import free_port
from harness.registry import PHRASE, open_registry
from harness.webserver import serving
from interlock.cli import principals as verbs
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.entries import ADMINS
from interlock.identity.registration import NewPasskey


@dataclass
class Terminal:
    """Runs the verbs in a thread, as a process of its own would, while the daemon answers on the loop."""

    directory: Directory
    authenticator: Authenticator
    url: str
    folder: Path

    async def run(self, *words: str) -> Any:
        runner = CliRunner()
        return await asyncio.to_thread(runner.invoke, verbs.app, [*words, "--server", self.url])

    async def json(self, *words: str) -> dict[str, object]:
        done = await self.run(*words, "--output", "json")
        assert done.exit_code == 0, done.stderr
        value = json.loads(done.stdout)
        assert value["v"] == 1
        return dict(value)

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)


@pytest.fixture
async def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Terminal]:
    monkeypatch.delenv("INTERLOCK_TOKEN", raising=False)
    async with open_registry(tmp_path) as registry, serving(registry.app(local=True)) as url:
        yield Terminal(registry.directory, registry.authenticator, url, tmp_path)


async def test_a_team(terminal: Terminal) -> None:
    phrase = terminal.file("phrase", PHRASE + "\n")
    public = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    key = terminal.file("agent.pub", public + " agent\n")
    alice = await terminal.json("add", "alice", "--reviewer", "--passphrase-file", phrase, "--group", "sre", "--group", "dba")
    assert (alice["groups"], alice["reviewer"]) == (["dba", "sre"], True)
    agent = await terminal.json("add", "claude", "--kind", "agent", "--owner", "alice", "--ssh-key", key)
    assert agent["owner"] == "alice"
    assert (await terminal.authenticator.passphrase("alice", PHRASE)).handle == "alice"
    password = await terminal.json("password", "claude", "--ttl", "5m")
    assert str(password["password"]).startswith("ilp_")
    token = await terminal.json("token", "issue", "claude")
    assert (await terminal.authenticator.token(str(token["token"]))).handle == "claude"
    listed = await terminal.run("list")
    assert "claude" in listed.stdout
    assert "1 keys, 1 tokens" in listed.stdout
    shown = (await terminal.run("show", "claude")).stdout
    assert str(token["id"]) in shown
    assert str(token["token"]) not in shown + listed.stdout
    revoked = await terminal.run("token", "revoke", "claude", str(token["id"]))
    assert revoked.exit_code == 0
    linked = await terminal.json("link", "claude", "--issuer", "https://ci.example", "--subject", "repo:acme/app")
    assert linked["linked"] == ["https://ci.example:repo:acme/app"]
    unlinked = await terminal.json("unlink", "claude", "--issuer", "https://ci.example", "--subject", "repo:acme/app")
    assert unlinked["linked"] == []
    assert (await terminal.json("set", "alice", "--disable"))["disabled"] is True
    assert (await terminal.json("show", "claude"))["disabled"] is True
    assert (await terminal.run("remove", "claude")).exit_code == 0
    assert terminal.directory.by_handle("claude") is None


async def test_a_secret_goes_to_stdout_alone(terminal: Terminal) -> None:
    await terminal.run("add", "alice")
    done = await terminal.run("password", "alice")
    assert done.stdout.startswith("ilp_")
    assert done.stdout.count("\n") == 1
    assert "ilp_" not in done.stderr
    assert "not shown again" in done.stderr


async def test_a_private_key_never_leaves(terminal: Terminal) -> None:
    private = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    done = await terminal.run("add", "alice", "--ssh-key", terminal.file("id", private))
    assert done.exit_code == 2
    assert ".pub" in done.stderr
    assert terminal.directory.entries() == ()
    assert private.splitlines()[1] not in done.output


async def test_without_a_terminal_nothing_is_asked(terminal: Terminal) -> None:
    done = await terminal.run("add", "alice", "--reviewer")
    assert done.exit_code == 2
    assert "--passphrase-file" in done.stderr
    assert terminal.directory.entries() == ()


async def test_a_passphrase_is_no_argument(terminal: Terminal) -> None:
    for words in (["--passphrase", PHRASE], ["--reviewer", PHRASE]):
        done = await terminal.run("add", "alice", *words)
        assert done.exit_code == 2
    assert terminal.directory.entries() == ()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add", "claude", "--kind", "agent"], 2, "owner"),
        (["add", "Alice"], 2, "handle"),
        (["add", "alice", "--ssh-key", "/nonexistent"], 2, "can't be read"),
        (["add", "alice", "--teams", "alice@contoso.com"], 2, "TENANT/OID"),
        (["show", "nobody"], 1, "nobody is registered"),
        (["show", "../approvals"], 1, ""),
        (["remove", "nobody"], 1, "nobody is registered"),
        (["password", "nobody", "--ttl", "soon"], 2, "15m"),
        (["set", "nobody"], 2, "say what to change"),
        (["link", "nobody"], 2, "exactly one"),
    ],
)
async def test_what_is_wrong_is_said(terminal: Terminal, words: list[str], code: int, said: str) -> None:
    done = await terminal.run(*words)
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert "Traceback" not in done.output


async def test_a_daemon_that_is_not_there() -> None:
    done = await asyncio.to_thread(CliRunner().invoke, verbs.app, ["list", "--server", f"http://127.0.0.1:{free_port()}"])
    assert done.exit_code == 7
    assert "interlock serve" in done.stderr


async def test_a_slack_account_is_linked_and_shown(terminal: Terminal) -> None:
    await terminal.run("add", "bob")
    linked = await terminal.json("link", "bob", "--slack", "T024BE7LD/U024BE7LH")
    assert linked["slack"] == ["T024BE7LD/U024BE7LH"]
    assert "slack     T024BE7LD/U024BE7LH" in (await terminal.run("show", "bob")).stdout
    refused = await terminal.run("link", "bob", "--slack", "bob@example.com")
    assert refused.exit_code == 2
    assert "T024BE7LD/U024BE7LH" in refused.stderr
    assert (await terminal.json("unlink", "bob", "--slack", "T024BE7LD/U024BE7LH"))["slack"] == []


async def test_another_administrator_confirms_with_their_passphrase(terminal: Terminal) -> None:
    phrase, wrong = terminal.file("phrase", PHRASE + "\n"), terminal.file("wrong", "open sesame, please\n")
    for handle, group in (("carol", ADMINS), ("dave", "sre"), ("bob", "sre")):
        await terminal.run("add", handle, "--group", group, "--passphrase-file", phrase)
    assert "not confirmed" in (await terminal.run("show", "bob")).stdout
    for admin, file in (("dave", phrase), ("bob", phrase), ("carol", wrong), ("nobody", phrase)):
        done = await terminal.run("confirm", "bob", "--as", admin, "--passphrase-file", file)
        assert done.exit_code != 0, admin
    entry = terminal.directory.by_handle("bob")
    assert entry is not None
    assert not entry.confirmed
    done = await terminal.run("confirm", "bob", "--as", "carol", "--passphrase-file", phrase)
    assert done.exit_code == 0, done.stderr
    assert "groups    sre" in done.stderr  # what is confirmed is shown first
    assert (await terminal.json("show", "bob"))["confirmed"] is True


async def test_a_login_token_is_told_how_to_step_up(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    phrase = terminal.file("phrase", PHRASE + "\n")
    await terminal.run("add", "carol", "--group", ADMINS, "--passphrase-file", phrase)
    token = (await terminal.directory.issue_token("carol")).secret.reveal()
    monkeypatch.setenv("INTERLOCK_TOKEN", token)
    done = await terminal.run("add", "mallory")
    assert done.exit_code == 3
    assert "POST /v1/step-up" in done.stderr and "INTERLOCK_TOKEN" in done.stderr
    assert terminal.directory.by_handle("mallory") is None
    assert (await terminal.run("set", "carol", "--disable")).exit_code == 0  # stopping needs no more than the login


async def test_nobody_confirms_without_a_passphrase(terminal: Terminal) -> None:
    await terminal.run("add", "bob")
    done = await terminal.run("confirm", "bob", "--as", "bob")
    assert done.exit_code == 2
    assert "--passphrase-file" in done.stderr


async def test_passkeys_are_listed_and_taken_back(terminal: Terminal) -> None:
    await terminal.run("add", "bob")
    assert "/console/passkeys" in (await terminal.run("passkeys", "bob")).stderr
    entry = terminal.directory.by_handle("bob")
    assert entry is not None
    await terminal.directory.add_passkey("bob", NewPasskey("Y3JlZA", b"cose", 0, "Bob's phone"), by=entry.identity)
    assert "Y3JlZA  Bob's phone" in (await terminal.run("passkeys", "bob")).stdout
    assert "1 passkeys" in (await terminal.run("list")).stdout
    assert "passkey   Y3JlZA" in (await terminal.run("show", "bob")).stdout
    assert (await terminal.json("passkeys", "bob", "--remove", "Y3JlZA"))["passkeys"] == []
    assert (await terminal.run("passkeys", "bob", "--remove", "Y3JlZA")).exit_code != 0
