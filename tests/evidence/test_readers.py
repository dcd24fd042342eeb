"""Long transcripts are read back by children: the same seal, whatever becomes of them.

A fifo in place of a file holds a child where it reads: opening it to write returns when the child has opened it to read.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from harness import children as processes
from harness.clock import ManualClock
from harness.transcripts import SESSION, allowed, closed_session, make_store, one_of_everything, open_session
from interlock.child import Child
from interlock.errors import EvidenceError
from interlock.evidence import readback, readers
from interlock.evidence.archive import Archive
from interlock.evidence.readback import Answered, ReadBack
from interlock.evidence.readers import Readers
from interlock.evidence.survey import survey
from interlock.evidence.vault import PlainVault
from interlock.verify import verify_bundle

EVENTS, VALUES = "events.jsonl", "disclosures.jsonl"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    async def made() -> Path:
        store = make_store(tmp_path / "data", ManualClock())
        await store.start()
        folder = await closed_session(store, ManualClock())
        await store.close()
        return folder

    return asyncio.run(made())


@pytest.fixture
async def beside() -> AsyncIterator[Readers]:
    """Readers for whom nothing is short."""
    threads = ThreadPoolExecutor(2)
    made = Readers(PlainVault(), threads, small=0)
    yield made
    made.close()
    threads.shutdown()


def here(bundle: Path) -> ReadBack:
    return ReadBack(survey(bundle, SESSION), readback.recording(bundle, PlainVault()))


def read(beside: Readers, bundle: Path) -> asyncio.Task[ReadBack]:
    return asyncio.create_task(beside.read(bundle, SESSION, with_recording=True))


def in_the_way(path: Path) -> Path:
    """Put a fifo in place of a file; return where the file is now."""
    away = path.with_name("away")
    path.rename(away)
    os.mkfifo(path)
    return away


async def at_work(fifo: Path) -> int:
    """Return the writing end, once a child reads."""
    return await asyncio.to_thread(os.open, fifo, os.O_WRONLY)


def children() -> list[int]:
    """The readers that live."""
    return processes.children(os.getpid(), readback.MODULE)


async def gone(pid: int) -> None:
    """Wait until a dead child was noticed: until then it may still hold the fifo open."""
    async with asyncio.timeout(30):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110  nobody tells of another process
            await asyncio.sleep(0.01)


async def test_a_child_reads_what_a_thread_would(bundle: Path, beside: Readers) -> None:
    assert await read(beside, bundle) == here(bundle)
    (pid,) = children()
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + readers.NICE
    assert await read(beside, bundle) == here(bundle)
    assert children() == [pid], "it lives on"


async def test_a_child_gets_nothing_of_ours(bundle: Path, beside: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_SECRET", "hunter2")
    inherited = os.open(bundle, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    await read(beside, bundle)
    for pid in children():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert {name.partition(b"=")[0] for name in environment.split(b"\0") if name} == {
            b"PYTHONPATH",
            b"PYTHONDONTWRITEBYTECODE",
        }
        assert {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()} == {0, 1, 2}
        assert "Max file size             0 " in Path(f"/proc/{pid}/limits").read_text()
    os.close(inherited)


async def test_a_store_seals_a_long_session_by_a_child(tmp_path: Path) -> None:
    clock = ManualClock()
    store = make_store(tmp_path / "data", clock)
    await store.start()
    recorder = await open_session(store)
    while sum(path.stat().st_size for path in recorder_files(tmp_path)) <= readers.SMALL:
        allowed(recorder, "uptime")
    await recorder.close({"reason": "client-left"})
    assert len(children()) == 1
    await store.close()
    assert children() == []
    assert verify_bundle(tmp_path / "data/sessions" / SESSION, tmp_path / "data/trust").result == "verified"
    assert Archive(tmp_path / "data").bundle(SESSION).check_recording()


def recorder_files(tmp_path: Path) -> list[Path]:
    return [tmp_path / "data/sessions" / SESSION / name for name in (EVENTS, VALUES)]


@pytest.mark.parametrize("name", [EVENTS, VALUES])
async def test_killed_at_work_a_child_is_replaced_and_asked_again(bundle: Path, beside: Readers, name: str) -> None:
    expected = here(bundle)
    away = in_the_way(bundle / name)
    reading = read(beside, bundle)
    end = await at_work(bundle / name)
    (pid,) = children()
    away.rename(bundle / name)
    os.kill(pid, signal.SIGKILL)
    os.close(end)
    assert await reading == expected
    assert pid not in children()


async def test_what_kills_two_children_is_not_rendered_here(bundle: Path, beside: Readers) -> None:
    expected = here(bundle)
    away = in_the_way(bundle / VALUES)
    reading = read(beside, bundle)
    for _ in range(2):
        end = await at_work(bundle / VALUES)
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        os.close(end)
    assert await reading == replace(expected, recording=None)
    away.rename(bundle / VALUES)
    assert await read(beside, bundle) == expected, "and the next is read again"


async def test_a_chain_that_killed_two_children_is_read_here(bundle: Path, beside: Readers) -> None:
    expected = here(bundle)
    away = in_the_way(bundle / EVENTS)
    reading = read(beside, bundle)
    for attempt in range(2):
        end = await at_work(bundle / EVENTS)
        (pid,) = children()
        if attempt:
            away.rename(bundle / EVENTS)
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        os.close(end)
    assert (await reading).found == expected.found


async def test_what_is_no_transcript_is_no_reason_to_try_again(bundle: Path, beside: Readers) -> None:
    (bundle / VALUES).write_bytes(b"garbage\n")
    with pytest.raises(EvidenceError, match="can't be read"):
        await read(beside, bundle)


async def test_a_broken_chain_is_found_by_a_child_too(bundle: Path, beside: Readers) -> None:
    lines = (bundle / EVENTS).read_bytes().splitlines(keepends=True)
    (bundle / EVENTS).write_bytes(b"".join(lines[:3] + lines[4:]))
    assert await read(beside, bundle) == ReadBack(survey(bundle, SESSION))
    assert (await read(beside, bundle)).found.broken == "line 4 has seq 4"


class Liar(Child):
    """A child that was broken and says what it likes."""

    says = b""

    def begin(self) -> bool:
        return True

    def ask(self, request: bytes, deadline: float) -> bytes:
        return self.says


@pytest.mark.parametrize("lie", ["garbage", "a root that is none", "a recording that is none", "nothing at all"])
async def test_a_child_that_lies_is_not_believed(bundle: Path, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = here(bundle)
    monkeypatch.setattr(
        Liar, "says",
        {
            "garbage": b"{]",
            "a root that is none": msgspec.json.encode(Answered(found=replace(expected.found, root="../../keys"))),
            "a recording that is none": msgspec.json.encode(Answered(recording='","forged":"')),
            "nothing at all": b"{}",
        }[lie],
    )  # fmt: skip
    monkeypatch.setattr(readers, "_child", lambda: Liar("", memory=0, most=0))
    threads = ThreadPoolExecutor(2)
    deceived = Readers(PlainVault(), threads, small=0)
    assert await read(deceived, bundle) == replace(expected, recording=None)
    deceived.close()
    threads.shutdown()


async def test_a_chain_that_was_not_written_is_damaged_whatever_a_child_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "data", ManualClock())
    await store.start()
    recorder = await open_session(store)
    folder = tmp_path / "data/sessions" / SESSION

    async def another(*_: object, **__: object) -> ReadBack:
        return ReadBack(replace(survey(folder, SESSION), head="0" * 64), "0" * 64)

    monkeypatch.setattr(store.readers, "read", another)
    await recorder.close({"reason": "client-left"})
    monkeypatch.undo()
    await store.close()
    assert verify_bundle(folder, tmp_path / "data/trust").status == "damaged"


# -- when the node stops ----------------------------------------------------------------------------------------------


async def test_a_node_that_stops_waits_for_no_recording(bundle: Path, beside: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = here(bundle)
    monkeypatch.setattr(readers, "GRACE_S", 0)
    away = in_the_way(bundle / VALUES)
    reading = read(beside, bundle)
    end = await at_work(bundle / VALUES)
    beside.stop()
    assert await reading == replace(expected, recording=None), "which nobody would ever have finished"
    os.close(end)
    away.rename(bundle / VALUES)


async def test_a_node_that_stops_begins_no_recording(bundle: Path, beside: Readers) -> None:
    beside.stop()
    assert await read(beside, bundle) == replace(here(bundle), recording=None)


async def test_a_node_that_stops_leaves_a_long_chain_to_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    store = make_store(tmp_path / "data", clock)
    await store.start()
    threads = ThreadPoolExecutor(1)
    monkeypatch.setattr(store, "readers", Readers(PlainVault(), threads, small=0))
    monkeypatch.setattr(readers, "GRACE_S", 0)
    monkeypatch.setattr(readers, "SHORT", 0)
    recorder = await open_session(store)
    one_of_everything(recorder, clock)
    await store.close()
    threads.shutdown()
    folder = tmp_path / "data/sessions" / SESSION
    assert not (folder / "seal.json").exists()
    again = make_store(tmp_path / "data", clock)
    await again.start()
    await again.close()
    assert verify_bundle(folder, tmp_path / "data/trust").result == "aborted"
