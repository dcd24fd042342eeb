"""Health: what an operator looks at first. Versions, policy, channels, what is open, and glass that somebody broke."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from interlock import __version__
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import State
from interlock.config import Config
from interlock.gate import Gate
from interlock.policy.source import LivePolicy
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages

MOST = 1000


def add(routes: APIRouter, pages: Pages, guard: Guard, *, inbox: Inbox, gate: Gate, policies: LivePolicy, config: Config) -> None:
    @routes.get("/console/health")
    async def health(request: Request, person: Person = Depends(guard.reads(Scope.ADMIN))) -> Response:
        policy = policies.current
        channels = config.approvals.channels
        return pages.page(
            "health.html",
            request,
            version=__version__,
            node=config.node.name,
            draining=gate.draining,
            sessions=gate.live,
            pending=inbox.pending_count(),
            approved=len(await inbox.page(State.APPROVED, limit=MOST)),
            grants=len(inbox.grants()),
            locks=len(inbox.locks()),
            digest=policy.digest,
            rules=len(policy.rules),
            observed=policy.observed,
            warnings=policy.warnings,
            channels=[
                ("Console", True, config.public_url or "no public_url, so cards and notices carry no link"),
                ("Microsoft Teams", channels.teams is not None, "conversation configured"),
                ("Slack", channels.slack is not None, "workspace configured"),
                ("Webhook", channels.webhook is not None, "address configured"),
            ],
            glass=await inbox.broken_glass(),
        )

    @routes.post("/console/health/glass/{request_id}")
    async def reviewed(
        request_id: str,
        note: Annotated[str, Form(max_length=2000)] = "",
        person: Person = Depends(guard.gives(Scope.ADMIN)),
    ) -> Response:
        await inbox.reviewed(request_id, reviewer=person.identity, note=note)
        return pages.back("/console/health")
