"""The ways to reviewers that a configuration names, built and started: Teams, Slack, the outgoing webhook.

Part of the composition root: knows every channel's parts and which of them a key of the configuration asks for. What was
started is appended to `stops`, for whoever stops the node in reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import httpx

from interlock.approvals.channels.slack.channel import SlackChannel
from interlock.approvals.channels.slack.client import SlackApi
from interlock.approvals.channels.slack.forms import Seal
from interlock.approvals.channels.slack.inbound import Expected as ExpectedSlack
from interlock.approvals.channels.slack.linking import LinkCodes
from interlock.approvals.channels.slack.socket import SocketMode
from interlock.approvals.channels.teams import carriage
from interlock.approvals.channels.teams.channel import TeamsChannel
from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.inbound import ISSUER as BOT_ISSUER
from interlock.approvals.channels.teams.inbound import Expected, service_allowed
from interlock.approvals.channels.webhook import signing
from interlock.approvals.channels.webhook.address import Guarded
from interlock.approvals.channels.webhook.sender import WebhookChannel
from interlock.approvals.inbox import Inbox
from interlock.clock import Clock, Entropy
from interlock.config import Config, is_loopback, split_address
from interlock.errors import ConfigError
from interlock.evidence.events import Recorder
from interlock.identity.directory import Directory
from interlock.identity.keyset import KeySet
from interlock.store.engine import Store
from interlock.web.app import SlackParts, TeamsParts

Stop = Callable[[], Coroutine[Any, Any, None]]


class Channels:
    """One a node. Each method starts one channel, or does nothing where the configuration has none."""

    def __init__(
        self, config: Config, *, inbox: Inbox, directory: Directory, store: Store, journal: Recorder, clock: Clock,
        entropy: Entropy, http: httpx.AsyncClient, stops: list[tuple[str, Stop]],
    ) -> None:  # fmt: skip
        self._config = config
        self._inbox = inbox
        self._directory = directory
        self._store = store
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._http = http
        self._stops = stops

    async def teams(self) -> TeamsParts | None:
        """Start the Teams channel, when it is configured. Raise ConfigError."""
        teams = self._config.approvals.channels.teams
        if teams is None:
            return None
        http_host = split_address(self._config.listen.http)[0] if self._config.listen.http else ""
        expected = Expected(
            app_id=teams.app_id,
            tenants=frozenset(teams.tenants),
            service_hosts=frozenset(teams.service_hosts),
            loopback=is_loopback(http_host) and teams.service_url.startswith("http://"),
        )
        if not service_allowed(teams.service_url, expected):
            raise ConfigError("approvals.channels.teams.service_url must be https on one of service_hosts")
        connector = Connector(
            app_id=teams.app_id,
            password=teams.app_password.resolve(self._config.base),
            token_url=teams.token_endpoint,
            service_url=teams.service_url,
            clock=self._clock,
            http=self._http,
        )
        # A sovereign cloud publishes a discovery document; the key set's own address needs one look-up less.
        discovered = teams.keys_url.endswith("/openidconfiguration")
        keys = KeySet(
            BOT_ISSUER, jwks_url=None if discovered else teams.keys_url, clock=self._clock, client=lambda: self._http,
            metadata_url=teams.keys_url if discovered else None,
        )  # fmt: skip
        transport = carriage.transport(teams.transport, connector=connector, expected=expected, keys=keys, clock=self._clock)
        channel = TeamsChannel(
            transport=transport,
            inbox=self._inbox,
            directory=self._directory,
            messages=self._store.messages,
            conversations=self._store.conversations,
            journal=self._journal,
            clock=self._clock,
            conversation=teams.conversation,
            escalation=teams.escalation,
            direct=teams.direct,
        )
        await channel.start()
        self._stops.append(("teams", channel.close))
        return TeamsParts(channel, transport)

    async def slack(self) -> SlackParts | None:
        """Start the Slack channel, when it is configured. Raise ConfigError."""
        slack, base = self._config.approvals.channels.slack, self._config.base
        if slack is None:
            return None
        token, expected = slack.bot_token.resolve(base), ExpectedSlack(slack.team, slack.app)
        app_token = slack.app_token.resolve(base) if slack.mode == "socket" and slack.app_token else None
        api = SlackApi(api_url=slack.api_url, bot_token=token, app_token=app_token)
        self._stops.append(("slack client", api.close))
        codes = LinkCodes(self._clock, self._entropy)
        channel = SlackChannel(
            api=api,
            expected=expected,
            conversation=slack.channel,
            escalation=slack.escalation,
            inbox=self._inbox,
            directory=self._directory,
            messages=self._store.messages,
            deliveries=self._store.deliveries,
            journal=self._journal,
            codes=codes,
            seal=Seal(token),
            clock=self._clock,
            public_url=self._config.public_url,
            longest_grant=self._config.approvals.grants,
        )
        await channel.start()
        self._stops.append(("slack", channel.close))
        if slack.mode == "socket":
            socket = SocketMode(api, channel.accept, app=slack.app, clock=self._clock)
            socket.start()
            self._stops.append(("slack socket", socket.close))
            return SlackParts(channel, expected, codes, None)
        signing_secret = slack.signing_secret.resolve(base) if slack.signing_secret else None
        return SlackParts(channel, expected, codes, signing_secret)

    async def webhook(self) -> None:
        """Start the outgoing webhook, when it is configured. Raise ConfigError."""
        webhook = self._config.approvals.channels.webhook
        if webhook is None:
            return
        loopback = is_loopback(urlsplit(webhook.url).hostname or "")
        channel = WebhookChannel(
            url=webhook.url,
            key=signing.key_of(webhook.secret.resolve(self._config.base)),
            events=frozenset(webhook.events),
            inbox=self._inbox,
            rows=self._store.outbox,
            journal=self._journal,
            clock=self._clock,
            entropy=self._entropy,
            transport=Guarded(httpx.AsyncHTTPTransport(), loopback=loopback),
        )
        await channel.start()
        self._stops.append(("webhook", channel.close))
