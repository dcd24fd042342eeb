"""The authority that certifies this proxy's own host key, so that clients trust one line for every node.

Its public key goes into `known_hosts` as `@cert-authority` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT). It signs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import asyncssh

from interlock.errors import ConfigError
from interlock.ssh import credentials

VALID = timedelta(days=400)
"""Made anew at each start; no node runs a year without one."""

BACKDATED = timedelta(days=1)


class HostAuthority:
    """One a data_dir, or one that several nodes are given."""

    def __init__(self, key: asyncssh.SSHKey, names: Sequence[str]) -> None:
        """`names` are the host names that clients know this proxy by."""
        self._key = key
        self._names = tuple(dict.fromkeys(name for name in names if name))

    @classmethod
    def load_or_create(cls, path: Path, names: Sequence[str]) -> HostAuthority:
        """Read the key, or make one (mode 0600). Raise ConfigError."""
        for name in names:
            if "," in name or not name.isprintable() or " " in name:
                raise ConfigError(f"{name!r} can't be a host name in a certificate")
        return cls(credentials.own_host_key(path), names)

    @property
    def line(self) -> str:
        return " ".join(self._key.export_public_key().decode().split()[:2])

    @property
    def blob(self) -> bytes:
        return self._key.public_data

    def certify(self, host_key: asyncssh.SSHKey, now: datetime) -> asyncssh.SSHCertificate:
        """Return the certificate of a node's host key."""
        return self._key.generate_host_certificate(
            host_key.convert_to_public(),
            "interlock",
            principals=list(self._names),
            valid_after=int((now - BACKDATED).timestamp()),
            valid_before=int((now + VALID).timestamp()),
        )
