"""What happens to a transcript whose process died: cut the torn tail, say so in the chain, seal as aborted.

A broken chain is not repaired: it is sealed as damaged, byte for byte as it was found. Every step can be interrupted
and done again. Synchronous; runs in a thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import structlog

from interlock.errors import EvidenceError
from interlock.evidence import jcs
from interlock.evidence.events import Json
from interlock.evidence.forms import VERSION
from interlock.evidence.linefile import sync_directory
from interlock.evidence.readback import ReadBack
from interlock.evidence.seal import Status
from interlock.evidence.sealing import Sealer
from interlock.evidence.survey import Survey, survey
from interlock.evidence.transcript import EVENTS, timestamp
from interlock.evidence.vault import Cut

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery found and left."""

    session: str
    status: Status
    events: int
    torn_bytes: int


def recover(directory: Path, kind: str, sealer: Sealer, sync: str) -> Recovered:
    """Recover and seal one unsealed directory. Raise OSError or EvidenceError; then it stays for the next start."""
    session = directory.name
    now = sealer.clock.now()
    key = sealer.ca.issue(session, sealer.node, "recovery", now, sealer.entropy)
    found = survey(directory, session)
    damage = found.broken
    expected = None
    if damage is None:
        try:
            cut = sealer.vault.cut(directory, found.events)
        except EvidenceError as error:
            damage = str(error)
        else:
            expected = _append(directory, session, found, cut, timestamp(now))
    read = ReadBack(survey(directory, session))
    status = sealer.seal(directory, key, read, kind=kind, status=Status.ABORTED, expected=expected, sync=sync, damage=damage)
    log.warning("transcript recovered", session=session, status=str(status), events=found.events, torn_bytes=len(found.torn))
    return Recovered(session, status, found.events, len(found.torn))


def _append(directory: Path, session: str, found: Survey, cut: Cut, ts: str) -> tuple[int, str]:
    """Write the recovery event over the torn tail; return the new (events, head).

    Over it and not after cutting it: whatever moment this is interrupted at, what was torn is in the chain or still
    in the file.
    """
    event: dict[str, Json] = {
        "mono_us": found.mono_us,  # the clock that ran is gone with its process
        "prev": found.head,
        "seq": found.events,
        "session": session,
        "torn_bytes": len(found.torn),
        "torn_disclosure_bytes": cut.bytes,
        "torn_disclosure_sha256": cut.sha256,
        "torn_sha256": sha256(found.torn).hexdigest(),
        "ts": ts,
        "type": "recovery",
        "v": VERSION,
    }
    line = jcs.encode(event)
    fd = os.open(directory / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.pwrite(fd, line + b"\n", found.size) != len(line) + 1:
            raise EvidenceError("the disk is full; the transcript stays unsealed")
        os.ftruncate(fd, found.size + len(line) + 1)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(directory)
    return found.events + 1, sha256(b"\x00" + line).hexdigest()
