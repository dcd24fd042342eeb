"""Answering: approve, deny, edit, break the glass, withdraw, revoke. Each is one POST of our own form.

An answer names the digest of what was read and, for a critical rule, carries the person's own signature. What an answer
is worth is the desk's to say; here it is only made whole and authentic.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, Proof, Scope, VoteVerdict
from interlock.approvals.proof import signed_from_json
from interlock.clock import Clock
from interlock.errors import InterlockError, Reason
from interlock.gate import Gate
from interlock.web.access import Scope as Right
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import Pages
from interlock.web.console.request import RequestPages

CHANNEL = "console"
MAX_REASON = 2000
MAX_SIGNED = 32_768
MAX_TEXT = 256 * 1024

Digest = Annotated[str, Form(max_length=200)]
Why = Annotated[str, Form(max_length=MAX_REASON)]
Word = Annotated[str, Form(max_length=1024)]
Proven = Annotated[str, Form(max_length=MAX_SIGNED)]


def add(routes: APIRouter, pages: Pages, guard: Guard, requests: RequestPages, *, inbox: Inbox, gate: Gate, clock: Clock) -> None:
    poster = Depends(guard.posts(Right.APPROVALS_READ))
    operator = Depends(guard.posts(Right.ADMIN))

    async def answered(
        request: Request, request_id: str, person: Person, reason: str, work: Coroutine[Any, Any, ApprovalRequest]
    ) -> Response:
        """Do it, and lead to the page of the request that came of it. What was written is not lost when it is refused."""
        try:
            made = await work
        except InterlockError as error:
            return await requests.page(request, request_id, person, status=409, error=_told(error), reason=reason)
        return pages.back(f"/console/approvals/{made.id}")

    @routes.post("/console/approvals/{request_id}/decision")
    async def decide(
        request: Request,
        request_id: str,
        digest: Digest,
        verdict: Annotated[str, Form(pattern="^(approve|deny)$")],
        scope: Annotated[str, Form(max_length=40)] = "once",
        minutes: Annotated[str, Form(max_length=6)] = "",
        reason: Why = "",
        passphrase: Word = "",
        signed: Proven = "",
        person: Person = poster,
    ) -> Response:
        async def work() -> ApprovalRequest:
            await guard.step_up(request, person, passphrase)
            wider = verdict == "approve" and scope != Scope.ONCE
            return await inbox.vote(
                request_id,
                voter=person.identity,
                channel=CHANNEL,
                channel_actor=str(person.identity),
                verdict=VoteVerdict(verdict),
                digest=digest,
                scope=scope if wider else Scope.ONCE,
                valid_until=clock.now() + timedelta(minutes=_minutes(minutes)) if wider and minutes else None,
                reason=reason,
                proof=Proof.NONE,
                signed=signed_from_json(signed) if signed else None,
            )

        return await answered(request, request_id, person, reason, work())

    @routes.post("/console/approvals/{request_id}/break-glass")
    async def break_glass(
        request: Request,
        request_id: str,
        digest: Digest,
        reason: Why = "",
        passphrase: Word = "",
        signed: Proven = "",
        person: Person = poster,
    ) -> Response:
        async def work() -> ApprovalRequest:
            await guard.step_up(request, person, passphrase)
            return await inbox.vote(
                request_id,
                voter=person.identity,
                channel=CHANNEL,
                channel_actor=str(person.identity),
                verdict=VoteVerdict.APPROVE,
                digest=digest,
                reason=reason,
                signed=signed_from_json(signed) if signed else None,
                break_glass=True,
            )

        return await answered(request, request_id, person, reason, work())

    @routes.post("/console/approvals/{request_id}/edit")
    async def edit(
        request: Request,
        request_id: str,
        digest: Digest,
        text: Annotated[str, Form(max_length=MAX_TEXT)],
        reason: Why = "",
        passphrase: Word = "",
        person: Person = poster,
    ) -> Response:
        async def work() -> ApprovalRequest:
            await guard.step_up(request, person, passphrase)
            found = await inbox.get(request_id)
            draft = await gate.reconsider(found.draft, as_sent(text, found))
            return await inbox.edit(
                request_id,
                editor=person.identity,
                channel=CHANNEL,
                channel_actor=str(person.identity),
                digest=digest,
                draft=draft,
                reason=reason,
            )

        return await answered(request, request_id, person, reason, work())

    @routes.post("/console/approvals/{request_id}/withdraw")
    async def withdraw(request: Request, request_id: str, reason: Why = "", person: Person = operator) -> Response:
        work = inbox.withdraw_request(request_id, by=person.identity, why=reason)
        return await answered(request, request_id, person, reason, work)


def as_sent(text: str, found: ApprovalRequest) -> bytes:
    """Undo what a form does to a text: browsers send every line end as CR LF (HTML, form-data set)."""
    plain = text.replace("\r\n", "\n")
    before = found.draft.command.text
    if b"\n" not in before and plain.endswith("\n"):
        plain = plain.rstrip("\n")
    return plain.encode("utf-8", "surrogatepass")


def _minutes(text: str) -> int:
    """Read how long a grant shall hold. Raise InterlockError."""
    if not (text.isascii() and text.isdigit()) or not int(text):
        raise InterlockError("say for how many minutes, as a number", reason=Reason.SCOPE_NOT_OFFERED)
    return int(text)


def _told(error: InterlockError) -> str:
    message = str(error)
    return message if error.next_step == message else f"{message[:1].upper()}{message[1:].rstrip('.')}. {error.next_step}"
