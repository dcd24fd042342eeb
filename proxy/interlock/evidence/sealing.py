"""Seals a transcript: signs what was read back from the disk, and leaves a bundle that stands on its own.

Synchronous; runs in a thread. What is signed is what the disk holds (readback.py): when that is not what was written, the seal
says `damaged`, and nothing is ever deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import structlog

from interlock.clock import Clock, Entropy
from interlock.evidence import disclosure
from interlock.evidence.linefile import replace_file, sync_directory
from interlock.evidence.policies import PolicyShelf
from interlock.evidence.readback import ReadBack
from interlock.evidence.readme import README
from interlock.evidence.seal import Seal, SealCa, SealKey, Status
from interlock.evidence.survey import Survey
from interlock.evidence.transcript import EVENTS, timestamp
from interlock.evidence.vault import Vault

SEAL = "seal.json"
SIGNATURE = "seal.json.sig"
README_NAME = "README.txt"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sealer:
    """What every seal of this node needs."""

    node: str
    ca: SealCa
    shelf: PolicyShelf
    vault: Vault
    clock: Clock
    entropy: Entropy

    def seal(
        self,
        directory: Path,
        key: SealKey,
        read: ReadBack,
        *,
        kind: str,
        status: Status,
        expected: tuple[int, str] | None,
        sync: str,
        disclose: Callable[[str], None] | None = None,
        damage: str | None = None,
    ) -> Status:
        """Sign a directory and destroy the key; return the status that was sealed. Raise OSError or EvidenceError.

        `read` is what the directory holds, `expected` (events, head) as the writer knows them. `disclose` takes the
        disclosure of the derived recording; without it, or without a recording, the seal commits to none.
        """
        found = read.found
        if damage is None:
            damage = _damage(found, expected)
        if damage is not None:
            status = Status.DAMAGED
            log.error("transcript damaged", session=key.session, damage=damage)
        commitment = None
        if status is Status.CLOSED and disclose is not None and read.recording is not None:
            text, commitment = disclosure.commit(self.entropy(disclosure.SALT), "cast", read.recording)
            disclose(text)
        replace_file(directory / README_NAME, README.encode())
        files = {EVENTS: found.sha256, README_NAME: sha256(README.encode()).hexdigest()}
        files |= self.shelf.link(found.policies, directory)
        now = timestamp(self.clock.now())
        closed = found.closed if damage is None and found.closed else now
        seal = Seal(
            session=key.session, kind=kind, node=self.node, status=status, events=found.events, head=found.head,
            root=found.root, opened=found.opened or now, closed=closed, target=_text(found, "target"),
            agent=_text(found, "principal"), policies=found.policies, files=files,
            sync=_text(found, "sync") or sync, observe=found.observe, cast=commitment, damage=damage,
        ).encode()  # fmt: skip
        self._sign(directory, key, seal, datetime.fromisoformat(closed))
        return status

    def _sign(self, directory: Path, key: SealKey, seal: bytes, closed: datetime) -> None:
        if not key.covers(closed):
            key = key.renewed(self.ca, closed, self.entropy)
        signature = key.sign(seal)
        key.destroy()
        # The signature goes first: a directory counts as sealed when seal.json is there too.
        replace_file(directory / SIGNATURE, signature)
        replace_file(directory / SEAL, seal)
        sync_directory(directory)


def is_sealed(directory: Path) -> bool:
    return (directory / SEAL).exists() and (directory / SIGNATURE).exists()


def _damage(found: Survey, expected: tuple[int, str] | None) -> str | None:
    if found.broken is not None:
        return found.broken
    if found.torn:
        return "the last line has no end"
    if expected is not None and (found.events, found.head) != expected:
        return f"the file holds {found.events} events and not the {expected[0]} that were written"
    return None


def _text(found: Survey, name: str) -> str | None:
    value = found.first.get(name)
    return value if isinstance(value, str) else None
