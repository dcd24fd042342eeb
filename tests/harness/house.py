"""A node's HTTP sides over one desk, with people of every kind and a gate that classifies SQL: for tests of the API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from harness.desk import PASSPHRASE, Desk, open_desk
from harness.gate import SqlClassifier, VerbPolicy
from harness.requests import ANALYSIS, TERMS, draft
from harness.trust import TRUST
from harness.webnode import open_web
from interlock.approvals.model import ApprovalRequest, State
from interlock.commands.model import Analysis, Command, Effect, HeldInput, Kind, SqlContext, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.gate import Gate
from interlock.identity.principal import Kind as Of
from interlock.policy.model import SessionFacts, Target

SCOPED = replace(TERMS, scopes=("once", "exact", "rule_in_session"))
"""Terms whose rule lets reviewers choose every scope."""

ORDERS = Target("orders", "postgres", {"env": "prod"}, role="app_ro", database="orders")


@dataclass
class House:
    desk: Desk
    gate: Gate
    url: str
    socket: str

    def client(self, token: str | None = None, *, socket: bool = False) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(
            base_url=self.socket if socket else self.url, headers=headers, trust_env=False, timeout=60, verify=TRUST
        )

    async def ask(self, **changes: Any) -> ApprovalRequest:
        """A shell command of the agent waits."""
        return (await self.desk.inbox.submit(draft(principal=self.desk.agent(), **changes))).request

    async def ask_sql(self, text: str = "DELETE FROM orders WHERE id = 7", **changes: Any) -> ApprovalRequest:
        """A statement of the agent waits."""
        command = Command(wire=Wire.POSTGRES, kind=Kind.QUERY, text=text.encode(), context=SqlContext())
        assert isinstance(command.context, SqlContext)
        analysis = analyze_sql(command.text, command.context, command.kind)
        return await self.ask(**{"command": command, "analysis": analysis, "target": ORDERS, **changes})

    async def ask_scoped(self, text: str = "rm -rf /tmp/x") -> ApprovalRequest:
        """A command waits whose approval may be given for longer."""
        argv = tuple(text.split())
        known = Analysis(
            effects=(Effect("delete", argv[-1], program="rm", argv=argv, recursive=True, force=True),), sent=text,
            parser=ANALYSIS.parser,
        )  # fmt: skip
        command = replace(draft().command, text=text.encode(), stdin=HeldInput(b""), env=())
        return await self.ask(command=command, analysis=known, terms=SCOPED)

    async def live(self) -> str:
        """The agent has a session open; return its id."""
        facts = SessionFacts("01LIVESESSION000000000000A", "192.0.2.7", self.desk.clock.now())
        session = await self.gate.open(self.desk.agent(), ORDERS, facts)
        assert not hasattr(session, "reason"), session
        return facts.id

    async def token(self, handle: str) -> str:
        return (await self.desk.directory.issue_token(handle)).secret.reveal()

    async def stepped_up(self, handle: str, *, socket: bool = False) -> str:
        async with self.client(socket=socket) as http:
            answer = await http.post("/v1/step-up", json={"handle": handle, "passphrase": PASSPHRASE})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def state(self, request: ApprovalRequest) -> State:
        return (await self.desk.inbox.get(request.id)).state


@contextlib.asynccontextmanager
async def open_house(path: Path) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(path))
        await desk.directory.add("erin", Of.HUMAN, groups=["interlock-auditors"], passphrase=PASSPHRASE)
        await desk.directory.add("dan", Of.HUMAN, groups=["sre"], passphrase=PASSPHRASE)
        policy: Any = VerbPolicy(deny=frozenset(("drop",)), review=frozenset(("delete", "update")))
        gate = Gate(
            policies=policy, classifier=SqlClassifier(), approvals=desk.inbox, transcripts=desk.transcripts, clock=desk.clock
        )
        url = await stack.enter_async_context(open_web(desk, local=False, gate=gate))
        socket = await stack.enter_async_context(open_web(desk, local=True, gate=gate, later=True))
        yield House(desk, gate, url, socket)
