"""Whoever looks on at results sees them and changes nothing: not what passes, not what is refused, not what is on record."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251  seeded
from typing import Any, cast

import pytest

from fuzz.postgres_streams import Rig, client_stream, opened_session
from harness.wire_client import WireClient, message
from harness.wire_model import ServerModel
from interlock.postgres.onlooker import Onlooker

DENIED = WireClient.query("SELECT 'denied'")


class Witness:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None, object]] = []

    def described(self, ref: int | None, columns: bytes) -> None:
        self.seen.append(("columns", ref, columns))

    def completed(self, ref: int | None, tag: str, rows: int | None) -> None:
        self.seen.append((tag, ref, rows))


class Saboteur(Witness):
    """Does what it can against what it is told of: raises, and returns what nobody asked for."""

    def described(self, ref: int | None, columns: bytes) -> Any:
        return b""

    def completed(self, ref: int | None, tag: str, rows: int | None) -> Any:
        raise RuntimeError("block this")


async def converse(onlooker: Onlooker | None, stream: bytes) -> tuple[bytes, bytes, list[Any]]:
    """Return what the client got, what the server got, and the record."""
    opened = await opened_session()
    rig, model = Rig(opened, random.Random(7), onlooker), ServerModel()
    rig.session.from_client(stream)
    answered = sent = b""
    while True:
        await rig.rest()
        data = rig.server.take()
        if not data:
            break
        sent += data
        if answers := model.feed(data):
            rig.session.from_server(answers)
        answered += rig.client.take()
    recorder = cast("Any", opened.recorder)
    record = [(draft.type, dict(draft.fields)) for draft in recorder.events]
    rig.session.end("test")
    await rig.session.settle("test")
    return answered, sent, record


@pytest.mark.parametrize("onlooker", [Witness, Saboteur])
def test_an_onlooker_changes_nothing(onlooker: type[Witness]) -> None:
    for seed in range(60):
        stream = client_stream(random.Random(seed)) + DENIED
        without = asyncio.run(converse(None, stream))
        assert asyncio.run(converse(onlooker(), stream)) == without
        assert b"denied'" not in without[1]


def test_an_onlooker_is_told_columns_and_counts_by_decision() -> None:
    witness = Witness()
    asked = WireClient.query("SELECT 1") + DENIED + WireClient.extended("SELECT 2") + WireClient.SYNC
    answered, _, record = asyncio.run(converse(witness, asked))
    decisions = [seq for seq, (kind, fields) in enumerate(record) if kind == "decision" and fields["verdict"] == "allow"]
    assert [(what, rows) for what, _, rows in witness.seen] == [("columns", b"\0\0"), ("SELECT 1", 1), ("SELECT 1", 1)]
    assert [ref for _, ref, _ in witness.seen] == [decisions[0], decisions[0], decisions[-1]]
    assert answered.count(message(b"C", b"SELECT 1\0")) == 2


def test_an_onlooker_that_raised_is_told_no_more() -> None:
    class Once(Saboteur):
        def completed(self, ref: int | None, tag: str, rows: int | None) -> Any:
            self.seen.append((tag, ref, rows))
            raise RuntimeError

    once = Once()
    asyncio.run(converse(once, WireClient.query("SELECT 1") * 3))
    assert len(once.seen) == 1
