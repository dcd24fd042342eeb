"""Whole Postgres sessions without sockets, fed with streams that were cut anywhere and changed anywhere.

Whatever a client sends, the server gets whole messages of texts that were decided, and nothing but the session ends.
Whatever a server sends, the session relays it or ends; no exception leaves it. tests/postgres/test_streams.py runs a few of
them, `make fuzz-postgres` as many as its time allows.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251  the caller seeds it
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from harness.clock import ManualClock
from harness.gate import SqlClassifier
from harness.journal import MemoryRecorder
from harness.people import agent
from harness.random_pipelines import Generator
from harness.wire_client import message
from harness.wire_model import ServerModel
from interlock.commands.model import Kind
from interlock.gate import Gate, Session
from interlock.policy.model import Access, Decision, Facts, SessionFacts, Target, Verdict
from interlock.postgres.onlooker import Onlooker
from interlock.postgres.session import PostgresSession

STEPS = 60
"""Turns of the loop that a decision takes at most."""

Side = Callable[[Session, random.Random, Counter[str]], Coroutine[Any, Any, None]]


class TextPolicy:
    """Denies what has `denied` in its text, and `late` unless it is only parsed."""

    digest = "sha256:texts"
    observed: tuple[str, ...] = ()

    @property
    def current(self) -> Any:
        return self

    def may_open(self, _principal: object, _target: object) -> Access:
        return Access(True, "test/0", "everybody")

    def may_see(self, _principal: object, _target: object) -> bool:
        return True

    def decide(self, facts: Facts) -> Decision:
        text = facts.command.text
        denied = b"denied" in text or (b"late" in text and facts.command.kind is not Kind.PARSE)
        return Decision(Verdict.DENY if denied else Verdict.ALLOW, "test/0", "by its text", self.digest)


class Transcripts:
    def __init__(self) -> None:
        self.journal = MemoryRecorder()

    async def open(self, _session: object, _opened: object) -> MemoryRecorder:
        return MemoryRecorder("session")


class NoCatalog:
    """The catalog source of a target that nobody has read yet."""

    current = None
    loading = False
    idle_limit = None

    def refresh(self, *, certain: bool) -> None:
        pass

    def read_again(self) -> bool:
        return False


@dataclass
class Line:
    """One end of a connection: keeps what is written to it."""

    written: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.written += data

    def take(self) -> bytes:
        taken = bytes(self.written)
        self.written.clear()
        return taken

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, _name: str) -> None: ...


class Rig:
    """A session between two lines."""

    def __init__(
        self, opened: Session, rng: random.Random, onlooker: Onlooker | None = None, catalog: object | None = None
    ) -> None:
        self.client, self.server = Line(), Line()
        self.ended: list[str] = []
        self.cancelled = 0
        self.session = PostgresSession(
            opened, search_path=("public", "pg_temp"), settings=(), max_hold=60.0, entropy=rng.randbytes,
            cancel_server=self._cancel, catalog=cast("Any", catalog or NoCatalog()), onlooker=onlooker,
        )  # fmt: skip
        self.session.on_end(lambda _session, why: self.ended.append(why))
        self.session.start(cast("Any", self.client), cast("Any", self.server))

    async def _cancel(self, _wanted: Callable[[], bool] = lambda: True) -> None:
        self.cancelled += 1

    async def rest(self) -> None:
        for _ in range(STEPS):
            await asyncio.sleep(0)


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    pieces, at = [], 0
    while at < len(data):
        size = rng.choice([1, 3, 20, 200, 5000])
        pieces.append(data[at : at + size])
        at += size
    return pieces


def changed(data: bytes, rng: random.Random) -> bytes:
    """Damage a stream as a careless or a cunning sender would."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(7):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1:
                out[at:at] = rng.randbytes(rng.randint(1, 6))
            case 2:
                del out[at : at + rng.randint(1, 9)]
            case 3:
                out[at:at] = out[at : at + rng.randint(1, 60)]
            case 4:
                out[at : at + 4] = struct.pack(
                    "!I", rng.choice([0, 3, 4, 5, 0x7FFFFFFF, 0xFFFFFFFF, 0x40000000, rng.randrange(200)])
                )
            case 5:
                out[at:at] = bytes([rng.choice(b"QPBEDCSHXdcfFpy")]) + struct.pack("!I", rng.choice([4, 5, 9, 30]))
            case _:
                out[at:at] = message(b"d", rng.randbytes(rng.randint(0, 30)))
    return bytes(out)


