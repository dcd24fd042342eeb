"""The optional transport beside the contract that tests/web/test_teams.py holds it to: what of botbuilder is kept out.

Each trap is first measured in the installed package, so that this file says so when a new version behaves otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botbuilder.core import ActivityHandler
from botbuilder.core.cloud_adapter_base import CloudAdapterBase
from botbuilder.core.serializer_helper import serializer_helper
from botbuilder.schema import Activity, AdaptiveCardInvokeResponse
from botframework.connector.auth import (
    AuthenticationConfiguration,
    BotFrameworkAuthenticationFactory,
    PasswordServiceClientCredentialFactory,
)
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from harness import bot_connector
from harness.bot_connector import APP_ID, APP_PASSWORD, CONVERSATION, TENANT, BotConnector
from harness.trust import TRUST
from harness.webserver import serving
from interlock.approvals.channels.teams.botbuilder import BotbuilderTransport
from interlock.approvals.channels.teams.carriage import INSTALL
from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.inbound import ISSUER, Expected
from interlock.approvals.channels.teams.transport import Delivery, TransportError
from interlock.clock import SystemClock
from interlock.config import Secret
from interlock.errors import AuthenticationError
from interlock.identity.keyset import KeySet

CARD = {"type": "AdaptiveCard", "version": "1.5", "body": [{"type": "TextBlock", "text": "ä", "weight": None}], "actions": []}


def over(service: BotConnector, http: httpx.AsyncClient, *, service_url: str = "") -> BotbuilderTransport:
    clock = SystemClock()
    connector = Connector(
        app_id=APP_ID, password=Secret(APP_PASSWORD), token_url=f"{service.url}/token",
        service_url=service_url or service.url, clock=clock, http=http,
    )  # fmt: skip
    keys = KeySet(ISSUER, jwks_url=f"{service.url}/keys", clock=clock, client=lambda: http)
    expected = Expected(APP_ID, frozenset({TENANT}), frozenset(), loopback=True)
    return BotbuilderTransport(connector=connector, expected=expected, keys=keys, clock=clock)


@pytest.fixture
async def service() -> AsyncIterator[BotConnector]:
    async with bot_connector.running() as service:
        yield service


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http:
        yield http


def invoke(service: BotConnector, **changes: Any) -> dict[str, Any]:
    card = {"actions": [{"verb": "approve", "data": {"request": "req_1", "nonce": "n"}}]}
    return service.invoke(card, "m1", "approve", **changes)


class Asked:
    """Stands where the channel stands: remembers what it was asked, answers as it was told."""

    def __init__(self, answer: dict[str, Any] | None) -> None:
        self.answer = answer
        self.deliveries: list[Delivery] = []

    async def __call__(self, delivery: Delivery) -> dict[str, Any] | None:
        self.deliveries.append(delivery)
        return self.answer


ANSWER = {"statusCode": 200, "type": "application/vnd.microsoft.card.adaptive", "value": CARD}


# -- in --------------------------------------------------------------------------------------------------------------------


class Theirs(ActivityHandler):  # type: ignore[misc]
    async def on_adaptive_card_invoke(self, turn_context: Any, invoke_value: Any) -> AdaptiveCardInvokeResponse:
        return AdaptiveCardInvokeResponse(status_code=200, type="application/vnd.microsoft.card.adaptive", value=CARD)


async def test_their_adapter_without_an_app_id_takes_an_invoke_from_anybody_and_ours_takes_none(
    service: BotConnector, http: httpx.AsyncClient
) -> None:
    body = invoke(service)
    theirs = await CloudAdapterBase(BotFrameworkAuthenticationFactory.create()).process_activity(
        "", Activity().deserialize(body), Theirs().on_turn
    )
    assert theirs.status == 200  # the trap
    asked = Asked(ANSWER)
    with pytest.raises(AuthenticationError, match="bearer token"):
        await over(service, http).receive("", json.dumps(body).encode(), asked)
    assert asked.deliveries == []


async def test_their_adapter_is_never_asked_to_authenticate(service: BotConnector, http: httpx.AsyncClient) -> None:
    """Whatever path of the adapter gets a header instead of the gate's outcome ends in a refusal."""
    transport = over(service, http)
    with pytest.raises(AuthenticationError, match="only the gate authenticates"):
        await transport._adapter.process_activity(f"Bearer {service.token()}", Activity().deserialize(invoke(service)), print)


async def test_an_answer_is_not_serialised_twice(service: BotConnector, http: httpx.AsyncClient) -> None:
    with pytest.raises(Exception, match="dict"):
        serializer_helper(ANSWER)  # the trap: what CloudAdapter does with the body of an invoke response
    asked = Asked(ANSWER)
    answer = await over(service, http).receive(f"Bearer {service.token()}", json.dumps(invoke(service)).encode(), asked)
    assert answer == ANSWER
    assert [d.value["action"]["verb"] for d in asked.deliveries] == ["approve"]


