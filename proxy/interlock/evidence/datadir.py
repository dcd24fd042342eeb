"""The folder that a node records in: whose it is, who writes in it, what in it is not sealed, what auditors fetch from it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import structlog

from interlock.errors import EvidenceError
from interlock.evidence.archive import Bundle
from interlock.evidence.linefile import replace_file, sync_directory
from interlock.evidence.seal import SealCa, allowed_signers_line
from interlock.evidence.sealing import is_sealed
from interlock.evidence.survey import survey

log = structlog.get_logger()


class DataDirectory:
    """Private to its owner, and locked by its one writer. Synchronous."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = -1

    def prepare(self) -> dict[Path, str]:
        """Make, check and lock the folder; return unsealed transcripts with their kind. Raise OSError or EvidenceError."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._path.stat()
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise EvidenceError(f"{self._path} can be used by others, so transcripts are not safe in it: chmod 700 it")
        if found.st_uid != os.geteuid():
            raise EvidenceError(f"{self._path} belongs to another user; run as its owner")
        self._lock = os.open(self._path / "evidence.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvidenceError(f"another process records in {self._path}; one directory has one writer") from None
        unsealed: dict[Path, str] = {}
        for kind, name in (("session", "sessions"), ("journal", "journal")):
            folder = self._path / name
            folder.mkdir(mode=0o700, exist_ok=True)
            for directory in sorted(folder.iterdir()):
                if directory.is_dir() and not is_sealed(directory):
                    unsealed[directory] = kind
        sync_directory(self._path)
        return unsealed

    def publish_trust(self, ca: SealCa) -> None:
        """Add our authority to trust/allowed_signers; lines of earlier authorities stay for their seals."""
        folder = self._path / "trust"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "allowed_signers"
        known = path.read_text() if path.exists() else ""
        line = allowed_signers_line(ca)
        if line not in known.splitlines():
            replace_file(path, (known + line + "\n").encode(), 0o644)
            sync_directory(folder)

    def last_journal(self) -> tuple[str, int, str] | None:
        """Return (id, events, head) of the journal that none continues: names lie when the clock was set back."""
        continued = {}
        for directory in (self._path / "journal").iterdir():
            if directory.is_dir():
                try:
                    continued[directory] = str(Bundle(directory).first().get("continues", ""))
                except EvidenceError as error:  # sealed as damaged; the node goes on without it
                    log.error("journal unreadable", session=directory.name, error=str(error))
        last = set(continued) - {directory.parent / name for directory, name in continued.items() if name}
        for directory in sorted(last or continued, reverse=True):
            found = survey(directory, directory.name)
            if found.events:
                return directory.name, found.events, found.head
        return None

    def unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
