"""Lines: the connections to targets, which may outlive the client's connection that first needed one.

An unforced line is shared by the allowed commands of one principal (identity, delegation chain and the very credential)
to one account of one target. Nothing else ever shares one, and a line whose certificate forces a command is not here:
it belongs to that command alone (upstream.py).

A line takes new commands until it is full, old, idle for too long, no longer verified, or retired because its principal
lost authority, was killed, or its target's configuration was read anew; what runs on it then may end, and it closes
with the last. All lines of all kinds are counted, and their number is bounded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from interlock.clock import Clock, Entropy, ulid
from interlock.config import TargetConfig
from interlock.errors import Reason, TargetError
from interlock.evidence.events import Json
from interlock.identity.principal import Credential, Identity, Principal
from interlock.ssh.dialling import Dialled, FarConnection, Stamp
from interlock.ssh.limits import Limits


@dataclass(frozen=True, slots=True)
class Way:
    """Whose commands may share a line, and to where. Every field must be equal."""

    identity: Identity
    acting_for: tuple[Identity, ...]
    credential: Credential
    target: str
    address: str
    account: str

    @classmethod
    def of(cls, principal: Principal, target: TargetConfig, account: str) -> Way:
        return cls(principal.identity, principal.acting_for, principal.credential, target.name, target.address, account)


@dataclass(slots=True, eq=False)
class Line:
    """One connection to a target and how many commands are on it."""

    id: str
    way: Way | None
    """Whose it is; None: it belongs to one pinned command."""
    connection: FarConnection
    facts: dict[str, Json]
    trust: Stamp
    room: int
    until_us: int | None
    """No command begins on it later than that."""
    idle: float = 0.0
    busy: int = 0
    carried: int = 0
    retired: bool = False
    timer: asyncio.TimerHandle | None = None

    def takes(self, now_us: int) -> bool:
        fresh = self.until_us is None or now_us < self.until_us
        return fresh and not self.retired and self.busy < self.room and not self.connection.is_closed()

    @property
    def about(self) -> dict[str, Json]:
        """What the transcript says of the connection that carries a command: `port` is how the target's log names it."""
        return {**self.facts, "line": self.id, "reused": self.carried > 0}


@dataclass(slots=True, eq=False)
class _Bundle:
    """The lines of one way."""

    authority: set[Identity] = field(default_factory=set)
    """Everybody whose losing authority ends these lines."""
    lines: list[Line] = field(default_factory=list)
    dialling: asyncio.Task[None] | None = None
    given_up: bool = False


