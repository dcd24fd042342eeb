"""One's own passkeys: a page to register and remove them, and the challenges that scripts of our pages sign.

Registering asks for a passphrase given within the last minutes; the ceremony itself is `identity.passkeys`'. A challenge
gives nothing away and decides nothing: it is what anybody could compute of a request that the person reads anyway. Two
routes answer scripts, with JSON and problem documents in place of pages.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import Scope, State
from interlock.approvals.proof import challenge
from interlock.errors import InterlockError, Reason, VoteError
from interlock.identity.directory import Directory
from interlock.identity.passkeys import MAX_CREDENTIAL, Registrations, request_options
from interlock.store.principals import PasskeyRow
from interlock.web.access import Scope as Right
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages

PAGE = "/console/passkeys"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)\Z")


def add(
    routes: APIRouter,
    pages: Pages,
    guard: Guard,
    *,
    directory: Directory,
    inbox: Inbox,
    registrations: Registrations,
) -> None:
    party = registrations.party
    machine = APIRouter(include_in_schema=False)
    reader = Depends(guard.reads(Right.APPROVALS_READ))
    poster = Depends(guard.posts(Right.APPROVALS_READ))
    giver = Depends(guard.gives(Right.APPROVALS_READ))

    def shown(request: Request, person: Person, status: int = 200, error: str = "") -> Response:
        return pages.page(
            "passkeys.html", request, status,
            passkeys=sorted(person.entry.passkeys, key=lambda row: row.created), party=party, error=error,
        )  # fmt: skip

    @routes.get(PAGE)
    async def passkeys_page(request: Request, person: Person = reader) -> Response:
        return shown(request, person)

    @machine.post(PAGE + "/options")
    async def begin(person: Person = giver) -> dict[str, Any]:
        return registrations.begin(person.entry)

    @routes.post(PAGE)
    async def register(
        request: Request,
        name: Annotated[str, Form(max_length=64)],
        credential: Annotated[str, Form(max_length=MAX_CREDENTIAL)] = "",
        person: Person = giver,
    ) -> Response:
        try:
            passkey = registrations.finish(person.entry, credential, name)
            await directory.add_passkey(person.handle, passkey, by=person.identity)
        except InterlockError as error:
            return shown(request, person, 409, str(error))
        return pages.back(PAGE)

    @routes.post(PAGE + "/remove")
    async def remove(
        request: Request, ident: Annotated[str, Form(alias="id", max_length=1400)], person: Person = poster
    ) -> Response:
        try:
            await directory.remove_passkey(person.handle, ident, by=person.identity)
        except InterlockError as error:
            return shown(request, person, 409, str(error))
        return pages.back(PAGE)

    @machine.post("/console/approvals/{request_id}/challenge")
    async def sign(
        request_id: str,
        digest: Annotated[str, Form(max_length=200)],
        verdict: Annotated[str, Form(pattern="^(approve|deny)$")],
        scope: Scope | Literal["break_glass"] = Form(Scope.ONCE),
        valid_until: Annotated[str, Form(max_length=40)] = "",
        person: Person = poster,
    ) -> dict[str, Any]:
        """Request options for `navigator.credentials.get`, whose challenge is exactly this answer."""
        found = await inbox.get(request_id)
        if digest != found.digest:
            raise VoteError(reason=Reason.DIGEST_MISMATCH)
        if found.state is not State.PENDING:
            raise VoteError(reason=Reason.ALREADY_DECIDED)
        answer = challenge(found.digest, found.nonce, verdict, scope, _instant(valid_until))
        return request_options(party, _theirs(directory, person), answer)

    routes.include_router(machine)


def _theirs(directory: Directory, person: Person) -> list[PasskeyRow]:
    """Return the passkeys of all accounts of the person, as the check of a proof will accept them."""
    entries = {e.identity: e for i in person.entry.accounts if (e := directory.get(i)) is not None and not e.disabled}
    return [passkey for entry in entries.values() for passkey in entry.passkeys]


def _instant(text: str) -> datetime | None:
    if not text:
        return None
    if not _INSTANT.match(text):
        raise VoteError("write valid_until as RFC 3339, such as 2026-01-02T03:04:05Z", reason=Reason.SCOPE_NOT_OFFERED)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise VoteError("valid_until is no time that exists", reason=Reason.SCOPE_NOT_OFFERED) from None
