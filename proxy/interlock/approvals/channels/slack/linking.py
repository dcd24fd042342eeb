"""One-time links by which a person says: this Slack account is mine.

A code is good once, for ten minutes, for one workspace and user id. It links nothing by itself: it only says which account
is asked about, on a page where whoever is logged in confirms it after a fresh step-up. So a code that leaks, or that
somebody is talked into opening, still shows whose account it is for before anything happens. Codes are kept hashed, in
memory: a restart forgets them. Must not know the directory, pages, or how a code is delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from interlock.approvals.channels.slack.inbound import Actor
from interlock.clock import Clock, Entropy

VALID_S = 600
MAX_CODES = 10_000


@dataclass(frozen=True, slots=True)
class Claim:
    """An account that asks to be linked. `name` is what Slack calls it: for people to look at, proof of nothing."""

    actor: Actor
    name: str
    until_us: int


class LinkCodes:
    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._claims: dict[bytes, Claim] = {}

    def issue(self, actor: Actor, name: str) -> str:
        """Return a code for an account. An earlier one of the same account is not good any more."""
        now = self._clock.monotonic_us()
        stale = [key for key, claim in self._claims.items() if claim.until_us <= now or claim.actor == actor]
        for key in stale:
            del self._claims[key]
        while len(self._claims) >= MAX_CODES:
            del self._claims[next(iter(self._claims))]
        code = self._entropy(32).hex()
        self._claims[_key(code)] = Claim(actor, name, now + VALID_S * 1_000_000)
        return code

    def look(self, code: str) -> Claim | None:
        """Return what a code is for. Looking uses nothing up."""
        claim = self._claims.get(_key(code))
        return claim if claim is not None and claim.until_us > self._clock.monotonic_us() else None

    def use(self, code: str) -> Claim | None:
        """Use a code up, once."""
        claim = self.look(code)
        self._claims.pop(_key(code), None)
        return claim


def _key(code: str) -> bytes:
    return sha256(code.encode("utf-8", "replace")).digest()
