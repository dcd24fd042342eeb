"""The page of one request: everything a reviewer needs to answer it, in the order in which it matters.

Who, for whom, whose; where; exactly what; what that would do; why it was held; how it differs from what was approved
last; what the agent says; who has answered; and then the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from interlock.approvals.difference import Difference, difference
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, State
from interlock.approvals.portrait import portrait
from interlock.identity.principal import Kind
from interlock.policy.source import LivePolicy
from interlock.web.access import Scope as Right
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages
from interlock.web.console.rows import acting_for, approvals, hindrance

SUGGESTED_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Before:
    """What was approved last for the same requester, target and rule, and how this differs."""

    id: str
    at: datetime | None
    by: str
    differs: Difference


class RequestPages:
    """Renders the page of a request; with an error when an answer to it was not taken."""

    def __init__(self, pages: Pages, inbox: Inbox, policies: LivePolicy) -> None:
        self._pages = pages
        self._inbox = inbox
        self._policies = policies

    async def page(
        self, request: Request, request_id: str, person: Person, *, status: int = 200, error: str = "", reason: str = ""
    ) -> Response:
        """`reason` is what the person wrote in a form that was not taken: nobody types at 2 a.m. twice."""
        found = await self._inbox.get(request_id)
        draft = found.draft
        longest = max(1, int(self._inbox.house.longest_grant // 60))
        return self._pages.page(
            "request.html",
            request,
            status,
            row=found,
            shown=portrait(found, longest=self._inbox.house.longest_grant),
            acting_for=acting_for(found),
            title=self._title(draft.decision.rule),
            before=await self._before(found),
            approvals=approvals(found),
            lacking=self._inbox.lacking(found) if found.votes else "",
            hindrance=hindrance(found, person),
            longest=longest,
            suggested=min(SUGGESTED_MINUTES, longest),
            broken=any(vote.break_glass for vote in found.votes),
            may_break=self._may_break(found, person),
            may_edit=found.state is State.PENDING and draft.principal.kind is not Kind.HUMAN,
            keys=len(person.entry.passkeys),
            raw=_editable(found),
            error=error,
            reason=reason,
        )

    def _title(self, name: str) -> str:
        return next((rule.title for rule in self._policies.current.rules if rule.name == name), "")

    def _may_break(self, found: ApprovalRequest, person: Person) -> bool:
        if found.state is not State.PENDING or person.entry.groups.isdisjoint(self._inbox.house.glass):
            return False
        return not {person.identity, *person.entry.linked} & (found.excluded | ({found.author} if found.author else set()))

    async def _before(self, found: ApprovalRequest) -> Before | None:
        last = await self._inbox.previous(found)
        if last is None:
            return None
        by = ", ".join(vote.reviewer_handle for vote in last.votes)
        return Before(last.id, last.decided_at, by, difference(found, last))


def add(routes: APIRouter, requests: RequestPages, guard: Guard) -> None:
    @routes.get("/console/approvals/{request_id}")
    async def request_page(
        request: Request, request_id: str, person: Person = Depends(guard.reads(Right.APPROVALS_READ))
    ) -> Response:
        return await requests.page(request, request_id, person)


def _editable(found: ApprovalRequest) -> str:
    """Return the text for the form that edits it, empty when it is not text that a form could give back."""
    try:
        text = found.draft.command.text.decode()
    except UnicodeDecodeError:
        return ""
    return text if all(c.isprintable() or c in "\n\t" for c in text) else ""
