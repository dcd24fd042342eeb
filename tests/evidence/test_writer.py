"""The store and its recorders: durability, heartbeats, rotation, locks, and disks that fail."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.clock import ManualClock
from harness.transcripts import DIGEST, allowed, closed_session, make_store, open_session, session_open
from interlock.errors import EvidenceError
from interlock.evidence import linefile
from interlock.evidence.events import EventDraft
from interlock.evidence.seal import SealCa
from interlock.evidence.writer import TranscriptRecorder, TranscriptStore
from interlock.policy.model import SessionFacts
from interlock.verify import verify_bundle, verify_bundles


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def store(data_dir: Path, clock: ManualClock) -> AsyncIterator[TranscriptStore]:
    store = make_store(data_dir, clock)
    await store.start()
    yield store
    await store.close()


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


async def test_a_closed_session_verifies(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    report = verify_bundle(await closed_session(store, clock), data_dir / "trust")
    assert report.problems == []
    assert report.result == "verified"
    assert [(r.text, r.approved_by) for r in report.released] == [
        ("cat  /etc/motd", ()),
        ("rm -rf /var/tmp/build", ("bob",)),
        ("select 1", ()),
        ("select $1, $2", ()),
    ]
    assert report.released[0].sent == "'cat' '/etc/motd'"


async def test_open_returns_when_the_first_event_is_durable(
    store: TranscriptStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fdatasync, fsync = os.fdatasync, os.fsync

    def name(fd: int) -> str:
        return Path(f"/proc/self/fd/{fd}").readlink().name

    monkeypatch.setattr(linefile.os, "fdatasync", lambda fd: (synced.append(name(fd)), fdatasync(fd))[1])
    monkeypatch.setattr(linefile.os, "fsync", lambda fd: (synced.append(name(fd)), fsync(fd))[1])
    recorder = await open_session(store)
    assert {"events.jsonl", "disclosures.jsonl", recorder.session, "sessions"} <= set(synced)
    (first,) = events(data_dir / "sessions" / recorder.session)
    assert first["type"] == "session.open" and first["sync"] == "review" and first["node"] == "gw-1"


async def test_waiters_share_one_sync(store: TranscriptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = await open_session(store)
    begun, may_end, calls = threading.Event(), threading.Event(), 0
    fdatasync = os.fdatasync

    def slow(fd: int) -> None:
        nonlocal calls
        if Path(f"/proc/self/fd/{fd}").readlink().name == "events.jsonl":
            calls += 1
            begun.set()
            may_end.wait(10)
        fdatasync(fd)

    monkeypatch.setattr(linefile.os, "fdatasync", slow)
    recorder.append(EventDraft("heartbeat"))
    first = asyncio.create_task(recorder.sync())
    await asyncio.to_thread(begun.wait, 10)
    waiting = []
    for _ in range(20):
        recorder.append(EventDraft("heartbeat"))
        waiting.append(asyncio.create_task(recorder.sync()))
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting), "a sync that began before an append does not cover it"
    waiting[0].cancel()
    may_end.set()
    await asyncio.gather(first, *waiting[1:])
    assert calls == 2, "twenty waiters, one further sync; a cancelled waiter stops nobody"


async def test_what_nobody_waits_for_is_synced_soon(store: TranscriptStore, data_dir: Path) -> None:
    recorder = await open_session(store)
    for _ in range(3):  # the first round begins a part of the log, what follows is the scribe's where there is one
        recorder.append(EventDraft("heartbeat"))
        async with asyncio.timeout(30):
            while recorder._commit.behind:  # type: ignore[attr-defined]  # noqa: ASYNC110  # nobody is told of a background sync
                await asyncio.sleep(0.001)
    (part,) = (data_dir / "redo").iterdir()
    assert part.read_bytes().count(b'"type":"heartbeat"') == 3


async def test_a_failed_sync_breaks_the_recorder(store: TranscriptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = await open_session(store)
    recorder.append(EventDraft("heartbeat"))

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(linefile.os, "fdatasync", broken)
        with pytest.raises(EvidenceError):
            await recorder.sync()
    with pytest.raises(EvidenceError):
        recorder.append(EventDraft("heartbeat"))
    with pytest.raises(EvidenceError):
        await recorder.sync()


async def test_a_full_disk_stops_the_session_and_leaves_what_verifies_as_aborted(
    store: TranscriptStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await open_session(store)
    allowed(recorder, "uptime")
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().name == "events.jsonl":
            return write(fd, data[:10])
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(linefile.os, "write", full)
        with pytest.raises(EvidenceError, match="full"):
            allowed(recorder, "whoami")
    with pytest.raises(EvidenceError):
        allowed(recorder, "id")
    await recorder.close({"reason": "evidence-unavailable"})
    report = verify_bundle(data_dir / "sessions" / recorder.session, data_dir / "trust")
    assert (report.result, [r.text for r in report.released]) == ("aborted", ["uptime"])
    recovery = events(data_dir / "sessions" / recorder.session)[-1]
    assert recovery["torn_bytes"] == 10 and recovery["torn_disclosure_bytes"] > 0


async def test_heartbeats_come_every_thirty_seconds(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    recorder = await open_session(store)
    for _ in range(12):
        clock.advance(10)
        await store.tick()
    beats = [e for e in events(data_dir / "sessions" / recorder.session) if e["type"] == "heartbeat"]
    assert [b["mono_us"] for b in beats] == [30_000_000, 60_000_000, 90_000_000, 120_000_000]


async def test_the_journal_is_sealed_hourly_and_continues(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    journal = store.journal
    first = journal.session
    journal.append(EventDraft("login", {"method": "token"}, {"handle": "alice"}))
    for _ in range(125):
        clock.advance(30)
        await store.tick()
    assert store.journal is journal and journal.session != first
    journal.append(EventDraft("config.change", {"policy": DIGEST}))
    await store.close()
    folders = [data_dir / "journal" / first, data_dir / "journal" / journal.session]
    reports = verify_bundles(folders, data_dir / "trust")
    assert [r.problems for r in reports] == [[], []]
    assert f"continues journal {first}" in reports[1].checks
    assert events(folders[0])[-1]["continued"] == journal.session


async def test_journals_continue_over_restarts(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    first = store.journal.session
    await store.close()
    clock.advance(5)
    again = make_store(data_dir, clock)
    await again.start()
    second = again.journal.session
    await again.close()
    reports = verify_bundles([data_dir / "journal" / name for name in (first, second)], data_dir / "trust")
    assert all(r.ok for r in reports) and f"continues journal {first}" in reports[1].checks


async def test_journals_continue_when_the_clock_was_set_back(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    order = [store.journal.session]
    await store.close()
    for _ in range(2):
        clock.step(-3600)
        again = make_store(data_dir, clock)
        await again.start()
        order.append(again.journal.session)
        await again.close()
    reports = verify_bundles([data_dir / "journal" / name for name in order], data_dir / "trust")
    assert [r.problems for r in reports] == [[], [], []]
    assert [r.continues[0] for r in reports[1:] if r.continues] == order[:2]


async def test_a_damaged_journal_does_not_stop_the_node(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    first = store.journal.session
    await store.close()
    (data_dir / "journal" / first / "events.jsonl").write_bytes(b"garbage\n")
    (data_dir / "journal" / first / "seal.json").unlink()
    again = make_store(data_dir, clock)
    await again.start()
    await again.close()
    reports = {r.session: r for r in verify_bundles((data_dir / "journal").iterdir(), data_dir / "trust")}
    assert reports[first].status == "damaged" and not reports[first].ok
    assert reports[again.journal.session].problems == []


async def test_a_broken_journal_is_replaced_by_a_new_one(
    store: TranscriptStore, clock: ManualClock, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.journal.session
    with monkeypatch.context() as patch:
        patch.setattr(linefile.os, "write", lambda fd, data: 0)
        with pytest.raises(EvidenceError):
            store.journal.append(EventDraft("login"))
    with pytest.raises(EvidenceError):
        store.journal.append(EventDraft("login"))
    clock.advance(1)
    await store.tick()
    store.journal.append(EventDraft("login"))
    await store.close()
    reports = verify_bundles(sorted((data_dir / "journal").iterdir()), data_dir / "trust")
    assert [r.result for r in reports] == ["aborted", "verified"]
    assert f"continues journal {first}" in reports[1].checks


async def test_a_session_longer_than_its_certificate_verifies(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    recorder = await open_session(store)
    for _ in range(25 * 60):
        clock.advance(60)
        recorder.append(EventDraft("heartbeat"))
    await recorder.close({"reason": "client-left"})
    assert verify_bundle(data_dir / "sessions" / recorder.session, data_dir / "trust").problems == []


async def test_a_clock_that_jumps_still_verifies(store: TranscriptStore, clock: ManualClock, data_dir: Path) -> None:
    recorder = await open_session(store)
    for step in (-86400.0, 3.0, 400000.0):
        clock.step(step)
        clock.advance(1)
        allowed(recorder, "date")
    clock.step(-5)
    await recorder.close({"reason": "client-left"})
    assert verify_bundle(data_dir / "sessions" / recorder.session, data_dir / "trust").problems == []


async def test_close_seals_what_is_open_and_further_use_is_refused(store: TranscriptStore, data_dir: Path) -> None:
    recorder = await open_session(store)
    await store.close()
    report = verify_bundle(data_dir / "sessions" / recorder.session, data_dir / "trust")
    assert report.ok and report.status == "closed"
    with pytest.raises(EvidenceError):
        recorder.append(EventDraft("heartbeat"))
    await recorder.close({"reason": "again"})


async def test_the_key_is_gone_after_the_seal(store: TranscriptStore) -> None:
    recorder = await open_session(store)
    assert isinstance(recorder, TranscriptRecorder)
    await recorder.close({"reason": "client-left"})
    with pytest.raises(ValueError, match="destroyed"):
        recorder._key.sign(b"another seal")


async def test_a_client_that_leaves_while_its_transcript_is_made_leaves_a_sealed_one(
    store: TranscriptStore, data_dir: Path
) -> None:
    opening = asyncio.create_task(open_session(store, "01LEFT"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    while store._tasks:
        await asyncio.wait(set(store._tasks))
    await store.close()
    report = verify_bundle(data_dir / "sessions/01LEFT", data_dir / "trust")
    assert report.ok and events(data_dir / "sessions/01LEFT")[-1]["reason"] == "client-left"


@pytest.mark.parametrize("ident", ["", "../evil", "a/b", ".hidden", "x" * 65])
async def test_an_id_that_is_no_name_is_refused(store: TranscriptStore, ident: str) -> None:
    with pytest.raises(EvidenceError):
        await store.open(SessionFacts(ident), session_open())


async def test_an_id_is_used_once(store: TranscriptStore) -> None:
    await open_session(store)
    with pytest.raises(EvidenceError):
        await open_session(store)


async def test_the_policy_in_force_is_kept_with_what_it_decided(store: TranscriptStore, clock: ManualClock) -> None:
    folder = await closed_session(store, clock)
    digest = DIGEST.removeprefix("sha256:")
    assert (folder / "policies" / f"{digest}.json").read_bytes() == b'{"v":1,"rules":"of the test"}'


async def test_a_directory_of_others_is_refused(data_dir: Path, clock: ManualClock) -> None:
    store = make_store(data_dir, clock)
    data_dir.chmod(0o750)
    with pytest.raises(EvidenceError, match="chmod 700"):
        await store.start()


async def test_a_directory_has_one_writer(store: TranscriptStore, data_dir: Path, clock: ManualClock) -> None:
    with pytest.raises(EvidenceError, match="another process"):
        await make_store(data_dir, clock).start()


async def test_a_path_that_is_no_directory_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    data_dir = tmp_path / "data"
    store = make_store(data_dir, clock)
    (data_dir / "sessions").write_text("a file")
    with pytest.raises(EvidenceError):
        await store.start()


def test_the_authoritys_key_is_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "keys/ca"
    made = SealCa.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SealCa.load_or_create(path).public_line == made.public_line
    assert "PRIVATE" not in repr(made)
    path.chmod(0o640)
    with pytest.raises(EvidenceError, match="read by others"):
        SealCa.load_or_create(path)
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(EvidenceError, match="OpenSSH"):
        SealCa.load_or_create(path)