def client_stream(rng: random.Random) -> bytes:
    generator = Generator(rng)
    return b"".join(bytes(generator.pipeline().asked) for _ in range(rng.randint(1, 3)))


async def from_clients(opened: Session, rng: random.Random, seen: Counter[str]) -> None:
    """A client that breaks the protocol, or does not, before a server that keeps to it."""
    rig, model = Rig(opened, rng), ServerModel()
    data = client_stream(rng)
    intact = rng.random() < 0.3
    if not intact:
        data = changed(data, rng)
    answers = b""
    for piece in cut(data, rng):
        rig.session.from_client(piece)
        if rng.random() < 0.3:
            await rig.rest()
        answers += model.feed(rig.server.take())
        if rng.random() < 0.6:
            for part in cut(answers, rng):
                rig.session.from_server(part)
            answers = b""
        if rig.ended:
            break
    for _ in range(50):
        await rig.rest()
        answers += model.feed(rig.server.take())
        if not answers:
            break
        rig.session.from_server(answers)
        answers = b""
    if intact and not rig.ended:
        assert not rig.session._frames.buffered, "messages of an intact stream were left lying"
    if model.lost:
        rig.session.server_left()
    if model.left and not rig.ended:
        assert model.left[:1] == b"d", f"the server waits for the rest of {model.left[:60]!r}"
    assert not any(b"denied" in text for text in model.texts), model.texts
    whole(bytes(rig.client.written))
    seen.update(rig.ended or ["lived"])
    rig.session.end("test")
    await rig.session.settle("test")


def whole(data: bytes) -> None:
    """What the client was told is whole messages of known types."""
    at = 0
    while at < len(data):
        kind, (length,) = data[at], struct.unpack_from("!I", data, at + 1)
        assert kind in b"EZC123tTnIsSGHWcDdNA", data[at : at + 40]
        at += 1 + length
    assert at == len(data)


async def from_servers(opened: Session, rng: random.Random, seen: Counter[str]) -> None:
    """A server that breaks the protocol before a client that keeps to it."""
    rig, model = Rig(opened, rng), ServerModel()
    rig.session.from_client(client_stream(rng))
    await rig.rest()
    answers = model.feed(rig.server.take())
    for piece in cut(changed(answers, rng), rng):
        rig.session.from_server(piece)
        if rng.random() < 0.1:
            await rig.rest()
    await rig.rest()
    seen.update(rig.ended or ["lived"])
    rig.session.end("test")
    await rig.session.settle("test")


async def opened_session() -> Session:
    """A session of its own gate, whose policy reads texts."""
    gate = Gate(
        policies=cast("Any", TextPolicy()), classifier=SqlClassifier(), approvals=cast("Any", None),
        transcripts=cast("Any", Transcripts()), clock=ManualClock(),
    )  # fmt: skip
    opened = await gate.open(agent(), Target("orders", "postgres", role="app"), SessionFacts("s", "192.0.2.7"))
    assert isinstance(opened, Session)
    return opened


async def run(side: Side, seeds: range, seen: Counter[str]) -> None:
    """Run one session for each seed; `seen` counts how they ended. Raise AssertionError, with the seed, when one goes astray."""
    unheard: list[str] = []  # exceptions that reached nobody but the loop
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(str(context)))
    gate = Gate(
        policies=cast("Any", TextPolicy()), classifier=SqlClassifier(), approvals=cast("Any", None),
        transcripts=cast("Any", Transcripts()), clock=ManualClock(),
    )  # fmt: skip
    for seed in seeds:
        opened = await gate.open(agent(), Target("orders", "postgres", role="app"), SessionFacts("s", "192.0.2.7"))
        assert isinstance(opened, Session)
        try:
            await side(opened, random.Random(seed), seen)
        except Exception as error:
            raise AssertionError(f"{side.__name__}, FUZZ_SEED={seed}") from error
        assert not unheard, f"{side.__name__}, FUZZ_SEED={seed}: {unheard}"


SIDES: tuple[Side, ...] = (from_clients, from_servers)
