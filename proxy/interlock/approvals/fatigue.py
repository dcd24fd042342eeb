"""Against wearing reviewers down: how often one requester was denied lately, and when that is enough. Pure.

What counts is every denial and every time that something is asked again while its denial stands (property 30). Whoever
reaches the limit within the window is locked: nothing is asked for them until the lock ends or a person lifts it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from interlock.identity.principal import Identity

MAX_REMEMBERED = 10_000
"""Requesters whose denials are remembered at once; the ones that were denied longest ago are forgotten first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`pending` requests of one requester at once; `denials` within `window` seconds lock it for `lock` seconds."""

    pending: int = 50
    denials: int = 10
    window: float = 600.0
    lock: float = 900.0


@dataclass(frozen=True, slots=True)
class Lock:
    """Nothing is asked for this requester from `since` until `until`."""

    requester: Identity
    since: datetime
    until: datetime


class Denials:
    """Counts denials by requester."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lately: dict[Identity, deque[datetime]] = {}

    def count(self, requester: Identity, now: datetime) -> Lock | None:
        """Count one denial; return the lock when it was one too many."""
        lately = self._lately.pop(requester, None) or deque(maxlen=self._limits.denials)
        while lately and lately[0] <= now - timedelta(seconds=self._limits.window):
            lately.popleft()
        lately.append(now)
        if len(lately) >= self._limits.denials:
            return Lock(requester, now, now + timedelta(seconds=self._limits.lock))
        self._lately[requester] = lately  # the newest is last
        while len(self._lately) > MAX_REMEMBERED:
            del self._lately[next(iter(self._lately))]
        return None

    def forget(self, requester: Identity) -> None:
        self._lately.pop(requester, None)


def holding(locks: Mapping[Identity, Lock], requester: Identity, now: datetime) -> Lock | None:
    """Return the lock that holds a requester now."""
    lock = locks.get(requester)
    return lock if lock is not None and now < lock.until else None
