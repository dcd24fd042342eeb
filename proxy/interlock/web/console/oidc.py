"""Logging in to the console at the identity provider: authorization code, PKCE, state and nonce (OpenID Connect Core §3.1).

The flow's secret and verifier are in a cookie of the browser that began, so that nobody is logged in by an answer that was
begun elsewhere. Coming back sets the session's cookie, which is SameSite=Strict: a browser does not send that along a
redirect that another site began, so the answer is a page that leads on by itself.

Going there again, with a fresh authentication demanded, is the step-up of people without a passphrase here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from interlock.clock import Clock
from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.identity.logins import Logins, Opened
from interlock.identity.signin import SignIn
from interlock.web.access import source_of
from interlock.web.console.guard import Guard
from interlock.web.console.login import own_page
from interlock.web.console.pages import HEADERS, Pages
from interlock.web.console.sessions import COOKIE, READING_S, ConsoleSessions

FLOW = "interlock_login"
PLACE = "/console/login/oidc"
FLOW_S = 600
FRESH = timedelta(seconds=60)
"""How long ago the person may have authenticated for it to count as now. Clocks differ by a little."""

Text = Annotated[str, Query(max_length=2048)]


def add(
    routes: APIRouter, pages: Pages, guard: Guard, sessions: ConsoleSessions, *, signin: SignIn, logins: Logins, clock: Clock,
    public_url: str, secure: bool,
) -> None:  # fmt: skip
    """`public_url` is where the provider sends browsers back to: its registration must name `…/console/login/oidc/callback`."""
    redirect = public_url.rstrip("/") + PLACE + "/callback"

    @routes.get(PLACE)
    async def begin(request: Request, next: str = "/console", again: bool = False) -> Response:  # noqa: A002
        flow, verifier = await signin.begin_console(redirect, source_of(request), again=again)
        answer = RedirectResponse(flow.address, 303, headers=HEADERS)
        kept = ".".join((flow.flow, verifier, "again" if again else "first"))
        for name, value in ((FLOW, kept), (FLOW + "_next", own_page(next))):
            # Lax: it must come along when the provider sends the browser back.
            answer.set_cookie(name, value, max_age=FLOW_S, httponly=True, samesite="lax", secure=secure, path=PLACE)
        return answer

    @routes.get(PLACE + "/callback")
    async def callback(
        request: Request, state: Text = "", code: Text = "", iss: Annotated[str | None, Query(max_length=2048)] = None
    ) -> Response:
        following = own_page(request.cookies.get(FLOW + "_next", "/console"))
        try:
            flow, verifier, kind = _kept(request.cookies.get(FLOW, ""))
            opened = await signin.finish(flow, state=state, code=code, verifier=verifier, issuer=iss, method="console")
            await _check(request, opened, again=kind == "again")
        except InterlockError as error:
            answer: Response = pages.page("login.html", request, 401, next=following, error=str(error))
        else:
            token = sessions.open(opened.principal)
            session = sessions.find(token)
            if kind == "again" and session is not None:
                sessions.stepped_up(session)
            sessions.close(request.cookies.get(COOKIE))
            answer = pages.page("logged_in.html", request, next=following)
            answer.set_cookie(COOKIE, token, max_age=READING_S, httponly=True, samesite="strict", secure=secure, path="/")
        for name in (FLOW, FLOW + "_next"):
            answer.delete_cookie(name, path=PLACE)
        return answer

    async def _check(request: Request, opened: Opened, *, again: bool) -> None:
        """A step-up is the same person's, who has authenticated now and not an hour ago. Raise AuthenticationError."""
        if not again:
            return
        before, when = guard.find(request), opened.principal.assurance.auth_time
        # The strict cookie does not come along from the provider; where a browser sends it, it must agree.
        stranger = before is not None and before.identity != opened.principal.identity
        if stranger or when is None or not abs(clock.now() - when) <= FRESH:
            await logins.end([opened.id], "step-up-refused")
            raise AuthenticationError("the identity provider did not ask who you are just now", reason=Reason.STEP_UP_REQUIRED)


def _kept(cookie: str) -> tuple[str, str, str]:
    parts = cookie.split(".")
    if len(parts) != 3:
        raise AuthenticationError("this login was begun in another browser, or too long ago; log in again")
    return parts[0], parts[1], parts[2]
