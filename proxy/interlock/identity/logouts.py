"""Logouts that an identity provider told us of: which of its tokens are worth nothing any more.

A JWT says until when it is good, and can't be taken back; its issuer can only say that the login behind it is over. So what
it said is remembered for as long as any token from before may live, on disk too: a token that was put aside must not work again
after a restart. Sessions that such a token opened end at once, whoever subscribes sees to that. Must not know how a logout
token is checked (`idtoken`), or our own logins (`logins`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from interlock.clock import Clock
from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.evidence.events import EventDraft, Recorder
from interlock.identity.idtoken import LoggedOut
from interlock.identity.principal import Origin, Principal
from interlock.identity.subscribers import Subscribers
from interlock.store.logouts import LogoutRow, LogoutRows

log = structlog.get_logger()

SKEW = timedelta(seconds=2)
"""How far a provider's own machines may differ: the one that issued a token, and the one that says that its login is over."""

MAX_KEPT = 100_000
"""Logouts at once. More are refused, and the provider tries again: forgetting one would bring its tokens back."""

LONGEST = timedelta(hours=24)
"""How old a token may be where its issuer is not among those configured any more."""


@dataclass(frozen=True, slots=True)
class Logout:
    """One account at the provider, one session of its, or one session of an account."""

    provider: str
    account: str
    session: str
    issued: datetime

    def ends(self, origin: Origin) -> bool:
        """Whether the login behind this token is over. A token that does not say of which session it is may be of this one."""
        return (
            origin.issuer == self.provider
            and origin.issued <= self.issued + SKEW
            and (self.account in origin.accounts if self.account else origin.session == self.session)
            and (not self.session or not origin.session or origin.session == self.session)
        )

    def concerns(self, principal: Principal) -> bool:
        """Whether this principal's credential is such a token, or was made from one."""
        return any(self.ends(origin) for origin in principal.credential.origins)


class Logouts:
    """One a process. `load()` before use. `oldest`: for each issuer, the seconds that a token of its is good for at most."""

    def __init__(self, rows: LogoutRows, *, oldest: Mapping[str, float], clock: Clock, journal: Recorder) -> None:
        self._rows = rows
        self._oldest = {issuer: timedelta(seconds=seconds) for issuer, seconds in oldest.items()}
        self._clock = clock
        self._journal = journal
        self._told: dict[tuple[str, str, str], tuple[Logout, datetime]] = {}
        self._by_name: dict[tuple[str, str], list[Logout]] = {}  # by provider and account, or session where it has no account
        self._subscribers: Subscribers[Logout] = Subscribers("logouts")

    async def load(self) -> None:
        """Raise StoreError: then nothing may begin, for nobody knows who has logged out."""
        for row in await self._rows.load(self._clock.now()):
            self._keep(Logout(row.provider, row.account, row.session, row.issued), row.until)

    def subscribe(self, callback: Callable[[Logout], None]) -> None:
        """Call back, on the loop, as soon as a provider said it."""
        self._subscribers.add(callback)

    async def take(self, told: LoggedOut) -> Logout:
        """End what this logout names, in memory first. Raise InterlockError when it can't be kept: what is live has ended."""
        made, now = Logout(told.provider, told.account, told.session, told.issued), self._clock.now()
        until = made.issued + self._oldest.get(made.provider, LONGEST) + timedelta(seconds=120)  # skew on either side
        self._forget(now)
        full = len(self._told) >= MAX_KEPT
        if not full:
            self._keep(made, until)
        self._subscribers.tell(made)
        self._note(made)
        if full:
            raise InterlockError("too many logouts are remembered; try again later", reason=Reason.LIMIT_REACHED)
        standing, until = self._told[made.provider, made.account, made.session]
        await self._rows.put(LogoutRow(standing.provider, standing.account, standing.session, standing.issued, until), now)
        return made

    def over(self, principal: Principal) -> bool:
        """Whether a login behind this principal's credential is over."""
        for origin in principal.credential.origins:
            for name in (*origin.accounts, origin.session):
                if any(one.ends(origin) for one in self._by_name.get((origin.issuer, name), ())):
                    return True
        return False

    def check(self, principal: Principal) -> None:
        """Raise AuthenticationError for who logged out at the provider."""
        if principal.credential.origins and self.over(principal):
            raise AuthenticationError(reason=Reason.LOGIN_ENDED)

    def _keep(self, made: Logout, until: datetime) -> None:
        key = (made.provider, made.account, made.session)
        earlier = self._told.get(key)
        if earlier is not None and earlier[0].issued > made.issued:
            return  # it came late: what was said after it stands
        self._drop(key)
        self._told[key] = (made, until)
        self._by_name.setdefault((made.provider, made.account or made.session), []).append(made)

    def _forget(self, now: datetime) -> None:
        """The oldest first: a few at each new one keep the list small."""
        oldest = itertools.islice(self._told.items(), 16)
        for key in [key for key, (_, until) in oldest if until <= now]:
            self._drop(key)

    def _drop(self, key: tuple[str, str, str]) -> None:
        found = self._told.pop(key, None)
        if found is None:
            return
        name = (found[0].provider, found[0].account or found[0].session)
        left = [one for one in self._by_name[name] if one is not found[0]]
        if left:
            self._by_name[name] = left
        else:
            del self._by_name[name]

    def _note(self, made: Logout) -> None:
        fields = {"outcome": "ended", "method": "logout-at-provider", "provider": made.provider}
        try:
            self._journal.append(EventDraft("login", {**fields}, {"account": made.account, "session": made.session}))
        except InterlockError as error:
            log.error("logouts.not_recorded", reason=str(error.code))  # what ends ends, recorded or not
