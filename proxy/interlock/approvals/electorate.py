"""Who may answer, looked up at the moment of the question: the directory as the desk sees it.

Reads the directory and says who is behind a requester, who a voter is, and whether an approval still stands. Must not
know the store, channels or time; what an answer is worth is the desk's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from interlock.approvals import desk
from interlock.approvals.authority import Voter
from interlock.approvals.model import ApprovalRequest, RequestDraft
from interlock.errors import Reason, VoteError
from interlock.identity.principal import Identity, Kind


class Entry(Protocol):
    """What the desk needs to know of a registered principal. `linked` are other identities of the same person."""

    @property
    def identity(self) -> Identity: ...
    @property
    def handle(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def groups(self) -> frozenset[str]: ...
    @property
    def owner(self) -> Identity | None: ...
    @property
    def linked(self) -> frozenset[Identity]: ...
    @property
    def disabled(self) -> bool: ...
    @property
    def changed(self) -> datetime:
        """When authority last grew."""
        ...

    @property
    def stale(self) -> bool:
        """Whether their groups are not known, because their issuer has not said them lately."""
        ...

    @property
    def confirmed(self) -> bool:
        """Whether another administrator confirmed that growth."""
        ...


class Directory(Protocol):
    """The directory as it is at this moment. Reading is safe from any thread: the desk judges inside the store's
    transaction, which may run on another one."""

    def get(self, identity: Identity) -> Entry | None: ...


class Electorate:
    """Asks the directory anew each time: nothing is remembered between a request, a vote and a release."""

    def __init__(self, directory: Directory, barred: Callable[[frozenset[Identity]], bool] = lambda _: False) -> None:
        """`barred` says whether any of some identities is revoked: the kill switch also ends answering."""
        self._directory = directory
        self._barred = barred

    def known_as(self, identity: Identity) -> tuple[Identity, str]:
        """Return the identity and handle under which the directory keeps somebody; as given when it does not."""
        entry = self._directory.get(identity)
        return (identity, "") if entry is None else (entry.identity, entry.handle)

    def voter(self, identity: Identity) -> Voter:
        """Return the one registered principal behind an identity. Raise VoteError when there is none."""
        entry = self._directory.get(identity)
        if entry is None:
            raise VoteError(reason=Reason.UNMAPPED_ACTOR)
        since = None if entry.confirmed else entry.changed
        off = entry.disabled or self._barred(entry.linked | {entry.identity, identity})
        return Voter(entry.identity, entry.handle, entry.kind, entry.groups, entry.linked | {identity}, off, since, entry.stale)

    def excluded(self, draft: RequestDraft) -> frozenset[Identity]:
        """Return everybody behind a requester as of now: the chain, the owners of all in it, and their linked accounts."""
        known: set[Identity] = set()
        ahead = set(draft.principal.excluded())
        while ahead:
            identity = ahead.pop()
            known.add(identity)
            entry = self._directory.get(identity)
            if entry is not None:
                ahead |= {entry.identity, *entry.linked, *(() if entry.owner is None else (entry.owner,))} - known
        return frozenset(known)

    def stands(self, request: ApprovalRequest) -> bool:
        """Whether the requester is active and the approval stands on enough active people (property 36)."""
        requester = self._directory.get(request.draft.principal.identity)
        behind = self.excluded(request.draft)
        if (requester is not None and requester.disabled) or self._barred(behind):
            return False
        voters: dict[Identity, Voter] = {}
        for vote in request.votes:
            try:
                voters[vote.reviewer] = self.voter(vote.reviewer)
            except VoteError:
                continue  # gone from the directory: `standing` misses them
        return desk.standing(request, voters, behind)