async def test_expected_replies_do_not_swallow_the_answer(service: BotConnector, http: httpx.AsyncClient) -> None:
    body = invoke(service, deliveryMode="expectReplies")
    theirs = await CloudAdapterBase(BotFrameworkAuthenticationFactory.create()).process_activity(
        "", Activity().deserialize(body), Theirs().on_turn
    )
    assert "statusCode" not in theirs.body  # the trap
    answer = await over(service, http).receive(f"Bearer {service.token()}", json.dumps(body).encode(), Asked(ANSWER))
    assert answer == ANSWER


async def test_a_plain_activity_reaches_the_channel_and_is_answered_with_nothing(
    service: BotConnector, http: httpx.AsyncClient
) -> None:
    asked = Asked(None)
    body = invoke(service, type="message", text="hello", value=None)
    answer = await over(service, http).receive(f"Bearer {service.token()}", json.dumps(body).encode(), asked)
    assert answer is None and [d.kind for d in asked.deliveries] == ["message"]


async def test_what_botbuilder_cannot_read_is_refused_and_not_answered(service: BotConnector, http: httpx.AsyncClient) -> None:
    asked = Asked(ANSWER)
    body = invoke(service, timestamp="yesterday")
    with pytest.raises(AuthenticationError, match="can't read"):
        await over(service, http).receive(f"Bearer {service.token()}", json.dumps(body).encode(), asked)
    assert asked.deliveries == []


async def test_an_error_of_the_channel_is_the_channels(service: BotConnector, http: httpx.AsyncClient) -> None:
    async def breaks(_: Delivery) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await over(service, http).receive(f"Bearer {service.token()}", json.dumps(invoke(service)).encode(), breaks)


class Metadata:
    """What botbuilder's own authentication is given to fetch, with the connector's keys behind it."""

    def __init__(self, service: BotConnector) -> None:
        self._service = service

        @service.app.get("/openidconfiguration")
        async def openid() -> dict[str, Any]:
            return {"issuer": ISSUER, "jwks_uri": f"{service.url}/keys"}

        self._theirs = BotFrameworkAuthenticationFactory.create(
            validate_authority=True, to_channel_from_bot_login_url="https://login.invalid", oauth_url="https://oauth.invalid",
            to_channel_from_bot_oauth_scope="https://api.botframework.com", to_bot_from_channel_token_issuer=ISSUER,
            to_bot_from_channel_open_id_metadata_url=f"{service.url}/openidconfiguration",
            to_bot_from_emulator_open_id_metadata_url=f"{service.url}/openidconfiguration",
            caller_id="", credential_factory=PasswordServiceClientCredentialFactory(APP_ID, APP_PASSWORD),
            auth_configuration=AuthenticationConfiguration(),
        )  # fmt: skip

    async def accepts(self, token: str) -> bool:
        """Ask it in a thread: it fetches keys with `requests`, which would stop this loop for ever."""
        activity = Activity().deserialize(invoke(self._service))
        try:
            await asyncio.to_thread(lambda: asyncio.run(self._theirs.authenticate_request(activity, f"Bearer {token}")))
        except PermissionError:
            return False
        return True


async def test_their_authentication_takes_a_token_that_never_ends_and_ours_does_not(
    service: BotConnector, http: httpx.AsyncClient
) -> None:
    theirs = Metadata(service)
    assert await theirs.accepts(service.token())
    assert not await theirs.accepts(service.token(iss="https://evil.example"))
    endless = service.token(drop=("exp",))
    assert await theirs.accepts(endless)  # the trap
    with pytest.raises(AuthenticationError):
        await over(service, http).admit(f"Bearer {endless}", json.dumps(invoke(service)).encode())


async def test_their_authentication_breaks_on_a_rotated_key_and_ours_finds_it(
    service: BotConnector, http: httpx.AsyncClient
) -> None:
    theirs, transport = Metadata(service), over(service, http)
    body = json.dumps(invoke(service)).encode()
    assert await theirs.accepts(service.token())
    await transport.admit(f"Bearer {service.token()}", body)
    service.add_key("k2")
    with pytest.raises(IndexError):  # the trap: an HTTP 500, until its keys are a day old
        await theirs.accepts(service.token(kid="k2"))
    assert (await transport.admit(f"Bearer {service.token(kid='k2')}", body)).kind == "invoke"


# -- out -------------------------------------------------------------------------------------------------------------------


