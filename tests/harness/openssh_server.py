"""A real sshd in a scratch directory, which keeps its own list of what it ran: the truth that tests compare with.

Runs as root or as an ordinary user. Every command that the account's shell (bash) is started with is appended to a
file of the target's own by its .bashrc, before the command runs; sshd's log says under which kind of session it ran.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any

import asyncssh

from harness.loopback import free_port
from interlock.ssh.enrolment import question

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))


def _ordinary_user() -> pwd.struct_passwd:
    """Return the current user, or for root some account that has a real shell (the database's has one)."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    found = [user for user in pwd.getpwall() if user.pw_uid != 0 and user.pw_shell.endswith("/bash")]
    assert found, "no ordinary account with bash: make setup-test installs PostgreSQL, which brings one"
    return found[0]


class OpenSshServer:
    """sshd on loopback. `ca` is the CA that it trusts for its account, `operator` a key it takes directly.

    The account is the current user's, unless root asks for an `ordinary` one: sshd delivers no signals to root's commands.
    """

    def __init__(self, *, extra: str = "", ordinary: bool = False) -> None:
        self.extra = extra
        self.start_up = ""  # lines of the account's own start-up file
        self.port = free_port()
        self._user = _ordinary_user() if ordinary else pwd.getpwuid(os.geteuid())
        self.account = self._user.pw_name
        self.directory = Path(tempfile.mkdtemp(prefix="interlock-sshd-"))  # of the account: it may not enter pytest's own
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.ca = asyncssh.generate_private_key("ssh-ed25519")
        self.operator = asyncssh.generate_private_key("ssh-ed25519")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "sshd.log").read_text(errors="replace")

    @property
    def home(self) -> Path:
        """The account's home directory here, and the working directory of every command."""
        return self.directory / "home"

    @property
    def known_hosts(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.host_key.export_public_key().decode()}"

    def ran(self) -> list[str]:
        """Return the commands that the target's shell was started with, in order, but for the proxy's own question."""
        return [text for text in self._commands() if text != question(self.account)]

    def asked(self) -> int:
        """Return how often the proxy has asked the account for its shell."""
        return self._commands().count(question(self.account))

    def _commands(self) -> list[str]:
        path = self.directory / "commands"
        return [text.decode() for text in path.read_bytes().split(b"\0")[:-1]] if path.exists() else []

    def forced(self) -> int:
        """Return how many sessions ran under a certificate's force-command, by sshd's own log."""
        return self.log.count("forced-command (key-option)")

    async def start(self) -> None:
        assert SSHD is not None, "openssh-server is missing: make setup-test"
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation directory
        self._write("host", self.host_key.export_private_key())
        self._write("ca.pub", self.ca.export_public_key())
        self._write("operator.pub", self.operator.export_public_key())
        self._write("known_hosts", self.known_hosts.encode())
        self.home.mkdir(exist_ok=True)
        # Bytes, not lines: a command may hold newlines. bash reads this file when sshd starts it, and only then.
        noting = f"tail -zn +3 /proc/$$/cmdline | head -zn 1 >> '{self.directory / 'commands'}'\ncd\n"
        (self.home / ".bashrc").write_text(noting + self.start_up)
        (self.directory / "commands").touch()
        self._write(
            "sshd_config",
            (
                f"ListenAddress {self.address}\nHostKey {self.directory / 'host'}\nPidFile none\nStrictModes no\nUsePAM no\n"
                f"AuthorizedKeysFile {self.directory / 'operator.pub'}\nTrustedUserCAKeys {self.directory / 'ca.pub'}\n"
                "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
                f"LogLevel VERBOSE\nAcceptEnv LANG LC_* COLORTERM\nSetEnv HOME={self.home}\n"
                f"MaxStartups 1000\nSubsystem sftp internal-sftp\n{self.extra}"
            ).encode(),
        )
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, self._user.pw_uid, self._user.pw_gid)
        # An ordinary account's sshd runs as that account: its own password may be locked, which sshd as root minds.
        other = self._user.pw_uid != os.geteuid()
        become: dict[str, Any] = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if other else {}
        with (self.directory / "sshd.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                SSHD, "-D", "-e", "-f", str(self.directory / "sshd_config"), stderr=log, stdin=asyncio.subprocess.DEVNULL,
                **become,
            )  # fmt: skip
        async with asyncio.timeout(30):
            while "Server listening" not in self.log:
                assert self._process.returncode is None, self.log
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write(self, name: str, data: bytes) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_bytes(data)
