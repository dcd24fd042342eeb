"""What the real gate and the real desk write of an approval binds under the verifier, from one session or from two."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from harness.desk import open_desk
from harness.gate import SqlClassifier, VerbPolicy
from interlock.approvals.model import State, VoteVerdict
from interlock.approvals.wording import Notice
from interlock.commands.model import Analysis, BindValue, Command, Kind, SqlContext, Wire
from interlock.gate import Gate, Pending, Release, Session
from interlock.policy.model import SessionFacts, Target
from interlock.verify import Report, verify_bundle

ORDERS = Target("orders", "postgres", {"env": "prod"}, role="app", database="shop")
DELETE = Command(
    Wire.POSTGRES, Kind.BIND, b"DELETE FROM orders WHERE id = $1", binds=(BindValue(b"7", 0, 23, "7"),), context=SqlContext()
)


class Waits:
    def __init__(self, max_hold: float | None = None) -> None:
        self.said, self.max_hold, self.asked = "tidying up", max_hold, asyncio.Event()

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        return ("about one row",)

    async def ready_to_wait(self) -> None:
        return None

    def notify(self, notice: Notice) -> None:
        self.asked.set()


async def test_an_approval_binds_in_its_session_and_in_the_one_that_came_back_for_it(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        policy: Any = VerbPolicy(review=frozenset(("delete",)))
        gate = Gate(
            policies=policy, classifier=SqlClassifier(), approvals=desk.inbox, transcripts=desk.transcripts, clock=desk.clock
        )

        async def opened(ident: str) -> Session:
            session = await gate.open(desk.agent(), ORDERS, SessionFacts(ident, "192.0.2.7", desk.clock.now()))
            assert isinstance(session, Session)
            return session

        async def approve() -> None:
            (waiting,) = [r for r in await desk.inbox.list() if r.state is State.PENDING]
            await desk.inbox.vote(
                waiting.id, voter=desk.entry("bob").identity, channel="cli", channel_actor="bob", verdict=VoteVerdict.APPROVE,
                digest=waiting.digest,
            )  # fmt: skip

        async def verified(session: Session) -> Report:
            await session.close("client-left")
            folder = desk.transcripts.data_dir
            return await asyncio.to_thread(verify_bundle, folder / "sessions" / session.id, folder / "trust")

        first, patient = await opened("01FIRST"), Waits()
        asked = first.submit(DELETE, patient)
        assert isinstance(asked, Pending)
        outcome = asyncio.ensure_future(asked.outcome())
        await patient.asked.wait()
        await approve()
        assert isinstance(await outcome, Release)
        again = first.submit(DELETE, Waits(max_hold=0.0))
        assert isinstance(again, Pending)
        assert not isinstance(await again.outcome(), Release)
        await approve()
        second = await opened("01SECOND")
        back = second.submit(DELETE, Waits())
        assert isinstance(back, Pending)
        assert isinstance(await back.outcome(), Release)
        reports = [await verified(session) for session in (first, second)]
    for report in reports:
        assert {p.check for p in report.problems} <= {"policies"}, report.problems  # this policy has no bytes
        assert len(report.released) == 1
    assert not any("asked first" in note for note in reports[0].notes)
    assert any("01FIRST" in note for note in reports[1].notes)
