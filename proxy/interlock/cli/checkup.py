"""The steps of `interlock doctor --teams`: each is tried for real, none stops the others, each failure says what to do.

Reads the configuration and asks whom the daemon would ask, with the daemon's own parts. It changes nothing anywhere: it
posts no card, and the delivery it sends to our own endpoint has no token and must be refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from interlock.approvals.channels.teams import carriage
from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.inbound import ISSUER, SKEW_S, Expected, service_allowed
from interlock.approvals.channels.teams.transport import TransportError
from interlock.clock import Clock
from interlock.config import Config, Secret, TeamsConfig, is_loopback, load
from interlock.errors import AuthenticationError, ConfigError, InterlockError, Reason
from interlock.identity.keyset import KeySet
from interlock.policy.loader import configured
from interlock.policy.loader import load as load_policies

TIMEOUT_S = 15
MAX_ANSWER = 256 * 1024
ENDPOINT = "/api/messages"

_GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class Status(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # what it needs failed before


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found. `fix` is empty unless it failed."""

    step: str
    status: Status
    said: str
    fix: str = ""


class _FailedError(Exception):
    """A step's own no: what was found, and what to do."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.finding = (said, fix)


class _SkippedError(Exception):
    """A step that can't be tried."""


People = Callable[[Config], Sequence[Mapping[str, Any]]]
"""Asks the daemon for everybody, as GET /v1/principals shows them. Raises InterlockError."""


