"""Who is at the browser, what that person may open, and whether a form is ours. Deny by default.

A route takes its person from `reads`, `posts` or `gives`; one that takes it from none does not know anybody. Rights follow
from the directory as it is at this moment, never from the login: whoever was disabled or left a group lost them.

* `reads`: a login with the scope.
* `posts`: that, from a form of this very session on our own page (property 35).
* `gives`: that, and a passphrase given within the last minutes. Whatever lets somebody do more asks for it; what only
  takes away (kill, revoke, withdraw) does not: stopping must never wait for typing.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Form, Request

from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.principal import Identity, Principal
from interlock.web.access import Scope, scopes_of, source_of
from interlock.web.console.sessions import COOKIE, ConsoleSession, ConsoleSessions

CSRF_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody logged in. `fresh` means that the passphrase was given minutes ago, so that deciding asks for none."""

    session: ConsoleSession
    entry: Entry
    scopes: frozenset[Scope]
    fresh: bool

    @property
    def identity(self) -> Identity:
        return self.entry.identity

    @property
    def principal(self) -> Principal:
        """Who this is for the record."""
        return self.entry.principal(self.session.principal.credential)

    @property
    def handle(self) -> str:
        return self.entry.handle

    @property
    def csrf(self) -> str:
        return self.session.csrf

    @property
    def admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    @property
    def auditor(self) -> bool:
        return Scope.SESSIONS_READ in self.scopes


Dependency = Callable[..., Awaitable[Person]]


class Guard:
    def __init__(
        self, sessions: ConsoleSessions, directory: Directory, authenticator: Authenticator, public_url: str = ""
    ) -> None:
        """`public_url` is the only origin, besides the request's own, that may post."""
        self._sessions = sessions
        self._directory = directory
        self._authenticator = authenticator
        self._public = _origin(public_url)

    def find(self, request: Request) -> Person | None:
        """Return who is logged in. A person who is disabled or revoked is logged out."""
        session = self._sessions.find(request.cookies.get(COOKIE))
        if session is None:
            return None
        entry = self._directory.get(session.principal.identity)
        if entry is None or entry.disabled:
            return None
        try:
            self._authenticator.check_revoked(entry.principal(session.principal.credential))
        except AuthenticationError:
            return None
        scopes = scopes_of(entry.principal(session.principal.credential))
        return Person(session, entry, scopes, self._sessions.may_decide(session))

    def person(self, request: Request) -> Person:
        """Return who is logged in. Raise AuthenticationError."""
        found = self.find(request)
        if found is not None:
            return found
        if self._sessions.find(request.cookies.get(COOKIE)) is not None:
            self._sessions.close(request.cookies.get(COOKIE))
            raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        raise AuthenticationError(reason=Reason.NOT_AUTHENTICATED)

    def reads(self, scope: Scope) -> Dependency:
        """Return the dependency of a page."""

        async def dependency(request: Request) -> Person:
            person = self.person(request)
            if scope not in person.scopes:
                raise InterlockError("your groups do not open this page", reason=Reason.MISSING_SCOPE)
            return person

        return dependency

    def posts(self, scope: Scope) -> Dependency:
        """Return the dependency of a form that takes something away, or that asks for the passphrase itself."""
        inner = self.reads(scope)

        async def dependency(request: Request, csrf: Annotated[str, Form(max_length=CSRF_LENGTH)] = "") -> Person:
            person = await inner(request)
            self.own_origin(request)
            if not hmac.compare_digest(person.csrf.encode(), csrf.encode()):
                raise AuthenticationError("this form is not the one that was shown", reason=Reason.DELIVERY_REJECTED)
            return person

        return dependency

    def gives(self, scope: Scope) -> Dependency:
        """Return the dependency of a form that lets somebody do more."""
        inner = self.posts(scope)

        async def dependency(
            request: Request,
            csrf: Annotated[str, Form(max_length=CSRF_LENGTH)] = "",
            passphrase: Annotated[str, Form(max_length=1024)] = "",
        ) -> Person:
            person = await inner(request, csrf)
            await self.step_up(request, person, passphrase)
            return person

        return dependency

    async def step_up(self, request: Request, person: Person, passphrase: str) -> None:
        """Check the passphrase unless it was given minutes ago. Raise AuthenticationError."""
        if self._sessions.may_decide(person.session):
            return
        if not passphrase:
            raise AuthenticationError(reason=Reason.STEP_UP_REQUIRED)
        await self._authenticator.passphrase(person.handle, passphrase, source=source_of(request))
        self._sessions.stepped_up(person.session)

    def own_origin(self, request: Request) -> None:
        """Refuse a POST another page made (property 35). A browser always sends Origin with a POST."""
        origin = request.headers.get("origin")
        if origin is None or origin not in {_origin(str(request.base_url)), self._public} - {""}:
            raise AuthenticationError("this form was sent from another page", reason=Reason.DELIVERY_REJECTED)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else ""
