"""What a verification remembers while it is open: commands, decisions about them, and requests to people."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class Command:
    """What was asked of the target."""

    seq: int
    type: str
    text: str | None
    event: dict[str, Any]
    texts: dict[str, Any]  # kept while a reviewer may be asked about it
    decided: bool = False


@dataclass(slots=True)
class Decision:
    """What policy said of one."""

    command: Command
    verdict: str
    rule: str
    requests: list[str] = field(default_factory=list)
    forwarded: bool = False
    blocked: bool = False


@dataclass(slots=True)
class Request:
    """What people were asked, and what they said."""

    digest: str
    quorum: int
    needs: tuple[tuple[frozenset[str], int], ...]  # (groups, people)
    critical: bool
    excluded: frozenset[str]
    expires: datetime | None
    grant: str = ""
    match: str = ""
    rule: str = ""
    nonce: str | None = None  # of the form, where it is disclosed
    verdict: str = ""  # of the answer, once there is one
    approved_by: tuple[str, ...] | None = None  # set by an approval that was not used yet
    used: bool = False
