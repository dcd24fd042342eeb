"""The evidence authority's key on disk: OpenSSH format, mode 0600, made once.

A file that others can read is refused, never repaired: whoever could read it may have it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from interlock.errors import EvidenceError


def load_or_create(path: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 key at `path`, made now when there is none. Raise EvidenceError that says what to do."""
    try:
        return _load(path)
    except FileNotFoundError:
        return _create(path)


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EvidenceError(f"the evidence key {path} can't be read: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
            raise EvidenceError(f"the evidence key {path} can be read by others; replace the key and chmod 600 the new one")
        data = file.read()
    try:
        key = load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise EvidenceError(f"{path} is not an unencrypted private key in OpenSSH format (ssh-keygen -t ed25519)") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise EvidenceError(f"{path} is not an Ed25519 key; make one with ssh-keygen -t ed25519")
    return key


def _create(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except FileExistsError:
        return _load(path)  # another process was quicker
    except OSError as error:
        raise EvidenceError(f"the evidence key {path} can't be made: {error.strerror}") from None
    return key
