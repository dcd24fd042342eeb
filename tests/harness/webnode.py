"""The HTTP application of a node over a test's desk, served on loopback."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.desk import Desk
from harness.entrance import issuance_over, logins_over
from harness.webserver import serving
from interlock.clock import system_entropy
from interlock.config import Config, Node
from interlock.gate import Gate
from interlock.identity.standing import Standing
from interlock.identity.stepup import DecisionSessions
from interlock.policy import packs
from interlock.policy.source import LivePolicy
from interlock.ports import Classifier
from interlock.web.app import LoginParts, Parts, ScimParts, SlackParts, create_app
from interlock.web.console.sessions import ConsoleSessions
from interlock.web.whereabouts import Whereabouts


class Unused:
    """A classifier that no HTTP route may ever reach."""

    def classify_now(self, command: object) -> None:
        raise AssertionError("HTTP classified a command")

    async def classify(self, command: object) -> None:
        raise AssertionError("HTTP classified a command")


@functools.cache
def _shipped() -> LivePolicy:
    """The shipped packs, read once: nothing here reloads them."""
    return LivePolicy([packs.shipped()])


def gate_over(desk: Desk, classifier: Classifier | None = None, policies: LivePolicy | None = None) -> Gate:
    return Gate(
        policies=policies or _shipped(),
        classifier=classifier or Unused(),  # type: ignore[arg-type]  # must never be asked
        approvals=desk.inbox,
        transcripts=desk.transcripts,
        clock=desk.clock,
        standing=Standing(desk.directory, revocations=desk.revocations),
    )


def parts_over(
    desk: Desk,
    *,
    local: bool,
    gate: Gate | None = None,
    policies: LivePolicy | None = None,
    public_url: str = "",
    consoles: ConsoleSessions | None = None,
    slack: SlackParts | None = None,
    scim: ScimParts | None = None,
) -> Parts:
    policies = policies or _shipped()
    return Parts(
        inbox=desk.inbox,
        directory=desk.directory,
        authenticator=desk.authenticator,
        revocations=desk.revocations,
        scim=scim,
        deciding=DecisionSessions(desk.directory, clock=desk.clock, entropy=system_entropy),
        consoles=consoles or ConsoleSessions(desk.directory, clock=desk.clock, entropy=system_entropy),
        archive=desk.archive,
        config=Config(version=1, node=Node(data_dir=Path("/nonexistent")), public_url=public_url),
        gate=gate or gate_over(desk, policies=policies),
        policies=policies,
        clock=desk.clock,
        teams=None,
        local=local,
        secure=False,
        slack=slack,
        login=login_over(desk),
    )


def login_over(desk: Desk) -> LoginParts:
    """The register of logins and the authority, as every node has them; nobody logs in at a provider here."""
    logins = logins_over(desk.directory, desk.store.logins, clock=desk.clock, journal=desk.transcripts.journal)
    issuance = issuance_over(
        desk.transcripts.data_dir / "keys", logins, desk.directory, clock=desk.clock, journal=desk.transcripts.journal
    )
    where = Whereabouts("https://gw.example", "[::]:2222", "127.0.0.1:6432", "ssh-ed25519 AAAA", "ssh-ed25519 BBBB", False)
    return LoginParts(logins, issuance, where, None)


@contextlib.asynccontextmanager
async def open_web(
    desk: Desk,
    *,
    local: bool,
    classifier: Classifier | None = None,
    gate: Gate | None = None,
    public_url: str = "",
    consoles: ConsoleSessions | None = None,
    slack: SlackParts | None = None,
    scim: ScimParts | None = None,
    later: bool = False,
) -> AsyncIterator[str]:
    """Without a `classifier`, no route may ask for one: deciding classifies nothing. A `public_url` names the port. `later`: the
    routes are made when the first is asked for, which takes a fifth of a second that most tests need not spend."""
    found = gate or gate_over(desk, classifier)
    parts = parts_over(desk, local=local, gate=found, public_url=public_url, consoles=consoles, slack=slack, scim=scim)
    made = functools.cache(functools.partial(create_app, parts))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await made()(scope, receive, send)

    if not later:
        made()
    async with serving(app, urlsplit(public_url).port or 0) as url:
        yield url
