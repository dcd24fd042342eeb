"""Whether what somebody was let in with still holds: asked before a session opens, after it has, and when something changed.

Each way of losing access tells its subscribers once, at that moment; a session that was still opening is not among those they
find. So the gate asks here again when it is, and whoever ends sessions asks about each one that is live. Knows the
directory and who keeps credentials. Must not know sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from interlock.errors import Reason
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.entries import LOCAL, Entry
from interlock.identity.logouts import Logouts
from interlock.identity.principal import CredentialKind, Identity, Principal
from interlock.identity.revocation import Revocations

Holds = Callable[[str], bool]

_ENTRY_HOLDS: Mapping[CredentialKind, Callable[[Entry, str], bool]] = {
    CredentialKind.SSH_KEY: lambda entry, ident: any(row.fingerprint == ident for row in entry.ssh_keys),
    CredentialKind.TOKEN: lambda entry, ident: any(row.id == ident for row in entry.tokens),
    CredentialKind.SCRAM: lambda entry, ident: any(row.id == ident for row in entry.passwords),
}


class Standing:
    """One a process. `holds` says of credentials that are kept elsewhere than in the directory whether they still are."""

    def __init__(
        self, directory: Directory, *, revocations: Revocations, logouts: Logouts | None = None,
        holds: Mapping[CredentialKind, Holds] | None = None,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._revocations = revocations
        self._logouts = logouts
        self._holds = dict(holds or {})
        self._severed: set[tuple[Identity, Identity]] = set()
        directory.subscribe(self._changed)

    def lost(self, principal: Principal, target: str) -> Reason | None:
        """Return why this principal may have no session at this target any more, or None. Policy is not asked."""
        if self._revocations.stops(principal, target):
            return Reason.CREDENTIAL_REVOKED
        return self.ended(principal)

    def ended(self, principal: Principal) -> Reason | None:
        """Return why nobody is this principal any more: stopped, removed, unlinked, or logged out where the token is from."""
        for identity in (principal.identity, *principal.acting_for):
            entry = self._directory.get(identity)
            if entry is not None and entry.disabled:
                return Reason.DISABLED_PRINCIPAL
            if entry is None and identity.issuer == LOCAL:
                return Reason.UNKNOWN_PRINCIPAL
        if self._logouts is not None and self._logouts.over(principal):
            return Reason.LOGIN_ENDED
        if self._severed and self._is_severed(principal):
            return Reason.CREDENTIAL_REVOKED
        return None

    def opens(self, principal: Principal, target: str) -> Reason | None:
        """Return the same for a session that opens now: its credential must still be there, too.

        One that is open already may have been prolonged by a newer credential (`Gate.renew`), so it is not asked this.
        """
        return self.lost(principal, target) or (None if self._is_held(principal) else Reason.CREDENTIAL_REVOKED)

    def _is_held(self, principal: Principal) -> bool:
        held = principal.credential
        if (elsewhere := self._holds.get(held.kind)) is not None:
            return elsewhere(held.ident)
        in_entry, entry = _ENTRY_HOLDS.get(held.kind), self._directory.get(principal.identity)
        return in_entry is None or entry is None or in_entry(entry, held.ident)

    def _is_severed(self, principal: Principal) -> bool:
        """Whether a token made somebody an entry that its subject does not belong to any more."""
        whose = (principal.identity, *principal.acting_for)
        proven = {Identity(origin.issuer, account) for origin in principal.credential.origins for account in origin.accounts}
        return any((identity, other) in self._severed for identity in whose for other in proven)

    def _changed(self, change: Change) -> None:
        if change.other is None:
            return
        pair = (change.identity, change.other)
        if change.kind is ChangeKind.UNLINKED:
            self._severed.add(pair)
        elif change.kind is ChangeKind.LINKED:
            self._severed.discard(pair)
