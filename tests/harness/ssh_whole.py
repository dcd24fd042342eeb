"""Nothing in memory: the real grammars, packs, desk, directory, store and transcripts before a real sshd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.desk import Desk, open_desk
from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench
from interlock.approvals.model import ApprovalRequest, Proof, State, VoteVerdict
from interlock.commands.analyzer import Analyzer
from interlock.commands.pool import ShellPool
from interlock.gate import Gate
from interlock.policy import packs
from interlock.policy.model import ReviewTerms
from interlock.policy.source import LivePolicy

ACCESS = """\
version: 1
packs: [linux, linux-deny]
access:
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
"""


@dataclass
class Whole:
    desk: Desk
    bench: SshBench
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, _request: ApprovalRequest) -> None:
        self._asked.set()

    async def pending(self) -> ApprovalRequest:
        return (await self.all_pending(1))[0]

    async def all_pending(self, count: int) -> Sequence[ApprovalRequest]:
        """Wait until so many requests wait for a person."""
        async with asyncio.timeout(30):
            self._asked.clear()
            while len(found := await self.desk.inbox.list(State.PENDING)) < count:
                await self._asked.wait()
                self._asked.clear()  # before the list is read again: what comes meanwhile is not missed
        return found

    async def vote(self, request: ApprovalRequest, who: str, verdict: VoteVerdict, reason: str = "") -> None:
        await self.desk.inbox.vote(
            request.id, voter=self.desk.entry(who).identity, channel="cli", channel_actor=who, verdict=verdict,
            digest=request.digest, reason=reason, proof=Proof.CHANNEL,
        )  # fmt: skip

    async def events(self) -> list[dict[str, Any]]:
        """End all sessions and read back what was recorded, secrets disclosed."""
        await self.bench.listener.close()
        archive = self.desk.archive
        return [dict(event) for row in archive.list() for event in archive.events(row["id"])]


@asynccontextmanager
async def open_whole(
    tmp_path: Path,
    target: OpenSshServer,
    *,
    hold: int = 60,
    rules: str = "",
    credentials: Mapping[str, Any] | None = None,
    shell: str = "bash",
) -> AsyncIterator[Whole]:
    """`rules`: a policy file instead of the shipped packs for Linux; `credentials`: instead of pinned certificates."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "access.yaml").write_text(rules or ACCESS)
    sources = [*([] if rules else [packs.shipped()]), tmp_path / "policies"]
    policies = LivePolicy(sources, terms=ReviewTerms(groups=("sre",), hold=hold))
    pool = ShellPool()
    await pool.start()
    analyzer = Analyzer(pool)
    async with open_desk(tmp_path) as desk:
        gate = Gate(policies=policies, classifier=analyzer, approvals=desk.inbox, transcripts=desk.transcripts, clock=desk.clock)
        bench = SshBench(
            tmp_path / "proxy", target, gate=gate, authenticator=desk.authenticator, shell=shell,
            **({"credentials": dict(credentials)} if credentials is not None else {}),
        )  # fmt: skip
        await bench.start()
        await desk.directory.add_ssh_key("claude", bench.key.export_public_key().decode())
        parts = Whole(desk, bench)
        desk.inbox.subscribe(parts.changed)
        yield parts
        gate.draining = True
        await bench.stop()
    await analyzer.close()
