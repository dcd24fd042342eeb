"""The one path every command takes, and the only place where its order is written down.

    Command → classify → decide → (hold for a human) → record → release, or refuse

A front end turns bytes into a `Command` and a `Release` or `Refusal` back into bytes. It never decides. The gate never
touches a socket. The invariant (tests/test_gate_invariant.py):

    No byte of a command reaches a target before a decision about those bytes is recorded; the bytes released are the
    bytes decided (or their re-rendering, and then both are in the record); when anything on this path fails, nothing
    is released.

Fast path: a command that policy allows is answered synchronously, without a task switch: cached classification, cached
decision, one write to the transcript.
"""

from interlock.gate.gate import Gate
from interlock.gate.pending import MAX_SAID, WAITING_EVERY, Pending
from interlock.gate.release import EVENTS_OF_A_RELEASE, Release
from interlock.gate.session import Session

__all__ = ["EVENTS_OF_A_RELEASE", "MAX_SAID", "WAITING_EVERY", "Gate", "Pending", "Release", "Session"]
