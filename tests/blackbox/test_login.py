"""A person from the identity provider to the target and back: real provider, real browser, stock ssh and psql.

What is used after `interlock login` is only what that left behind. One node serves all tests here, and each person of the
provider one test, so that a logout ends nothing of another.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from blackbox.conftest import config_for, running_sshd
from harness import provider
from harness.browser import open_chromium, window
from harness.issuer import FakeIssuer, running_issuer
from harness.node import Node
from harness.openssh_server import free_port
from harness.postgres_server import PostgresServer
from harness.provider import IdentityProvider, running_provider
from interlock.cli.client import Client
from interlock.control import SOCKET

pytestmark = [pytest.mark.blackbox, pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

RULES = """\
version: 1
packs: [linux, linux-deny, postgres, postgres-deny]
default: {review: {groups: [sre]}}
access:
  - {who: {groups: [dba]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
"""


@dataclass
class Company:
    """A node, the identity provider that it trusts, and one person's machine and browser."""

    node: Node
    idp: IdentityProvider
    platform: FakeIssuer
    page: Any
    home: Path

    @property
    def url(self) -> str:
        return self.idp.public_url

    def env(self, **more: str) -> dict[str, str]:
        """A machine without an SSH agent, a screen or anything else of ours."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "INTERLOCK_HOME": str(self.home / "kept"), **more}  # fmt: skip

    async def start(self, *words: str, **env: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "interlock", *words, env=self.env(**env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *words: str, status: int = 0, **env: str) -> str:
        child = await self.start(*words, **env)
        async with asyncio.timeout(60):
            out, err = await child.communicate()
        assert child.returncode == status, (words, child.returncode, out.decode(), err.decode())
        return out.decode() + (err.decode() if status else "")

    async def log_in(self, who: str, *, inside: bool = False) -> None:
        """`interlock login --device`, confirmed in the browser at the address that it says. `inside`: the browser is already."""
        child = await self.start("login", "--device", "--server", self.url)
        assert child.stderr is not None
        said = ""
        async with asyncio.timeout(60):
            while not (found := re.search(r"^or (\S+)", said, re.MULTILINE)):
                line = (await child.stderr.readline()).decode()
                assert line, said
                said += line
            await provider.confirm_device(self.page, found[1], who)
            _, rest = await child.communicate()
        assert child.returncode == 0, said + rest.decode()
        assert f"as {who}" in rest.decode()

    async def ssh(self, *words: str, stdin: int = subprocess.DEVNULL) -> asyncio.subprocess.Process:
        """The stock ssh with what `interlock config ssh` printed, and nothing else."""
        config = self.home / "ssh_config"
        if not config.exists():
            config.write_text(await self.run("config", "ssh"))
        return await asyncio.create_subprocess_exec(
            "ssh", "-F", str(config), "-o", "BatchMode=yes", "web-1.interlock", *words, env=self.env(),
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    async def psql(self, **kwargs: Any) -> asyncio.subprocess.Process:
        """The stock psql with the password of `interlock token`."""
        told = json.loads(await self.run("token", "--output", "json"))
        at = f"host={told['postgres']['host']} port={told['postgres']['port']} user={told['handle']} dbname=orders"
        return await asyncio.create_subprocess_exec(
            "psql", "-XAt", "-d", at, env=self.env(PGPASSWORD=told["password"]), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
        )  # fmt: skip

    def journal(self, kind: str) -> list[dict[str, Any]]:
        files = sorted((self.node.data_dir / "journal").rglob("events.jsonl"))
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [row for row in rows if row["type"] == kind]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> AsyncIterator[Company]:
    folder, port = tmp_path_factory.mktemp("company"), free_port()
    node_folder = folder / "node"
    node_folder.mkdir(mode=0o700)
    with running_provider(port) as idp, running_issuer() as platform:
        async with open_chromium() as chromium, window(chromium, idp.issuer, forgiving=True) as opened, running_sshd() as sshd:
            await opened.page.route(re.compile("^https:"), lambda route: route.abort())  # fonts of the provider's pages
            listen = {"ssh": "127.0.0.1:0", "postgres": "127.0.0.1:0", "http": f"127.0.0.1:{port}"}
            identity = idp.config(folder)
            identity["issuers"].append(
                {"name": "ci", "issuer": platform.issuer, "audience": "interlock", "kind": "agent", "token_type": ["JWT"]}
            )
            settings = config_for(node_folder, server, sshd, identity=identity, public_url=idp.public_url, listen=listen)
            (node_folder / "policies/ours.yaml").write_text(RULES)
            node = Node(node_folder, settings)
            try:
                await asyncio.to_thread(node.start)
                yield Company(node, idp, platform, opened.page, folder)
            finally:
                await asyncio.to_thread(node.stop)


async def read_until(stream: asyncio.StreamReader | None, wanted: bytes) -> bytes:
    assert stream is not None
    read = b""
    async with asyncio.timeout(60):
        while wanted not in read:
            chunk = await stream.read(4096)
            assert chunk, read
            read += chunk
    return read


async def test_a_login_opens_ssh_and_psql_and_the_logout_at_the_provider_ends_both(company: Company) -> None:
    assert "interlock login" in await company.run("whoami", "--server", company.url, status=3)
    await company.log_in("alice")
    assert (company.home / "kept").stat().st_mode & 0o077 == 0
    assert {f.name for f in (company.home / "kept").rglob("id*")} == {"id", "id.pub", "id-cert.pub"}
    assert all(f.stat().st_mode & 0o077 == 0 for f in (company.home / "kept").rglob("*") if f.is_file())
    assert (await company.run("whoami")).startswith("alice (human) in dba, owners")
    assert "web-1" in await company.run("ls")

    ssh = await company.ssh("echo in; cat", stdin=subprocess.PIPE)
    await read_until(ssh.stdout, b"in\n")
    psql = await company.psql()
    assert psql.stdin is not None
    psql.stdin.write(b"SELECT 6 * 7;\n")
    await read_until(psql.stdout, b"42\n")
    held = await company.ssh("rm -rf /srv/app/old")
    await read_until(held.stderr, b"held for approval")
    (issued,) = company.journal("certificate.issue")
    listed = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(next((company.home / "kept").rglob("id-cert.pub")))], capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert f"Serial: {int(issued['serial'], 16)}" in listed
    assert issued["key_id"] in listed and issued["name"] in listed and issued["name"].startswith("interlock:alice#")
    assert "permit-X11-forwarding" not in listed and "permit-agent-forwarding" not in listed and "permit-pty" in listed
    assert len(company.node.pending()) == 1

    await provider.log_out(company.page, company.idp.issuer)
    async with asyncio.timeout(60):
        _, why = await ssh.communicate()
        psql.stdin.write(b"SELECT 1;\n")
        _, told = await psql.communicate()
        await held.communicate()
    assert (ssh.returncode, b"the login behind this session has ended" in why) == (255, True), why
    assert psql.returncode == 2 and b"login" in told, told
    assert company.node.pending() == []
    # What a logout ended stays ended: the token, the certificate, the password.
    assert "interlock login" in await company.run("whoami", status=3)
    again = await asyncio.create_subprocess_exec(
        "ssh", "-F", str(company.home / "ssh_config"), "-o", "BatchMode=yes", "web-1.interlock", "true", env=company.env(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, refused = await again.communicate()
    assert again.returncode == 255 and b"Permission denied" in refused


async def test_a_browser_on_the_same_machine_logs_in_without_a_code(company: Company, tmp_path: Path) -> None:
    """Authorization code and PKCE over 127.0.0.1: BROWSER is a program that notes the address, as a desktop's would open it."""
    opener, noted = tmp_path / "opener", tmp_path / "address"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {noted}.new && mv {noted}.new {noted}\n')
    opener.chmod(0o700)
    child = await company.start("login", "--server", company.url, BROWSER=str(opener))
    assert child.stderr is not None
    async with asyncio.timeout(60):
        said = (await child.stderr.readline()).decode()
        address = re.search(r"http\S+", said)
        assert address is not None, said
        assert "code_challenge=" in address[0] and "S256" in address[0]
        await company.page.goto(address[0])
        await provider.log_in(company.page, "bob")
        await provider.consent(company.page)
        await company.page.wait_for_url("http://127.0.0.1:*/callback*")
        _, rest = await child.communicate()
    assert child.returncode == 0, rest.decode()
    assert "as bob" in rest.decode()
    assert "You are logged in" in await company.page.content()
    assert json.loads(await company.run("whoami", "--output", "json"))["groups"] == ["sre"]
    # What is in the person's folder is all that is left: no argument, no log and no journal holds the token.
    token = json.loads(next((company.home / "kept").rglob("session.json")).read_text())["token"]
    kept = "".join(file.read_text(errors="replace") for file in company.node.data_dir.rglob("*.jsonl"))
    assert token.startswith("ils_") and token not in kept + "".join(company.node.said)
    await company.run("logout")
    assert not list((company.home / "kept").rglob("id*"))
    assert "interlock login" in await company.run("whoami", "--server", company.url, status=3)
    await provider.log_out(company.page, company.idp.issuer)


async def test_the_console_logs_in_at_the_provider_and_out_with_it(company: Company) -> None:
    page = company.page
    await page.goto(f"{company.url}/console")
    await page.click("text=Log in with your company's account")
    await provider.log_in(page, "bob")
    await provider.consent(page)
    await page.wait_for_selector("header.bar")
    assert page.url == f"{company.url}/console"
    cookies = {cookie["name"]: cookie for cookie in await page.context.cookies(company.url)}
    console = cookies["interlock_console"]
    assert console["httpOnly"] and console["sameSite"] == "Strict"
    assert not any(name.startswith("interlock_login") for name in cookies)  # nothing of the flow is left

    # The login reads; whoever wants to decide is asked by the provider again, now.
    await page.goto(f"{company.url}/console/passkeys")
    assert await page.query_selector("input[name=passphrase]")
    await page.click("text=Or confirm with your company's account")
    await page.wait_for_selector("input[name=password]")
    await provider.log_in(page, "bob")
    await page.wait_for_selector("header.bar")
    assert not await page.query_selector("input[name=passphrase]")

    await provider.log_out(page, company.idp.issuer)
    await page.goto(f"{company.url}/console")
    assert "/console/login" in page.url


async def test_an_answer_that_this_browser_did_not_begin_logs_nobody_in(company: Company) -> None:
    """Login CSRF: an attacker's code, or the victim's own flow with another state, opens no session in this browser."""
    page = company.page
    await page.goto(f"{company.url}/console/login/oidc/callback?code=attackers&state=attackers&iss={company.idp.issuer}")
    assert await page.query_selector("input[name=handle]") and "another browser" in await page.content()
    await page.goto(f"{company.url}/console/login")
    await page.click("text=Log in with your company's account")
    await page.goto(f"{company.url}/console/login/oidc/callback?code=attackers&state=attackers&iss={company.idp.issuer}")
    assert "another login" in await page.content()
    await page.goto(f"{company.url}/console")
    assert "/console/login" in page.url


async def test_a_workload_exchanges_its_platforms_token_and_gets_a_certificate(company: Company, tmp_path: Path) -> None:
    local = Client(str(company.node.data_dir / SOCKET))
    local.post("/v1/principals", {"handle": "nora", "kind": "human"})
    local.post("/v1/principals", {"handle": "deploy", "kind": "agent", "owner": "nora", "groups": ["agents"]})
    subject = {"issuer": company.platform.issuer, "subject": "repo:acme/api:environment:production"}
    local.post("/v1/principals/deploy/links", subject)
    local.close()
    now = int(datetime.now(UTC).timestamp())  # noqa: TID251  the issuer has its own clock
    token = company.platform.token(
        {
            "iss": company.platform.issuer,
            "aud": "interlock",
            "sub": subject["subject"],
            "jti": "run-1",
            "iat": now,
            "exp": now + 300,
        },
        headers={"typ": "JWT"},
    )
    file = tmp_path / "token"
    file.write_text(token)
    told = json.loads(await company.run("login", "--server", company.url, "--token-file", str(file), "--output", "json"))
    assert told["handle"] == "deploy" and told["expires"] is not None
    kept = json.loads(next((company.home / "kept").rglob("session.json")).read_text())
    assert kept["token"] and token not in json.dumps(kept)  # ours, good for minutes; the platform's own stays where it was
    ran = await company.start("ssh", "web-1", "--", "echo in")
    async with asyncio.timeout(60):
        out, said = await ran.communicate()
    assert out == b"in\n", said
    await company.run("logout")


async def test_an_agent_logs_in_with_the_token_its_platform_gave_it(company: Company, tmp_path: Path) -> None:
    local = Client(str(company.node.data_dir / SOCKET))
    local.post("/v1/principals", {"handle": "olga", "kind": "human"})
    local.post("/v1/principals", {"handle": "claude", "kind": "agent", "owner": "olga", "groups": ["agents"]})
    issued = local.post("/v1/principals/claude/tokens")
    local.close()
    file = tmp_path / "token"
    file.write_text(issued["token"] + "\n")
    told = json.loads(await company.run("login", "--server", company.url, "--token-file", str(file), "--output", "json"))
    assert told["handle"] == "claude"
    assert issued["token"] not in "".join(f.read_text() for f in (company.home / "kept").rglob("*") if f.is_file())
    async with asyncio.timeout(60):
        out, said = await (await company.ssh("echo in")).communicate()
    assert out == b"in\n", said
    ran = await company.start("ssh", "web-1", "--", "exit 42")
    async with asyncio.timeout(60):
        await ran.communicate()
    assert ran.returncode == 42  # the stock client's own status
    assert (await company.run("psql", "orders", "--", "-XAtc", "SELECT 6 * 7")) == "42\n"
    await company.run("logout")


async def test_stock_ssh_with_nothing_of_ours_shows_a_code_that_is_confirmed_in_a_browser(
    company: Company, tmp_path: Path
) -> None:
    """No key, no agent, no configuration, no `interlock`: and the logout at the provider ends it like any other."""
    ssh = await asyncio.create_subprocess_exec(
        "ssh", "-F", "none", "-o", "IdentityAgent=none", "-o", "PreferredAuthentications=keyboard-interactive",
        "-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={tmp_path / 'known_hosts'}",
        "-p", str(company.node.port("ssh")), "web-1@127.0.0.1", "echo in; sleep 600", env=company.env(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    invited = (await read_until(ssh.stderr, b"Confirm only")).decode()
    address = re.search(r"open (http\S+)", invited)
    assert address is not None, invited
    await provider.confirm_device(company.page, address[1], "alice")
    assert await read_until(ssh.stdout, b"\n") == b"in\n"
    live = Client(str(company.node.data_dir / SOCKET))
    rows = live.get("/v1/sessions/live")["sessions"]
    live.close()
    assert [row["principal"] for row in rows] == ["alice"]
    await provider.log_out(company.page, company.idp.issuer)
    async with asyncio.timeout(60):
        _, why = await ssh.communicate()
    assert (ssh.returncode, b"the login behind this session has ended" in why) == (255, True), why
