"""The console put together. GET reads; only a POST with the session's CSRF token from our own origin does anything."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from interlock.approvals.channels.slack.linking import LinkCodes
from interlock.approvals.inbox import Inbox
from interlock.clock import Clock
from interlock.config import Config
from interlock.evidence.archive import Archive
from interlock.gate import Gate
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.logins import Logins
from interlock.identity.passkeys import Registrations
from interlock.identity.signin import SignIn
from interlock.policy.source import LivePolicy
from interlock.web.console import (
    decisions,
    grants,
    health,
    history,
    inbox,
    linking,
    login,
    oidc,
    passkeys,
    people,
    policy,
    request,
    transcripts,
)
from interlock.web.console.guard import Guard
from interlock.web.console.pages import Pages
from interlock.web.console.sessions import ConsoleSessions


def console_router(
    *,
    desk: Inbox,
    authenticator: Authenticator,
    directory: Directory,
    sessions: ConsoleSessions,
    archive: Archive,
    gate: Gate,
    policies: LivePolicy,
    config: Config,
    clock: Clock,
    stopping: asyncio.Event,
    registrations: Registrations,
    secure: bool,
    slack_codes: LinkCodes | None = None,
    signin: SignIn | None = None,
    logins: Logins | None = None,
) -> APIRouter:
    """`secure` marks the cookie Secure (HTTPS). `stopping` ends the event streams, which nothing else would. `slack_codes` are
    there when Slack is, `signin` and `logins` when people may log in at an identity provider."""
    guard = Guard(sessions, directory, authenticator, config.public_url)
    at_provider = signin is not None and signin.offers_console
    pages = Pages(guard, clock, desk.pending_count, at_provider=at_provider)
    requests = request.RequestPages(pages, desk, policies)
    routes = APIRouter(include_in_schema=False, route_class=pages.route_class())
    login.add(routes, pages, guard, authenticator, sessions, secure=secure)
    if signin is not None and logins is not None and at_provider:
        oidc.add(
            routes, pages, guard, sessions, signin=signin, logins=logins, clock=clock, public_url=config.public_url, secure=secure
        )
    inbox.add(routes, pages, guard, desk, stopping)
    request.add(routes, requests, guard)
    decisions.add(routes, pages, guard, requests, inbox=desk, gate=gate, clock=clock)
    passkeys.add(routes, pages, guard, directory=directory, inbox=desk, registrations=registrations)
    history.add(routes, pages, guard, desk)
    grants.add(routes, pages, guard, desk)
    people.add(routes, pages, guard, directory=directory, inbox=desk, policies=policies, clock=clock)
    policy.add(routes, pages, guard, policies=policies, directory=directory, config=config, gate=gate, clock=clock)
    transcripts.add(routes, pages, guard, archive=archive, gate=gate)
    health.add(routes, pages, guard, inbox=desk, gate=gate, policies=policies, config=config)
    if slack_codes is not None:
        linking.add(routes, pages, guard, directory=directory, codes=slack_codes)
    return routes
