"""A desk for tests of channels: the real store, journal, directory and inbox in a scratch directory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from harness import stores
from harness.bot_connector import ALICE_OID, BOB_OID, TENANT
from interlock.approvals.inbox import Inbox
from interlock.approvals.reviewer_keys import ReviewerKeys
from interlock.clock import SystemClock, system_entropy
from interlock.config import Issuer
from interlock.evidence.archive import Archive
from interlock.evidence.seal import SealCa
from interlock.evidence.writer import TranscriptStore
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.passkeys import relying_party
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import Credential, CredentialKind, Kind, Principal
from interlock.identity.revocation import Revocations
from interlock.store.engine import Store

PASSPHRASE = "correct horse battery staple"

KEY = asyncssh.generate_private_key("ssh-ed25519")
"""The agent's."""


@dataclass
class Desk:
    store: Store
    transcripts: TranscriptStore
    directory: Directory
    inbox: Inbox
    authenticator: Authenticator
    revocations: Revocations
    archive: Archive
    clock: SystemClock

    def entry(self, handle: str) -> Entry:
        found = self.directory.by_handle(handle)
        assert found is not None
        return found

    def agent(self) -> Principal:
        """The agent as its SSH key would prove it."""
        return self.entry("claude").principal(Credential(CredentialKind.SSH_KEY, KEY.get_fingerprint()))

    def journal_text(self) -> str:
        """Everything the node's journal holds, disclosures included."""
        files = sorted((self.transcripts.data_dir / "journal").rglob("*.jsonl"))
        return "".join(f.read_text() for f in files)


@contextlib.asynccontextmanager
async def open_desk(
    directory: Path, *, public_url: str = "", clock: SystemClock | None = None, issuers: Sequence[Issuer] = (), **settings: Any
) -> AsyncIterator[Desk]:
    """`public_url` is the page that passkeys belong to, `settings` are the inbox's own."""
    data = directory / "data"
    data.mkdir(mode=0o700)
    clock = clock or SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        store = await stores.opened(data)
        stack.push_async_callback(store.close)
        ca = SealCa.load_or_create(data / "keys" / "evidence_ca")
        transcripts = TranscriptStore(data, "test", clock=clock, entropy=system_entropy, ca=ca, sync="review", policy_files=dict)
        await transcripts.start()
        stack.push_async_callback(transcripts.close)
        passphrases = Passphrases(memory_kib=64, passes=1)
        newcomer = settings["house"].newcomer if "house" in settings else 0.0

        async def read(newcomer: float) -> Directory:
            found = Directory(
                store.principals, clock=clock, entropy=system_entropy, journal=transcripts.journal, passphrases=passphrases,
                newcomer=newcomer,
            )  # fmt: skip
            await found.load()
            return found

        people = await read(0.0)
        await people.add("alice", Kind.HUMAN, groups=["sre"], passphrase=PASSPHRASE, teams=[(TENANT, ALICE_OID)])
        await people.add("bob", Kind.HUMAN, groups=["sre"], passphrase=PASSPHRASE, teams=[(TENANT, BOB_OID)])
        await people.add("carol", Kind.HUMAN, groups=["interlock-admins"], passphrase=PASSPHRASE)
        await people.add("claude", Kind.AGENT, groups=["agents"], owner="alice", ssh_keys=[KEY.export_public_key().decode()])
        if newcomer:
            # Set up long ago, when nobody waited: the one administrator is settled.
            await people.confirm("carol", by=people.by_handle("alice").identity)  # type: ignore[union-attr]  # just added
            people = await read(newcomer)
        revocations = Revocations(store.revocations, people, clock=clock, entropy=system_entropy, journal=transcripts.journal)
        keys = ReviewerKeys(people, relying_party(public_url), journal=transcripts.journal, revoked=revocations.names)
        stack.push_async_callback(keys.close)
        inbox = Inbox(
            store, people, clock=clock, entropy=system_entropy, journal=transcripts.journal, public_url=public_url,
            **{"proofs": keys, "barred": revocations.bars, **settings},
        )  # fmt: skip
        await inbox.start()
        stack.push_async_callback(inbox.close)
        authenticator = Authenticator(
            people,
            clock=clock,
            journal=transcripts.journal,
            passphrases=passphrases,
            issuers=issuers,
            replays=store.deliveries,
            revocations=revocations,
        )
        stack.push_async_callback(authenticator.close)
        yield Desk(store, transcripts, people, inbox, authenticator, revocations, Archive(data), clock)
