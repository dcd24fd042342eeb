"""The optional transport: Microsoft's botbuilder-core behind our strict gate, for shops that standardise on it.

Imported only when the configuration says `transport: botbuilder` (extra `teams-botbuilder`). botbuilder runs the turns and
shapes the calls; it authenticates nothing and opens no connection of its own:

* In: `inbound.admit` has accepted the delivery before botbuilder sees it. The adapter is given the outcome and can't ask for
  one: `_GateAuthentication` refuses every header. So neither its anonymous mode (empty app id) nor its synchronous key fetch
  nor its lax claims can be reached.
* Out: its ConnectorClient makes URLs and bodies; our `Connector` carries them, with the token, the bounds and the errors of
  the native transport. msal and requests are never used.

Traps of 4.17 that this file goes around, each measured in tests/web/test_teams_botbuilder.py: what `on_adaptive_card_invoke`
returns is serialised twice on its way out (HTTP 500), so `on_invoke_activity` is overridden; `deliveryMode: expectReplies`
wraps the answer of an invoke into a list that Teams does not read; an error page that is not JSON hides its status. Why it
is not the default: docs/adr/0010-botbuilder-optional.md.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from botbuilder.core import ActivityHandler, InvokeResponse, TurnContext
from botbuilder.core.cloud_adapter_base import CloudAdapterBase
from botbuilder.schema import Activity, ActivityTypes, Attachment, ChannelAccount, ConversationParameters
from botframework.connector.aio import ConnectorClient
from botframework.connector.auth import (
    AuthenticateRequestResult,
    BotFrameworkAuthentication,
    ClaimsIdentity,
    ConnectorFactory,
    MicrosoftAppCredentials,
)
from botframework.connector.bot_framework_sdk_client_async import BotFrameworkConnectorConfiguration
from msrest.exceptions import ClientException
from msrest.pipeline import Request, Response
from msrest.pipeline.async_abc import AsyncHTTPSender, AsyncPipeline
from msrest.pipeline.universal import RawDeserializer
from msrest.universal_http.async_abc import AsyncClientResponse

from interlock.approvals.channels.teams import inbound
from interlock.approvals.channels.teams.cards import CONTENT_TYPE
from interlock.approvals.channels.teams.connector import SCOPE, Connector, member_of
from interlock.approvals.channels.teams.inbound import Expected, refuse
from interlock.approvals.channels.teams.transport import Answering, Delivery, Member, TransportError
from interlock.clock import Clock
from interlock.identity.keyset import KeySet


class BotbuilderTransport:
    """Implements `transport.Transport`."""

    def __init__(self, *, connector: Connector, expected: Expected, keys: KeySet, clock: Clock) -> None:
        self._expected = expected
        self._keys = keys
        self._clock = clock
        self._client = _client(connector)
        self._adapter = _Adapter(_GateAuthentication())

    async def admit(self, authorization: str, body: bytes) -> Delivery:
        return await inbound.admit(authorization, body, self._expected, self._keys, self._clock.now())

    async def receive(self, authorization: str, body: bytes, answering: Answering) -> dict[str, Any] | None:
        delivery = await self.admit(authorization, body)
        try:
            activity = Activity().deserialize(json.loads(body))
        except (ClientException, TypeError, ValueError, AttributeError):
            raise refuse("botbuilder can't read the activity") from None
        activity.delivery_mode = None  # else the answer of an invoke is replaced by an empty list of replies
        outcome = AuthenticateRequestResult()
        outcome.claims_identity = ClaimsIdentity({"aud": self._expected.app_id, "serviceurl": delivery.service_url}, True)
        outcome.audience = SCOPE
        outcome.connector_factory = _Factory(self._client)
        turn = _Turn(delivery, answering)
        response = await self._adapter.process_activity(outcome, activity, turn.on_turn)
        return response.body if response is not None else None

    async def send(self, conversation: str, card: dict[str, Any], summary: str) -> str:
        with _told():
            sent = await self._client.conversations.send_to_conversation(conversation, _message(card, summary))
        return _ident(sent, "message it took")

    async def update(self, conversation: str, message: str, card: dict[str, Any], summary: str) -> None:
        with _told():
            await self._client.conversations.update_activity(conversation, message, _message(card, summary))

    async def member(self, conversation: str, user: str) -> Member:
        with _told():
            found = await self._client.conversations.get_conversation_member(conversation, user, raw=True)
        return member_of(found.response)  # the raw answer: its ChannelAccount drops tenant and role

    async def open_conversation(self, tenant: str, user: str) -> str:
        wanted = ConversationParameters(
            is_group=False, bot=ChannelAccount(id=f"28:{self._expected.app_id}"), members=[ChannelAccount(id=user)],
            tenant_id=tenant, channel_data={"tenant": {"id": tenant}},
        )  # fmt: skip
        with _told():
            opened = await self._client.conversations.create_conversation(wanted)
        return _ident(opened, "conversation it opened")


class _Turn(ActivityHandler):  # type: ignore[misc]  # botbuilder has no types
    """One delivery's turn. What the channel is asked is the delivery that the gate admitted, not what botbuilder read."""

    def __init__(self, delivery: Delivery, answering: Answering) -> None:
        super().__init__()
        self._delivery = delivery
        self._answering = answering

    async def on_turn(self, turn_context: TurnContext) -> None:
        if turn_context.activity.type == ActivityTypes.invoke:
            await super().on_turn(turn_context)
        else:
            await self._answering(self._delivery)

    async def on_invoke_activity(self, turn_context: TurnContext) -> InvokeResponse:
        return InvokeResponse(status=HTTPStatus.OK, body=await self._answering(self._delivery))


