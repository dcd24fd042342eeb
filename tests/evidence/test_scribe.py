"""The compiled thread that writes the shared log: the same bytes as the plain form, and nothing that the loop could feel."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import ManualClock
from interlock.evidence.linefile import LineFile
from interlock.evidence.part import record
from interlock.evidence.redo import FOLDER, RedoLog
from interlock.evidence.scribe import Scribe

compiled = pytest.mark.skipif(not Scribe.to_be_had(), reason="no compiler at build time")

NAMES = st.sampled_from([b"sessions/01J/events.jsonl", b"sessions/01J/disclosures.jsonl", b"journal/x/events.jsonl"])
APPENDED = st.lists(st.tuples(NAMES, st.integers(0, 10**15 - 1), st.lists(st.binary(max_size=40), max_size=5)), max_size=8)

Round = list[tuple[bytes, int, list[bytes]]]


class Desk:
    """A scribe, and how its rounds ended."""

    def __init__(self) -> None:
        self.scribe = Scribe(asyncio.get_running_loop())

    def begin(self, fd: int, appended: Round) -> asyncio.Future[int]:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def ended(size: int, error: OSError | None) -> None:
            if error is None:
                done.set_result(size)
            else:
                done.set_exception(error)

        self.scribe.begin(fd, appended, ended)
        return done


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.scribe.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def stuck() -> Iterator[tuple[int, int]]:
    """A pipe that is full: who writes to it waits until somebody reads. It can't be synced."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, bytes(65536))
    os.set_blocking(writing, True)
    yield reading, writing
    os.close(reading)
    os.close(writing)


@compiled
@given(rounds=st.lists(APPENDED, max_size=4))
def test_both_forms_write_the_same(tmp_path_factory: pytest.TempPathFactory, rounds: list[Round]) -> None:
    log = tmp_path_factory.mktemp("scribe") / "log"

    async def written() -> list[int]:
        desk, fd = Desk(), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            return [await desk.begin(fd, appended) for appended in rounds]
        finally:
            desk.scribe.close()
            os.close(fd)

    sizes = asyncio.run(written())
    expected = [b"".join(map(record, appended)) for appended in rounds]
    assert log.read_bytes() == b"".join(expected)
    assert sizes == list(map(len, expected))


@compiled
async def test_what_is_long_is_written_whole(desk: Desk, file: int, tmp_path: Path) -> None:
    appended: Round = [(b"sessions/%d/events.jsonl" % n, n, [b"x" * n] * 300) for n in range(300)]
    await desk.begin(file, appended)
    await desk.begin(file, appended)
    assert (tmp_path / "log").read_bytes() == b"".join(map(record, appended)) * 2


@compiled
async def test_a_round_that_fails_says_why_and_the_next_is_written(desk: Desk, file: int, tmp_path: Path) -> None:
    appended: Round = [(b"sessions/a/b", 0, [b"x"])]
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left") as no_space:
        await desk.begin(full, appended)
    os.close(full)
    assert no_space.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="Bad file descriptor"):
        await desk.begin(-1, appended)
    await desk.begin(file, appended)
    assert (tmp_path / "log").read_bytes() == record(appended[0])


@compiled
async def test_the_bytes_are_those_of_the_moment_it_was_told(desk: Desk, stuck: tuple[int, int]) -> None:
    """Whoever appends goes on while the thread writes, and may have thrown away what it was told of."""
    reading, writing = stuck
    pieces = [b"%d" % n * 50 for n in range(20)]
    expected = record((b"sessions/a/b", 0, pieces))
    told: Round = [(b"sessions/" + b"a/b", 0, pieces)]
    done = desk.begin(writing, told)
    pieces.clear()
    told.clear()
    assert (await drained(reading, done)).endswith(expected)


async def drained(reading: int, done: asyncio.Future[Any]) -> bytes:
    """Read a pipe until the round that is written to it has ended, as it must: nobody can sync a pipe."""
    got: list[bytes] = []
    os.set_blocking(reading, False)
    asyncio.get_running_loop().add_reader(reading, lambda: got.append(os.read(reading, 1 << 20)))
    with pytest.raises(OSError, match="Invalid argument"):
        await done
    asyncio.get_running_loop().remove_reader(reading)
    with suppress(BlockingIOError):
        got.append(os.read(reading, 1 << 20))
    return b"".join(got)


@compiled
async def test_one_round_at_a_time(desk: Desk, stuck: tuple[int, int], file: int) -> None:
    reading, writing = stuck
    done = desk.begin(writing, [(b"sessions/a/b", 0, [b"x"])])
    with pytest.raises(RuntimeError, match="one round at a time"):
        desk.scribe.begin(file, [(b"sessions/a/b", 0, [b"y"])], lambda _size, _error: None)
    with pytest.raises(RuntimeError, match="no round has ended"):
        desk.scribe._scribe.end()
    await drained(reading, done)
    assert await desk.begin(file, [(b"sessions/a/b", 0, [b"z"])])


WRONG: list[object] = [
    [1], [()], [(b"a", 0)], [("a", 0, [])], [(b"a", "0", [])], [(b"a", 0, ())], [(b"a", 0, ["x"])], [(b"a", 2**70, [b"x"])], (),
    None,
]  # fmt: skip


