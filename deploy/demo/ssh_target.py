"""The demo's SSH target where sshd is not installed: an asyncssh server that runs a real shell in a scratch directory.

    python ssh_target.py --port N --host-key FILE --account NAME --ca CA.pub --authorized KEY.pub --directory DIR

It does what sshd does for the proxy: trusts certificates of the CA for the account, minds their dates, source address
and force-command, takes the operator's own key, and refuses everything but commands. Loopback only; not for real use.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import asyncssh

CHUNK = 32768


class Target(asyncssh.SSHServer):
    """Knows one account. Keys and certificates are asyncssh's business (`authorized_client_keys`)."""

    def __init__(self, account: str) -> None:
        self._account = account

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return False


async def run(process: asyncssh.SSHServerProcess[bytes], account: str, directory: Path) -> None:
    """Run one command in the account's shell; its group dies with the channel."""
    if process.get_extra_info("username") != account or process.command is None or process.subsystem is not None:
        process.stderr.write(b"only commands of the one account\n")
        process.exit(1)
        return
    shell = shutil.which("bash") or "/bin/sh"
    environment = {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory), "USER": account, "SHELL": shell,
        **{name: value for name, value in process.env.items() if name == "LANG" or name.startswith("LC_")},
    }  # fmt: skip
    child = await asyncio.create_subprocess_exec(
        shell, "-c", process.command, cwd=directory, env=environment, start_new_session=True,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    feeding = asyncio.create_task(_feed(process, child))
    gone = asyncio.create_task(process.channel.wait_closed())
    both = asyncio.gather(_drain(child.stdout, process.stdout), _drain(child.stderr, process.stderr))
    await asyncio.wait([gone, asyncio.ensure_future(both)], return_when=asyncio.FIRST_COMPLETED)
    if gone.done():
        _end(child)
    status = await child.wait()
    feeding.cancel()
    gone.cancel()
    await asyncio.gather(feeding, gone, both, return_exceptions=True)
    if not process.channel.is_closing():
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)


async def _feed(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
    assert child.stdin is not None
    try:
        while data := await process.stdin.read(CHUNK):
            child.stdin.write(data)
            await child.stdin.drain()
    except asyncssh.SignalReceived as received:
        _end(child, getattr(signal, f"SIG{received.signal}", signal.SIGTERM))
    except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged, ConnectionError):
        pass  # the command has closed its input, or a request that a command without a terminal does not mind
    child.stdin.close()


async def _drain(source: asyncio.StreamReader | None, sink: Any) -> None:
    assert source is not None
    try:
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    except (BrokenPipeError, ConnectionError):
        pass  # the client has left; `run` ends the command


def _end(child: asyncio.subprocess.Process, how: signal.Signals = signal.SIGTERM) -> None:
    try:
        os.killpg(child.pid, how)
    except ProcessLookupError:
        pass  # it has ended by itself


async def serve(options: argparse.Namespace) -> None:
    asyncssh.set_log_level(logging.WARNING)
    trusted = f"cert-authority {options.ca.read_text().strip()}\n{options.authorized.read_text().strip()}\n"

    async def factory(process: asyncssh.SSHServerProcess[bytes]) -> None:
        await run(process, options.account, options.directory)

    server = await asyncssh.create_server(
        lambda: Target(options.account), "127.0.0.1", options.port, server_host_keys=[str(options.host_key)], config=None,
        authorized_client_keys=asyncssh.import_authorized_keys(trusted), process_factory=factory, encoding=None,
        allow_pty=False, agent_forwarding=False, x11_forwarding=False, gss_host=None, line_editor=False,
    )  # fmt: skip
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    server.close()
    await server.wait_closed()


def main() -> None:
    parser = argparse.ArgumentParser(description="A loopback SSH target for the demo.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--account", required=True)
    for name in ("--host-key", "--ca", "--authorized", "--directory"):
        parser.add_argument(name, type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
