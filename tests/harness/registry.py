"""The directory behind its routes, as the unix socket and the network show it, with nothing else of a daemon."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi import APIRouter, FastAPI

from harness import stores
from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.passphrase import Passphrases
from interlock.identity.stepup import DecisionSessions
from interlock.web import principals, problems
from interlock.web.access import Doorkeeper
from interlock.web.stepup import stepup_router

PHRASE = "correct horse battery"


@dataclass
class Registry:
    directory: Directory
    authenticator: Authenticator
    sessions: DecisionSessions
    journal: Journal
    clock: ManualClock

    def app(self, *, local: bool, more: Sequence[Callable[[Registry, Doorkeeper], APIRouter]] = ()) -> FastAPI:
        app = FastAPI()
        problems.install(app)
        door = Doorkeeper(self.authenticator, self.sessions, local=local)
        app.include_router(principals.router(self.directory, door.require_scope, door.require_given))
        app.include_router(stepup_router(self.authenticator, self.sessions))
        for router in more:
            app.include_router(router(self, door))
        return app


@contextlib.asynccontextmanager
async def open_registry(folder: Path) -> AsyncIterator[Registry]:
    clock, journal = ManualClock(), Journal()
    store = await stores.opened(folder)
    cheap = Passphrases(memory_kib=64, passes=1)
    directory = Directory(store.principals, clock=clock, entropy=seeded("d"), journal=journal, passphrases=cheap)
    await directory.load()
    authenticator = Authenticator(directory, clock=clock, journal=journal, passphrases=cheap)
    yield Registry(directory, authenticator, DecisionSessions(directory, clock=clock, entropy=seeded("s")), journal, clock)
    await authenticator.close()
    await store.close()


@dataclass
class Callers:
    """A client on the unix socket and one on the network."""

    registry: Registry
    local: httpx.AsyncClient
    remote: httpx.AsyncClient

    @property
    def directory(self) -> Directory:
        return self.registry.directory

    @property
    def journal(self) -> Journal:
        return self.registry.journal

    @property
    def clock(self) -> ManualClock:
        return self.registry.clock

    async def token(self, handle: str) -> dict[str, str]:
        issued = await self.directory.issue_token(handle)
        return {"Authorization": f"Bearer {issued.secret.reveal()}"}

    async def stepped_up(self, handle: str) -> dict[str, str]:
        answer = await self.remote.post("/v1/step-up", json={"handle": handle, "passphrase": PHRASE})
        return {"Authorization": f"Bearer {answer.json()['token']}"}


@contextlib.asynccontextmanager
async def open_callers(folder: Path, more: Sequence[Callable[[Registry, Doorkeeper], APIRouter]] = ()) -> AsyncIterator[Callers]:
    async with open_registry(folder) as registry:

        def client(*, local: bool) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(registry.app(local=local, more=more))
            return httpx.AsyncClient(transport=transport, base_url="http://interlock")

        async with client(local=True) as near, client(local=False) as far:
            yield Callers(registry, near, far)