class Lines:
    """All connections to targets of one process."""

    def __init__(self, limits: Limits, *, clock: Clock, entropy: Entropy) -> None:
        self._limits = limits
        self._clock = clock
        self._entropy = entropy
        self._bundles: dict[Way, _Bundle] = {}
        self._idle: OrderedDict[Line, None] = OrderedDict()
        self._open: set[Line] = set()
        self._rooms: dict[str, int] = {}  # sessions that fit on one line of a target, where it refused one more
        self._dialling = 0
        self._closed = False

    @property
    def count(self) -> int:
        """How many connections to targets there are, those that are being made included."""
        return len(self._open) + self._dialling

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def take(
        self, way: Way, principal: Principal, target: TargetConfig,
        dial: Callable[[], Coroutine[Any, Any, Dialled]], trusts: Callable[[Stamp], bool],
    ) -> Line:  # fmt: skip
        """Return a line with room for one more command, counted in. Raise TargetError; nothing was sent then."""
        # Each round but the last one waits for a connection that others of the same principal then filled: it ends.
        while True:
            bundle = self._bundles.setdefault(way, _Bundle())
            bundle.authority |= principal.excluded()
            line = self._free(bundle, trusts)
            if line is not None:
                self._use(line)
                return line
            if bundle.dialling is None:
                work = self._fill(bundle, way, target, dial)
                bundle.dialling = asyncio.get_running_loop().create_task(work)
                bundle.dialling.add_done_callback(_heard)
            await _made(bundle.dialling)

    async def own(self, dial: Callable[[], Coroutine[Any, Any, Dialled]]) -> Line:
        """Return a line of its own for one pinned command, never shared. Raise TargetError; nothing was sent then."""
        return self._use(await self._dial(dial, None, room=1, idle=0.0, age=None))

    def leave(self, line: Line) -> None:
        """One command on this line has ended."""
        line.busy -= 1
        if line.busy or line not in self._open:
            return
        if line.way is None or line.idle <= 0 or not line.takes(self._clock.monotonic_us()):
            self._end(line)
            return
        self._idle[line] = None
        line.timer = asyncio.get_running_loop().call_later(line.idle, self._end, line)
        if len(self._idle) > self._limits.idle_lines:
            self._end(next(iter(self._idle)))

    def full(self, line: Line) -> None:
        """The target refused another session on this line: its MaxSessions is smaller than we thought."""
        line.room = line.busy - 1
        if line.way is not None:
            self._rooms[line.way.target] = max(1, min(line.room, self._rooms.get(line.way.target, line.room)))

    def dead(self, line: Line) -> None:
        """The target did not answer on this line: no command begins on it any more."""
        line.retired = True

    def retire(self, way: Way) -> None:
        """No command begins on a line of this way that exists now. Idle lines close at once."""
        bundle = self._bundles.pop(way, None)
        if bundle is not None:
            self._give_up(bundle)

    def retire_all(self) -> None:
        """The same for every way: what the lines rest on was read anew."""
        self._rooms.clear()
        for way in list(self._bundles):
            self.retire(way)

    def revoke(self, identities: frozenset[Identity], credentials: frozenset[str]) -> None:
        """Retire the lines of these identities, of whoever acts for or is owned by them, and of these credentials."""
        for way, bundle in list(self._bundles.items()):
            if identities & bundle.authority or way.credential.ident in credentials:
                self.retire(way)

    async def close(self) -> None:
        """Close everything. What still runs loses its connection."""
        self._closed = True
        work = [bundle.dialling for bundle in self._bundles.values() if bundle.dialling is not None]
        self.retire_all()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        closing = [line.connection for line in self._open]
        for line in list(self._open):
            self._end(line)
        for connection in closing:
            await connection.wait_closed()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _free(self, bundle: _Bundle, trusts: Callable[[Stamp], bool]) -> Line | None:
        now = self._clock.monotonic_us()
        for line in list(bundle.lines):
            if not trusts(line.trust):
                line.retired = True  # the host key may be revoked now: verify anew, on a new connection
            if line.takes(now):
                return line
            if not line.busy:
                self._end(line)
        return None

    def _use(self, line: Line) -> Line:
        line.busy += 1
        self._idle.pop(line, None)
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        return line

    async def _fill(
        self, bundle: _Bundle, way: Way, target: TargetConfig, dial: Callable[[], Coroutine[Any, Any, Dialled]]
    ) -> None:
        """Make one line for a bundle."""
        reuse = target.reuse
        try:
            line = await self._dial(dial, way, room=reuse.sessions, idle=reuse.idle, age=reuse.age)
        finally:
            bundle.dialling = None
            if not bundle.lines and self._bundles.get(way) is bundle:
                del self._bundles[way]
        if bundle.given_up:
            self._end(line)
            raise TargetError("the right to this target changed while it was connected to; run it again")
        if line.connection.is_closed():
            raise TargetError(f"the target {target.name} closed the connection at once; nothing was sent")
        line.room = min(line.room, self._rooms.get(way.target, line.room))
        self._bundles[way] = bundle
        bundle.lines.append(line)
        # Nobody has it yet, and whoever waits may have gone: it is idle until somebody takes it.
        self._idle[line] = None
        line.timer = asyncio.get_running_loop().call_later(max(line.idle, 1.0), self._end, line)

    async def _dial(
        self, dial: Callable[[], Coroutine[Any, Any, Dialled]], way: Way | None, *, room: int, idle: float, age: float | None
    ) -> Line:
        if self._closed:
            raise TargetError("the proxy is shutting down", reason=Reason.SHUTTING_DOWN)
        if self.count >= self._limits.lines and self._idle:
            self._end(next(iter(self._idle)))
        if self.count >= self._limits.lines:
            raise TargetError("the proxy holds as many connections to targets as it may; run it again later",
                              reason=Reason.LIMIT_REACHED)  # fmt: skip
        self._dialling += 1
        try:
            dialled = await dial()
        finally:
            self._dialling -= 1
        ages = [seconds for seconds in (age, dialled.lasts) if seconds is not None]
        until = self._clock.monotonic_us() + int(min(ages) * 1_000_000) if ages else None
        facts = {**dialled.about, "port": dialled.connection.get_extra_info("sockname")[1]}
        line = Line(ulid(self._clock, self._entropy), way, dialled.connection, facts, dialled.trust, room, until, idle)
        self._open.add(line)
        line.connection.on_lost = lambda: self._forget(line)
        if line.connection.is_closed():
            self._forget(line)
        return line

    def _give_up(self, bundle: _Bundle) -> None:
        bundle.given_up = True
        for line in list(bundle.lines):
            line.retired = True
            if not line.busy:
                self._end(line)

    def _end(self, line: Line) -> None:
        self._forget(line)
        line.connection.close()

    def _forget(self, line: Line) -> None:
        line.retired = True
        self._open.discard(line)
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        self._idle.pop(line, None)
        bundle = self._bundles.get(line.way) if line.way is not None else None
        if line.way is not None and bundle is not None and line in bundle.lines:
            bundle.lines.remove(line)
            if not bundle.lines and bundle.dialling is None:
                del self._bundles[line.way]


async def _made(task: asyncio.Task[None]) -> None:
    """Await a connection that several wait for. Whoever gives up does not take it from the others. Raise TargetError."""
    try:
        await asyncio.shield(task)
    except TargetError as error:
        raise TargetError(str(error), reason=error.code) from None  # each gets an error of its own
    except asyncio.CancelledError:
        me = asyncio.current_task()
        if task.cancelled() and me is not None and not me.cancelling():
            raise TargetError("the proxy is shutting down", reason=Reason.SHUTTING_DOWN) from None
        raise


def _heard(task: asyncio.Task[None]) -> None:
    """Whoever waited may have gone: then nobody is left to be told that it failed."""
    if not task.cancelled():
        task.exception()
