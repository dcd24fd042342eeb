"""Grants in force: what runs without asking, bound to which words, until when, and the button that ends one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from interlock.approvals.inbox import Inbox
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages


def add(routes: APIRouter, pages: Pages, guard: Guard, inbox: Inbox) -> None:
    @routes.get("/console/grants")
    async def grants(request: Request, person: Person = Depends(guard.reads(Scope.APPROVALS_READ))) -> Response:
        mine = {person.identity, *person.entry.linked}
        rows = [(grant, any(vote.reviewer in mine for vote in grant.votes)) for grant in inbox.grants()]
        return pages.page("grants.html", request, rows=rows)

    @routes.post("/console/grants/{grant_id}/revoke")
    async def revoke(
        grant_id: str,
        reason: Annotated[str, Form(max_length=2000)] = "",
        person: Person = Depends(guard.posts(Scope.APPROVALS_READ)),
    ) -> Response:
        """Anybody who reads requests may end a grant: the next one is asked again, so this only takes away."""
        await inbox.revoke_grant(grant_id, by=person.identity, why=reason)
        return pages.back("/console/grants")
