"""How the proxy proves itself to a target: short-lived certificates of `targets_ca`, a key file, or a key of an ssh-agent.

A certificate for an approved command carries the released bytes in `force-command`, so that the target's own sshd
enforces them even if this process is wrong (design/ssh.md, To the target). No key or certificate outlives its
connection, and none is ever shown: `about` holds what a transcript may say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import asyncssh

from interlock.clock import Clock, Entropy
from interlock.config import Config, Secret, TargetConfig
from interlock.errors import ConfigError, Reason, TargetError
from interlock.evidence.events import Json
from interlock.ssh.address import ACCOUNT

BACKDATED = timedelta(seconds=60)
"""The target's clock may be behind ours by this much."""

VALID = timedelta(seconds=300)
"""From the first to the last second of a certificate, the backdated minute included."""

MAX_FORCED = 100 * 1024
"""Bytes of text that fit in a certificate that every sshd takes."""

_INTERNAL = b"internal-sftp"
"""sshd runs a forced command that begins so inside itself and ignores the rest (sshd_config(5), ForceCommand)."""


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Proof:
    """What one connection authenticates with, and what the transcript says of it."""

    keys: Sequence[asyncssh.SSHKey | asyncssh.SSHKeyPair | tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]]
    about: dict[str, Json]
    lasts: float | None = None
    """Seconds for which it is good; None: for as long as it is configured."""
    done: Callable[[], object] = _nothing
    """To be called when the connection has authenticated or failed."""


class Credentials(Protocol):
    """One target's way to be logged in to."""

    @property
    def pins(self) -> bool:
        """True when an approved command must run under a certificate that forces its bytes."""
        ...

    async def prove(self, account: str, source: str, forced: bytes | None) -> Proof:
        """Make the proof for one connection from the address `source`. Raise TargetError."""
        ...


class CertificateCredentials:
    """`credentials: {kind: ssh-ca}`: a fresh key and a certificate of at most five minutes for each connection."""

    def __init__(self, ca: asyncssh.SSHKey, *, pins: bool, clock: Clock, entropy: Entropy) -> None:
        self._ca = ca
        self._pins = pins
        self._clock = clock
        self._entropy = entropy

    @property
    def pins(self) -> bool:
        return self._pins

    async def prove(self, account: str, source: str, forced: bytes | None) -> Proof:
        if ACCOUNT.match(account) is None:
            raise TargetError("the account's name can't be a certificate principal", reason=Reason.TARGET_CREDENTIAL)
        command = None if forced is None else forcible(forced)
        key = asyncssh.generate_private_key("ssh-ed25519")
        serial = int.from_bytes(self._entropy(8), "big")
        start = self._clock.now() - BACKDATED
        certificate = self._ca.generate_user_certificate(
            key,
            f"interlock-{serial:016x}",
            serial=serial,
            principals=[account],
            valid_after=int(start.timestamp()),
            valid_before=int((start + VALID).timestamp()),
            force_command=command,
            source_address=[source],
            permit_x11_forwarding=False,
            permit_agent_forwarding=False,
            permit_port_forwarding=False,
            permit_pty=False,
            permit_user_rc=False,
        )
        about: dict[str, Json] = {
            "credential": "ssh-ca", "serial": f"{serial:016x}", "ca": self._ca.get_fingerprint(), "forced": command is not None,
        }  # fmt: skip
        return Proof([(key, certificate)], about, (VALID - BACKDATED).total_seconds())


class KeyCredentials:
    """`credentials: {kind: key}`: a key file. The target enforces nothing, so nothing is said to be pinned."""

    pins = False

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._key = key

    async def prove(self, account: str, source: str, forced: bytes | None) -> Proof:
        if forced is not None:
            raise TargetError("a plain key can't force a command", reason=Reason.CANNOT_BE_PINNED)
        return Proof([self._key], {"credential": "key", "key": self._key.get_fingerprint(), "forced": False})


