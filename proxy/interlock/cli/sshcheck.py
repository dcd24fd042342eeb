"""The steps of `interlock doctor TARGET` for an SSH target: each is tried for real, each failure says what to do.

Logs in as the daemon would, with the daemon's own parts, and runs fixed harmless texts of its own there (`echo`, `read`,
`getent`, `printenv`, `ls`), none of anybody else. What a failed step leaves open is not tried.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncssh

from interlock.cli.checkup import Finding, Status
from interlock.clock import Clock, Entropy
from interlock.config import Config, TargetConfig, load, split_address
from interlock.errors import ConfigError, InterlockError, Reason, TargetError
from interlock.ssh import credentials, enrolment
from interlock.ssh.dialling import Dialled, Dialler, host_keys_path, read_host_keys
from interlock.ssh.limits import Limits

STEPS = (
    "configuration", "address", "answer", "algorithms", "host key", "credential", "command", "forced command", "account",
    "sessions", "environment", "start-up",
)  # fmt: skip

ECHOED = "echo interlock"
"""What is run, and forced, to see that a command arrives as it is."""

CREDENTIAL_FIX = (
    "the account must exist there; ssh-ca: its TrustedUserCAKeys must have the public half of targets_ca, the clocks must agree "
    "and no address translation may stand between; key, agent: its authorized_keys must have the public key"
)

_LINE = 255
"""Longest identification string (RFC 4253 §4.2)."""


class _StepError(Exception):
    """A step's own no: what was found, and what to do."""


