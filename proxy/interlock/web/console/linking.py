"""The page on which somebody says: this Slack account is mine. Opening it changes nothing.

The account is the one that a one-time code was given to (`channels.slack.linking`), the person whoever is logged in here,
with the passphrase given minutes ago. The page names the account before anything happens: a code that somebody else passed
on would link *their* account.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from interlock.approvals.channels.slack.linking import Claim, LinkCodes
from interlock.errors import InterlockError, Reason
from interlock.identity.directory import Directory
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages

Code = Annotated[str, Path(max_length=128)]


def add(routes: APIRouter, pages: Pages, guard: Guard, *, directory: Directory, codes: LinkCodes) -> None:
    @routes.get("/console/link/slack/{code}")
    async def ask(request: Request, code: Code, person: Person = Depends(guard.reads(Scope.APPROVALS_OWN))) -> Response:
        claim = _known(codes.look(code))
        taken = directory.by_slack(claim.actor.team, claim.actor.user)
        return pages.page("link_slack.html", request, claim=claim, taken=taken.handle if taken else "", linked=False)

    @routes.post("/console/link/slack/{code}")
    async def confirm(request: Request, code: Code, person: Person = Depends(guard.gives(Scope.APPROVALS_OWN))) -> Response:
        claim = _known(codes.use(code))
        await directory.link_slack(person.handle, claim.actor.team, claim.actor.user, by=person.identity)
        return pages.page("link_slack.html", request, claim=claim, taken="", linked=True)


def _known(claim: Claim | None) -> Claim:
    if claim is None:
        raise InterlockError(
            "this link was used already, or is older than ten minutes; ask for another one in Slack", reason=Reason.NOT_FOUND
        )
    return claim
