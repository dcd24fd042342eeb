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
from harness.loopback import free_port
from harness.node import Node
from harness.openssh_server import OpenSshServer
from harness.playground import SigningProxy
from interlock.errors import SENTENCES, Reason

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]  # the first one may install it

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
COMMAND = "rm -rf cache/builds"
POLICY = """\
version: 1
packs: [linux, linux-deny]
default: {review: {groups: [sre], scopes: [SCOPES]}}
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

    def victim(self) -> Path:
        """Make what COMMAND deletes."""
        path = self.sshd.home / "cache/builds"
        path.mkdir(parents=True, exist_ok=True)
        return path


@contextlib.asynccontextmanager
async def open_office(
    directory: Path,
    *,
    conversation: str = playground.CHANNEL,
    transport: str = "native",
    scopes: str = "once",
    user: str = "29:bob",
) -> AsyncIterator[Office]:
    program = await asyncio.to_thread(playground.installed)
    async with contextlib.AsyncExitStack() as stack:
        sshd = OpenSshServer()
        await sshd.start()
        stack.push_async_callback(sshd.stop)
        proxy, signer = await stack.enter_async_context(playground.signing())
        port = free_port()
        home = directory / "node"
        home.mkdir(mode=0o700)
        (home / "policy.yaml").write_text(POLICY.replace("SCOPES", scopes))
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
            playground.running(program, f"{signer}/api/messages", directory / "playground", port, user=user)
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


async def shown(page: Any, conversation: str, text: str) -> Any:
    """Wait for the card with this text, in its conversation."""
    await page.get_by_text(ROOMS[conversation], exact=True).first.click()
    card = page.locator(".ac-adaptiveCard").filter(has_text=text).last
    await card.wait_for(timeout=30_000)
    return card


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
    async with open_office(tmp_path, conversation=conversation, transport=transport) as office, browser(office) as page:
        victim = office.victim()
        agent = await asyncio.to_thread(office.start, COMMAND)
        card = await shown(page, conversation, COMMAND)
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


async def test_a_denial_with_a_reason_typed_in_the_card(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office, browser(office) as page:
        victim = office.victim()
        agent = await asyncio.to_thread(office.start, COMMAND)
        card = await shown(page, playground.CHANNEL, COMMAND)

        await card.get_by_role("button", name="Deny, and say why").click()
        await card.get_by_role("textbox").fill("the release runs until noon")
        await card.get_by_role("button", name="Deny", exact=True).last.click()

        _, said = await asyncio.to_thread(agent.communicate, None, 60)
        assert agent.returncode == 126, said
        assert "denied by bob" in said and "the release runs until noon" in said
        assert victim.exists()
        await page.locator(".ac-adaptiveCard").filter(has_text="Denied").last.wait_for(timeout=30_000)


async def test_a_wider_scope_chosen_in_the_card_covers_exactly_this_command_again(tmp_path: Path) -> None:
    async with open_office(tmp_path, scopes="once, exact") as office, browser(office) as page:
        victim = office.victim()
        agent = await asyncio.to_thread(office.start, COMMAND)
        card = await shown(page, playground.CHANNEL, COMMAND)

        await card.get_by_role("button", name="Approve more than once").click()
        await card.get_by_role("radio", name="Exactly this, for some minutes").click()
        await card.screenshot(path=picture(tmp_path, "teams-card-scope.png"))
        await card.get_by_role("button", name="Approve", exact=True).click()

        _, said = await asyncio.to_thread(agent.communicate, None, 60)
        assert agent.returncode == 0 and not victim.exists(), said
        office.victim()
        again = await asyncio.to_thread(office.start, COMMAND)
        _, said = await asyncio.to_thread(again.communicate, None, 60)
        assert again.returncode == 0 and not victim.exists(), said  # nobody was asked


async def test_what_a_command_says_is_text_in_the_client(tmp_path: Path) -> None:
    """Markdown, mentions and HTML of a command stay what they are: no link, no picture, no script in the rendered card."""
    tricky = 'rm -rf "cache/[click](https://evil.example) **bold** <at>Bob</at> <img src=x onerror=alert(1)>"'
    async with open_office(tmp_path) as office, browser(office) as page:
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        agent = await asyncio.to_thread(office.start, tricky)
        card = await shown(page, playground.CHANNEL, "[click](https://evil.example)")
        drawn = " ".join((await card.inner_text()).split())
        assert tricky in drawn
        assert await card.locator("a, img, b, strong, at, script").count() == 0
        assert dialogs == []
        await card.get_by_role("button", name="Deny", exact=True).first.click()
        await asyncio.to_thread(agent.communicate, None, 60)
        assert agent.returncode == 126


async def test_the_owner_of_the_agent_presses_approve_and_is_refused(tmp_path: Path) -> None:
    async with open_office(tmp_path, user="29:alice") as office, browser(office) as page:
        victim = office.victim()
        agent = await asyncio.to_thread(office.start, COMMAND)
        card = await shown(page, playground.CHANNEL, COMMAND)

        await card.get_by_role("button", name="Approve").first.click()

        await page.get_by_text(SENTENCES[Reason.SELF_APPROVAL]).last.wait_for(timeout=30_000)
        (request,) = await asyncio.to_thread(office.node.pending)
        assert request["state"] == "pending" and agent.poll() is None and victim.exists()
        assert await page.locator(".ac-adaptiveCard").last.get_by_role("button", name="Approve").count() == 0
        await asyncio.to_thread(office.node.vote, "deny", request["id"], "bob")
        await asyncio.to_thread(agent.communicate, None, 60)
