"""The HTTP application: API, console and the endpoints of Teams and Slack put together from their parts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interlock import __version__
from interlock.approvals.channels.slack.channel import SlackChannel
from interlock.approvals.channels.slack.inbound import Expected as ExpectedSlack
from interlock.approvals.channels.slack.linking import LinkCodes
from interlock.approvals.channels.teams.channel import TeamsChannel
from interlock.approvals.channels.teams.transport import Transport
from interlock.approvals.inbox import Inbox
from interlock.clock import Clock, system_entropy
from interlock.config import Config, Secret
from interlock.evidence.archive import Archive
from interlock.gate import Gate
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.exchange import Exchange
from interlock.identity.issuance import Issuance
from interlock.identity.logins import Logins
from interlock.identity.passkeys import Registrations, relying_party
from interlock.identity.provisioning import Provisioning
from interlock.identity.revocation import Revocations
from interlock.identity.signin import SignIn
from interlock.identity.stepup import DecisionSessions
from interlock.policy.source import LivePolicy
from interlock.web import principals, problems
from interlock.web.access import Doorkeeper
from interlock.web.approvals import approvals_router
from interlock.web.console.routes import console_router
from interlock.web.console.sessions import ConsoleSessions
from interlock.web.events import events_router
from interlock.web.feed import Feed
from interlock.web.grants import grants_router
from interlock.web.health import health_router
from interlock.web.login import login_router
from interlock.web.passkeys import passkeys_router
from interlock.web.revocations import revocations_router
from interlock.web.scim import ScimRoute, scim_router
from interlock.web.sessions import sessions_router
from interlock.web.shown import Shown
from interlock.web.slack import slack_router
from interlock.web.stepup import person_router, stepup_router
from interlock.web.teams import teams_router
from interlock.web.token import token_router
from interlock.web.whereabouts import Whereabouts

MAX_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TeamsParts:
    channel: TeamsChannel
    transport: Transport


@dataclass(frozen=True, slots=True)
class SlackParts:
    """In socket mode there is no `signing_secret`, and no address that Slack could post to."""

    channel: SlackChannel
    expected: ExpectedSlack
    codes: LinkCodes
    signing_secret: Secret | None


@dataclass(frozen=True, slots=True)
class ScimParts:
    provisioning: Provisioning
    token: Secret


@dataclass(frozen=True, slots=True)
class LoginParts:
    """`signin` is there when people log in at an identity provider."""

    logins: Logins
    issuance: Issuance
    where: Whereabouts
    signin: SignIn | None


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application stands on. `local` is True for the unix socket, `secure` when it is served over TLS.

    Whoever sets `stopping` ends the answers that would go on for ever.
    """

    inbox: Inbox
    directory: Directory
    authenticator: Authenticator
    revocations: Revocations
    deciding: DecisionSessions
    consoles: ConsoleSessions
    archive: Archive
    config: Config
    gate: Gate
    policies: LivePolicy
    clock: Clock
    teams: TeamsParts | None
    local: bool
    secure: bool
    slack: SlackParts | None = None
    scim: ScimParts | None = None
    login: LoginParts | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


def create_app(parts: Parts) -> FastAPI:
    """Return the application. The console, Teams and Slack are served on the listener only, never on the socket."""
    app = FastAPI(
        title="Interlock",
        version=__version__,
        summary="One command, one decision, one proof.",
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    door = Doorkeeper(parts.authenticator, parts.deciding, local=parts.local)
    shown = Shown(parts.inbox.house.longest_grant)
    app.include_router(approvals_router(parts.inbox, parts.gate, shown, door))
    app.include_router(grants_router(parts.inbox, parts.directory, door))
    app.include_router(events_router(Feed(parts.inbox), shown, door, parts.stopping))
    app.include_router(stepup_router(parts.authenticator, parts.deciding))
    app.include_router(sessions_router(parts.archive, parts.gate, door))
    app.include_router(person_router(door))
    exchange = Exchange(parts.authenticator, clock=parts.clock, journal=parts.gate.transcripts.journal)
    app.include_router(token_router(exchange))
    app.include_router(revocations_router(parts.revocations, door))
    login = parts.login
    derive = login.logins.derived.add if login is not None else None
    app.include_router(principals.router(parts.directory, door.require_scope, door.require_given, derive))
    if login is not None:
        app.include_router(login_router(login.signin, login.logins, login.issuance, login.where, door))
    registrations = Registrations(relying_party(parts.config.public_url), clock=parts.clock, entropy=system_entropy)
    app.include_router(passkeys_router(parts.directory, registrations, door.require_scope))
    app.include_router(health_router(parts.gate, parts.config, door))
    if not parts.local:
        app.include_router(
            console_router(
                desk=parts.inbox,
                authenticator=parts.authenticator,
                directory=parts.directory,
                sessions=parts.consoles,
                archive=parts.archive,
                gate=parts.gate,
                policies=parts.policies,
                config=parts.config,
                clock=parts.clock,
                stopping=parts.stopping,
                registrations=registrations,
                secure=parts.secure,
                slack_codes=parts.slack.codes if parts.slack is not None else None,
                signin=login.signin if login is not None else None,
                logins=login.logins if login is not None else None,
            )
        )
        if parts.scim is not None:
            run = ScimRoute(parts.authenticator, parts.scim.token)
            app.include_router(scim_router(parts.scim.provisioning, run, parts.config.public_url.rstrip("/")))
        if parts.teams is not None:
            app.include_router(teams_router(parts.teams.channel, parts.teams.transport))
        if (slack := parts.slack) is not None and slack.signing_secret is not None:
            app.include_router(slack_router(slack.channel, slack.expected, slack.signing_secret, parts.clock))

    app.add_middleware(Bounded)
    return app


class Bounded:
    """Cuts every request body at MAX_BODY, declared or streamed, and sets the headers every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise HTTPException(413, "the body is larger than 1 MiB")  # the one error that body parsers let through
            return message

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, counted, headed)
