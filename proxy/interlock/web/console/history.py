"""History: every request, newest first, with filters.

The store pages by state. Who, where and which rule are looked for in those pages, at most `LOOKED` requests a time; the
page says how far it has looked and goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, State
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages
from interlock.web.console.rows import Row, acting_for, row

PAGE = 50
LOOKED = 2000
STEP = 200

Word = Annotated[str, Query(max_length=120)]


@dataclass(frozen=True, slots=True)
class Sought:
    who: str = ""
    target: str = ""
    rule: str = ""

    @property
    def anything(self) -> bool:
        return not (self.who or self.target or self.rule)

    def fits(self, request: ApprovalRequest) -> bool:
        draft = request.draft
        people = (draft.principal.handle, draft.principal.owner_handle, *acting_for(request))
        people += tuple(vote.reviewer_handle for vote in request.votes)
        return (
            (not self.who or any(self.who.lower() in name.lower() for name in people))
            and (not self.target or self.target.lower() in draft.target.name.lower())
            and (not self.rule or self.rule.lower() in draft.decision.rule.lower())
        )


def add(routes: APIRouter, pages: Pages, guard: Guard, inbox: Inbox) -> None:
    @routes.get("/console/history")
    async def history(
        request: Request,
        state: Annotated[str, Query(max_length=20)] = "",
        who: Word = "",
        target: Word = "",
        rule: Word = "",
        before: Annotated[str, Query(max_length=64)] = "",
        person: Person = Depends(guard.reads(Scope.APPROVALS_READ)),
    ) -> Response:
        wanted = State(state) if state in tuple(State) else None
        sought = Sought(who.strip(), target.strip(), rule.strip())
        rows, looked, last = await _find(inbox, wanted, sought, before, person)
        asked = {"state": str(wanted or ""), "who": sought.who, "target": sought.target, "rule": sought.rule}
        kept = {name: value for name, value in asked.items() if value}
        return pages.page(
            "history.html",
            request,
            rows=rows,
            looked=looked,
            asked=asked,
            filtered=bool(kept),
            before=before,
            states=tuple(State),
            newest="/console/history" + (f"?{urlencode(kept)}" if kept else ""),
            older=f"/console/history?{urlencode({**kept, 'before': last})}" if last else "",
        )


async def _find(inbox: Inbox, state: State | None, sought: Sought, before: str, person: Person) -> tuple[list[Row], int, str]:
    """Return a page, how many requests were looked at, and the id to go on before, empty at the end."""
    rows: list[Row] = []
    looked = 0
    step = PAGE + 1 if sought.anything else STEP
    while looked < LOOKED:
        found = await inbox.page(state, limit=step, before=before)
        for request in found:
            if len(rows) == PAGE:
                return rows, looked, before
            looked, before = looked + 1, request.id
            if sought.fits(request):
                rows.append(row(request, person))
        if len(found) < step:
            return rows, looked, ""
    return rows, looked, before
