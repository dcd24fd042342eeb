"""Rows of logins that come at once: they share transactions, and nobody pays for somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock.errors import StoreError
from interlock.store.database import Database
from interlock.store.engine import Store, open_store
from interlock.store.logins import DerivedRow, LoginRow
from interlock.store.principals import PrincipalRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def login(number: int) -> LoginRow:
    return LoginRow(
        f"log_{number}", "local", "dora", number.to_bytes(32, "big"), "https://idp.example", "00u1", "s1", "[]", "{}", NOW,
        NOW + timedelta(hours=8),
    )  # fmt: skip


def certificate(number: int) -> DerivedRow:
    return DerivedRow(f"{number:016x}", "local", "dora", "certificate", f"log_{number}", "SHA256:x", "[]", NOW)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store("sqlite:///interlock.db", tmp_path)
    await opened.principals.change(put=[PrincipalRow("local", "dora", "dora", "human", NOW, NOW)])
    yield opened
    await opened.close()


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []
    run = Database.run

    async def counted(self: Database, work: Any) -> Any:
        seen.append(work)
        return await run(self, work)

    monkeypatch.setattr(Database, "run", counted)
    return seen


async def kept(store: Store) -> set[str]:
    rows, made = await store.logins.load(NOW - timedelta(days=1))
    return {row.id for row in rows} | {row.id for row in made}


async def test_who_comes_at_once_shares_a_transaction(store: Store, transactions: list[object]) -> None:
    await asyncio.gather(*(store.logins.add(login(n), certificate(n)) for n in range(150)))
    assert len(transactions) == 2  # a hundred, and fifty
    assert len(await kept(store)) == 300


async def test_a_row_that_can_not_be_written_fails_alone_and_whole(store: Store) -> None:
    await store.logins.add(login(3))
    done = await asyncio.gather(
        *(store.logins.add(certificate(n), login(n)) for n in range(6)), return_exceptions=True
    )  # number 3 is there already
    assert [isinstance(one, StoreError) for one in done] == [False, False, False, True, False, False]
    assert await kept(store) == {f"log_{n}" for n in range(6)} | {f"{n:016x}" for n in range(6) if n != 3}


async def test_of_a_store_that_is_closed_everybody_is_told(store: Store) -> None:
    await store.close()
    done = await asyncio.gather(*(store.logins.add(login(n)) for n in range(3)), return_exceptions=True)
    assert all(isinstance(one, StoreError) for one in done)


async def test_who_leaves_tears_nobodys_rows(store: Store) -> None:
    leaving = asyncio.ensure_future(store.logins.add(login(1), certificate(1)))
    staying = asyncio.ensure_future(store.logins.add(login(2), certificate(2)))
    failing = asyncio.ensure_future(store.logins.add(replace(login(3), hash=login(2).hash)))
    await asyncio.sleep(0)
    leaving.cancel()
    failing.cancel()  # nobody reads its error: that is no defect
    await staying
    await store.logins.add(login(4))
    assert await kept(store) == {"log_1", "log_2", "log_4", f"{1:016x}", f"{2:016x}"}
