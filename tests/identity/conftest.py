"""What the identity tests stand on: the real store in a scratch directory, and a journal kept in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness import stores
from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.passphrase import Passphrases
from interlock.identity.stepup import DecisionSessions
from interlock.store.engine import Store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await stores.opened(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def passphrases() -> Passphrases:
    return Passphrases(memory_kib=64, passes=1)


@pytest.fixture
async def directory(store: Store, clock: ManualClock, journal: Journal, passphrases: Passphrases) -> Directory:
    opened = Directory(
        store.principals, clock=clock, entropy=seeded("d"), journal=journal, salt_secret=b"secret", passphrases=passphrases
    )
    await opened.load()
    return opened


@pytest.fixture
async def authenticator(
    directory: Directory, clock: ManualClock, journal: Journal, passphrases: Passphrases
) -> AsyncIterator[Authenticator]:
    opened = Authenticator(directory, clock=clock, journal=journal, passphrases=passphrases)
    yield opened
    await opened.close()


@pytest.fixture
def decisions(directory: Directory, clock: ManualClock) -> DecisionSessions:
    return DecisionSessions(directory, clock=clock, entropy=seeded("s"))
