"""Microsoft's own client offline: npm `@microsoft/m365agentsplayground`, and a proxy that signs what it sends.

Its licence forbids shipping it, so it is installed on demand, outside the repository, and only when somebody asks for it
(INTERLOCK_PLAYGROUND=1). It sends no token; the proxy in front of the node adds one as the Bot Connector would, so that the
node's validation stays on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml
from fastapi import Request
from fastapi.responses import Response

from harness.bot_connector import BotConnector
from harness.trust import TRUST
from harness.webserver import serving

ENABLE = "INTERLOCK_PLAYGROUND"
PACKAGE = "@microsoft/m365agentsplayground"
VERSION = "0.2.28"
SETTINGS = Path(__file__).parents[1] / "data/teams/m365agentsplayground.yml"

PERSONAL = "personal-chat-id"
GROUP = "group-chat-id"
CHANNEL = "channel-approvals-id"


def installed() -> Path:
    """Return the Playground's program, installed now if need be. Skip the test, with the reason, when it can't be had."""
    if os.environ.get(ENABLE) != "1":
        pytest.skip(f"Microsoft's Playground was not asked for: set {ENABLE}=1 (it is installed from npm, under its own licence)")
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Microsoft's Playground needs node and npm on PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interlock-tests" / f"playground-{VERSION}"
    program = cache / "node_modules/.bin/agentsplayground"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", "--ignore-scripts", f"{PACKAGE}@{VERSION}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm could not install {PACKAGE}@{VERSION}: {done.stderr.strip()[-500:]}")
    return program


class SigningProxy:
    """The connector's keys and token service, and the endpoint that the Playground delivers to in place of the node's."""

    def __init__(self) -> None:
        self.connector = BotConnector()
        self.node_url = ""
        self.answers: list[tuple[str, int]] = []
        self.app = self.connector.app
        self.app.post("/api/messages")(self._forward)

    async def _forward(self, request: Request) -> Response:
        body = await request.body()
        activity = json.loads(body)
        token = self.connector.token(serviceurl=activity["serviceUrl"])
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(trust_env=False, timeout=30, verify=TRUST) as http:
            answer = await http.post(f"{self.node_url}/api/messages", content=body, headers=headers)
        self.answers.append((f"{activity['type']} {activity.get('name', '')}".strip(), answer.status_code))
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


@contextlib.asynccontextmanager
async def signing() -> AsyncIterator[tuple[SigningProxy, str]]:
    """Yield the proxy and its URL. Set `node_url` before anything is delivered."""
    proxy = SigningProxy()
    async with serving(proxy.app) as url:
        yield proxy, url


@contextlib.asynccontextmanager
async def running(program: Path, endpoint: str, directory: Path, port: int, *, user: str = "29:bob") -> AsyncIterator[str]:
    """Run the Playground against an endpoint, seen by one of its users; yield its URL. Its connector is at `/_connector`.

    The endpoint must answer: the Playground tells it at once that the bot was installed, and ends on an error.
    """
    directory.mkdir(exist_ok=True)
    settings = yaml.safe_load(SETTINGS.read_text())
    people = [settings["currentUser"], *settings["users"]]
    settings["currentUser"] = next(person for person in people if person["id"] == user)
    settings["users"] = [person for person in people if person["id"] != user]
    (directory / ".m365agentsplayground.yml").write_text(yaml.safe_dump(settings))
    process = await asyncio.create_subprocess_exec(
        program, "--app-endpoint", endpoint, "--channel-id", "msteams", "--port", str(port), "--disable-telemetry",
        cwd=directory, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "BROWSER": "none"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"Listening on" not in (line := await process.stdout.readline()):
                assert line, "the Playground ended before it listened"
        drain = asyncio.create_task(process.stdout.read())
        yield f"http://localhost:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    await drain
