"""When to try again, and when to stop trying. Pure.

A receiver that is down gets a few quick tries and then one every two hours, for three days; one that names a time
(Retry-After, RFC 9110 §10.2.3) gets that, within a day. Delays are spread by chance, so that what failed together does not
come back together.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from interlock.clock import Entropy

FIRST = 5.0
LONGEST = 7_200.0
LONGEST_ASKED = 86_400.0
"""Seconds: before the second try, between late ones, and the most that a receiver can ask for."""

PATIENCE = timedelta(days=3)


def delay(attempts: int, entropy: Entropy, asked: float | None = None) -> float:
    """Return the seconds to wait after that many failed attempts: doubled each time, between half and all of it.

    `asked` is what the receiver wants to be left alone for; it only ever makes the wait longer.
    """
    whole = min(LONGEST, FIRST * 2.0 ** min(attempts - 1, 20))
    share = int.from_bytes(entropy(4), "big") / 2**32
    own = whole * (0.5 + share / 2)
    return own if asked is None else max(own, min(asked, LONGEST_ASKED))


def asked_for(retry_after: str | None, now: datetime) -> float | None:
    """Read a Retry-After: seconds or a date. None for what is neither."""
    if retry_after is None:
        return None
    written = retry_after.strip()
    if written.isascii() and written.isdigit():
        return float(written[:9])
    try:
        moment = parsedate_to_datetime(written)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def hopeless(created: datetime, now: datetime) -> bool:
    """Whether a message was tried for long enough."""
    return now - created >= PATIENCE
