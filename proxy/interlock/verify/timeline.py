"""Time and order: clocks that go on together, a record that is never silent for long, a beginning and an end.

Knows when an event was and its type. Must not know what it says.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from interlock.verify.finding import Report

CLOCK_BOUND_US = 1_000_000
HEARTBEAT_US = 30_000_000
SILENCE_US = 2 * HEARTBEAT_US + 5_000_000
"""Two heartbeats, and the time it takes to write them on a busy machine."""

_TS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")


class Timeline:
    """Feed every event in order, then call `finish` with the status of the seal."""

    def __init__(self, report: Report, kind: str) -> None:
        self._report = report
        self._opening = "session.open" if kind == "session" else "journal.open"
        self._closing = "session.close" if kind == "session" else "journal.close"
        self._wall: datetime | None = None
        self._mono = 0
        self._unexplained: tuple[int, int] | None = None  # (event, µs) of clocks that parted
        self._ended = False
        self._last = ""

    def feed(self, event: dict[str, Any]) -> None:
        """Check one event against all before it."""
        self._time(event)
        self._order(event["type"], event["seq"])
        self._last = event["type"]

    def finish(self, status: str) -> None:
        self._clocks_explained()
        if status == "closed" and not self._ended:
            self._report.problem("order", f"the seal says closed and there is no {self._closing}")
        if status == "closed" and self._last == "recovery":
            self._report.problem("order", "the seal says closed and the node had died")
        if status == "aborted" and self._last != "recovery":
            self._report.problem("order", "the seal says aborted and the last event is not the recovery")

    def _time(self, event: dict[str, Any]) -> None:
        seq, mono, kind = event["seq"], event["mono_us"], event["type"]
        if not _TS.match(event["ts"]):
            self._report.problem("time", "the time is not RFC 3339 in UTC with six digits", seq)
            return
        try:
            wall = datetime.fromisoformat(event["ts"])
        except ValueError:
            self._report.problem("time", "the time does not exist", seq)
            return
        if kind == "clock.step" and self._unexplained is not None and event.get("ref") == self._unexplained[0]:
            if event.get("step_us") != self._unexplained[1]:
                self._report.problem("time", "the clock's step is not the one that the times show", seq)
            self._unexplained = None
        if mono < self._mono:
            self._report.problem("time", "the monotonic clock went back", seq)
        if self._wall is not None and kind != "recovery":  # after a crash another process's clock runs
            passed = mono - self._mono
            step = _microseconds(wall - self._wall) - passed
            if abs(step) > CLOCK_BOUND_US:
                self._clocks_explained()
                self._unexplained = (seq, step)
            if passed > SILENCE_US:
                self._report.problem("time", f"the record is silent for {passed // 1_000_000} s before this event", seq)
        self._wall, self._mono = wall, max(mono, self._mono)

    def _clocks_explained(self) -> None:
        if self._unexplained is not None:
            seq, step = self._unexplained
            self._unexplained = None
            self._report.problem("time", f"the clocks part by {step / 1e6:.3f} s and no clock.step says so", seq)

    def _order(self, kind: str, seq: int) -> None:
        if seq == 0 and kind not in (self._opening, "recovery"):
            self._report.problem("order", f"the first event is {kind} and not {self._opening}", seq)
        if kind == self._opening and seq != 0:
            self._report.problem("order", f"a second {kind}", seq)
        if self._ended and kind not in ("clock.step", "recovery"):
            self._report.problem("order", f"{kind} after the end", seq)
        if kind == self._closing:
            self._ended = True


def _microseconds(delta: Any) -> int:
    return int((delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds)


def parse_time(text: str) -> datetime | None:
    """Return the time of an RFC 3339 text in our form, or None."""
    if not _TS.match(text):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