class SshCheckup:
    """One run over one target."""

    def __init__(self, file: Path, name: str, *, clock: Clock, entropy: Entropy) -> None:
        self._file, self._name = file, name
        self._clock, self._entropy = clock, entropy
        self._open: list[asyncssh.SSHClientConnection] = []
        self._target: TargetConfig
        self._dialler: Dialler
        self._connection: asyncssh.SSHClientConnection

    async def run(self) -> list[Finding]:
        """Try every step, in order, until one fails."""
        findings: list[Finding] = []
        steps: list[Callable[[], Awaitable[list[str]]]] = [
            self._configuration, self._address, self._answer, self._login, self._command, self._forced, self._account,
            self._sessions, self._environment, self._start_up,
        ]  # fmt: skip
        try:
            for step in steps:
                findings += [Finding(STEPS[len(findings) + n], Status.OK, said) for n, said in enumerate(await step())]
        except _StepError as no:
            findings.append(Finding(STEPS[len(findings)], Status.FAILED, *no.args))
        except TargetError as error:
            findings += _login_failed(error, len(findings))
        except InterlockError as error:
            findings.append(Finding(STEPS[len(findings)], Status.FAILED, str(error), error.next_step))
        except (asyncssh.Error, OSError) as error:
            said = f"the target ended the conversation ({error.__class__.__name__})"
            findings.append(Finding(STEPS[len(findings)], Status.FAILED, said, "its sshd's log says why; try again"))
        finally:
            for connection in self._open:
                connection.abort()
        return findings + [Finding(step, Status.SKIPPED, "needs the step before") for step in STEPS[len(findings) :]]

    # -- the way there ------------------------------------------------------------------------------------------------

    async def _configuration(self) -> list[str]:
        config: Config = load(self._file)
        target = config.target(self._name)
        if target is None or target.protocol != "ssh":
            raise ConfigError(f"{self._file} has no ssh target {self._name!r}")
        read_host_keys(host_keys_path(config, target), target.name)
        self._target = target
        proof = credentials.load(config, target, clock=self._clock, entropy=self._entropy)
        self._dialler = Dialler(config, target, proof, Limits())
        return [f"{self._file} is valid, and {target.name} is an ssh target"]

    async def _address(self) -> list[str]:
        host, port = split_address(self._target.address)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _StepError(f"the name {host} is not known here ({error.__class__.__name__})", "correct address:") from None
        return [f"{host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}"]

    async def _answer(self) -> list[str]:
        host, port = split_address(self._target.address)
        fix = "start sshd there, correct address:, and let the proxy's host through firewalls"
        try:
            async with asyncio.timeout(Limits().connect):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    line = await reader.read(_LINE)
                finally:
                    writer.close()
        except OSError as error:  # TimeoutError is one
            raise _StepError(f"{self._target.address} does not answer ({error.strerror or 'no answer in time'})", fix) from None
        if not line.startswith(b"SSH-2.0-"):
            raise _StepError(f"what answers at {self._target.address} does not speak SSH", "correct address:, the port above all")
        software = line.partition(b"\n")[0][8:].rstrip().decode("ascii", "replace")
        return ["".join(c if c.isprintable() else "?" for c in software)]

    async def _login(self) -> list[str]:
        dialled = await self._dial(None)
        self._connection = connection = dialled.connection
        what = dialled.about
        kept = f"serial {what['serial']}, CA {what['ca']}" if what["credential"] == "ssh-ca" else f"key {what['key']}"
        return [
            f"{connection.get_extra_info('send_cipher')}, strict key exchange",
            f"{what['host_key']} is in host_keys",
            f"{what['credential']}: taken for {self._target.account} ({kept})",
        ]

    # -- what runs there ----------------------------------------------------------------------------------------------

    async def _command(self) -> list[str]:
        done = await self._connection.run(ECHOED, request_pty=False)
        if done.stdout != "interlock\n" or done.exit_status != 0:
            raise _StepError(
                f"`{ECHOED}` did not print its word and nothing else",
                "a start-up file of the account prints something, its shell is none, or sshd_config has a ForceCommand: "
                "remove what does it",
            )
        return ["arrives as it is"]

    async def _forced(self) -> list[str]:
        if not self._dialler.credentials.pins:
            return [
                "not used: the target does not enforce what people approve (credentials.kind: ssh-ca with pin: reviewed does)"
            ]
        connection = (await self._dial(ECHOED.encode())).connection
        done = await connection.run("exit 9", request_pty=False)
        if done.stdout != "interlock\n" or done.exit_status != 0:
            raise _StepError(
                "the command in the certificate is not what ran",
                "sshd_config has a ForceCommand for this account, which outranks the certificate's: remove it, or use pin: never",
            )
        return ["sshd ran the command in the certificate, and not what was asked for"]

    async def _account(self) -> list[str]:
        account, configured = self._target.account, self._target.shell
        said = enrolment.read(account, await enrolment.ask(self._connection, enrolment.question(account)))
        reading = enrolment.context(configured, said)
        told = f"says {said.shell or 'nothing of its shell'}, {said.charset or 'nothing of its charset'}"
        if not reading.utf8_locale:
            raise _StepError(f"{told}: nothing is allowed automatically", "give the account a UTF-8 locale (LANG=C.UTF-8)")
        if reading.shell != configured:
            raise _StepError(
                f"{told}, and the configuration says {configured}: read as {reading.shell}",
                "correct shell: of the target; under fish, csh and tcsh nothing is allowed automatically",
            )
        if configured == "unknown" and said.shell == "bash":
            return [f"{told}; read as if any shell of the family, because shell: is not set (write shell: bash if that is so)"]
        return [f"{told}; read as {reading.shell}"]

    async def _sessions(self) -> list[str]:
        wanted = self._target.reuse.sessions
        waiting: list[asyncssh.SSHClientProcess[str]] = []
        try:
            while len(waiting) < wanted:
                waiting.append(await self._connection.create_process("read x", request_pty=False))
        except asyncssh.ChannelOpenError:
            raise _StepError(
                f"the target opens {len(waiting)} sessions on one connection, and reuse.sessions is {wanted}",
                f"write reuse: {{sessions: {max(1, len(waiting))}}}, or raise MaxSessions in sshd_config",
            ) from None
        finally:
            for process in waiting:
                process.stdin.write_eof()
            await asyncio.gather(*(process.wait() for process in waiting))
        return [f"{wanted} at once on one connection"]

    async def _environment(self) -> list[str]:
        done = await self._connection.run("printenv LC_ALL", env={"LC_ALL": "C.UTF-8"}, request_pty=False)
        if done.stdout != "C.UTF-8\n":
            return ["the clients' LANG and LC_* are not taken (AcceptEnv LANG LC_* COLORTERM in sshd_config would take them)"]
        return ["the clients' LANG and LC_* are taken"]

    async def _start_up(self) -> list[str]:
        if self._target.credentials.kind == "ssh-ca":
            return ["~/.ssh/rc is never run: the certificate does not permit it"]
        done = await self._connection.run("ls .ssh/rc", request_pty=False)
        if done.exit_status == 0:
            raise _StepError("~/.ssh/rc runs before every command", "set PermitUserRC no in sshd_config, or remove the file")
        return ["no ~/.ssh/rc"]

    async def _dial(self, forced: bytes | None) -> Dialled:
        dialled = await self._dialler.dial(self._target.account, forced)
        self._open.append(dialled.connection)
        return dialled


def _login_failed(error: TargetError, at: int) -> list[Finding]:
    """A login has three steps, and its error says which one it failed at; those before it went well."""
    first = STEPS.index("algorithms")
    if at != first:
        return [Finding(STEPS[at], Status.FAILED, str(error), error.next_step)]
    match error.code:
        case Reason.TARGET_IDENTITY:
            ahead, fix = 1, "check its key there (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then add it to host_keys"
        case Reason.TARGET_CREDENTIAL:
            ahead, fix = 2, CREDENTIAL_FIX
        case _:
            ahead, fix = 0, error.next_step
    passed = [Finding(STEPS[first + n], Status.OK, "agreed" if n == 0 else "verified") for n in range(ahead)]
    return [*passed, Finding(STEPS[first + ahead], Status.FAILED, str(error), fix)]
