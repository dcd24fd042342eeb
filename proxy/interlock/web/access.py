"""Who calls, and what they may do. Deny by default: a route without a scope does not exist.

The unix socket in data_dir (0700) is the local operator: it administers and reads, and it never decides. Deciding needs
a decision session that a person opened minutes ago with a passphrase (identity.md), on every way in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from fastapi import Request

from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.identity.authenticate import Authenticator
from interlock.identity.entries import ADMINS, OPERATOR
from interlock.identity.principal import Credential, CredentialKind, Kind, Principal
from interlock.identity.stepup import DecisionSessions

AUDITORS = "interlock-auditors"


class Scope(StrEnum):
    APPROVALS_OWN = "approvals:own"
    APPROVALS_READ = "approvals:read"
    APPROVALS_DECIDE = "approvals:decide"
    SESSIONS_READ = "sessions:read"
    ADMIN = "admin"


LOCAL_SCOPES = frozenset({Scope.APPROVALS_OWN, Scope.APPROVALS_READ, Scope.SESSIONS_READ, Scope.ADMIN})
"""What the unix socket gives: everything but deciding."""


@dataclass(frozen=True, slots=True)
class Caller:
    principal: Principal
    scopes: frozenset[Scope]
    channel: str  # cli on the unix socket, api elsewhere


def source_of(request: Request) -> str:
    """Return the address a request came from, without the port: guessing from one place is slowed down."""
    return request.client.host if request.client is not None else ""


def local_operator() -> Principal:
    return Principal(
        identity=OPERATOR,
        handle="operator",
        kind=Kind.SERVICE,
        credential=Credential(CredentialKind.PEER, "unix-socket"),
    )


def scopes_of(principal: Principal) -> frozenset[Scope]:
    """Return what a login credential gives. `approvals:decide` is never among it."""
    scopes = {Scope.APPROVALS_OWN}
    # Somebody without any group may have made their own entry by logging in: other people's commands are not theirs to read.
    if principal.kind is Kind.HUMAN and principal.groups:
        scopes.add(Scope.APPROVALS_READ)
        if ADMINS in principal.groups:
            scopes |= {Scope.ADMIN, Scope.SESSIONS_READ}
        if AUDITORS in principal.groups:
            scopes.add(Scope.SESSIONS_READ)
    return frozenset(scopes)


class Doorkeeper:
    """Turns a request into a Caller. One an application: `local` is True on the unix socket only."""

    def __init__(self, authenticator: Authenticator, sessions: DecisionSessions, *, local: bool) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._local = local

    @property
    def channel(self) -> str:
        return "cli" if self._local else "api"

    async def caller(self, request: Request) -> Caller:
        """Authenticate. Raise AuthenticationError."""
        header = request.headers.get("authorization", "")
        scheme, _, secret = header.partition(" ")
        if not header:
            if self._local:
                return Caller(local_operator(), LOCAL_SCOPES, self.channel)
            raise AuthenticationError("send a token as `Authorization: Bearer …`")
        if scheme.lower() != "bearer" or not secret:
            raise AuthenticationError("the Authorization header must be `Bearer TOKEN`")
        decider = self._sessions.resolve(secret)
        if decider is not None:
            self._authenticator.check_revoked(decider)
            scopes = scopes_of(decider) | {Scope.APPROVALS_DECIDE}
            return Caller(decider, frozenset(scopes), self.channel)
        principal = await self._authenticator.token(secret, source=source_of(request))
        return Caller(principal, scopes_of(principal), self.channel)

    def require(self, scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
        """Return the dependency of a route that needs `scope`."""

        async def dependency(request: Request) -> Caller:
            caller = await self.caller(request)
            if scope in caller.scopes:
                return caller
            if scope is Scope.APPROVALS_DECIDE:
                if caller.principal.kind is not Kind.HUMAN:
                    raise AuthenticationError(reason=Reason.NOT_A_PERSON)
                raise AuthenticationError(reason=Reason.STEP_UP_REQUIRED)
            raise InterlockError(f"this call needs the scope {scope}", reason=Reason.MISSING_SCOPE)

        return dependency

    def require_given(self, scope: str) -> Callable[[Request], Awaitable[Principal]]:
        """Return the dependency of a route that lets somebody do more: the scope, in a decision session. Login tokens lie
        about for days, and whoever finds one must not make people. The local operator has no session, and needs none."""
        inner = self.require(Scope(scope))

        async def dependency(request: Request) -> Principal:
            caller = await inner(request)
            local = caller.principal.credential.kind is CredentialKind.PEER
            if not local and Scope.APPROVALS_DECIDE not in caller.scopes:
                raise AuthenticationError(
                    "giving authority needs a decision session: POST /v1/step-up with your handle and passphrase, and use its "
                    "token within five minutes (for the CLI: as INTERLOCK_TOKEN)",
                    reason=Reason.STEP_UP_REQUIRED,
                )
            return caller.principal

        return dependency

    def require_scope(self, scope: str) -> Callable[[Request], Awaitable[Principal]]:
        """Return a dependency that gives the calling principal alone, for routers that know no channels."""
        inner = self.require(Scope(scope))

        async def dependency(request: Request) -> Principal:
            return (await inner(request)).principal

        return dependency
