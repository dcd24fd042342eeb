"""Who logs in for the first time: the entry that they get, when the configuration lets people register themselves.

Knows the directory. Must not know logins, or tokens. An entry of this kind has no group and no authority but to exist; what the
provider calls the person becomes their handle and nothing more.
"""

from __future__ import annotations

import asyncio

from interlock.errors import AuthenticationError, ConfigError, InterlockError, Reason
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.idtoken import LoggedIn
from interlock.identity.principal import Kind
from interlock.identity.registration import likely_handle, numbered

MAX_NAMESAKES = 1000


class Newcomers:
    """`register`: somebody who is linked to no entry gets one; else an administrator links them first."""

    def __init__(self, directory: Directory, *, register: bool) -> None:
        self._directory = directory
        self._register = register
        self._lock = asyncio.Lock()

    async def registered(self, who: LoggedIn) -> Entry:
        """Return the entry of somebody who had none. Raise AuthenticationError when nobody registers themselves here."""
        if not self._register:
            raise AuthenticationError(
                "nobody is registered for this account; an administrator links it: `interlock principals link HANDLE --issuer … "
                "--subject …`", reason=Reason.UNKNOWN_PRINCIPAL,
            )  # fmt: skip
        async with self._lock:  # of two first logins of one person, one registers
            if (entry := self._directory.get(who.identity)) is not None:
                return entry
            handle = self._free_handle(who)
            await self._directory.add(handle, Kind.HUMAN, by=who.identity)
            try:
                return await self._directory.link(handle, who.identity, by=who.identity)
            except InterlockError:
                await self._directory.remove(handle, by=who.identity)
                raise

    def _free_handle(self, who: LoggedIn) -> str:
        """Return a handle made of what the provider calls the person. It carries no authority, so a number tells two apart."""
        wanted = next(filter(None, map(likely_handle, who.names)), "person")
        for handle in numbered(wanted, MAX_NAMESAKES):
            if self._directory.by_handle(handle) is None:
                return handle
        raise ConfigError("a thousand people have this name; an administrator registers this one and links the account")
