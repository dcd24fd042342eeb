"""The default transport: our strict gate in, our own client of the Bot Connector protocol out."""

from __future__ import annotations

from typing import Any

from interlock.approvals.channels.teams import inbound
from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.inbound import Expected
from interlock.approvals.channels.teams.transport import Answering, Delivery, Member
from interlock.clock import Clock
from interlock.identity.keyset import KeySet


class NativeTransport:
    """Implements `transport.Transport`."""

    def __init__(self, *, connector: Connector, expected: Expected, keys: KeySet, clock: Clock) -> None:
        self._connector = connector
        self._expected = expected
        self._keys = keys
        self._clock = clock

    async def admit(self, authorization: str, body: bytes) -> Delivery:
        return await inbound.admit(authorization, body, self._expected, self._keys, self._clock.now())

    async def receive(self, authorization: str, body: bytes, answering: Answering) -> dict[str, Any] | None:
        return await answering(await self.admit(authorization, body))

    async def send(self, conversation: str, card: dict[str, Any], summary: str) -> str:
        return await self._connector.send(conversation, card, summary)

    async def update(self, conversation: str, message: str, card: dict[str, Any], summary: str) -> None:
        await self._connector.update(conversation, message, card, summary)

    async def member(self, conversation: str, user: str) -> Member:
        return await self._connector.member(conversation, user)

    async def open_conversation(self, tenant: str, user: str) -> str:
        return await self._connector.open_conversation(tenant, user)
