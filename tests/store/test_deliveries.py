"""Deliveries are taken once: also when they come at the same moment, and after a restart."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select

from harness.requests import START
from interlock.store.deliveries import KEPT, DeliveryRows
from interlock.store.engine import Store, open_store
from interlock.store.schema import deliveries


async def count(store: Store) -> int:
    return await store._database.run(
        lambda connection: connection.execute(select(func.count()).select_from(deliveries)).scalar_one()
    )


async def test_a_delivery_is_taken_once_and_stays_taken_after_a_restart(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = await open_store("sqlite:///a.db", tmp_path)
    took = await asyncio.gather(*(store.deliveries.take("slack", "envelope 1", now=START) for _ in range(20)))
    assert sorted(took) == [False] * 19 + [True]
    assert await store.deliveries.take("teams", "envelope 1", now=START)  # another channel's names are its own
    await store.close()

    again = await open_store("sqlite:///a.db", tmp_path)
    assert not await again.deliveries.take("slack", "envelope 1", now=START + timedelta(minutes=5))
    await again.close()


async def test_one_ident_that_is_known_is_enough(tmp_path: Path) -> None:
    store = await open_store("sqlite:///a.db", tmp_path)
    rows: DeliveryRows = store.deliveries
    assert await rows.take("slack", "envelope 1", "trigger 1", now=START)
    assert not await rows.take("slack", "envelope 2", "trigger 1", now=START)
    assert not await rows.take("slack", "envelope 2", "trigger 2", now=START)  # what was refused is known too
    await store.close()


async def test_old_ones_are_forgotten_and_nothing_readable_is_kept(tmp_path: Path) -> None:
    store = await open_store("sqlite:///a.db", tmp_path)
    for number in range(5):
        await store.deliveries.take("slack", f"signature v0={number}" + "x" * 5_000, now=START)
    await store.deliveries.take("slack", "new", now=START + KEPT + timedelta(seconds=1))
    assert await count(store) == 1
    await store.close()
