"""The client of a Postgres session as the gate sees it while a command waits.

Knows: the gate's Caller, notices of PostgreSQL. Must not know: sockets (the session sends), the desk.
"""

from __future__ import annotations

import math
from typing import Protocol

from interlock.approvals.wording import Moment, Notice, Refusal, duration
from interlock.commands.model import Analysis, Command, HeldInput
from interlock.errors import SENTENCES, InputError, Reason
from interlock.postgres.wire import answers


class Waiting(Protocol):
    """What the session does for its waiting client."""

    @property
    def transaction_open(self) -> bool: ...

    @property
    def idle_limit(self) -> float | None:
        """Seconds after which the server ends a session whose transaction is idle, None where it does not."""
        ...

    async def drained(self, *, begins_anew: bool) -> bool:
        """Flush, wait for every earlier answer, and say whether a command can still run, or whether it `begins_anew`."""
        ...

    async def estimate(self, command: Command, analysis: Analysis) -> str | None:
        """Return the planner's estimate of the rows a command would change, as a sentence, or None. Never raises."""
        ...

    def say(self, data: bytes) -> None:
        """Send a message of ours to the client, between two of the server's."""
        ...


class HeldClient:
    """Implements `ports.Caller`. `request` is the last request the client was told of, `said` the agent's own reason.

    `begins_anew`: the command that waits ends the transaction before it does anything else, so it runs in a failed one too.
    """

    def __init__(self, session: Waiting, max_hold: float, said: str = "") -> None:
        self._session = session
        self._max_hold = max_hold
        self.request: str | None = None
        self.said = said
        self.begins_anew = False

    @property
    def max_hold(self) -> float | None:
        """An open transaction keeps its locks while it waits, so that wait has its own bound.

        Half of what the server allows leaves the client the other half to go on in.
        """
        if not self._session.transaction_open:
            return None
        limit = self._session.idle_limit
        return self._max_hold if limit is None else min(self._max_hold, limit / 2)

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        """Say what a reviewer can't see in the text: locks that others wait for, and how many rows it is about."""
        found = ["A transaction is open: it keeps its locks while you think."] if self._session.transaction_open else []
        estimate = await self._session.estimate(command, analysis)
        return (*found, estimate) if estimate is not None else tuple(found)

    async def read_input(self) -> HeldInput:
        raise InputError("a Postgres command has no standard input")

    async def ready_to_wait(self) -> Refusal | None:
        if await self._session.drained(begins_anew=self.begins_anew):
            return None
        return Refusal(Reason.TRANSACTION_FAILED, SENTENCES[Reason.TRANSACTION_FAILED])

    def notify(self, notice: Notice) -> None:
        self.request = notice.request
        text = notice.text
        if notice.moment is Moment.HELD and (bound := self.max_hold) is not None:
            text += f"; the open transaction keeps its locks, so this waits {duration(math.ceil(bound))} at most"
        self._session.say(answers.notice(answers.ErrorFields("NOTICE", "01000", f"interlock: {text}")))
