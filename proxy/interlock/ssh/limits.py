"""Bounds of the SSH front end, and the doorkeeper that counts connections. Pure.

Every buffer, queue and counter that a client can grow has its bound here (threats.md §4.1). Sizes are in bytes, times
in seconds.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, and all of them together, may use."""

    connections: int = 2000
    connections_per_source: int = 1000
    strangers: int = 1000  # connections that have not authenticated yet
    strangers_per_source: int = 250
    handshake: float = 15.0  # from accept to the end of the first key exchange
    login: float = 60.0  # from accept to the end of authentication
    confirmation: float = 600.0  # for a person who confirms a code at the identity provider
    login_failures: int = 20  # a stock client offers each key of its agent; sshd's own default is 6
    login_offers: int = 64  # keys shown or used: one that is known is no failure when it is shown only
    unsent: int = 8 * 1024 * 1024  # answers of ours that a client does not take, while all output is held back for it
    deferred: int = 1024  # the same in packets, in the middle of a key exchange
    channels: int = 64
    channel_requests: int = 64  # before something runs
    signals: int = 256  # and other requests while something runs
    asks: int = 64  # keepalives and other requests of the connection that are answered, at once
    asks_a_second: float = 4.0  # and after that; a stock client asks once a second at most
    refusals: int = 200  # refused requests a connection; each one is an event in the transcript
    packet: int = 1024  # the smallest packet that a channel may ask for: each one costs us the same
    env_count: int = 16
    command: int = 256 * 1024  # the gate's own bound on shown text is smaller; this one protects the parser's queue
    held_window: int = 64 * 1024  # what a client may send ahead of a decision
    stream_window: int = 2 * 1024 * 1024
    stdin: int = 256 * 1024
    stdin_idle: float = 10.0
    stdin_total: float = 120.0
    connect: float = 15.0  # to the target, with authentication
    answer: float = 10.0  # of the target to a channel that is opened, before anything is sent on it
    lines: int = 4000  # connections to targets, of all clients together
    idle_lines: int = 500  # of these, that wait for another command; the one that has waited longest goes first
    keepalive: float = 30.0
    keepalive_count: int = 4


BURST = 20
"""Failed logins that the journal takes at once."""


def plain_address(address: str) -> str:
    """Return an address as people write it: without a scope, and an IPv4 client of a dual-stack socket as IPv4."""
    unscoped = address.partition("%")[0]
    return unscoped.removeprefix("::ffff:") if "." in unscoped else unscoped


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 that one IPv6 host can draw addresses from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network(f"{address}/64", strict=False))


@dataclass(slots=True)
class Allowance:
    """So many at once, and so many a second after that."""

    burst: float
    a_second: float
    _left: float = field(init=False)
    _since_us: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._left = self.burst

    def take(self, now_us: int) -> bool:
        """Count one, or say that it is one too many."""
        self._left = min(self.burst, self._left + self.a_second * (now_us - self._since_us) / 1_000_000)
        self._since_us = now_us
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class Doorkeeper:
    """Counts connections by source address, before and after authentication."""

    limits: Limits
    _all: Counter[str] = field(default_factory=Counter)
    _strangers: Counter[str] = field(default_factory=Counter)
    _notes: Allowance = field(default_factory=lambda: Allowance(BURST, 1.0))
    _left_out: int = 0

    def may_note(self, now_us: int) -> int | None:
        """Say whether one more failed login may go into the journal, and how many were left out since the last one.

        Strangers must not be able to fill the disk: one a second on average, `BURST` at once.
        """
        if not self._notes.take(now_us):
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return left_out

    def room(self, source: str) -> bool:
        """Say whether one more connection from there would be let in."""
        return (
            self._all.total() < self.limits.connections
            and self._all[source] < self.limits.connections_per_source
            and self._strangers.total() < self.limits.strangers
            and self._strangers[source] < self.limits.strangers_per_source
        )

    def admit(self, source: str) -> bool:
        """Count a new connection in, or say that it is one too many."""
        if not self.room(source):
            return False
        self._all[source] += 1
        self._strangers[source] += 1
        return True

    def recognise(self, source: str) -> None:
        """An admitted connection has authenticated."""
        _less(self._strangers, source)

    def leave(self, source: str, *, stranger: bool) -> None:
        """An admitted connection has ended. `stranger`: it never authenticated."""
        _less(self._all, source)
        if stranger:
            _less(self._strangers, source)

    @property
    def inside(self) -> int:
        return self._all.total()


def _less(counter: Counter[str], source: str) -> None:
    counter[source] -= 1
    if counter[source] <= 0:
        del counter[source]  # sources that left take no memory
