"""The daemon as a process, as a user runs it: a configuration file, `interlock serve`, and the command line beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interlock.cli.client import Client
from interlock.control import SOCKET

INTERLOCK = [sys.executable, "-m", "interlock"]
DOOMED = Path(__file__).with_name("doomed.py")
READY = "ready:"
PASSPHRASES = {"alice": "alice keeps a long secret", "bob": "bob keeps another secret", "carol": "carol keeps a third one"}


class Node:
    """One data_dir and its daemon. `start` returns when it says that it is ready."""

    def __init__(self, directory: Path, config: Mapping[str, Any], *, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.data_dir = directory / "data"
        self.config_file = directory / "interlock.yaml"
        self.config = {"version": 1, "node": {"name": "test", "data_dir": str(self.data_dir)}, **config}
        self.env = {**os.environ, **(env or {}), "INTERLOCK_SERVER": str(self.data_dir / "interlock.sock")}
        self.process: subprocess.Popen[str] | None = None
        self.said: list[str] = []
        self.addresses: dict[str, str] = {}
        self._heard = threading.Condition()
        self.write_config()

    def write_config(self) -> None:
        self.config_file.write_text(json.dumps(self.config, default=str))  # JSON is YAML

    def start(self, *, killed_at: str = "") -> Node:
        """Run the daemon; with `killed_at` one that dies by SIGKILL at that fault point."""
        program = [sys.executable, str(DOOMED), killed_at] if killed_at else INTERLOCK
        self.process = subprocess.Popen(
            [*program, "serve", "--config", str(self.config_file)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=self.env,
        )  # fmt: skip
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if READY in line:
                parts = line.split(READY, 1)[1].split(",")
                self.addresses = dict(part.split() for part in parts)
                break
        else:
            raise AssertionError("the daemon did not start:\n" + "".join(self.said))
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        return self

    def _drain(self) -> None:
        assert self.process is not None and self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.said.append(line)
                self._heard.notify_all()

    def wait_said(self, word: str, *, times: int = 1, timeout: float = 30) -> str:
        """Return the daemon's line with `word`, once it has said it that many times."""
        with self._heard:
            assert self._heard.wait_for(lambda: sum(word in line for line in self.said) >= times, timeout), "".join(self.said)
            return [line for line in self.said if word in line][times - 1]

    def port(self, kind: str) -> int:
        return int(self.addresses[kind].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://{self.addresses['http']}"

    def stop(self, sig: int = signal.SIGTERM, *, patience: float = 30) -> int:
        """Signal the daemon and return its exit status once it has ended."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(sig)
        status = self.process.wait(patience)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process = None
        return status

    def kill(self) -> None:
        """kill -9: nothing is said, nothing is cleaned up."""
        self.stop(signal.SIGKILL)

    # -- the command line --------------------------------------------------------------------------------------------

    def run(self, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*INTERLOCK, *args], capture_output=True, text=True, timeout=60, check=False, env=self.env, stdin=subprocess.DEVNULL
        )
        if status is not None:
            assert done.returncode == status, f"interlock {' '.join(args)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str) -> dict[str, Any]:
        value = json.loads(self.run(*args, "--output", "json").stdout)
        assert isinstance(value, dict)
        return value

    def add_people(self, groups: Sequence[str] = ("sre", "dba")) -> None:
        """Alice owns agents, Bob and Carol review; all three are reviewers."""
        for handle, passphrase in PASSPHRASES.items():
            file = self.directory / f"{handle}.passphrase"
            file.write_text(passphrase)
            file.chmod(0o600)
            memberships = [word for group in groups for word in ("--group", group)]
            self.run("principals", "add", handle, "--reviewer", "--passphrase-file", str(file), *memberships)

    def add_agent(self, handle: str = "claude", *, owner: str = "alice", key: Path | None = None) -> None:
        keys = ["--ssh-key", str(key)] if key else []
        self.run("principals", "add", handle, "--kind", "agent", "--owner", owner, "--group", "agents", *keys)

    def password(self, handle: str = "claude") -> str:
        return str(self.json("principals", "password", handle)["password"])

    def pending(self) -> list[dict[str, Any]]:
        """What waits, asked over the socket in this process: tests ask often, and a command line takes its time to start."""
        client = Client(str(self.data_dir / SOCKET))
        try:
            rows = client.get("/v1/approvals", state="pending")["approvals"]
        finally:
            client.close()
        assert isinstance(rows, list)
        return rows

    def vote(self, verdict: str, request: str, reviewer: str = "bob", *, reason: str = "", status: int | None = 0) -> str:
        done = self.run(
            "approvals", verdict, request, "--as", reviewer, "--passphrase-file", str(self.directory / f"{reviewer}.passphrase"),
            "--reason", reason, status=status,
        )  # fmt: skip
        return done.stderr
