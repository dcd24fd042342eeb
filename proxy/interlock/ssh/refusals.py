"""A refusal in the words of SSH: lines on stderr and an exit status. Pure (interface.md, What an agent sees)."""

from __future__ import annotations

from interlock.approvals.wording import Refusal, one_line
from interlock.errors import Reason

DENIED = 126
"""Found, but not permitted: what a shell says of a file that it may not execute."""

EXPIRED = 124
"""What timeout(1) says."""

PENDING = 75
"""EX_TEMPFAIL of sysexits.h: run the same again later."""

FAILED = 255
"""What ssh itself says when it, not the command, failed."""

_EXIT = {
    Reason.APPROVAL_EXPIRED: EXPIRED,
    Reason.APPROVAL_PENDING: PENDING,
    Reason.APPROVAL_EDITED: PENDING,
    Reason.ACCOUNT_CHANGED: PENDING,
    Reason.TARGET_UNREACHABLE: FAILED,
    Reason.TARGET_IDENTITY: FAILED,
    Reason.TARGET_CREDENTIAL: FAILED,
    Reason.EVIDENCE_UNAVAILABLE: FAILED,
    Reason.STORE_UNAVAILABLE: FAILED,
    Reason.SHUTTING_DOWN: FAILED,
    Reason.LIMIT_REACHED: FAILED,
    Reason.INTERNAL: FAILED,
    Reason.PROTOCOL_VIOLATION: FAILED,
}

LINE = 1000
"""Longest line of ours, in characters."""


def exit_status(reason: Reason) -> int:
    """Return the exit status of a command that was refused for `reason`."""
    return _EXIT.get(reason, DENIED)


def line(text: str) -> bytes:
    """Return one stderr line of ours. Text of people and of commands is flattened to printable characters."""
    return f"interlock: {one_line(text, LINE)}\n".encode()


def lines(refusal: Refusal) -> bytes:
    """Return what stderr says of a refusal: the reason with its code and rule, then what to do next."""
    about = ", ".join(part for part in (str(refusal.reason), f"rule {refusal.rule}" if refusal.rule else "") if part)
    said = line(f"{refusal.message} [{about}]")
    if refusal.hint and refusal.hint != refusal.message:
        said += line(refusal.hint)
    return said


def plain(refusal: Refusal) -> str:
    """Return the refusal on one line without our prefix."""
    hint = f" {refusal.hint}" if refusal.hint and refusal.hint != refusal.message else ""
    return one_line(f"{refusal.message} [{refusal.reason}]{hint}", 300)


def sentence(refusal: Refusal) -> str:
    """Return the refusal on one line, for places that have room for one: a disconnect message."""
    return f"interlock: {plain(refusal)}"