@compiled
@pytest.mark.parametrize("wrong", WRONG, ids=map(str, range(len(WRONG))))
async def test_what_has_another_shape_is_not_written_at_all(desk: Desk, file: int, tmp_path: Path, wrong: object) -> None:
    good = (b"sessions/a/b", 0, [b"x"])
    bad = [good, *wrong] if isinstance(wrong, list) else wrong
    with pytest.raises((TypeError, OverflowError)):
        desk.scribe.begin(file, bad, lambda _size, _error: None)  # type: ignore[arg-type]
    await desk.begin(file, [good])
    assert (tmp_path / "log").read_bytes() == record(good)


@compiled
async def test_what_was_begun_is_written_before_the_thread_ends(file: int, tmp_path: Path) -> None:
    for number in range(50):
        desk = Desk()
        desk.scribe.begin(file, [(b"sessions/a/b", number, [b"x" * 10_000])], lambda _size, _error: None)
        desk.scribe.close()
        desk.scribe.close()
    written = (tmp_path / "log").read_bytes()
    assert written == b"".join(record((b"sessions/a/b", number, [b"x" * 10_000])) for number in range(50))
    with pytest.raises(RuntimeError, match="none once it is closed"):
        desk.scribe._scribe.begin(file, [])


@compiled
async def test_signals_are_not_for_the_thread(desk: Desk) -> None:
    masks = [
        int(line.split()[1], 16)
        for task in Path("/proc/self/task").iterdir()
        if (task / "comm").read_text() == "evidence-scribe\n"
        for line in (task / "status").read_text().splitlines()
        if line.startswith("SigBlk:")
    ]
    assert masks
    assert all(mask & 1 << (15 - 1) and mask & 1 << (2 - 1) for mask in masks)


# -- in the log ------------------------------------------------------------------------------------------------------------


class Log:
    """A log of one session's files, in a pool that counts what it is given."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "sessions" / "01JTEST"
        self.folder.mkdir(parents=True)
        self.pool = ThreadPoolExecutor(1)
        self.log = RedoLog(root, ManualClock(), lambda _file, _error: None, self.pool, boot="one")
        self.file = LineFile(self.folder / "events.jsonl", create=True)
        self.file.share(self.log.tally, lambda _: None)

    async def round(self, data: bytes) -> None:
        self.file.append(data)
        await self.log.begin(self.log.take(), self.pool)

    def parts(self) -> list[Path]:
        return sorted((self.root / FOLDER).iterdir())

    def restarted(self) -> bytes:
        """Return what the file would hold if it were lost now, and the node started on another boot."""
        there = self.root.with_name(self.root.name + "-later")
        shutil.copytree(self.root, there)
        file = there / "sessions/01JTEST/events.jsonl"
        os.truncate(file, 0)
        RedoLog(there, ManualClock(), lambda _file, _error: None, self.pool, boot="two").replay({file.parent})
        return file.read_bytes()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = Log(tmp_path)
    yield log
    await asyncio.to_thread(log.log.close)
    log.log.rest()
    log.file.close()
    log.pool.shutdown()


@compiled
async def test_ordinary_rounds_are_the_scribes_and_come_back(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await log.round(b"one\n")  # begins the part

    def refused(_log: RedoLog, _batch: object) -> None:
        raise AssertionError("a thread of Python was asked")

    with monkeypatch.context() as patch:
        patch.setattr(RedoLog, "write", refused)
        await log.round(b"two\n")
        await log.round(b"three\n")
    assert log.restarted() == b"one\ntwo\nthree\n"


async def test_a_part_that_failed_stays_and_another_follows(log: Log) -> None:
    await log.round(b"one\n")
    part = log.log._part
    assert part is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, part.fd)
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        await log.round(b"two\n")
    assert log.log._part is None
    with pytest.raises(OSError):
        os.fstat(part.fd)
    await log.round(b"three\n")
    assert len(log.parts()) == 2


async def test_who_closes_the_log_waits_for_the_round(log: Log, stuck: tuple[int, int]) -> None:
    await log.round(b"one\n")
    part = log.log._part
    assert part is not None
    reading, writing = stuck
    os.dup2(writing, part.fd)
    log.file.append(b"two\n")
    done = log.log.begin(log.log.take(), log.pool)
    begun = threading.Event()

    def close() -> None:
        begun.set()
        log.log.close()

    closing = asyncio.ensure_future(asyncio.to_thread(close))
    await asyncio.to_thread(begun.wait, 30)
    assert not closing.done()
    await drained(reading, done)
    await closing


@compiled
async def test_a_caller_that_leaves_does_not_end_the_round(log: Log, stuck: tuple[int, int]) -> None:
    await log.round(b"one\n")
    part = log.log._part
    assert part is not None
    reading, writing = stuck
    os.dup2(writing, part.fd)
    log.file.append(b"two\n")
    log.log.begin(log.log.take(), log.pool).cancel()
    assert log.log._turn.locked()
    asyncio.get_running_loop().add_reader(reading, os.read, reading, 1 << 20)
    async with asyncio.timeout(30):
        while log.log._turn.locked():  # noqa: ASYNC110  # nobody waits any more, so nobody is told
            await asyncio.sleep(0.001)
    asyncio.get_running_loop().remove_reader(reading)
    await log.round(b"three\n")


@compiled
async def test_without_a_descriptor_the_pool_writes_and_the_next_round_tries_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.round(b"one\n")

    def none(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "eventfd", none)
        await log.round(b"two\n")
    assert log.log._scribe is None
    await log.round(b"three\n")
    assert log.log._scribe is not None
    assert log.restarted() == b"one\ntwo\nthree\n"
