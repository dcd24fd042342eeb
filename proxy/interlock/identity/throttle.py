"""Backoff for whoever fails: a bounded table of failures with an injected clock.

Pure but for the clock. Where a guess could be right, a try counts as failed from the moment it `begin`s, so that a
thousand at once are not a thousand free ones. Knows keys (a handle, a source address); must not know what is tried.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from interlock.clock import Clock
from interlock.errors import AuthenticationError, Reason


def place(source: str) -> str:
    """Return what counts as one place: an IPv4 address, or the /64 out of which one IPv6 host draws as many as it likes."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return source
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))


@dataclass(slots=True)
class _Failures:
    count: int = 0
    blocked_until_us: int = 0
    said: bool = False


class ThrottledError(AuthenticationError):
    """Too many failures: not even looked at. `first` is True once a block, for the record."""

    reason = Reason.LIMIT_REACHED

    def __init__(self, seconds: int, *, first: bool) -> None:
        super().__init__(f"too many failed logins; try again in {seconds} s")
        self.first = first
        self.seconds = seconds


class Throttle:
    """`free` failures cost nothing; each later one doubles the wait, from one second to `longest`."""

    def __init__(self, clock: Clock, *, free: int, longest: float, size: int = 10_000) -> None:
        self._clock = clock
        self._free = free
        self._longest_us = int(longest * 1_000_000)
        self._size = size
        self._table: OrderedDict[str, _Failures] = OrderedDict()

    def check(self, key: str) -> None:
        """Raise ThrottledError while the key is blocked. Counts nothing."""
        now = self._clock.monotonic_us()
        failures = self._table.get(key)
        if failures is not None and now < failures.blocked_until_us:
            first, failures.said = not failures.said, True
            raise ThrottledError(-(-(failures.blocked_until_us - now) // 1_000_000), first=first)

    def failed(self, key: str) -> None:
        """Count a failure; beyond the free ones, block the key."""
        now = self._clock.monotonic_us()
        failures = self._table.setdefault(key, _Failures())
        self._table.move_to_end(key)
        if failures.count > self._free and now >= failures.blocked_until_us + self._longest_us:
            failures.count = self._free  # quiet for long: the wait starts small again
        failures.count += 1
        failures.said = False
        if failures.count > self._free:
            wait = min(self._longest_us, 1_000_000 << min(failures.count - self._free - 1, 32))
            failures.blocked_until_us = max(failures.blocked_until_us, now + wait)
        while len(self._table) > self._size:
            self._table.popitem(last=False)

    def begin(self, key: str) -> None:
        """Check, and count the try as failed until `succeeded` says otherwise."""
        self.check(key)
        self.failed(key)

    def forgiven(self, key: str) -> None:
        """Take one failure back: what was counted before its outcome was known was none. The others stay."""
        failures = self._table.get(key)
        if failures is None:
            return
        failures.count = max(0, failures.count - 1)
        if failures.count <= self._free:
            failures.blocked_until_us = 0

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        self._table.pop(key, None)
