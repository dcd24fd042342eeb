"""What the Teams channel needs of a transport, and nothing more: one way in, five ways out.

The channel is written against this alone; `native` (our own client of the Bot Connector protocol) is one implementation
and the contract tests run against each. A transport authenticates and carries. It must not know requests, people or votes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from interlock.errors import InterlockError, Reason


class TransportError(InterlockError):
    """Teams did not do what was asked. The request stays as it is; other channels still work.

    `status` is the HTTP status of the refusal, 0 when nothing answered. `retry_after` is in seconds, None when the
    service did not say. `token` is whether the token service said it: then it is about us, and about no conversation.
    """

    reason = Reason.TARGET_UNREACHABLE

    def __init__(self, message: str = "", *, status: int = 0, retry_after: float | None = None, token: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.token = token

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed later: nothing answered, too many calls, or a failure on their side."""
        return self.status in (0, 408, 412, 429) or self.status >= 500

    @property
    def gone(self) -> bool:
        """Whether what was written to is not there any more, or is closed to us."""
        return self.status in (403, 404, 410) and not self.token


@dataclass(frozen=True, slots=True)
class Delivery:
    """An authenticated activity, reduced to what is used. Names are not in it: they carry no authority."""

    kind: str  # invoke | message | conversationUpdate | installationUpdate | …
    name: str  # of an invoke
    activity: str
    conversation: str
    reply_to: str
    tenant: str
    actor_oid: str
    actor_id: str
    service_url: str
    value: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""  # personal | groupChat | channel
    change: str = ""  # of an installationUpdate: add | add-upgrade | remove | remove-upgrade
    added: tuple[str, ...] = ()  # of a conversationUpdate: the ids of members that came
    removed: tuple[str, ...] = ()  # and of those that left
    recipient: str = ""  # our own id


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a conversation, as the service itself knows it: asked for, never taken from an activity."""

    id: str  # 29:…
    oid: str
    tenant: str
    role: str  # user | guest | …


Answering = Callable[[Delivery], Awaitable[dict[str, Any] | None]]
"""What the channel does with an admitted delivery: the body of the invoke response, or None for plain activities."""


class Transport(Protocol):
    """One bot's way to Teams. Every call out goes to the one validated service URL and raises TransportError."""

    async def admit(self, authorization: str, body: bytes) -> Delivery:
        """Authenticate one raw HTTP delivery: its Authorization header and its body. Raise AuthenticationError."""
        ...

    async def receive(self, authorization: str, body: bytes, answering: Answering) -> dict[str, Any] | None:
        """Admit one raw HTTP delivery, have it answered, and return the answer. Nothing is asked before it is admitted."""
        ...

    async def send(self, conversation: str, card: dict[str, Any], summary: str) -> str:
        """Post a card; return the id of the message."""
        ...

    async def update(self, conversation: str, message: str, card: dict[str, Any], summary: str) -> None:
        """Replace a card that was posted."""
        ...

    async def member(self, conversation: str, user: str) -> Member:
        """Ask who a member of a conversation is, by Teams id (29:…) or Entra object id."""
        ...

    async def open_conversation(self, tenant: str, user: str) -> str:
        """Open the one-to-one conversation with a Teams id, or find the one there is; return its id."""
        ...