class TeamsCheckup:
    """One run. `http` calls out as the daemon does; `outside` comes in from elsewhere, with the system's trust."""

    def __init__(self, file: Path, *, http: httpx.AsyncClient, outside: httpx.AsyncClient, clock: Clock, people: People) -> None:
        self._file = file
        self._http = http
        self._outside = outside
        self._clock = clock
        self._people = people
        self._config: Config | None = None
        self._secret: Secret | None = None
        self._connector: Connector | None = None  # once it has a token
        self._skews: list[float] = []
        http.event_hooks["response"].append(self._note_date)

    async def run(self) -> list[Finding]:
        """Try every step, in order."""
        steps = {
            "configuration": self._configuration, "transport": self._transport, "secret": self._reveals, "address": self._address,
            "endpoint": self._endpoint, "keys": self._keys, "service url": self._service_url, "token": self._token,
            "conversation": self._conversation, "reviewers": self._reviewers, "clock": self._skew,
        }  # fmt: skip
        findings = []
        for step, tried in steps.items():
            try:
                findings.append(Finding(step, Status.OK, await tried()))
            except _FailedError as failure:
                findings.append(Finding(step, Status.FAILED, *failure.finding))
            except _SkippedError as skipped:
                findings.append(Finding(step, Status.SKIPPED, str(skipped)))
        return findings

    # -- what is written --------------------------------------------------------------------------------------------------

    async def _configuration(self) -> str:
        try:
            config = load(self._file)
        except ConfigError as error:
            raise _FailedError(str(error), "correct the file; `interlock check` says the same") from None
        teams = config.approvals.channels.teams
        if teams is None:
            raise _FailedError(f"{self._file} has no approvals.channels.teams", "add it as docs/teams.md shows")
        self._config = config
        if not _GUID.fullmatch(teams.app_id):
            raise _FailedError(f"app_id {teams.app_id!r} is no GUID", "copy the Application (client) ID of the app registration")
        wrong = [tenant for tenant in teams.tenants if not _GUID.fullmatch(tenant)]
        if wrong:
            raise _FailedError(
                f"tenants has {wrong[0]!r}, which is no GUID", "copy the Directory (tenant) ID; a domain name does not do"
            )
        return f"{self._file} is valid"

    async def _transport(self) -> str:
        teams = self._teams()
        if teams.transport == "botbuilder" and not carriage.installed():
            raise _FailedError("transport: botbuilder is not installed", f"run: {carriage.INSTALL}")
        return teams.transport

    async def _reveals(self) -> str:
        teams = self._teams()
        assert self._config is not None
        try:
            secret = teams.app_password.resolve(self._config.base)
        except ConfigError as error:
            raise _FailedError(str(error), "create a client secret at the app registration and put its value there") from None
        if not secret.reveal().strip():
            raise _FailedError("the secret is empty", "put the *value* of the client secret there, not its id")
        self._secret = secret
        return f"{teams.app_password.kind}:{teams.app_password.where} resolves"

    # -- the way in -------------------------------------------------------------------------------------------------------

    async def _address(self) -> str:
        self._teams()
        assert self._config is not None
        url = self._config.public_url
        if not url:
            raise _FailedError(
                "public_url is not set", "set it to the https address at which Teams and reviewers reach this proxy"
            )
        if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
            raise _FailedError(f"public_url {url} is not https", "Teams delivers to https only; put a certificate in front")
        return url

    async def _endpoint(self) -> str:
        self._teams()
        assert self._config is not None
        if not self._config.public_url.startswith("https://"):
            raise _SkippedError("needs an https public_url")
        url = self._config.public_url.rstrip("/") + ENDPOINT
        try:
            status, body = await _fetch(self._outside, "POST", url, json={"type": "message"})
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise _FailedError(
                f"{url} does not answer ({error.__class__.__name__})",
                "start the daemon, and check name, port, certificate and the reverse proxy before it",
            ) from None
        if status == 401 and _reason(body) == Reason.DELIVERY_REJECTED:
            return f"{url} refuses a delivery without a token"
        if status == 401:
            raise _FailedError(
                f"{url} answered 401, but not by our gate", "let this path through unauthenticated: the gate needs the token"
            )
        if 300 <= status < 400:
            raise _FailedError(f"{url} redirects", "Teams follows no redirect; serve the path itself")
        if status == 404:
            raise _FailedError(
                f"{url} is not there", "the daemon there runs without approvals.channels.teams, or it is another server"
            )
        raise _FailedError(
            f"{url} answered {status} to a delivery without a token", "this is not our gate; find out who answers there"
        )

    async def _keys(self) -> str:
        teams = self._teams()
        fix = "let the proxy reach keys_url by https; without the keys every delivery is refused"
        try:
            status, body = await _fetch(self._http, "GET", teams.keys_url)
            listed = json.loads(body)["keys"] if status == 200 else None
            kids = [jwk["kid"] for jwk in listed] if listed is not None else []
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise _FailedError(f"{teams.keys_url} gives no key set ({error.__class__.__name__})", fix) from None
        if status != 200:
            raise _FailedError(f"{teams.keys_url} answered {status}", fix)
        try:
            keys = KeySet(ISSUER, jwks_url=teams.keys_url, clock=self._clock, client=lambda: self._http)
            found = [await keys.find(str(kid), "RS256") for kid in kids]
        except (AuthenticationError, ConfigError) as error:
            raise _FailedError(f"the keys at {teams.keys_url} can't be used: {error}", fix) from None
        endorsed = sum("msteams" in key.endorsements for key in found)
        if not endorsed:
            raise _FailedError(
                f"no key at {teams.keys_url} is endorsed for msteams", "set keys_url to the Bot Connector's own key set"
            )
        return f"{endorsed} of {len(found)} keys are endorsed for msteams"

    # -- the way out ------------------------------------------------------------------------------------------------------

    async def _service_url(self) -> str:
        teams = self._teams()
        if not service_allowed(teams.service_url, self._expected()):
            raise _FailedError(
                f"service_url {teams.service_url} is not https on one of service_hosts",
                "use https://smba.trafficmanager.net/ with your region (emea, amer, apac), or add the host of your cloud",
            )
        return teams.service_url

    async def _token(self) -> str:
        """Ask for a token. The secret goes to token_url only if the daemon would start with this configuration."""
        teams = self._teams()
        if self._secret is None:
            raise _SkippedError("needs the secret")
        if not service_allowed(teams.service_url, self._expected()):
            raise _SkippedError("needs an allowed service_url")
        connector = Connector(
            app_id=teams.app_id, password=self._secret, token_url=teams.token_endpoint, service_url=teams.service_url,
            clock=self._clock, http=self._http,
        )  # fmt: skip
        try:
            await connector.bearer()
        except TransportError as error:
            if error.status in (400, 401):
                raise _FailedError(
                    f"{teams.token_endpoint} refuses app_id and secret ({error.status})",
                    "create a new client secret; a multi-tenant bot also needs token_url: "
                    "https://login.microsoftonline.com/botframework.com/oauth2/v2.0/token",
                ) from None
            raise _FailedError(f"{teams.token_endpoint}: {error}", "let the proxy reach token_url by https") from None
        self._connector = connector
        return f"{teams.token_endpoint} gives one"

    async def _conversation(self) -> str:
        teams = self._teams()
        places = [place for place in (teams.conversation, teams.escalation) if place]
        if not teams.conversation and not teams.direct:
            raise _FailedError(
                "no conversation is set",
                "add the app to the channel and write the line that the bot says there, or set direct: true",
            )
        if not places:
            return "none: cards go to each reviewer"
        if self._connector is None:
            raise _SkippedError("needs a token")
        for place in places:
            await self._read_members(self._connector, place)
        return f"the bot is in {' and '.join(places)} and reads the members"

    async def _read_members(self, connector: Connector, conversation: str) -> None:
        """Ask for the members of a conversation: only a bot that is in it is told."""
        try:
            answer = await connector.call(
                "GET", f"/v3/conversations/{quote(conversation, safe='')}/pagedmembers?pageSize=50", None
            )
        except TransportError as error:
            fixes = {
                401: "the service takes no token of this app: is the Azure Bot resource made for this app_id?",
                403: "the bot is not in it: add the app to the team or chat",
                404: "there is no such conversation for this bot: check its id and the region in service_url",
            }
            raise _FailedError(
                f"the members of {conversation} can't be read: {error}",
                fixes.get(error.status, "correct what the steps above found, then try again"),
            ) from None
        members = answer.get("members")
        if not isinstance(members, list) or not members:
            raise _FailedError(f"{conversation} has no members", "name the conversation that the reviewers are in")

    async def _reviewers(self) -> str:
        teams = self._teams()
        assert self._config is not None
        try:
            groups = reviewing_groups(self._config)
            rows = self._people(self._config)
        except InterlockError as error:
            raise _FailedError(
                str(error), "the policies must load, and the daemon must run, so that it can be asked who reviews"
            ) from None
        missing, empty = unmapped(rows, groups, frozenset(teams.tenants))
        if missing:
            raise _FailedError(
                f"without a Teams account of a configured tenant: {', '.join(missing)}",
                f"run: interlock principals link {missing[0]} --teams TENANT/OBJECT-ID",
            )
        if empty:
            raise _FailedError(f"nobody is in: {', '.join(empty)}", f"run: interlock principals set HANDLE --group {empty[0]}")
        return f"everybody in {', '.join(groups)} is linked"

    async def _skew(self) -> str:
        self._teams()
        if not self._skews:
            raise _SkippedError("nobody said what time it is")
        worst = max(self._skews, key=abs)
        if abs(worst) > SKEW_S:
            side = "ahead of" if worst > 0 else "behind"
            raise _FailedError(
                f"this clock is {abs(worst):.0f} s {side} the service's",
                f"synchronise it (NTP): beyond {SKEW_S} s every delivery is refused",
            )
        return f"within {abs(worst):.0f} s of the service's"

    # -- parts ------------------------------------------------------------------------------------------------------------

    def _teams(self) -> TeamsConfig:
        teams = self._config.approvals.channels.teams if self._config is not None else None
        if teams is None:
            raise _SkippedError("needs a valid configuration")
        return teams

    def _expected(self) -> Expected:
        teams = self._teams()
        return Expected(
            app_id=teams.app_id, tenants=frozenset(teams.tenants), service_hosts=frozenset(teams.service_hosts),
            loopback=is_loopback(urlsplit(teams.service_url).hostname or "") and teams.service_url.startswith("http://"),
        )  # fmt: skip

    async def _note_date(self, response: httpx.Response) -> None:
        """Remember how far our clock is from the one that the answer was dated with (RFC 9110 §6.6.1)."""
        try:
            dated = parsedate_to_datetime(response.headers.get("date", ""))
            self._skews.append((self._clock.now() - dated).total_seconds())
        except (ValueError, TypeError):
            return  # no date, or one without a zone


