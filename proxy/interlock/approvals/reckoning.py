"""The time that the desk goes by: whatever is later of the wall clock and what has passed anyway. Pure.

Theory of operation: a deadline is reached when either clock says so (the earlier of monotonic and wall). So the desk keeps a
mark, the latest instant it ever reckoned, beside the monotonic reading of that moment. The next instant is the later of the
wall clock and of the mark plus what the monotonic clock has moved. A wall clock set back moves nothing back; one set forward
moves the desk forward for good. The mark is stored, so a restart can't be used to go back either (threats.md A19); the
monotonic reading is not, for it means nothing in another process.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Mark:
    """The latest instant reckoned. `monotonic_us` is None when it was read from the store."""

    instant: datetime
    monotonic_us: int | None = None


def reckon(mark: Mark, wall: datetime, monotonic_us: int) -> Mark:
    """Return the mark of now. Its instant never precedes the given one's."""
    passed = 0 if mark.monotonic_us is None else max(0, monotonic_us - mark.monotonic_us)
    return Mark(max(wall, mark.instant + timedelta(microseconds=passed)), monotonic_us)
