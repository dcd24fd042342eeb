"""The store's generation as the node's journal last saw it (architecture.md, "Where state lives").

A store that is older than its journal was restored from a backup: approvals that were consumed would live again in it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from interlock.errors import EvidenceError


class _Event(msgspec.Struct):
    generation: int = 0


_decoder = msgspec.json.Decoder(_Event)


def highest_generation(data_dir: Path) -> int:
    """Return the highest `generation` in any journal, 0 for a node without history.

    Raise EvidenceError when a journal can't be read: then nobody knows how old the store is.
    """
    folder = data_dir / "journal"
    try:
        # All of them: after a clock was set back, the newest name is not the newest journal.
        return max((_highest(part / "events.jsonl") for part in folder.iterdir()), default=0) if folder.is_dir() else 0
    except OSError as error:
        raise EvidenceError(f"the journal can't be read ({error.strerror}); the store's age is unknown") from None


def _highest(file: Path) -> int:
    highest = 0
    if file.exists():
        with file.open("rb") as lines:
            for line in lines:
                if b'"generation":' in line and line.endswith(b"\n"):
                    try:
                        highest = max(highest, _decoder.decode(line).generation)
                    except msgspec.DecodeError:
                        continue  # a damaged line is recovery's matter; it proves nothing about the store
    return highest
