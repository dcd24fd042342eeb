"""How a page leaves: templates, the words around people's text, the headers, and errors as pages.

Every value goes through Jinja's escaping; the one filter that makes markup (`marked`) escapes each piece itself.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from markupsafe import Markup, escape

from interlock.approvals.wording import one_line
from interlock.clock import Clock, rfc3339
from interlock.commands.display import CLOSE, OPEN
from interlock.errors import InterlockError, Reason
from interlock.web.console.guard import Guard
from interlock.web.problems import STATUS

HERE = Path(__file__).parent
MAX_SAID = 2000

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send `Origin: null` with our own forms
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

MACHINES = ("/console/events", "/console/fingerprint")
"""What scripts ask: without a login they get a status, not the login page."""


class Pages:
    """Renders templates for whoever is logged in. `waiting` counts what waits, for the mark at the inbox; `at_provider` when
    people may log in at an identity provider."""

    def __init__(self, guard: Guard, clock: Clock, waiting: Callable[[], int], *, at_provider: bool = False) -> None:
        self._guard = guard
        self._clock = clock
        self._waiting = waiting
        self._at_provider = at_provider
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"marked": marked, "said": said, "moment": moment, "iso": rfc3339}

    def page(self, name: str, request: Request, status: int = 200, **values: Any) -> HTMLResponse:
        person = self._guard.find(request)
        html = self._templates.get_template(name).render(
            person=person,
            csrf=person.csrf if person else "",
            waiting=self._waiting() if person else 0,
            path=request.url.path,
            at_provider=self._at_provider,
            now=self._clock.now(),
            **values,
        )
        return HTMLResponse(html, status, headers=HEADERS)

    def error(self, request: Request, status: int, message: str, next_step: str = "") -> Response:
        return self.page("error.html", request, status, message=message, next_step="" if next_step == message else next_step)

    def back(self, path: str) -> RedirectResponse:
        """Answer a form that was done: the browser asks for a page, and reloading it posts nothing again."""
        return RedirectResponse(path, 303, headers=HEADERS)

    def route_class(self) -> type[APIRoute]:
        """Return a route whose errors are pages, and which leads to the login first."""
        pages = self

        class Paged(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                inner = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    try:
                        return await inner(request)
                    except InterlockError as error:
                        path = request.url.path
                        if error.code is Reason.NOT_AUTHENTICATED and request.method == "GET" and path not in MACHINES:
                            where = f"{path}?{request.url.query}" if request.url.query else path
                            return pages.back(f"/console/login?next={quote(where)}")
                        return pages.error(request, STATUS.get(error.code, 500), str(error), error.next_step)
                    except RequestValidationError as error:
                        # Only places and messages: the input itself may hold a passphrase.
                        told = "; ".join(f"{'.'.join(str(p) for p in e['loc'][1:])}: {e['msg']}" for e in error.errors())
                        return pages.error(request, 422, f"The form could not be read: {told}.")

                return handler

        return Paged


def missing(what: str) -> InterlockError:
    return InterlockError(f"there is no {what}", reason=Reason.NOT_FOUND)


def said(text: object, limit: int = MAX_SAID) -> str:
    """Flatten people's text to printable characters on one line: nothing in it turns a line around or hides."""
    return one_line(str(text), limit)


def marked(line: str) -> Markup:
    """Return a line of a `Display` with its marks set off. The text itself can't hold a mark: those are escaped in it."""
    pieces: list[Markup] = []
    for index, part in enumerate(line.split(OPEN)):
        inside, closed, after = part.partition(CLOSE) if index else ("", "", part)
        if closed:
            pieces.append(Markup("<mark>{}</mark>").format(inside))
        elif index:
            after = OPEN + part
        pieces.append(escape(after))
    return Markup("").join(pieces)


def moment(value: datetime | None) -> str:
    """Return a time as people read one: UTC, to the second."""
    return "" if value is None else value.strftime("%Y-%m-%d %H:%M:%S UTC")
