"""Reads a transcript with its disclosed values, in one pass and bounded memory.

Disclosures stand in the order of the events that commit to them, so both files are read side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from interlock.errors import EvidenceError, Reason
from interlock.evidence import disclosure
from interlock.evidence.cast import Recorded
from interlock.evidence.linefile import lines_of
from interlock.evidence.transcript import EVENTS
from interlock.evidence.vault import Vault


def recorded(directory: Path, vault: Vault) -> Iterator[Recorded]:
    """Yield every complete event with the values that its disclosures reveal. Raise OSError or EvidenceError.

    A value counts only when its digest is in the event's `_sd`; a missing disclosure leaves its name out.
    """
    disclosures = map(disclosure.parse_line, vault.lines(directory))
    waiting = next(disclosures, None)
    for line in lines_of(directory / EVENTS):
        if not line.endswith(b"\n"):
            return
        try:
            event: dict[str, Any] = msgspec.json.decode(line)
            seq, committed = event["seq"], event.get("_sd", ())
        except (msgspec.MsgspecError, TypeError, KeyError):
            raise EvidenceError("a line of the transcript is not an event", reason=Reason.EVIDENCE_INVALID) from None
        values: dict[str, Any] = {}
        while waiting is not None and 0 <= waiting.seq <= seq:
            if waiting.seq == seq and waiting.digest in committed:
                values[waiting.name] = waiting.value
            waiting = next(disclosures, None)
        yield Recorded(event, values)


def seal_disclosure(directory: Path, digest: str, vault: Vault) -> disclosure.Disclosed | None:
    """Return what the seal's own commitment says, or None when its disclosure is not there."""
    for line in vault.lines(directory):
        if b'"seq":-1' in line:
            found = disclosure.parse_line(line)
            if found.digest == digest:
                return found
    return None
