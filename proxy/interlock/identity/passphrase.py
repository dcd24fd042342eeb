"""Passphrases of reviewers: Argon2id in a thread, never on the loop (RFC 9106; architecture.md, "Process").

Knows how to hash and check one. Must not know the directory. A check for nobody costs the same as a check for somebody.
"""

from __future__ import annotations

import asyncio
import unicodedata

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from interlock.clock import Entropy, system_entropy
from interlock.errors import ConfigError

MIN_LENGTH = 12
MAX_BYTES = 1024
AT_ONCE = 2
"""Hashes computed at the same time: each takes 64 MiB, and whoever floods us with logins only queues."""


class Passphrases:
    """Hashes and checks. `memory_kib` and `passes` are Argon2's cost; the defaults are RFC 9106 §4's second choice."""

    def __init__(self, *, memory_kib: int = 65536, passes: int = 3, entropy: Entropy = system_entropy) -> None:
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=4, type=Type.ID)
        self._entropy = entropy
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._nobody: str | None = None

    async def hash(self, passphrase: str) -> str:
        """Return the PHC string to store. Raise ConfigError when the passphrase is too short or too long."""
        prepared = _prepared(passphrase)
        if len(passphrase) < MIN_LENGTH:
            raise ConfigError(f"a passphrase has at least {MIN_LENGTH} characters; a few words are easy to keep in mind")
        if prepared is None:
            raise ConfigError(f"a passphrase has at most {MAX_BYTES} bytes of valid text")
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, prepared, salt=self._entropy(16))

    async def check(self, stored: str | None, passphrase: str) -> bool:
        """Compare. With `stored` None nobody has this passphrase, and finding that out takes as long."""
        prepared = _prepared(passphrase)
        async with self._turns:
            return await asyncio.to_thread(self._check, stored, prepared)

    def _check(self, stored: str | None, prepared: bytes | None) -> bool:
        if self._nobody is None:
            self._nobody = self._hasher.hash(self._entropy(32), salt=self._entropy(16))
        try:
            matches = self._hasher.verify(stored or self._nobody, prepared or b"")
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False
        return matches and stored is not None and prepared is not None


def _prepared(passphrase: str) -> bytes | None:
    """One form for what looks the same on different keyboards; None for what can't be a passphrase."""
    try:
        prepared = unicodedata.normalize("NFKC", passphrase).encode()
    except UnicodeEncodeError:
        return None
    return prepared if len(prepared) <= MAX_BYTES else None
