"""Stock programs that copy over SSH, pointed at a proxy."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.ssh_bench import QUIET, Finished, SshBench, finish

ADDRESS = "web-1@127.0.0.1"


async def spawn(*argv: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})}, cwd=cwd, start_new_session=True,
    )  # fmt: skip


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a program that was spawned, and the ssh that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()


async def run(*argv: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 60) -> Finished:
    process = await spawn(*argv, env=env, cwd=cwd)
    async with asyncio.timeout(timeout):
        return await finish(process, None)


def scp(bench: SshBench, *words: str, old: bool = True) -> list[str]:
    return ["scp", *(["-O"] if old else []), *_options(bench), "-P", str(bench.listener.port), *words]


def rsync(bench: SshBench, *words: str) -> list[str]:
    return ["rsync", "-e", shlex.join(["ssh", *_options(bench), "-p", str(bench.listener.port)]), *words]


def git_environment(bench: SshBench) -> dict[str, str]:
    """No configuration of the machine's, an author, and the ssh of this bench."""
    return {
        "GIT_SSH_COMMAND": shlex.join(["ssh", *_options(bench)]), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "claude", "GIT_AUTHOR_EMAIL": "claude@example.com", "GIT_COMMITTER_NAME": "claude",
        "GIT_COMMITTER_EMAIL": "claude@example.com", "GIT_TERMINAL_PROMPT": "0",
    }  # fmt: skip


def git_url(bench: SshBench, path: Path | str) -> str:
    return f"ssh://{ADDRESS}:{bench.listener.port}{path}"


def _options(bench: SshBench) -> Sequence[str]:
    known = bench.directory / "proxy_known_hosts"
    return (*QUIET, "-o", f"UserKnownHostsFile={known}", "-i", str(bench.directory / "agent"))
