"""The console's pages. GET reads; only a POST with the session's CSRF token from our own origin decides."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import jinja2
from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import Proof, State, VoteVerdict
from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.principal import Kind
from interlock.web.access import source_of
from interlock.web.console.sessions import COOKIE, READING_S, ConsoleSession, ConsoleSessions
from interlock.web.shown import shown

HERE = Path(__file__).parent
STATIC = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send `Origin: null` with our own forms
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_pages = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)


def console_router(
    *,
    inbox: Inbox,
    authenticator: Authenticator,
    directory: Directory,
    sessions: ConsoleSessions,
    secure: bool,
    public_url: str,
) -> APIRouter:
    """`secure` marks the cookie Secure (HTTPS). `public_url` is the only origin, besides the request's own, that may post."""
    routes = APIRouter(include_in_schema=False)

    def page(name: str, request: Request, status: int = 200, **values: Any) -> HTMLResponse:
        session = sessions.find(request.cookies.get(COOKIE))
        html = _pages.get_template(name).render(session=session, csrf=session.csrf if session else "", **values)
        return HTMLResponse(html, status, headers=HEADERS)

    def logged_in(request: Request) -> ConsoleSession:
        session = sessions.find(request.cookies.get(COOKIE))
        if session is None:
            raise AuthenticationError(reason=Reason.NOT_AUTHENTICATED)
        entry = directory.get(session.principal.identity)
        if entry is None or entry.disabled:
            sessions.close(request.cookies.get(COOKIE))
            raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        return session

    def own_origin(request: Request) -> None:
        """Refuse a POST another page made (property 35). A browser always sends Origin with a POST."""
        origin = request.headers.get("origin")
        allowed = {_origin(str(request.base_url)), _origin(public_url)} - {""}
        if origin is None or origin not in allowed:
            raise AuthenticationError("this form was sent from another page", reason=Reason.DELIVERY_REJECTED)

    def own_form(request: Request, session: ConsoleSession, csrf: str) -> None:
        own_origin(request)
        if not hmac.compare_digest(session.csrf.encode(), csrf.encode()):
            raise AuthenticationError("this form is not the one that was shown", reason=Reason.DELIVERY_REJECTED)

    def login_first(path: str) -> RedirectResponse:
        return RedirectResponse(f"/console/login?next={quote(path)}", 303, headers=HEADERS)

    @routes.get("/")
    async def root() -> Response:
        return RedirectResponse("/console", 303, headers=HEADERS)

    @routes.get("/console/static/{name}")
    async def static(name: str) -> Response:
        if name not in STATIC:
            return Response(status_code=404, headers=HEADERS)
        return FileResponse(HERE / "static" / name, media_type=STATIC[name], headers={**HEADERS, "Cache-Control": "max-age=300"})

    @routes.get("/console/login")
    async def login_page(request: Request, next: str = "/console") -> Response:  # noqa: A002  the name in the address
        return page("login.html", request, next=_safe_next(next), error="")

    @routes.post("/console/login")
    async def login(
        request: Request,
        handle: Annotated[str, Form(max_length=64)],
        passphrase: Annotated[str, Form(max_length=1024)],
        next: Annotated[str, Form(max_length=512)] = "/console",  # noqa: A002
    ) -> Response:
        own_origin(request)
        try:
            principal = await authenticator.passphrase(handle, passphrase, source=source_of(request))
            if principal.kind is not Kind.HUMAN:
                raise AuthenticationError(reason=Reason.NOT_A_PERSON)
        except InterlockError as error:
            return page("login.html", request, 401, next=_safe_next(next), error=str(error))
        answer = RedirectResponse(_safe_next(next), 303, headers=HEADERS)
        answer.set_cookie(
            COOKIE, sessions.open(principal), max_age=READING_S, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return answer

    @routes.post("/console/logout")
    async def logout(request: Request, csrf: Annotated[str, Form()]) -> Response:
        own_form(request, logged_in(request), csrf)
        sessions.close(request.cookies.get(COOKIE))
        answer = RedirectResponse("/console/login", 303, headers=HEADERS)
        answer.delete_cookie(COOKIE)
        return answer

    @routes.get("/console")
    async def inbox_page(request: Request) -> Response:
        try:
            logged_in(request)
        except AuthenticationError:
            return login_first("/console")
        waiting = [shown(r) for r in await inbox.list(State.PENDING)]
        recent = [shown(r) for r in await inbox.list() if r.state is not State.PENDING]
        recent.sort(key=lambda r: r["id"], reverse=True)
        return page("inbox.html", request, waiting=waiting, recent=recent[:20])

    @routes.get("/console/fingerprint")
    async def fingerprint(request: Request) -> Response:
        """What the inbox page compares to know that something changed: ids and states, nothing else."""
        logged_in(request)
        return Response(" ".join(f"{r.id}:{r.state}:{r.presence}" for r in await inbox.list(State.PENDING)), headers=HEADERS)

    @routes.get("/console/approvals/{request_id}")
    async def request_page(request: Request, request_id: str) -> Response:
        try:
            session = logged_in(request)
        except AuthenticationError:
            return login_first(f"/console/approvals/{request_id}")
        found = await inbox.get(request_id)
        return page("request.html", request, row=shown(found), fresh=sessions.may_decide(session), error="")

    @routes.post("/console/approvals/{request_id}/decision")
    async def decide(
        request: Request,
        request_id: str,
        csrf: Annotated[str, Form()],
        digest: Annotated[str, Form(max_length=200)],
        verdict: Annotated[str, Form(pattern="^(approve|deny)$")],
        reason: Annotated[str, Form(max_length=2000)] = "",
        passphrase: Annotated[str, Form(max_length=1024)] = "",
    ) -> Response:
        session = logged_in(request)
        own_form(request, session, csrf)
        try:
            if not sessions.may_decide(session):
                await authenticator.passphrase(session.principal.handle, passphrase, source=source_of(request))
                sessions.stepped_up(session)
            await inbox.vote(
                request_id,
                voter=session.principal.identity,
                channel="console",
                channel_actor=str(session.principal.identity),
                verdict=VoteVerdict(verdict),
                digest=digest,
                reason=reason,
                proof=Proof.NONE,
            )
        except InterlockError as error:
            row = shown(await inbox.get(request_id))
            fresh = sessions.may_decide(session)
            return page("request.html", request, 409, row=row, fresh=fresh, error=f"{error} {error.next_step}")
        return RedirectResponse(f"/console/approvals/{request_id}", 303, headers=HEADERS)

    return routes


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else ""


def _safe_next(path: str) -> str:
    """Only our own console pages: an open redirect would lend our name to another site."""
    return (
        path
        if path.startswith("/console") and not path.startswith("//") and "\\" not in path and "\n" not in path
        else "/console"
    )
