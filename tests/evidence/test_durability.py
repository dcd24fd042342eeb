"""How the background syncs of many transcripts go to the disk together."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from interlock.evidence.durability import A_JOB, GroupCommit, SyncRounds


class CountedPool(ThreadPoolExecutor):
    """Counts jobs."""

    jobs = 0

    def submit(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # Executor's own is overloaded
        self.jobs += 1
        return super().submit(*args, **kwargs)


@pytest.mark.parametrize(
    ("transcripts", "jobs"), [(1, 1), (2, 2), (3, 3), (8, 3), (24, 3), (25, 4), (100, -(-100 // A_JOB))]
)  # fmt: skip
async def test_a_round_syncs_every_transcript_once_in_few_jobs(transcripts: int, jobs: int) -> None:
    synced: Counter[int] = Counter()
    failures: list[Exception] = []
    loop, all_synced = asyncio.get_running_loop(), asyncio.Event()

    def flush(number: int) -> None:
        synced[number] += 1
        if len(synced) == transcripts:
            loop.call_soon_threadsafe(all_synced.set)

    with CountedPool(4) as pool:
        rounds = SyncRounds(pool)
        for number in range(transcripts):
            GroupCommit(partial(flush, number), rounds, failures.append).wrote()
        async with asyncio.timeout(30):
            await all_synced.wait()
        assert pool.jobs == jobs
    assert synced == Counter(range(transcripts))
    assert not failures


async def test_one_that_fails_is_not_its_neighbours_fault() -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    failures: list[Exception] = []
    with ThreadPoolExecutor(1) as pool:
        rounds = SyncRounds(pool)
        good = [GroupCommit(lambda: None, rounds, failures.append) for _ in range(6)]
        bad = GroupCommit(full, rounds, failures.append)
        for commit in (*good[:3], bad, *good[3:]):
            commit.wrote()
        async with asyncio.timeout(30):
            with pytest.raises(OSError, match="No space"):
                await bad.wait()
            await asyncio.gather(*(commit.wait() for commit in good))
    assert bad.behind and not any(commit.behind for commit in good)
    assert failures and all(isinstance(error, OSError) for error in failures)
