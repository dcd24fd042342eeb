"""Which accounts are one person: of Teams and Slack, and subjects of issuers.

Linked accounts count as one: what one asked, the other can't approve.
"""

from __future__ import annotations

from collections.abc import Sequence

from interlock.errors import NotFoundError
from interlock.evidence.events import Json
from interlock.identity import registration
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.entries import OPERATOR, Entry
from interlock.identity.ledger import Ledger
from interlock.identity.principal import Identity
from interlock.store.principals import LinkRow, Row, SlackRow, TeamsRow


class Accounts(Ledger):
    """The part of the directory that links accounts."""

    async def link_teams(self, handle: str, tenant: str, oid: str, *, by: Identity = OPERATOR) -> Entry:
        """Map a Microsoft Entra account, by tenant and object id, to this person and nobody else."""
        async with self._lock:
            entry = self._entry(handle)
            now = self._clock.now()
            put = registration.teams_rows(self._index, entry.identity, entry.kind, [(tenant, oid)], now)
            await self._apply(
                Change(ChangeKind.LINKED, entry.identity, handle), by,
                put=[*put, self.gained(self.row(entry), by)], secret=teams_secret([(tenant, oid)]),
            )  # fmt: skip
            return self._entry(handle)

    async def unlink_teams(self, handle: str, tenant: str, oid: str, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            key = (tenant.lower(), oid.lower())
            drop = [r for r in self._index.rows.of(TeamsRow, entry.identity) if (r.tenant, r.oid) == key]
            if not drop:
                raise NotFoundError(f"{handle} has no such link")
            change = Change(ChangeKind.UNLINKED, entry.identity, handle)
            await self._apply(change, by, drop=drop, secret=teams_secret([key]), urgent=True)
            return self._entry(handle)

    async def link_slack(self, handle: str, team: str, user: str, *, by: Identity = OPERATOR) -> Entry:
        """Map a Slack account, by team and user id, to this person and nobody else."""
        async with self._lock:
            entry = self._entry(handle)
            row = registration.slack_row(self._index, entry, team, user, self._clock.now())
            await self._apply(
                Change(ChangeKind.LINKED, entry.identity, handle), by,
                put=[row, self.gained(self.row(entry), by)], secret={"slack": [f"{team}/{user}"]},
            )  # fmt: skip
            return self._entry(handle)

    async def unlink_slack(self, handle: str, team: str, user: str, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            drop = [r for r in self._index.rows.of(SlackRow, entry.identity) if (r.team, r.user) == (team, user)]
            if not drop:
                raise NotFoundError(f"{handle} has no such link")
            change = Change(ChangeKind.UNLINKED, entry.identity, handle)
            await self._apply(change, by, drop=drop, secret={"slack": [f"{team}/{user}"]}, urgent=True)
            return self._entry(handle)

    async def link(self, handle: str, other: Identity, *, by: Identity = OPERATOR) -> Entry:
        """Say that `other` is the same person (or agent): another entry, or a subject of a pinned issuer.

        Linked accounts count as one: what one asked, the other can't approve.
        """
        async with self._lock:
            entry = self._entry(handle)
            second = registration.check_link(self._index, entry, other)
            now = self._clock.now()
            put: list[Row] = [
                LinkRow(entry.identity.issuer, entry.identity.subject, other.issuer, other.subject, now),
                *(self.gained(self.row(e), by) for e in (entry, second) if e is not None),
            ]
            change = Change(ChangeKind.LINKED, entry.identity, handle, other=other)
            await self._apply(change, by, put=put, secret={"other": str(other)})
            return self._entry(handle)

    async def unlink(self, handle: str, other: Identity, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            drop = self._index.rows.between(entry.identity, other)
            if not drop:
                raise NotFoundError(f"{handle} has no such link")
            # Two accounts that stop being one person may answer each other: that is a gain of authority.
            put = [self.gained(self.row(e), by) for e in (entry, self.get(other)) if e is not None]
            change = Change(ChangeKind.UNLINKED, entry.identity, handle, other=other)
            await self._apply(change, by, put=put, drop=drop, secret={"other": str(other)})
            return self._entry(handle)


def teams_secret(accounts: Sequence[tuple[str, str]]) -> dict[str, Json]:
    """Return Teams accounts as the record keeps them: disclosed to those alone who may know."""
    return {"teams": [f"{tenant.lower()}/{oid.lower()}" for tenant, oid in accounts]} if accounts else {}
