"""The finished side of evidence: list, show, read, replay and export what was recorded. Read-only; any process may do it.

Works on a data directory while the daemon runs: a live transcript is read up to its last whole line. Every answer is
plain JSON.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from interlock.errors import EvidenceError, NotFoundError, Reason
from interlock.evidence import cast
from interlock.evidence.cast import Recorded
from interlock.evidence.reading import recorded, seal_disclosure
from interlock.evidence.sealing import SEAL, is_sealed
from interlock.evidence.transcript import EVENTS
from interlock.evidence.vault import PlainVault, Vault

RECORDING = "replay.cast"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


class Bundle:
    """One transcript's folder, live, sealed or exported."""

    def __init__(self, directory: Path, vault: Vault | None = None) -> None:
        self.directory = directory
        self._vault: Vault = vault if vault is not None else PlainVault()

    def summary(self) -> dict[str, Any]:
        """Return who, where, when and how it ended: from the seal, or for a live one from its first event.

        `status` is open | closed | aborted | damaged. Raise EvidenceError when neither can be read.
        """
        first = self.first()
        seal = self.seal()
        return {
            "id": self.directory.name,
            "kind": "journal" if first.get("type") == "journal.open" else "session",
            "status": seal["status"] if seal else "open",
            "agent": first.get("principal"),
            "handle": first.get("handle"),
            "target": first.get("target"),
            "protocol": first.get("protocol"),
            "account": first.get("account") or first.get("role") or "",
            "client": first.get("client"),
            "opened": seal["opened"] if seal else first.get("ts"),
            "closed": seal["closed"] if seal else None,
            "events": seal["events"] if seal else None,
        }

    def seal(self) -> dict[str, Any] | None:
        """Return the content of seal.json, None while there is none. Raise EvidenceError."""
        if not is_sealed(self.directory):
            return None
        try:
            content = json.loads((self.directory / SEAL).read_bytes())
        except ValueError:
            content = None
        if not isinstance(content, dict) or not {"status", "opened", "closed", "events", "cast"} <= set(content):
            raise EvidenceError(f"the seal of {self.directory.name} can't be read", reason=Reason.EVIDENCE_INVALID)
        return content

    def events(self) -> Iterator[Recorded]:
        """Yield the events with their disclosed values. Raise EvidenceError."""
        return recorded(self.directory, self._vault)

    def cast(self) -> Iterator[bytes]:
        """Yield the lines of the recording (asciicast v2), made anew from the events. Raise EvidenceError."""
        return cast.render(self.events())

    def committed_recording(self) -> str | None:
        """Return the SHA-256 that the seal commits to, in hex; None without a commitment. Raise EvidenceError."""
        seal = self.seal()
        if seal is None or seal["cast"] is None:
            return None
        found = seal_disclosure(self.directory, seal["cast"], self._vault)
        if found is None or not isinstance(found.value, str):
            raise EvidenceError("the hash of the recording is missing", reason=Reason.EVIDENCE_INCOMPLETE)
        return found.value

    def check_recording(self) -> str:
        """Make the recording anew and compare; return its SHA-256. Raise EvidenceError when it is another or none."""
        expected = self.committed_recording()
        if expected is None:
            raise EvidenceError("no recording was sealed with this transcript", reason=Reason.EVIDENCE_INCOMPLETE)
        digest = sha256()
        for line in self.cast():
            digest.update(line)
        if digest.hexdigest() != expected:
            raise EvidenceError("the recording is not the one that was sealed", reason=Reason.EVIDENCE_INVALID)
        return expected

    def first(self) -> dict[str, Any]:
        """Return the first event, empty while there is none. Raise EvidenceError."""
        try:
            with (self.directory / EVENTS).open("rb") as file:
                line = file.readline()
            first = msgspec.json.decode(line) if line.endswith(b"\n") else {}
        except (OSError, msgspec.MsgspecError):
            first = None
        if not isinstance(first, dict):
            raise EvidenceError(f"the transcript {self.directory.name} can't be read", reason=Reason.EVIDENCE_INVALID)
        return first


class Archive:
    """The transcripts of a data directory."""

    def __init__(self, data_dir: Path, vault: Vault | None = None) -> None:
        self._data_dir = data_dir
        self._vault = vault

    def show(self, session: str) -> dict[str, Any]:
        """Return the summary and the seal (None while it is open). Raise NotFoundError or EvidenceError."""
        bundle = self.bundle(session)
        return {**bundle.summary(), "seal": bundle.seal()}

    def events(self, session: str) -> list[dict[str, Any]]:
        """Return every event, its disclosed values under `disclosed`. Raise NotFoundError or EvidenceError."""
        return [{**r.event, "disclosed": r.disclosed} for r in self.bundle(session).events()]

    def bundle(self, session: str) -> Bundle:
        """Return a session or a journal by id. Raise NotFoundError."""
        if _ID.match(session):
            for kind in ("sessions", "journal"):
                directory = self._data_dir / kind / session
                if directory.is_dir():
                    return Bundle(directory, self._vault)
        raise NotFoundError(f"there is no session {session}")

    def export(self, session: str, out: Path) -> Path:
        """Copy a sealed session to `out`, with its recording, ready to be handed over. Raise EvidenceError.

        `out` must not exist, or be empty. A session that was not closed by itself has no sealed recording, so its
        export has none; `interlock sessions replay` still plays it.
        """
        bundle = self.bundle(session)
        if not is_sealed(bundle.directory):
            raise EvidenceError(
                "the session is still open, so there is nothing sealed to export", reason=Reason.EVIDENCE_INCOMPLETE
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise EvidenceError(f"{out} exists; name a folder that does not", reason=Reason.EVIDENCE_INVALID)
        try:
            shutil.copytree(bundle.directory, out, dirs_exist_ok=True)
            if bundle.committed_recording() is not None:
                with (out / RECORDING).open("wb") as file:
                    file.writelines(bundle.cast())
        except OSError as error:
            raise EvidenceError(f"{out} can't be written: {error.strerror or error}") from None
        return out

    def list(self) -> list[dict[str, Any]]:
        """Return the summary of every session, newest first. One that can't be read says so in `status`."""
        folder = self._data_dir / "sessions"
        names = sorted((d.name for d in folder.iterdir() if d.is_dir()), reverse=True) if folder.is_dir() else []
        return [self._summary(name) for name in names]

    def _summary(self, name: str) -> dict[str, Any]:
        try:
            return self.bundle(name).summary()
        except EvidenceError:
            return {"id": name, "kind": "session", "status": "unreadable"}