class AgentCredentials:
    """`credentials: {kind: agent}`: one key of an ssh-agent, named by its public half. Others there are never tried.

    The target enforces nothing, as with a key file; but the private key is never in this process.
    """

    pins = False

    def __init__(self, socket: Path, key: asyncssh.SSHKey) -> None:
        self._socket = socket
        self._key = key

    async def prove(self, account: str, source: str, forced: bytes | None) -> Proof:
        if forced is not None:
            raise TargetError("a plain key can't force a command", reason=Reason.CANNOT_BE_PINNED)
        try:
            agent = await asyncssh.connect_agent(str(self._socket))
        except (asyncssh.Error, OSError) as error:
            raise TargetError(f"the ssh-agent at {self._socket} can't be asked: {error.__class__.__name__}",
                              reason=Reason.TARGET_CREDENTIAL) from None  # fmt: skip
        try:
            pairs = [pair for pair in await agent.get_keys() if pair.public_data == self._key.public_data]
        except (asyncssh.Error, OSError, ValueError):
            pairs = []
        if not pairs:
            agent.close()
            raise TargetError(f"the ssh-agent at {self._socket} does not have the key {self._key.get_fingerprint()}",
                              reason=Reason.TARGET_CREDENTIAL)  # fmt: skip
        about: dict[str, Json] = {"credential": "agent", "key": self._key.get_fingerprint(), "forced": False}
        return Proof(pairs[:1], about, done=agent.close)


def forcible(payload: bytes) -> str:
    """Return the payload as a `force-command`. Raise TargetError (cannot-be-pinned) when sshd would not run it as given."""
    problem = ""
    if len(payload) > MAX_FORCED:
        problem = f"it is larger than {MAX_FORCED // 1024} KB"
    elif payload.startswith(_INTERNAL):
        problem = "sshd gives a text beginning with internal-sftp a meaning of its own"
    elif b"\0" in payload or not payload.strip():
        problem = "it is empty or holds a NUL"
    if not problem:
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            problem = "it is not UTF-8"
    raise TargetError(f"this target runs approved commands by certificate only, and this text can't be in one: {problem}",
                      reason=Reason.CANNOT_BE_PINNED)  # fmt: skip


def load(config: Config, target: TargetConfig, *, clock: Clock, entropy: Entropy) -> Credentials:
    """Read the credentials of a target. Raise ConfigError that names the setting, never the key."""
    wanted = target.credentials
    match wanted.kind:
        case "ssh-ca":
            if config.targets_ca is None:
                raise ConfigError(f"target {target.name}: credentials.kind ssh-ca needs targets_ca: {{key: file:…}}")
            ca = _key(config.targets_ca.key.resolve(config.base), "targets_ca.key")
            return CertificateCredentials(ca, pins=wanted.pin == "reviewed", clock=clock, entropy=entropy)
        case "key":
            if wanted.key is None:
                raise ConfigError(f"target {target.name}: credentials.kind key needs key: file:…")
            return KeyCredentials(_key(wanted.key.resolve(config.base), f"target {target.name}: credentials.key"))
        case "agent":
            assert wanted.agent is not None
            assert wanted.public_key is not None
            return AgentCredentials(config.path(wanted.agent), _public(config.path(wanted.public_key), target.name))
        case _:
            raise ConfigError(f"target {target.name}: an ssh target takes credentials of kind ssh-ca, key or agent")


def _key(secret: Secret, where: str) -> asyncssh.SSHKey:
    text = secret.reveal().rstrip() + "\n"
    try:
        return asyncssh.import_private_key(text)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigError(f"{where} is not a private key that can be read without a passphrase") from error


def _public(path: Path, target: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.read_public_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(f"target {target}: credentials.public_key {path} can't be read as a public key") from error


def own_host_key(path: Path) -> asyncssh.SSHKey:
    """Load our own host key, or create it (Ed25519, mode 0600). Raise ConfigError."""
    try:
        if not path.exists():
            key = asyncssh.generate_private_key("ssh-ed25519", comment="interlock")
            _write_private(path, key.export_private_key())
            path.with_suffix(".pub").write_bytes(key.export_public_key())
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigError(f"the host key {path} can't be read or created: {error.__class__.__name__}") from None


def _write_private(path: Path, data: bytes) -> None:
    """Create a file that nobody else can ever read, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_bytes(data)
    draft.replace(path)
