"""Requests as the gate makes them: the text is really classified, and the shipped policy really decides."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from interlock.approvals.model import RequestDraft
from interlock.clock import SystemClock
from interlock.commands.analyzer import Analyzer
from interlock.commands.model import HeldInput
from interlock.commands.pool import ShellPool
from interlock.identity.principal import Principal
from interlock.policy import packs
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import Target, Verdict
from interlock.policy.question import Question, classified, decide

WEB = Target("web-1", "ssh", {"env": "prod"}, account="deploy")
ORDERS = Target("orders", "postgres", {"env": "prod"}, role="app", database="orders")


@dataclass(frozen=True, slots=True)
class Asking:
    analyzer: Analyzer
    policy: PolicySet

    async def draft(
        self, principal: Principal, target: Target, text: str | bytes, *, stdin: bytes | None = None, said: str = "",
        session: str = "01KB5T9ZV4Q7E8S3N2M6X0R1YD", **terms: object,
    ) -> RequestDraft:  # fmt: skip
        """Return what would be asked about `text`; `terms` change who is asked."""
        command = Question(text.encode() if isinstance(text, str) else text, target).command
        command = command if stdin is None else command.with_stdin(HeldInput(stdin))
        analysis = await classified(self.analyzer, command)
        decision = decide(self.policy, principal, target, command, analysis, SystemClock().now())
        assert decision.verdict is Verdict.REVIEW and decision.review is not None, (text, decision)
        review = replace(decision.review, **{"groups": ("sre",), **terms})  # type: ignore[arg-type]
        decision = replace(decision, review=review)
        return RequestDraft(principal, target, command, analysis, decision, review, session, "192.0.2.7", said)


@contextlib.asynccontextmanager
async def open_asking() -> AsyncIterator[Asking]:
    analyzer = Analyzer(ShellPool(workers=1))
    await analyzer.start()
    try:
        yield Asking(analyzer, load([packs.shipped()]))
    finally:
        await analyzer.close()