def reviewing_groups(config: Config) -> tuple[str, ...]:
    """Return the groups that the configured policies ask, sorted. Raise PolicyError."""
    files, terms = configured(config)
    policies = load_policies(files, terms=terms)
    asked = [policies.default, *(rule.terms for rule in policies.rules if rule.terms is not None)]
    return tuple(sorted({group for terms in asked for group in terms.all_groups}))


def unmapped(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], tenants: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the active people of these groups without an account in these tenants, and the groups without any people."""
    people = [row for row in rows if row["kind"] == "human" and not row["disabled"] and not set(groups).isdisjoint(row["groups"])]
    missing = [str(row["handle"]) for row in people if not any(account.partition("/")[0] in tenants for account in row["teams"])]
    held = {group for row in people for group in row["groups"]}
    return missing, [group for group in groups if group not in held]


def _reason(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("reason", "")) if isinstance(document, dict) else ""


async def _fetch(client: httpx.AsyncClient, method: str, url: str, **kwargs: Any) -> tuple[int, bytes]:
    """Make one bounded call without redirects. Raise ValueError when the answer is too large."""
    async with client.stream(method, url, timeout=TIMEOUT_S, follow_redirects=False, **kwargs) as response:
        received = b""
        async for piece in response.aiter_bytes():
            received += piece
            if len(received) > MAX_ANSWER:
                raise ValueError("the answer is larger than 256 KiB")
        return response.status_code, received
