"""How the background syncs of many transcripts go to the disk together, and those that somebody waits for by themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from interlock.evidence.durability import GroupCommit, SyncRounds


class Log:
    """Counts writes, those that were `begun` before a thread has come round to them; `gate` keeps them waiting, `error` lets
    them fail."""

    def __init__(self) -> None:
        self.begun = 0
        self.writes = 0
        self.together = 0
        self.most_together = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: OSError | None = None

    def take(self) -> int:
        return self.writes

    def begin(self, _batch: int, pool: Executor) -> asyncio.Future[None]:
        self.begun += 1
        return asyncio.get_running_loop().run_in_executor(pool, self._write)

    def _write(self) -> None:
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        assert self.gate.wait(30)
        self.together -= 1
        self.writes += 1
        if self.error is not None:
            raise self.error


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110  # nobody is told of a background sync
            await asyncio.sleep(0.001)


async def until_covered(*commits: GroupCommit) -> None:
    await until(lambda: not any(commit.behind for commit in commits))


def wrote(commit: GroupCommit) -> None:
    """Append, as the recorder does."""
    commit.written += 1
    if not commit.queued:
        commit.queue()


def never() -> None:
    raise AssertionError("a background sync is the log's")


@pytest.mark.parametrize("transcripts", [1, 3, 100])
async def test_a_round_covers_every_transcript_with_one_sync(transcripts: int) -> None:
    log, failures = Log(), []
    with ThreadPoolExecutor(4) as pool:
        rounds = SyncRounds(pool, log)
        commits = [GroupCommit(never, rounds, failures.append) for _ in range(transcripts)]
        for commit in commits:
            wrote(commit)
        await until_covered(*commits)
    assert log.writes == 1
    assert not failures


async def test_what_comes_during_a_round_is_covered_by_the_next() -> None:
    log = Log()
    with ThreadPoolExecutor(4) as pool:
        rounds = SyncRounds(pool, log)
        early, late = (GroupCommit(never, rounds, pytest.fail) for _ in range(2))
        log.gate.clear()
        wrote(early)
        await until(lambda: log.together)
        wrote(early)
        wrote(late)
        rounds.begin()  # one is under way: two would finish in any order, and the later cover what the earlier still writes
        assert log.begun == 1
        log.gate.set()
        await until_covered(early, late)
    assert (log.writes, log.most_together) == (2, 1)


async def test_a_log_that_fails_breaks_whom_it_should_have_covered() -> None:
    log, failures, later = Log(), [], []
    log.error = OSError(28, "No space left on device")
    with ThreadPoolExecutor(4) as pool:
        rounds = SyncRounds(pool, log)
        covered = [GroupCommit(never, rounds, failures.append) for _ in range(3)]
        for commit in covered:
            wrote(commit)
        await until(lambda: len(failures) == 3)
        assert all(commit.behind for commit in covered)
        log.error = None
        other = GroupCommit(never, rounds, later.append)
        wrote(other)
        await until_covered(other)
    assert not later


async def test_a_round_that_can_not_even_begin_is_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it not said, nothing would be synced any more, and nobody would know."""
    log, failures = Log(), []

    def none(*_: object) -> asyncio.Future[None]:
        raise MemoryError

    with ThreadPoolExecutor(4) as pool:
        rounds = SyncRounds(pool, log)
        commit, other = GroupCommit(never, rounds, failures.append), GroupCommit(never, rounds, pytest.fail)
        with monkeypatch.context() as patch:
            patch.setattr(log, "begin", none)
            wrote(commit)
            await until(lambda: failures)
        assert commit.behind
        wrote(other)
        await until_covered(other)


async def test_one_that_fails_is_not_its_neighbours_fault() -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    log, failures = Log(), []
    log.gate.clear()  # nobody who waits waits for the log
    with ThreadPoolExecutor(2) as pool:
        rounds = SyncRounds(pool, log)
        good, bad = GroupCommit(lambda: None, rounds, pytest.fail), GroupCommit(full, rounds, failures.append)
        wrote(good)
        wrote(bad)
        async with asyncio.timeout(30):
            with pytest.raises(OSError, match="No space"):
                await bad.wait()
            await good.wait()
        assert bad.behind and not good.behind
        log.gate.set()
    assert len(failures) == 1


async def test_what_is_being_closed_is_in_no_round() -> None:
    log = Log()
    with ThreadPoolExecutor(1) as pool:
        rounds = SyncRounds(pool, log)
        closing, other = (GroupCommit(lambda: None, rounds, pytest.fail) for _ in range(2))
        wrote(closing)
        closing.stop()
        wrote(other)
        await until_covered(other)
        assert closing.behind
        await closing.wait()
    assert not closing.behind