class _Adapter(CloudAdapterBase):  # type: ignore[misc]
    """Nothing of its own: the base is abstract in name only."""


class _GateAuthentication(BotFrameworkAuthentication):  # type: ignore[misc]
    """Says no to whatever botbuilder would authenticate itself: only the gate's outcome gets in, and only we call out."""

    async def authenticate_request(self, activity: Activity, auth_header: str) -> AuthenticateRequestResult:
        raise refuse("only the gate authenticates deliveries")

    async def authenticate_streaming_request(self, auth_header: str, channel_id_header: str) -> AuthenticateRequestResult:
        raise refuse("only the gate authenticates deliveries")

    async def authenticate_channel_request(self, auth_header: str) -> ClaimsIdentity:
        raise refuse("only the gate authenticates deliveries")

    def create_connector_factory(self, claims_identity: ClaimsIdentity) -> ConnectorFactory:
        raise refuse("the transport has the one connector there is")

    async def create_user_token_client(self, claims_identity: ClaimsIdentity) -> None:
        return None  # nobody signs in through the bot

    def create_bot_framework_client(self) -> None:
        raise refuse("this bot has no skills")

    def get_originating_audience(self) -> str:
        return SCOPE


class _Factory(ConnectorFactory):  # type: ignore[misc]
    """Gives the adapter the one client, whatever service URL it names."""

    def __init__(self, client: ConnectorClient) -> None:
        self._client = client

    async def create(self, service_url: str, audience: str) -> ConnectorClient:
        return self._client


class _Answer(AsyncClientResponse):
    """What msrest wants to see of a response; the body is what our connector read, once more as text."""

    def __init__(self, request: Any, value: dict[str, Any]) -> None:
        super().__init__(request, value)
        self.status_code = int(HTTPStatus.OK)
        self.reason = HTTPStatus.OK.phrase
        self.headers = {"content-type": "application/json"}

    def body(self) -> bytes:
        return json.dumps(self.internal_response).encode()


class _Carrier(AsyncHTTPSender):  # type: ignore[type-arg]
    """The end of msrest's pipeline: our connector makes the call, refusals come back as TransportError."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def send(self, request: Request, **config: Any) -> Response:  # type: ignore[type-arg]
        asked = request.http_request
        base = self._connector.base
        if not asked.url.startswith(base + "/"):
            raise TransportError("botbuilder asked for another service than the validated one")
        body = json.loads(asked.data) if asked.data else None
        return Response(request, _Answer(asked, await self._connector.call(asked.method, asked.url.removeprefix(base), body)))

    async def __aexit__(self, *_: object) -> None:
        return None


def _client(connector: Connector) -> ConnectorClient:
    def pipeline(_: BotFrameworkConnectorConfiguration) -> AsyncPipeline:  # type: ignore[type-arg]
        return AsyncPipeline([RawDeserializer()], _Carrier(connector))

    credentials = MicrosoftAppCredentials.empty()  # it wants some; our connector puts the token on
    settings = BotFrameworkConnectorConfiguration(credentials, connector.base, pipeline_type=pipeline)
    return ConnectorClient(credentials, connector.base, custom_configuration=settings)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what msrest raises into the one error of a transport."""
    try:
        yield
    except (ClientException, TypeError, ValueError, AttributeError) as error:
        raise TransportError(f"botbuilder can't read the Bot Connector's answer ({type(error).__name__})") from None


def _ident(answer: Any, what: str) -> str:
    ident = getattr(answer, "id", None)
    if not isinstance(ident, str) or not ident:
        raise TransportError(f"the Bot Connector gave no id for the {what}")
    return ident


def _message(card: dict[str, Any], summary: str) -> Activity:
    attachment = Attachment(content_type=CONTENT_TYPE, content=card)
    return Activity(type=ActivityTypes.message, summary=summary, attachments=[attachment])
