"""The certified `oidc-provider` (npm) as a process, and a person at its pages in Chromium.

`tests/idp` has the program and the lock of its packages; `make setup-test` installs them there by `npm ci`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.openssh_server import free_port

HERE = Path(__file__).resolve().parents[1] / "idp"
CALLBACK = "/console/login/oidc/callback"
LOGOUT = "/v1/logout/backchannel"


@dataclass
class IdentityProvider:
    """One that runs. `config` is what the node's configuration says about it."""

    issuer: str
    public_url: str
    process: subprocess.Popen[str]

    def config(self, directory: Path) -> dict[str, Any]:
        secret = directory / "web_secret"
        secret.write_text("a secret of the tests")
        return {
            "issuers": [{"name": "idp", "issuer": self.issuer, "audience": "interlock", "kind": "human"}],
            "login": {
                "issuer": "idp", "scopes": "openid profile email groups", "cli": {"client_id": "interlock-cli"},
                "web": {"client_id": "interlock-web", "client_secret": f"file:{secret}"},
            },
        }  # fmt: skip


@contextlib.contextmanager
def running_provider(node_port: int) -> Iterator[IdentityProvider]:
    """Run one for a node whose HTTP listener is at `node_port` of localhost."""
    node = shutil.which("node")
    assert node and (HERE / "node_modules").exists(), "the identity provider is not installed: run `make setup-test`"
    port, public = free_port(), f"http://localhost:{node_port}"
    process = subprocess.Popen(
        [node, "server.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={"PATH": str(Path(node).parent), "NODE_ENV": "test"},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        told = {"port": port, "web_callback": public + CALLBACK, "logout": public + LOGOUT}
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
        assert any(line == "up\n" for line in process.stdout), "the identity provider did not start"
        yield IdentityProvider(f"http://localhost:{port}", public, process)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


async def log_in(page: Any, who: str) -> None:
    """Fill in the provider's own pages: who it is, and that the client may know."""
    await page.fill("input[name=login]", who)
    await page.fill("input[name=password]", "any")
    await page.click("button[type=submit]")
    await page.wait_for_load_state()


async def consent(page: Any) -> None:
    await page.click("button[type=submit]")


async def confirm_device(page: Any, address: str, who: str) -> None:
    """Confirm a device code: its page, the login unless the browser is logged in already, and the consent."""
    await page.goto(address)
    await page.click("button[type=submit]")  # "continue" below the code that is shown
    await page.wait_for_load_state()
    if await page.query_selector("input[name=login]"):
        await log_in(page, who)
    if await page.query_selector("button[type=submit]"):
        await consent(page)
        await page.wait_for_load_state()
    assert "Sign-in Success" in await page.content(), await page.content()


async def log_out(page: Any, issuer: str) -> None:
    """Log out at the provider, which then tells everybody who was logged in through it."""
    await page.goto(f"{issuer}/session/end")
    await page.click("button[name=logout]")
    await page.wait_for_load_state()
