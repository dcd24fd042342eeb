"""The authority of logins: it signs the SSH certificates of `interlock login`, and this proxy alone trusts it.

Knows OpenSSH's certificates (PROTOCOL.certkeys) through asyncssh, and its own key file. Must not know who may have one: that
is `issuance`'s. Its key is never the one that signs for targets, or a login certificate would open a target around the proxy.

Rotation: a new key signs from then on; certificates of the old one count until the last of them has ended, which is
written beside the key in `KEY.previous`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh

from interlock.clock import rfc3339
from interlock.errors import ConfigError
from interlock.identity import sshkey

BACKDATED = timedelta(seconds=60)
"""The clock of whoever checks may be behind ours by this much."""

MAX_TTL = timedelta(hours=8)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate as one line of a `-cert.pub` file, and what the record says of it."""

    line: str
    serial: str
    key_id: str
    principal: str
    fingerprint: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Previous:
    """An earlier key of the authority, and until when certificates of it count."""

    line: str
    blob: bytes
    until: datetime


class SshCa:
    """The authority's keys. `path` is where the current one lives."""

    def __init__(self, key: asyncssh.SSHKey, path: Path, previous: Sequence[Previous] = ()) -> None:
        self._key = key
        self._path = path
        self._previous = tuple(previous)

    @classmethod
    def load_or_create(cls, path: Path) -> SshCa:
        """Read the authority's key, or make one (Ed25519, mode 0600). Raise ConfigError."""
        try:
            if not path.exists():
                _write(path, asyncssh.generate_private_key("ssh-ed25519", comment="interlock logins").export_private_key())
            key = asyncssh.read_private_key(path)
            sshkey.parse(_line(key))  # as strong as what we take from others
            noted = path.with_name(path.name + ".previous")
            previous = [_previous(line) for line in noted.read_text().splitlines()] if noted.exists() else []
        except (OSError, ValueError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise ConfigError(f"identity.ssh_ca.key {path} can't be read or created: {error.__class__.__name__}") from None
        return cls(key, path, previous)

    @property
    def known(self) -> tuple[Previous, ...]:
        """Every earlier key that is noted, also those that count no more."""
        return self._previous

    @property
    def line(self) -> str:
        """The public key, as one line."""
        return _line(self._key)

    @property
    def blob(self) -> bytes:
        return self._key.public_data

    @property
    def fingerprint(self) -> str:
        return sshkey.fingerprint(self._key.public_data)

    def previous(self, now: datetime) -> tuple[Previous, ...]:
        """Return the earlier keys that still count."""
        return tuple(old for old in self._previous if now < old.until)

    def trusts(self, blob: bytes, now: datetime) -> bool:
        """Whether a certificate signed by this key may be looked at at all."""
        return blob == self._key.public_data or any(blob == old.blob for old in self.previous(now))

    def sign(self, line: str, *, principal: str, handle: str, serial: int, now: datetime, ends: datetime) -> Signed:
        """Certify one public key line for `interlock:…`. Raise ConfigError for a key that is not accepted.

        Every extension is said: what is left out is permitted by default.
        """
        key = sshkey.parse(line)
        number = f"{serial:016x}"
        ends = min(ends, now + MAX_TTL).replace(microsecond=0)
        certificate = self._key.generate_user_certificate(
            asyncssh.import_public_key(f"{key.algorithm} {line.split(' ')[1]}"),
            f"{handle}/{number}",
            serial=serial,
            principals=[principal],
            valid_after=int((now - BACKDATED).timestamp()),
            valid_before=int(ends.timestamp()),
            permit_x11_forwarding=False,
            permit_agent_forwarding=False,
            permit_port_forwarding=True,
            permit_pty=True,
            permit_user_rc=False,
            touch_required=True,
        )
        text = certificate.export_certificate().decode().strip()
        return Signed(text, number, f"{handle}/{number}", principal, key.fingerprint, ends)

    def rotate(self, now: datetime, overlap: timedelta) -> SshCa:
        """Replace the key file by a new key and return the authority that has it. Raise ConfigError.

        The old public key is noted first: a crash between the two leaves a key that is trusted twice, never one too few. Without
        an overlap no earlier key counts any more, also of those that were replaced before; all stay noted (`known`).
        """
        kept = (*self._previous, Previous(self.line, self.blob, now + overlap))
        if overlap <= timedelta(0):
            kept = tuple(replace(old, until=min(old.until, now)) for old in kept)
        key = asyncssh.generate_private_key("ssh-ed25519", comment="interlock logins")
        try:
            noted = "".join(f"{int(old.until.timestamp())} {old.line}\n" for old in kept)
            _write(self._path.with_name(self._path.name + ".previous"), noted.encode())
            _write(self._path, key.export_private_key())
        except OSError as error:
            raise ConfigError(f"identity.ssh_ca.key {self._path} can't be replaced: {error.strerror}") from None
        return SshCa(key, self._path, kept)

    def described(self, now: datetime) -> dict[str, object]:
        """Return what `interlock ca show` shows."""
        return {
            "key": self.line,
            "fingerprint": self.fingerprint,
            "previous": [
                {"key": old.line, "fingerprint": sshkey.fingerprint(old.blob), "until": rfc3339(old.until)}
                for old in self.previous(now)
            ],
        }


def _line(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


def _previous(line: str) -> Previous:
    until, _, rest = line.partition(" ")
    key = asyncssh.import_public_key(rest)
    return Previous(rest, key.public_data, datetime.fromtimestamp(int(until), UTC))


def _write(path: Path, data: bytes) -> None:
    """Put a file that nobody else can ever read in its place, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
