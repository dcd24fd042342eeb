"""Opening the store: place, lock, schema, and what a failure looks like."""

from __future__ import annotations

import asyncio
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from interlock.errors import ConfigError, StoreError
from interlock.store.approvals import Ledger
from interlock.store.engine import open_store, upgrade
from interlock.store.schema import ledger, metadata


async def test_a_relative_url_lives_in_data_dir_and_is_ours_alone(tmp_path: Path) -> None:
    store = await open_store("sqlite:///interlock.db", tmp_path)
    await store.close()
    assert stat.S_IMODE((tmp_path / "interlock.db").stat().st_mode) == 0o600


async def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    store = await open_store("sqlite:///interlock.db", tmp_path)
    with pytest.raises(StoreError, match="another process has"):
        await open_store("sqlite:///interlock.db", tmp_path)
    await store.close()
    again = await open_store("sqlite:///interlock.db", tmp_path)
    await again.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:hunter2@h/d", "not a url"])
async def test_a_url_that_can_not_be_meant_is_refused_without_repeating_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_store(url, tmp_path)
    assert "hunter2" not in str(caught.value)


async def test_a_missing_directory_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be opened"):
        await open_store("sqlite:///interlock.db", tmp_path / "absent")


async def test_a_file_that_is_no_database_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "interlock.db").write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(StoreError):
        await open_store("sqlite:///interlock.db", tmp_path)


async def test_durability_is_on(tmp_path: Path) -> None:
    store = await open_store("sqlite:///interlock.db", tmp_path)

    def ask(connection: Connection) -> list[object]:
        return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert await store._database.run(ask) == ["wal", 2, 1]
    await store.close()


def test_migrations_build_exactly_the_schema() -> None:
    engine = create_engine("sqlite://")

    def difference(connection: Connection) -> object:
        upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)

    with engine.begin() as connection:
        assert difference(connection) == []
    engine.dispose()


def test_the_schema_is_valid_for_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))


async def test_opening_twice_keeps_what_was_written(tmp_path: Path) -> None:
    for _ in range(2):
        store = await open_store("sqlite:///interlock.db", tmp_path)
        assert (await store.principals.load_all()).principals == ()
        await store.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await open_store("sqlite:///interlock.db", tmp_path)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.principals.load_all()


async def test_a_caller_that_is_cancelled_leaves_the_transaction_whole(tmp_path: Path) -> None:
    store = await open_store("sqlite:///interlock.db", tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        connection.execute(update(ledger).values(generation=41))
        begun.set()
        assert go_on.wait(10)
        connection.execute(update(ledger).values(generation=ledger.c.generation + 1))

    task = asyncio.create_task(store.approvals._database.run(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert (await store.approvals.ledger()).generation == 42
    await store.close()


async def test_a_unit_that_fails_leaves_nothing_and_no_value_in_the_error(tmp_path: Path) -> None:
    store = await open_store("sqlite:///interlock.db", tmp_path)

    def work(connection: Connection) -> None:
        connection.execute(update(ledger).values(generation=41))
        connection.execute(text("INSERT INTO requests (id, state) VALUES (:id, :state)"), {"id": "hunter2", "state": "odd"})

    with pytest.raises(StoreError) as caught:
        await store.approvals._database.run(work)
    chain = f"{caught.value} {caught.value.__cause__}"
    assert "hunter2" not in chain
    assert (await store.approvals.ledger()).generation == 0
    await store.close()


def test_the_match_key_does_not_show() -> None:
    assert "hunter2" not in repr(Ledger(1, datetime(2026, 1, 1, tzinfo=UTC), b"hunter2"))
