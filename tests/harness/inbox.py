"""An inbox over a real SQLite file, with a directory and a journal in memory and a clock that the test moves."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import stores
from harness.clock import ManualClock
from harness.journal import MemoryRecorder
from harness.people import ALICE, BOB, CAROL, CLAUDE
from harness.requests import START
from interlock.approvals.authority import House
from interlock.approvals.fatigue import Limits
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, Signed, VoteVerdict
from interlock.approvals.place import Place
from interlock.errors import Reason, VoteError
from interlock.identity.principal import Identity, Kind
from interlock.store.engine import Store

DAVE = Identity("local", "dave")
ALICE_AT_IDP = Identity("https://idp", "00u1")


@dataclass(frozen=True)
class Someone:
    identity: Identity
    kind: Kind = Kind.HUMAN
    groups: frozenset[str] = frozenset(("sre",))
    owner: Identity | None = None
    linked: frozenset[Identity] = frozenset()
    disabled: bool = False
    changed: datetime = START
    confirmed: bool = False
    stale: bool = False

    @property
    def handle(self) -> str:
        return self.identity.subject


@dataclass
class People:
    """The directory of these tests. Carol is Alice's second account; Dave is in no group of reviewers."""

    entries: dict[Identity, Someone] = field(default_factory=dict)

    def get(self, identity: Identity) -> Someone | None:
        return self.entries.get(identity)

    def put(self, someone: Someone) -> None:
        self.entries[someone.identity] = someone


def people() -> People:
    found = People()
    for someone in (
        Someone(ALICE, linked=frozenset((CAROL, ALICE_AT_IDP))),
        Someone(CAROL, linked=frozenset((ALICE, ALICE_AT_IDP))),
        Someone(BOB),
        Someone(DAVE, groups=frozenset(("dba",))),
        Someone(CLAUDE, kind=Kind.AGENT, owner=ALICE),
        Someone(Identity("local", "robot"), kind=Kind.SERVICE),
    ):
        found.put(someone)
    return found


class Keys:
    """Knows one passkey: Bob's, whose signature is the statement itself."""

    def check(self, person: Identity, signed: Signed, statement: bytes) -> Signed:
        if person != BOB or signed.signature != statement:
            raise VoteError(reason=Reason.PROOF_REJECTED)
        return signed


class Desk:
    """An inbox with everything it stands on."""

    def __init__(self, path: Path, house: House | None = None, limits: Limits | None = None) -> None:
        self.path = path
        self.house = house or House(validity=600)
        self.limits = limits or Limits(pending=20_000, denials=1_000)
        self.clock = ManualClock()
        self.journal = MemoryRecorder()
        self.people = people()
        self.seen: list[ApprovalRequest] = []
        self.store: Store
        self.inbox: Inbox

    async def open(self, mirrored: int = 0) -> None:
        self.store = await stores.opened(self.path)
        self.inbox = Inbox(
            self.store, self.people, clock=self.clock, entropy=secrets.token_bytes,
            journal=self.journal, public_url="https://proxy/", house=self.house, limits=self.limits, proofs=Keys(),
        )  # fmt: skip
        self.inbox.subscribe(self.seen.append)
        await self.inbox.start(mirrored)

    async def close(self) -> None:
        await self.inbox.close()
        await self.store.close()

    async def restart(self, mirrored: int = 0, *, crash: bool = False) -> None:
        """Open the store again. After a crash nobody handed anything back."""
        if crash:
            await self.inbox._register.time.stop()
            await self.store.close()
        else:
            await self.close()
        await self.open(mirrored)

    async def vote(
        self, request: ApprovalRequest, who: Identity = BOB, verdict: VoteVerdict = VoteVerdict.APPROVE, **more: Any
    ) -> ApprovalRequest:
        answer: dict[str, Any] = {"channel": "cli", "channel_actor": str(who), "digest": request.digest, **more}
        return await self.inbox.vote(request.id, voter=who, verdict=verdict, **answer)

    async def stored(self, request: ApprovalRequest) -> ApprovalRequest:
        found = await self.store.approvals.get(request.id)
        assert found is not None
        return found

    def refusals(self) -> list[Any]:
        return [event.fields["reason"] for event in self.journal.of("vote") if not event.fields["counted"]]


@asynccontextmanager
async def waiting(place: Place, timeout: float = 60) -> AsyncIterator[asyncio.Task[ApprovalRequest]]:
    """A client that waits in place."""
    task = asyncio.create_task(place.settled(timeout))
    await asyncio.sleep(0)
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
