"""Cancel keys: what a client holds to cancel its own running or held statement, and nobody else's.

Knows: BackendKeyData and CancelRequest (PostgreSQL manual, "Canceling Requests in Progress"): unauthenticated by design,
so the key carries a secret of ours, guesses are limited, and a key dies with its session.
Must not know: the server's own secret beyond the session that holds it.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from interlock.clock import Clock, Entropy
from interlock.postgres.arrivals import origin

SECRET_BYTES = {0: 4, 2: 32}
"""By minor version of the protocol: 3.0 fixes it, 3.2 allows up to 256."""
BURST = 20
PER_SECOND = 5.0
_MAX_SOURCES = 4096
_MAX_ENDED = 4096
"""Keys of ended sessions that are remembered: a client's last cancel often comes when its session is gone."""


class CancelKeys:
    """Maps (server's process id, our secret) to the session that may be cancelled with it."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._sessions: dict[int, dict[bytes, Callable[[], Awaitable[None]]]] = {}
        self._ended: OrderedDict[tuple[int, bytes], None] = OrderedDict()
        self._budgets: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def issue(self, process: int, cancel: Callable[[], Awaitable[None]], *, minor: int = 0) -> bytes:
        """Return a fresh secret for a session on server process `process`, whose client speaks protocol 3.`minor`."""
        keys = self._sessions.setdefault(process, {})
        secret = self._entropy(SECRET_BYTES[minor])
        while secret in keys:
            secret = self._entropy(SECRET_BYTES[minor])
        keys[secret] = cancel
        return secret

    def withdraw(self, process: int, secret: bytes) -> None:
        keys = self._sessions.get(process, {})
        if keys.pop(secret, None) is not None:
            self._ended[process, secret] = None
            if len(self._ended) > _MAX_ENDED:
                self._ended.popitem(last=False)
        if not keys:
            self._sessions.pop(process, None)

    async def cancel(self, process: int, secret: bytes, source: str) -> bool:
        """Cancel what the key names; say whether there was such a key. Over the limit of guesses nothing is looked up."""
        if not self._within_limit(source):
            return False
        for known, cancel in list(self._sessions.get(process, {}).items()):
            if hmac.compare_digest(known, secret):
                self._give_back(source)
                await cancel()
                return True
        if (process, secret) in self._ended:  # too late, and no guess: else a pool that is late often loses those in time
            self._give_back(source)
        return False

    def _give_back(self, source: str) -> None:
        """Who has the key has guessed nothing: a pool of many sessions cancels often, and a cancel that is lost is not told."""
        place = origin(source)
        tokens, then = self._budgets[place]
        self._budgets[place] = (min(float(BURST), tokens + 1), then)

    def _within_limit(self, source: str) -> bool:
        """A bucket of BURST tokens for each source, refilled at PER_SECOND. Who asked longest ago is forgotten first."""
        now, place = self._clock.monotonic_us(), origin(source)
        tokens, then = self._budgets.pop(place, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - then) / 1_000_000 * PER_SECOND)
        allowed = tokens >= 1
        self._budgets[place] = (tokens - 1 if allowed else tokens, now)
        while len(self._budgets) > _MAX_SOURCES:
            self._budgets.popitem(last=False)
        return allowed
