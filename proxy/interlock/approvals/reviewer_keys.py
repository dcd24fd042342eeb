"""Whose signature is this: personal proofs checked against the keys that the directory has (`proof.Proofs`).

The key must belong to the person who answers, under this or a linked account. What is returned carries the public key of
the directory, never one that came with the answer. The signature counter of a passkey only grows: one that stands or
goes back means a copy of the authenticator, is refused and recorded.

Knows the directory and both kinds of signature. Must not know requests, quorums or channels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from interlock.approvals.model import Signed
from interlock.approvals.proof import NAMESPACE, SSHSIG, WEBAUTHN, challenge_of, refused
from interlock.errors import EvidenceError, InterlockError, Reason
from interlock.evidence import sshsig
from interlock.evidence.events import EventDraft, Recorder
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.passkeys import BadAssertionError, RelyingParty, check_assertion
from interlock.identity.principal import Identity, Kind
from interlock.identity.signing import BadSignatureError, check_sshsig
from interlock.identity.sshkey import fingerprint
from interlock.store.principals import PasskeyRow

log = structlog.get_logger()


class ReviewerKeys:
    """One a process. `close()` waits until the counters of all uses are kept."""

    def __init__(
        self,
        directory: Directory,
        party: RelyingParty | None,
        *,
        journal: Recorder,
        revoked: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`revoked` says whether a fingerprint or a passkey's id is (`Revocations.names`)."""
        self._directory = directory
        self._revoked = revoked
        self._party = party
        self._journal = journal
        self._counted: dict[str, int] = {}  # the highest counter seen of each passkey, also while the store lags behind
        self._last: dict[str, Signed] = {}  # what each passkey signed last: the same delivery may come twice
        self._keeping: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        while self._keeping:
            await asyncio.wait(set(self._keeping))

    def check(self, person: Identity, signed: Signed, statement: bytes) -> Signed:
        """Return the proof with the directory's public key and what was signed. Raise VoteError (proof-rejected)."""
        entry = self._directory.get(person)
        if entry is None or entry.disabled or entry.kind is not Kind.HUMAN:
            raise refused("only an active person signs")
        if signed.kind == WEBAUTHN:
            return self._passkey(entry, signed, statement)
        if signed.kind == SSHSIG:
            return self._ssh_key(entry, signed, statement)
        raise refused("a proof is of kind webauthn or sshsig")

    def _ssh_key(self, entry: Entry, signed: Signed, statement: bytes) -> Signed:
        try:
            public = sshsig.opened(signed.signature).public
        except ValueError as error:
            raise refused(f"the SSH signature can't be read: {error}") from None
        _own(entry, self._directory.by_ssh_key(public), "SSH key")
        if self._revoked(fingerprint(public)):
            raise refused("this SSH key is revoked")
        try:
            check_sshsig(signed.signature, NAMESPACE, statement, public)
        except BadSignatureError as error:
            raise refused(f"the SSH signature does not hold: {error}") from None
        return Signed(SSHSIG, fingerprint(public), public, signed.signature, statement=statement)

    def _passkey(self, entry: Entry, signed: Signed, statement: bytes) -> Signed:
        found = self._directory.by_passkey(signed.key)
        _own(entry, found[0] if found else None, "passkey")
        assert found is not None
        if self._revoked(found[1].id):
            raise refused("this passkey is revoked")
        if self._party is None:
            raise refused("this node has no public_url, so no passkey can be checked")
        try:
            count = check_assertion(
                self._party,
                found[1],
                challenge_of(statement),
                client_data=signed.client_data,
                authenticator_data=signed.authenticator_data,
                signature=signed.signature,
            )
        except BadAssertionError as error:
            raise refused(f"the passkey's signature does not hold: {error}") from None
        proven = replace(signed, key=found[1].id, public=found[1].public_key, statement=statement)
        # Byte for byte the same answer again says nothing new, and a form that was sent twice is no copied authenticator.
        if self._last.get(proven.key) != proven:
            self._count(entry, found[1], count)
            self._last[proven.key] = proven
        return proven

    def _count(self, entry: Entry, passkey: PasskeyRow, count: int) -> None:
        """WebAuthn §7.2 step 22. Synced passkeys have no counter: theirs is 0 for ever."""
        known = max(passkey.sign_count, self._counted.get(passkey.id, 0))
        if count == known == 0:
            return
        if count <= known:
            self._suspect(entry, passkey, count, known)
            raise refused(
                "the passkey's counter did not grow: somebody may have a copy of it. Remove it and tell an administrator."
            )
        self._counted[passkey.id] = count
        task = asyncio.get_running_loop().create_task(self._keep(passkey.id, count))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _keep(self, ident: str, count: int) -> None:
        try:
            await self._directory.count_passkey(ident, count)
        except InterlockError as error:
            log.warning("passkey.counter_not_kept", reason=str(error.code))

    def _suspect(self, entry: Entry, passkey: PasskeyRow, count: int, known: int) -> None:
        event = EventDraft(
            "login",
            {
                "method": "passkey", "outcome": "refused", "reason": str(Reason.PROOF_REJECTED), "principal": str(entry.identity),
                "credential": passkey.id, "counter": count, "known_counter": known,
            },
        )  # fmt: skip
        log.warning("passkey.counter_stands", handle=entry.handle)
        try:
            self._journal.append(event)
        except EvidenceError:
            # Refused whether or not this can be written; the journal's own failure is reported there.
            log.error("passkey.not_recorded")


def _own(entry: Entry, owner: Entry | None, what: str) -> None:
    """Another person's key says the same as one that nobody has."""
    if owner is None or owner.identity not in entry.accounts or owner.disabled:
        raise refused(f"this {what} is not registered for you")
