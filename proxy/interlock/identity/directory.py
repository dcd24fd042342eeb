"""The directory: who is registered, in memory, over the store's rows.

Reading (`identity.lookup`) is synchronous and sees one moment; every change goes the way of `identity.ledger`. Knows the
rules of the directory. Must not know protocols, requests or votes: whoever holds sessions or votes subscribes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from interlock.clock import Clock, Entropy, rfc3339
from interlock.errors import ConfigError
from interlock.evidence.events import Json, Recorder
from interlock.identity import registration
from interlock.identity.accounts import Accounts, teams_secret
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.credentials import Credentials
from interlock.identity.entries import LOCAL, OPERATOR, Entry
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import Identity, Kind
from interlock.store.principals import MembershipRow, PrincipalRow, PrincipalRows, Row, SshKeyRow


class Directory(Credentials, Accounts):
    """One a process. `load()` before use; every reader is synchronous, every change awaits journal and store."""

    def __init__(
        self,
        rows: PrincipalRows,
        *,
        clock: Clock,
        entropy: Entropy,
        journal: Recorder,
        salt_secret: bytes | None = None,
        passphrases: Passphrases | None = None,
        newcomer: float = 0.0,
        groups_max_age: float = 8 * 3600,
    ) -> None:
        """`newcomer`: seconds that an authority which was just given confirms nobody, unless it is confirmed itself."""
        super().__init__(
            rows, clock=clock, entropy=entropy, journal=journal, salt_secret=salt_secret, groups_max_age=groups_max_age
        )
        self._passphrases = passphrases or Passphrases(entropy=entropy)
        self._newcomer = timedelta(seconds=newcomer)

    async def add(
        self,
        handle: str,
        kind: Kind,
        *,
        owner: str | None = None,
        groups: Sequence[str] = (),
        ssh_keys: Sequence[str] = (),
        teams: Sequence[tuple[str, str]] = (),
        passphrase: str | None = None,
        by: Identity = OPERATOR,
    ) -> Entry:
        """Register somebody. `owner` is the handle of a person, required for an agent; `ssh_keys` are .pub lines.

        Raise ConfigError for what can't be registered, StoreError or EvidenceError when it can't be kept.
        """
        phc = await self._hash(kind, passphrase) if passphrase is not None else None
        async with self._lock:
            now = self._clock.now()
            registration.check_handle(self._index, handle)
            owned = registration.owner_of(self._index, kind, owner)
            # The suffix makes the subject new for ever: whoever gets a freed handle inherits no agent, link or approval.
            identity = Identity(LOCAL, f"{handle}#{self._entropy(5).hex()}")
            i, s = identity.issuer, identity.subject
            put: list[Row] = [
                PrincipalRow(
                    i, s, handle, str(kind), now, now,
                    owned.issuer if owned else None, owned.subject if owned else None, False, phc,
                    registration.changers(None, by),
                ),
                *(MembershipRow(i, s, name, now) for name in registration.checked_groups(groups)),
                *registration.key_rows(self._index, identity, ssh_keys, now),
                *registration.teams_rows(self._index, identity, kind, teams, now),
            ]  # fmt: skip
            fields: dict[str, Json] = {
                "kind": str(kind), "owner": str(owned) if owned else None, "groups": sorted(set(groups)),
                "keys": sorted(row.fingerprint for row in put if isinstance(row, SshKeyRow)), "reviewer": phc is not None,
            }  # fmt: skip
            await self._apply(Change(ChangeKind.ADDED, identity, handle), by, put=put, fields=fields, secret=teams_secret(teams))
            return self._entry(handle)

    async def remove(self, handle: str, *, by: Identity = OPERATOR) -> None:
        """Take somebody out for ever. Agents that they own are stopped until they get another owner."""
        async with self._lock:
            entry = self._entry(handle)
            change = Change(ChangeKind.REMOVED, entry.identity, handle, self.with_agents(entry))
            inward = list(self._index.rows.inward(entry.identity))
            await self._apply(change, by, drop=[*inward, self.row(entry)], urgent=True)

    async def set_disabled(self, handle: str, disabled: bool, *, by: Identity = OPERATOR) -> Entry:
        """Stop somebody, or let them in again."""
        async with self._lock:
            entry = self._entry(handle)
            row = replace(self.row(entry), disabled=disabled)
            if disabled:
                change = Change(ChangeKind.DISABLED, entry.identity, handle, self.with_agents(entry))
            else:
                change = Change(ChangeKind.ENABLED, entry.identity, handle)
                row = self.gained(row, by)
            await self._apply(change, by, put=[row], urgent=disabled)
            return self._entry(handle)

    async def set_groups(self, handle: str, groups: Sequence[str], *, by: Identity = OPERATOR) -> Entry:
        """Replace the groups of somebody."""
        async with self._lock:
            entry = self._entry(handle)
            wanted, now = set(registration.checked_groups(groups)), self._clock.now()
            i, s = entry.identity.issuer, entry.identity.subject
            put: list[Row] = [MembershipRow(i, s, name, now) for name in sorted(wanted - entry.groups)]
            lost = [r for r in self._index.rows.of(MembershipRow, entry.identity) if r.name not in wanted]
            if put:
                put.append(self.gained(self.row(entry), by))
            await self._apply(
                Change(ChangeKind.GROUPS, entry.identity, handle), by, put=put, drop=lost,
                fields={"added": sorted(wanted - entry.groups), "removed": sorted(entry.groups - wanted)},
                urgent=not put,
            )  # fmt: skip
            return self._entry(handle)

    async def set_owner(self, handle: str, owner: str, *, by: Identity = OPERATOR) -> Entry:
        """Give an agent or service to another person."""
        async with self._lock:
            entry = self._entry(handle)
            if entry.kind is Kind.HUMAN:
                raise ConfigError("a person has no owner")
            owned = registration.owner_of(self._index, entry.kind, owner)
            assert owned is not None
            row = replace(self.gained(self.row(entry), by), owner_issuer=owned.issuer, owner_subject=owned.subject)
            await self._apply(Change(ChangeKind.OWNER, entry.identity, handle), by, put=[row], fields={"owner": str(owned)})
            return self._entry(handle)

    async def confirm(self, handle: str, *, by: Identity, changed: datetime | None = None) -> Entry:
        """Say, as another administrator, that what this person gained lately is meant: `new_reviewer_delay` then ends.

        `changed` is the gain that was looked at; a later one is refused. Who is an administrator is the caller's check.
        """
        async with self._lock:
            entry = self._entry(handle)
            registration.check_confirmation(entry, self.get(by), changed, now=self._clock.now(), newcomer=self._newcomer)
            row = replace(self.row(entry), confirmed=self._clock.now(), confirmed_by=str(by))
            fields: dict[str, Json] = {"changed": rfc3339(entry.changed), "changed_by": entry.changed_by}
            await self._apply(Change(ChangeKind.CONFIRMED, entry.identity, handle), by, put=[row], fields=fields)
            return self._entry(handle)
