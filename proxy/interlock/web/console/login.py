"""Logging in and out, and the files the pages load: the only routes that ask nobody who they are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.identity.authenticate import Authenticator
from interlock.identity.principal import Kind
from interlock.web.access import Scope, source_of
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import HEADERS, HERE, Pages
from interlock.web.console.sessions import COOKIE, READING_S, ConsoleSessions

STATIC = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "passkey.js": "text/javascript",
}


def add(
    routes: APIRouter, pages: Pages, guard: Guard, authenticator: Authenticator, sessions: ConsoleSessions, *, secure: bool
) -> None:
    """`secure` marks the cookie Secure (HTTPS)."""

    @routes.get("/")
    async def root() -> Response:
        return pages.back("/console")

    @routes.get("/console/static/{name}")
    async def static(name: str) -> Response:
        if name not in STATIC:
            return Response(status_code=404, headers=HEADERS)
        return FileResponse(HERE / "static" / name, media_type=STATIC[name], headers={**HEADERS, "Cache-Control": "no-cache"})

    @routes.get("/console/login")
    async def login_page(request: Request, next: str = "/console") -> Response:  # noqa: A002  the name in the address
        return pages.page("login.html", request, next=own_page(next), error="")

    @routes.post("/console/login")
    async def login(
        request: Request,
        handle: Annotated[str, Form(max_length=64)],
        passphrase: Annotated[str, Form(max_length=1024)],
        next: Annotated[str, Form(max_length=512)] = "/console",  # noqa: A002
    ) -> Response:
        guard.own_origin(request)
        try:
            principal = await authenticator.passphrase(handle, passphrase, source=source_of(request))
            if principal.kind is not Kind.HUMAN:
                raise AuthenticationError(reason=Reason.NOT_A_PERSON)
        except InterlockError as error:
            return pages.page("login.html", request, 401, next=own_page(next), error=str(error))
        answer = RedirectResponse(own_page(next), 303, headers=HEADERS)
        answer.set_cookie(
            COOKIE, sessions.open(principal), max_age=READING_S, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return answer

    @routes.post("/console/logout")
    async def logout(request: Request, person: Person = Depends(guard.posts(Scope.APPROVALS_OWN))) -> Response:
        sessions.close(request.cookies.get(COOKIE))
        answer = pages.back("/console/login")
        answer.delete_cookie(COOKIE)
        return answer


def own_page(path: str) -> str:
    """Only our own console pages: an open redirect would lend our name to another site."""
    ours = path == "/console" or path.startswith("/console/")
    return path if ours and path.isascii() and path.isprintable() and "\\" not in path and "//" not in path else "/console"
