"""A held command is approved in Microsoft's own client: the Playground in Chromium, a signing proxy, and a real node.

Opt-in: INTERLOCK_PLAYGROUND=1. With INTERLOCK_IMAGES=docs/images the picture of the documentation is taken anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import playground
from harness.bot_connector import ALICE_OID, APP_ID, APP_PASSWORD, BOB_OID, TENANT
from harness.node import Node
from harness.openssh_server import OpenSshServer, free_port
from harness.playground import SigningProxy

pytestmark = pytest.mark.interop

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
POLICY = """\
version: 1
packs: [linux, linux-deny]
default: {review: {groups: [sre]}}
access:
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: ["*"]}
"""


@dataclass
class Office:
    """A node before an sshd, its agent, and the Playground that its cards go to."""

    node: Node
    sshd: OpenSshServer
    proxy: SigningProxy
    url: str
    ssh: list[str]

    def start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.ssh, command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@contextlib.asynccontextmanager
async def open_office(directory: Path, program: Path, conversation: str, transport: str) -> AsyncIterator[Office]:
    async with contextlib.AsyncExitStack() as stack:
        sshd = OpenSshServer()
        await sshd.start()
        stack.push_async_callback(sshd.stop)
        proxy, signer = await stack.enter_async_context(playground.signing())
        port = free_port()
        home = directory / "node"
        home.mkdir(mode=0o700)
        (home / "policy.yaml").write_text(POLICY)
        (home / "known_hosts_targets").write_text(sshd.known_hosts)
        (home / "targets_ca").touch(mode=0o600)
        (home / "targets_ca").write_bytes(sshd.ca.export_private_key())
        teams = {
            "app_id": APP_ID, "app_password": "env:TEAMS_PASSWORD", "tenants": [TENANT], "conversation": conversation,
            "service_url": f"http://localhost:{port}/_connector", "keys_url": f"{signer}/keys", "token_url": f"{signer}/token",
            "transport": transport,
        }  # fmt: skip
        target = {
            "name": "web-1", "protocol": "ssh", "address": sshd.address, "account": sshd.account, "labels": {"env": "prod"},
            "credentials": {"kind": "ssh-ca", "pin": "reviewed"}, "host_keys": "known_hosts_targets", "shell": "bash",
        }  # fmt: skip
        node = Node(
            home,
            {
                "listen": {"ssh": "127.0.0.1:0", "http": "127.0.0.1:0"}, "targets_ca": {"key": "file:targets_ca"},
                "targets": [target], "policies": ["policy.yaml"], "approvals": {"channels": {"teams": teams}},
            },
            env={"TEAMS_PASSWORD": APP_PASSWORD},
        )  # fmt: skip
        await asyncio.to_thread(node.start)
        stack.push_async_callback(asyncio.to_thread, node.stop)
        proxy.node_url = node.url
        key = home / "agent_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)

        def register() -> None:
            node.add_people(groups=["sre"])
            node.run("principals", "link", "alice", "--teams", f"{TENANT}/{ALICE_OID}")
            node.run("principals", "link", "bob", "--teams", f"{TENANT}/{BOB_OID}")
            node.add_agent(key=key.with_suffix(".pub"))

        await asyncio.to_thread(register)
        host_key = (node.data_dir / "ssh_host_ed25519_key.pub").read_text().split()[:2]
        (home / "known_hosts").write_text(f"[127.0.0.1]:{node.port('ssh')} {' '.join(host_key)}\n")
        ssh = [
            "ssh", "-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
            "-o", f"UserKnownHostsFile={home / 'known_hosts'}", "-p", str(node.port("ssh")), "web-1@127.0.0.1",
        ]  # fmt: skip
        url = await stack.enter_async_context(
            playground.running(program, f"{signer}/api/messages", directory / "playground", port)
        )
        yield Office(node, sshd, proxy, url, ssh)


@contextlib.asynccontextmanager
async def browser(office: Office) -> AsyncIterator[Any]:
    """The Playground in Chromium. It would load fonts from elsewhere: nothing but loopback is let through."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = await chromium.new_page(viewport={"width": 1400, "height": 1100}, device_scale_factor=1)
        await page.route(lambda url: not url.startswith(office.url), lambda route: route.abort())
        await page.goto(office.url)
        yield page
        await chromium.close()


def picture(directory: Path, name: str) -> Path:
    return Path(os.environ.get("INTERLOCK_IMAGES") or directory) / name


ROOMS = {playground.PERSONAL: "Personal Chat", playground.GROUP: "Approvals", playground.CHANNEL: "prod-approvals"}


@pytest.mark.parametrize(
    ("conversation", "transport"),
    [
        (playground.CHANNEL, "native"),
        (playground.GROUP, "native"),
        (playground.PERSONAL, "native"),
        (playground.CHANNEL, "botbuilder"),
    ],
)
async def test_a_held_command_is_approved_by_clicking_in_the_playground(
    tmp_path: Path, conversation: str, transport: str
) -> None:
    program = await asyncio.to_thread(playground.installed)
    async with open_office(tmp_path, program, conversation, transport) as office, browser(office) as page:
        victim = office.sshd.home / "cache/builds"
        victim.mkdir(parents=True)
        await page.get_by_text(ROOMS[conversation], exact=True).first.click()
        agent = await asyncio.to_thread(office.start, "rm -rf cache/builds")
        card = page.locator(".ac-adaptiveCard").filter(has_text="rm -rf cache/builds").last
        await card.wait_for(timeout=30_000)
        assert victim.exists()  # held: nothing has run
        await card.screenshot(path=picture(tmp_path, "teams-card.png"))

        await card.get_by_role("button", name="Approve").first.click()

        _, said = await asyncio.to_thread(agent.communicate, None, 60)
        assert agent.returncode == 0, said
        assert not victim.exists() and "approved by bob" in said
        await page.locator(".ac-adaptiveCard").filter(has_text="Approved").last.wait_for(timeout=30_000)
        await card.screenshot(path=picture(tmp_path, "teams-card-approved.png"))
        assert ("invoke adaptiveCard/action", 200) in office.proxy.answers
        assert {status for _, status in office.proxy.answers} == {200}  # every delivery passed the gate

        (session,) = await asyncio.to_thread(lambda: office.node.json("sessions", "list")["sessions"])
        bundle = office.node.data_dir / "sessions" / session["id"]
        await asyncio.to_thread(office.node.run, "verify", str(bundle), "--trust", str(office.node.data_dir / "trust"))
        events = [json.loads(line) for line in (bundle / "events.jsonl").read_text().splitlines()]
        (answer,) = [event for event in events if event["type"] == "approval.response"]
        (vote,) = answer["votes"]
        assert (vote["handle"], vote["channel"], vote["proof"]) == ("bob", "teams", "channel")
        assert vote["actor"] == f"{TENANT}/{BOB_OID}"
