"""The short way of a session against the long one: the same bytes out, the same record, the same names; and it ends when
anything that its answer rested on has changed.

No sockets: the transports keep what is written, the server is a script. A read that is delivered in two parts is never
known as a stretch, so the same conversation in halves goes the long way from end to end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from harness.gate import SqlClassifier, VerbPolicy
from harness.journal import MemoryRecorder
from harness.people import agent
from interlock.clock import SystemClock
from interlock.commands.sql.catalog import Catalog
from interlock.errors import Reason
from interlock.evidence.events import EventDraft
from interlock.gate import Gate, Session
from interlock.policy.model import Decision, Facts, SessionFacts, Target
from interlock.postgres.catalog import CatalogSource
from interlock.postgres.session import PostgresSession
from interlock.postgres.wire import requests
from interlock.postgres.wire.requests import SYNC, Bind, Parse, message

PINNED = (("search_path", '"public", "pg_temp"'), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on"))
DESCRIBE, EXECUTE = requests.encode_describe_portal(""), requests.encode_execute("")
READ, WROTE = message(b"C", b"SELECT 1\0"), message(b"C", b"INSERT 0 1\0")
COLUMNS, ROW = message(b"T", b"\0\1a\0" + bytes(18)), message(b"D", b"\0\1\0\0\0\1x")
FAILED = message(b"E", b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0")


def ready(status: str) -> bytes:
    return message(b"Z", status.encode())


class Line:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def set_write_buffer_limits(self, **_: int) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Snapshot:
    """A catalog that was read once: tests/data/sql/schema.sql."""

    current = Catalog.from_rows(json.loads((Path(__file__).parents[1] / "data/sql/catalog_rows.json").read_text()))
    loading = False

    def read_again(self) -> bool:
        return False

    def refresh(self, *, certain: bool) -> None: ...


@dataclass
class Policies:
    current: Any


class ByTheHour(VerbPolicy):
    """The same answers, but for now only."""

    def decide(self, facts: Facts) -> Decision:
        decision = super().decide(facts)
        return Decision(decision.verdict, decision.rule, decision.reason, decision.policy)


@dataclass
class Room:
    """A session between two lines. `split` delivers every read in two parts."""

    split: bool = False
    policy: VerbPolicy = field(default_factory=lambda: VerbPolicy(deny=frozenset({"drop"})))

    def __post_init__(self) -> None:
        self.policies = Policies(self.policy)
        self.recorder = MemoryRecorder("session")
        clock = SystemClock()
        gate = Gate(
            policies=self.policies, classifier=SqlClassifier(), approvals=cast("Any", None), transcripts=cast("Any", None),
            clock=clock,
        )  # fmt: skip
        target = Target("orders", "postgres", role="app", database="app")
        self.gate_session = Session(gate, agent(), target, SessionFacts("s", "127.0.0.1", clock.now()), self.recorder)
        self.session = PostgresSession(
            self.gate_session, search_path=("public", "pg_temp"), settings=PINNED, max_hold=60, entropy=bytes,
            cancel_server=cast("Any", None), catalog=cast("CatalogSource", Snapshot()),
        )  # fmt: skip
        self.client, self.server = Line(), Line()
        self.session.start(cast("asyncio.Transport", self.client), cast("asyncio.Transport", self.server))

    def says(self, data: bytes) -> None:
        for part in self._parts(data):
            self.session.from_client(part)

    def hears(self, data: bytes) -> None:
        for part in self._parts(data):
            self.session.from_server(part)

    def _parts(self, data: bytes) -> list[bytes]:
        return [data[:7], data[7:]] if self.split else [data]

    def prepare(self, name: str, text: str) -> None:
        self.says(requests.encode_parse(Parse(name, text.encode(), ())) + SYNC)
        self.hears(message(b"1") + ready("I"))

    def sent(self) -> bytes:
        """Take what the server was sent since the last call."""
        sent, self.server.written = self.server.written, b""
        return sent

    def run(self, name: str, value: bytes, answer: bytes | None = None) -> bytes:
        """Run a prepared statement; return what reached the server of it."""
        self.sent()
        self.says(stretch(name, value))
        sent = self.sent()
        if sent:
            self.hears(answer or message(b"2") + READ + ready("I"))
        return sent


def stretch(name: str, value: bytes, *, described: bool = False) -> bytes:
    bind = requests.encode_bind(Bind("", name, (), (value,), ()))
    return bind + (DESCRIBE if described else b"") + EXECUTE + SYNC


def plain(events: list[EventDraft]) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    return [(event.type, dict(event.fields), dict(event.secret)) for event in events]


# -- the two ways are one ----------------------------------------------------------------------------------------------

STEPS = st.tuples(
    st.sampled_from(["run", "run", "run", "describe", "extended", "extended", "fail", "query", "alike", "alike", "portal"]),
    st.sampled_from(["a", "b"]),
    st.binary(max_size=3),
    st.sampled_from(["I", "T"]),
)

WARM = [(kind, name, b"1", "I") for kind in ("run", "extended", "alike") for name in ("a", "b") for _ in range(4)]
"""After these, what comes once more is known."""


def converse(room: Room, steps: list[tuple[str, str, bytes, str]]) -> None:
    room.prepare("a", "SELECT 1")
    room.prepare("b", "INSERT INTO t VALUES ($1)")
    for kind, name, value, status in steps:
        answer = message(b"2") + (COLUMNS if kind == "describe" else b"") + ROW + READ + ready(status)
        match kind:
            case "run" | "describe":
                room.says(stretch(name, value, described=kind == "describe"))
                room.hears(answer)
            case "extended":
                room.says(requests.encode_parse(Parse("", b"SELECT 1", (23,))) + stretch("", value))
                room.hears(message(b"1") + answer)
            case "fail":
                room.says(stretch(name, value))
                room.hears(message(b"2") + FAILED + ready("I"))
            case "query":
                room.says(requests.encode_query(b"SELECT 1"))
                room.hears(READ + ready(status))
            case "alike":  # a Query with a value of its own, answered in every way
                form = "SELECT name FROM t WHERE id = %d" if name == "a" else "UPDATE t SET total = 1 WHERE id = %d"
                room.says(requests.encode_query((form % int.from_bytes(value, "big")).encode()))
                answer = {0: FAILED, 1: WROTE, 2: COLUMNS + ROW + READ}.get(len(value), COLUMNS + READ)
                room.hears(answer + ready(status))
            case "portal":  # the nameless portal once more, which is gone when its transaction is
                before = len(room.server.written)
                room.says(EXECUTE + SYNC)
                ours = b"interlock_refused_" in room.server.written[before:]
                room.hears((FAILED if ours else READ) + ready("I"))


@given(st.lists(STEPS, max_size=12))
def test_both_ways_send_and_record_the_same(steps: list[tuple[str, str, bytes, str]]) -> None:
    async def compare() -> None:
        whole, halves = Room(), Room(split=True)
        for room in (whole, halves):
            converse(room, [*WARM, *steps])
        assert plain(whole.recorder.events) == plain(halves.recorder.events)
        assert whole.server.written == halves.server.written
        assert whole.client.written == halves.client.written

    asyncio.run(compare())


async def test_the_third_run_is_recorded_like_the_first_and_decided_no_more() -> None:
    room = Room()
    room.prepare("a", "SELECT 1")
    decided = []
    for value in (b"1", b"2", b"3", b"4"):
        assert room.run("a", value) == stretch("a", value)
        decided.append(len(room.policy.seen))
    assert decided[-1] == decided[-2]  # else this proves nothing of the short way
    kinds = [event.type for event in room.recorder.events[-4:]]
    assert kinds == ["pg.bind", "decision", "forward", "pg.result"]
    binds = [dict(event.secret)["binds"][0]["shown"] for event in room.recorder.of("pg.bind")]  # type: ignore[index,call-overload]
    assert binds == ["1", "2", "3", "4"]
    first, last = room.recorder.of("decision")[1], room.recorder.of("decision")[-1]
    assert {**first.fields, "ref": 0} == {**last.fields, "ref": 0}


async def test_a_decision_is_on_record_before_the_stretch_goes_on() -> None:
    room = Room()
    room.prepare("a", "SELECT 1")
    recorded: list[int] = []
    write = room.server.write

    def watched(data: bytes) -> None:
        recorded.append(len(room.recorder.of("forward")))
        write(data)

    for _ in range(3):
        room.run("a", b"1")
    room.server.write = watched  # type: ignore[method-assign]
    before = len(room.recorder.of("forward"))
    room.run("a", b"2")
    assert recorded == [before + 1]


# -- a Query alike to others -------------------------------------------------------------------------------------------


def asked(number: int) -> bytes:
    return requests.encode_query(b"SELECT name FROM t WHERE id = %d" % number)


async def alike(policy: VerbPolicy | None = None, count: int = 5) -> Room:
    """A session in which a Query came so often, each time with another value, that its like is known."""
    room = Room(policy=policy) if policy is not None else Room()
    for number in range(count):
        room.says(asked(number))
        room.hears(COLUMNS + ROW + READ + ready("I"))
    room.sent()
    return room


async def test_a_query_alike_to_others_is_recorded_like_them_and_decided_no_more() -> None:
    room = await alike()
    decided = len(room.policy.seen)
    room.says(asked(666))
    assert room.sent() == asked(666)
    room.hears(COLUMNS + ROW + READ + ready("I"))
    assert len(room.policy.seen) == decided
    kinds = ("pg.query", "decision", "forward", "pg.result")
    events = [event for event in room.recorder.events if event.type in kinds]
    first, last = events[:4], events[-4:]
    for before, after in zip(first, last, strict=True):
        assert {**before.fields, "ref": 0} == {**after.fields, "ref": 0}
        assert {**before.secret, "text": ""} == {**after.secret, "text": ""}
    assert dict(last[0].secret)["text"] == "SELECT name FROM t WHERE id = 666"


async def test_a_query_that_is_not_alike_is_decided() -> None:
    room = await alike()
    for text in (b"SELECT name FROM t WHERE id = 1 OR 1 = 1", b"DELETE FROM t WHERE id = 1", b"SELECT name FROM s WHERE id = 1"):
        decided = len(room.policy.seen)
        room.says(requests.encode_query(text))
        room.hears(READ + ready("I"))
        assert len(room.policy.seen) > decided


async def test_a_query_alike_to_others_is_not_sent_once_the_session_or_the_policy_says_no() -> None:
    for forbid in (
        lambda room: room.gate_session.revoke(),
        lambda room: setattr(room.policies, "current", VerbPolicy(deny=frozenset({"select"}))),
        lambda room: setattr(room.recorder, "fail_append", True),
    ):
        room = await alike()
        forbid(room)
        room.says(asked(666))
        sent = room.sent()
        while not sent:
            await asyncio.sleep(0)
            sent = room.sent()
        assert b"666" not in sent


class ReadsTexts(VerbPolicy):
    """The same answers, by rules that read `command`."""

    def decide(self, facts: Facts) -> Decision:
        return replace(super().decide(facts), blind=False)


async def test_a_policy_that_reads_texts_is_asked_about_each() -> None:
    room = await alike(ReadsTexts())
    decided = len(room.policy.seen)
    room.says(asked(666))
    assert len(room.policy.seen) > decided


async def test_a_policy_that_reads_the_hour_is_asked_about_each_text() -> None:
    room = await alike(ByTheHour())
    decided = len(room.policy.seen)
    room.says(asked(666))
    assert len(room.policy.seen) > decided


async def test_a_name_that_may_mean_something_else_is_asked_about() -> None:
    room = await alike()
    room.says(requests.encode_query(b"SET search_path = elsewhere"))
    room.hears(message(b"C", b"SET\0") + ready("I"))
    decided = len(room.policy.seen)
    room.says(asked(666))
    assert len(room.policy.seen) > decided


# -- what ends it ------------------------------------------------------------------------------------------------------


async def used(policy: VerbPolicy | None = None) -> Room:
    room = Room(policy=policy) if policy is not None else Room()
    room.prepare("a", "SELECT 1")
    for _ in range(3):
        room.run("a", b"1")
    return room


async def refusal(room: Room, value: bytes = b"666") -> bytes:
    """Send the stretch once more; return what the server got once the gate has spoken."""
    sent = room.run("a", value, answer=b"")
    while not sent:
        await asyncio.sleep(0)
        sent = room.sent()
    return sent


async def test_a_policy_that_was_loaded_is_asked() -> None:
    room = await used()
    room.policies.current = VerbPolicy(deny=frozenset({"select"}))
    sent = await refusal(room)
    assert b"666" not in sent
    assert b"interlock_refused_" in sent
    assert [event.fields["verdict"] for event in room.recorder.of("decision")][-1] == "deny"


async def test_a_revoked_session_runs_nothing_more() -> None:
    room = await used()
    room.gate_session.revoke()
    assert b"666" not in await refusal(room)
    assert room.recorder.of("block")[-1].fields["reason"] == str(Reason.DISABLED_PRINCIPAL)


async def test_what_can_not_be_recorded_is_not_sent() -> None:
    room = await used()
    room.recorder.fail_append = True
    assert b"666" not in await refusal(room)


async def test_a_policy_that_reads_the_hour_is_asked_every_time() -> None:
    room = await used(ByTheHour())
    asked = len(room.policy.seen)
    room.run("a", b"1")
    assert len(room.policy.seen) > asked


async def test_new_temporary_tables_are_asked_about() -> None:
    """A name may mean something else from here on: what was decided before does not stand."""
    room = await used()
    room.says(requests.encode_query(b"SET search_path = elsewhere"))
    room.hears(message(b"C", b"SET\0") + ready("I"))
    asked = len(room.policy.seen)
    room.run("a", b"1")
    assert len(room.policy.seen) > asked


async def test_a_message_behind_a_stretch_in_flight_waits_for_nothing_and_keeps_its_place() -> None:
    room = await used()
    room.says(stretch("a", b"1"))
    room.says(requests.encode_query(b"SELECT 1"))
    assert room.sent().endswith(stretch("a", b"1") + requests.encode_query(b"SELECT 1"))
    answer = message(b"2") + READ + ready("I") + WROTE + ready("I")
    before = len(room.client.written)
    room.hears(answer)
    assert room.client.written[before:] == answer
    assert [event.fields["tag"] for event in room.recorder.of("pg.result")][-2:] == ["SELECT 1", "INSERT 0 1"]


async def test_a_stretch_in_flight_when_the_client_leaves_has_an_unknown_result() -> None:
    room = await used()
    ended: list[str] = []
    room.session.on_end(lambda _session, why: ended.append(why))
    room.says(stretch("a", b"1"))
    room.session.client_left()
    assert ended == ["client-left"]
    assert room.session._pipeline.unanswered() == [room.recorder.of("forward")[-1].fields["ref"]]
