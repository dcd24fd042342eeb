"""Guards the reviewers' patience: how much one requester may ask, and who asks for nothing for a while.

Limits and counting are `approvals.fatigue`'s. Locks are stored, so a restart lifts none, and journalled. A lock that could
not be stored still holds in this process.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from interlock.approvals.fatigue import Denials, Limits, Lock, holding
from interlock.approvals.minutes import lock_event, unlock_event
from interlock.approvals.register import Register
from interlock.clock import rfc3339
from interlock.errors import Reason, StoreError, VoteError
from interlock.identity.principal import Identity
from interlock.store.vigilance import VigilanceRows

log = structlog.get_logger()


class Guard:
    def __init__(self, rows: VigilanceRows, register: Register, limits: Limits) -> None:
        self._rows = rows
        self._register = register
        self._limits = limits
        self._denials = Denials(limits)
        self._locks: dict[Identity, Lock] = {}

    async def open(self, now: datetime) -> None:
        self._locks = {lock.requester: lock for lock in await self._rows.locks() if now < lock.until}

    def locks(self, now: datetime) -> list[Lock]:
        return [lock for lock in self._locks.values() if now < lock.until]

    def admit(self, requester: Identity, now: datetime) -> None:
        """Raise VoteError while the requester is locked."""
        lock = holding(self._locks, requester, now)
        if lock is not None:
            raise VoteError(
                f"you kept asking for what was denied; nothing is asked for you until {rfc3339(lock.until)}",
                reason=Reason.REQUESTER_LOCKED,
            )
        self._locks.pop(requester, None)

    def admit_another(self, requester: Identity) -> None:
        """Raise VoteError when too many of the requester's questions wait already."""
        if self._register.waiting[requester] >= self._limits.pending:
            raise VoteError(
                f"{self._limits.pending} of your requests wait for an answer already", reason=Reason.TOO_MANY_REQUESTS
            )

    async def denied(self, requester: Identity, now: datetime) -> None:
        """Count a denial, or a question that was asked again while its denial stands."""
        lock = self._denials.count(requester, now)
        if lock is None:
            return
        self._locks[requester] = lock
        self._register.journal(lock_event(lock))
        try:
            await self._rows.lock(lock)
        except StoreError:
            log.error("approvals.lock_not_stored", requester=str(requester))

    async def unlock(self, requester: Identity, by: Identity) -> None:
        """Lift a lock. Raise StoreError."""
        await self._register.minute(unlock_event(requester, by))
        self._denials.forget(requester)
        self._locks.pop(requester, None)
        await self._rows.unlock(requester)
