"""What a seal says of a transcript, read back from the disk: the chain, and the hash of the recording that is derived from it.

The two things that take long when a session ends: up to a tenth of a second for each megabyte that was printed. They read
and compute only, so a child may do them (readers.py), whose program this module is; nothing secret but the transcript itself
is needed for them, no key above all. Synchronous.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import msgspec

from interlock.child import serve
from interlock.errors import EvidenceError
from interlock.evidence import cast
from interlock.evidence.reading import recorded
from interlock.evidence.survey import Survey, survey
from interlock.evidence.vault import PlainVault, Vault

MODULE = "interlock.evidence.readback"

_LOOK = 64
"""Disclosures between two looks at whether anybody still waits for the answer."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What was read. `recording` is the SHA-256 of the derived recording in hex, None when none is to be sealed."""

    found: Survey
    recording: str | None = None


class Work(StrEnum):
    SURVEY = "survey"
    RECORDING = "recording"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a child is asked: one of the two, of one folder. Values in a PlainVault."""

    work: Work
    directory: str
    session: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One of the three. `refused`: what is on the disk can't be read as a transcript."""

    found: Survey | None = None
    recording: str | None = None
    refused: str | None = None


def recording(directory: Path, vault: Vault) -> str:
    """Make the recording and return its SHA-256 in hex. Raise OSError or EvidenceError."""
    digest = sha256()
    for line in cast.render(recorded(directory, vault)):
        digest.update(line)
    return digest.hexdigest()


class _Watched(PlainVault):
    """A vault whose reading ends the process when its parent has died: the parent's successor reads for itself."""

    def __init__(self) -> None:
        self._parent = os.getppid()

    def lines(self, directory: Path) -> Iterator[bytes]:
        for number, line in enumerate(super().lines(directory)):
            if number % _LOOK == 0 and os.getppid() != self._parent:
                raise SystemExit
            yield line


class Answers:
    """Answers requests, in the child."""

    def __init__(self) -> None:
        self._vault = _Watched()

    def __call__(self, request: bytes) -> bytes:
        asked = msgspec.json.decode(request, type=Asked)
        directory = Path(asked.directory)
        try:
            match asked.work:
                case Work.SURVEY:
                    answered = Answered(found=survey(directory, asked.session))
                case Work.RECORDING:
                    answered = Answered(recording=recording(directory, self._vault))
        except (OSError, EvidenceError) as error:
            answered = Answered(refused=getattr(error, "strerror", None) or str(error))
        return msgspec.json.encode(answered)


if __name__ == "__main__":
    serve(Answers())