async def test_a_card_goes_out_as_it_is(service: BotConnector, http: httpx.AsyncClient) -> None:
    message = await over(service, http).send(CONVERSATION, CARD, "who and where")
    assert service.cards[message] == CARD  # a null stays, no key is added, no text is changed


@pytest.mark.parametrize("status", [403, 429, 502])
async def test_an_error_page_keeps_its_status(service: BotConnector, http: httpx.AsyncClient, status: int) -> None:
    beyond = FastAPI()

    @beyond.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
    async def page(path: str) -> HTMLResponse:
        return HTMLResponse("<h1>no, bot-secret-for-tests</h1>", status, headers={"Retry-After": "7"})

    async with serving(beyond) as url:
        transport = over(service, http, service_url=url)
        for call in (
            transport.send(CONVERSATION, CARD, ""), transport.update(CONVERSATION, "m1", CARD, ""),
            transport.member(CONVERSATION, "29:bob"), transport.open_conversation(TENANT, "29:bob"),
        ):  # fmt: skip
            with pytest.raises(TransportError) as raised:
                await call
            assert (raised.value.status, raised.value.retry_after) == (status, 7.0)
            assert APP_PASSWORD not in str(raised.value)


async def test_a_redirect_is_not_followed_with_our_token(service: BotConnector, http: httpx.AsyncClient) -> None:
    seen: list[str | None] = []
    elsewhere, beyond = FastAPI(), FastAPI()

    @elsewhere.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
    async def taken(path: str) -> dict[str, str]:
        seen.append(path)
        return {"id": "m1"}

    async with serving(elsewhere) as other:

        @beyond.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
        async def moved(path: str) -> RedirectResponse:
            return RedirectResponse(f"{other}/{path}")

        async with serving(beyond) as url:
            with pytest.raises(TransportError):
                await over(service, http, service_url=url).send(CONVERSATION, CARD, "")
    assert seen == []


async def test_no_other_service_is_called_whatever_botbuilder_makes_of_an_address(
    service: BotConnector, http: httpx.AsyncClient
) -> None:
    seen: list[str] = []
    elsewhere = FastAPI()

    @elsewhere.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
    async def taken(path: str) -> dict[str, str]:
        seen.append(path)
        return {"id": "m1"}

    transport = over(service, http)
    async with serving(elsewhere) as other:
        transport._client.config.base_url = other
        with pytest.raises(TransportError, match="another service"):
            await transport.send(CONVERSATION, CARD, "")
    assert seen == []


async def test_an_id_with_url_syntax_stays_one_segment(service: BotConnector, http: httpx.AsyncClient) -> None:
    paths: list[str] = []
    beyond = FastAPI()

    @beyond.api_route("/{path:path}", methods=["GET", "POST"])
    async def seen(path: str) -> dict[str, str]:
        paths.append(path)
        return {"id": "29:x", "aadObjectId": "o", "tenantId": TENANT, "userRole": "guest"}

    async with serving(beyond) as url:
        transport = over(service, http, service_url=url)
        member = await transport.member("19:a/../b?c={d}", "29:x/../../y#z")
    assert member.tenant == TENANT and member.role == "guest"  # their ChannelAccount has neither
    assert paths == ["v3/conversations/19:a/../b?c={d}/members/29:x/../../y#z"]  # decoded by the server, once


# -- only when it is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.blackbox
def test_it_is_imported_only_when_it_is_configured() -> None:
    code = "import sys, interlock.app; sys.exit(not {'botbuilder', 'botframework', 'msrest'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.blackbox
def test_a_daemon_without_the_extra_does_not_start_and_says_how_to_get_it(tmp_path: Path) -> None:
    """The extra is shadowed by a package that can't be imported, as if it were not there."""
    shadow = tmp_path / "shadow" / "botbuilder"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise ImportError('not installed')\n")
    teams = {
        "app_id": APP_ID, "app_password": "env:TEAMS_PASSWORD", "tenants": [TENANT], "transport": "botbuilder",
        "conversation": CONVERSATION, "service_url": "https://smba.trafficmanager.net/emea/",
    }  # fmt: skip
    config = tmp_path / "interlock.yaml"
    config.write_text(
        json.dumps(
            {
                "version": 1, "node": {"name": "t", "data_dir": str(tmp_path / "data")}, "listen": {"http": "127.0.0.1:0"},
                "approvals": {"channels": {"teams": teams}},
            }
        )
    )  # fmt: skip
    path = os.pathsep.join([str(shadow.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "interlock", "serve", "--config", str(config)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, "TEAMS_PASSWORD": APP_PASSWORD}, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert INSTALL in done.stderr and APP_PASSWORD not in done.stderr
