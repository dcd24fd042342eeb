"""People and agents: who is registered, who answers for whom, who is locked, and who waits to be confirmed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from interlock.approvals.inbox import Inbox
from interlock.clock import Clock
from interlock.errors import ConfigError
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.principal import Kind
from interlock.policy.source import LivePolicy
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages, missing


def add(
    routes: APIRouter,
    pages: Pages,
    guard: Guard,
    *,
    directory: Directory,
    inbox: Inbox,
    policies: LivePolicy,
    clock: Clock,
) -> None:
    @routes.get("/console/people")
    async def people(request: Request, person: Person = Depends(guard.reads(Scope.ADMIN))) -> Response:
        entries = directory.entries()
        names = {identity: entry.handle for entry in entries for identity in (entry.identity, *entry.linked)}
        reviewing = _reviewing(policies)
        now, newcomer = clock.now(), inbox.house.newcomer
        return pages.page(
            "people.html",
            request,
            agents=[entry for entry in entries if entry.kind is not Kind.HUMAN],
            people=[entry for entry in entries if entry.kind is Kind.HUMAN],
            reviewers={entry.handle for entry in entries if entry.kind is Kind.HUMAN and entry.groups & reviewing},
            locks=[(lock, names.get(lock.requester, str(lock.requester))) for lock in inbox.locks()],
            newcomers={entry.handle: until for entry in entries if (until := _until(entry, now, newcomer)) is not None},
        )

    @routes.post("/console/people/{handle}/unlock")
    async def unlock(handle: str, person: Person = Depends(guard.gives(Scope.ADMIN))) -> Response:
        await inbox.unlock(_known(directory, handle).identity, by=person.identity)
        return pages.back("/console/people")

    @routes.post("/console/people/{handle}/confirm")
    async def confirm(
        handle: str,
        changed: Annotated[str, Form(max_length=40)] = "",
        person: Person = Depends(guard.gives(Scope.ADMIN)),
    ) -> Response:
        """Let a new reviewer answer before the delay is over. The directory refuses whoever made the change, and a change
        that came after the page was shown."""
        await directory.confirm(handle, by=person.identity, changed=_moment(changed))
        return pages.back("/console/people")

    @routes.post("/console/people/{handle}/disable")
    async def disable(handle: str, person: Person = Depends(guard.posts(Scope.ADMIN))) -> Response:
        await directory.set_disabled(handle, True, by=person.identity)
        return pages.back("/console/people")


def _known(directory: Directory, handle: str) -> Entry:
    entry = directory.by_handle(handle)
    if entry is None:
        raise missing("such principal")
    return entry


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("this form is not the one that was shown") from None


def _reviewing(policies: LivePolicy) -> frozenset[str]:
    """Return every group that some rule asks."""
    policy = policies.current
    terms = [policy.default, *(rule.terms for rule in policy.rules if rule.terms is not None)]
    return frozenset(group for each in terms for group in each.all_groups)


def _until(entry: Entry, now: datetime, newcomer: float) -> datetime | None:
    """Return until when somebody newly made a reviewer waits, or None."""
    until = entry.changed + timedelta(seconds=newcomer)
    return until if entry.kind is Kind.HUMAN and not entry.disabled and not entry.confirmed and until > now else None
