"""kill -9 at any moment: what is left recovers, verifies as aborted and shows every released command with its text."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.budget import examples
from harness.clock import ManualClock
from harness.transcripts import NODE, allowed, approved, denied, make_store, one_of_everything, open_session
from interlock.clock import system_entropy
from interlock.evidence import linefile
from interlock.evidence.events import EventDraft, Recorder
from interlock.evidence.policies import PolicyShelf
from interlock.evidence.recovery import recover
from interlock.evidence.seal import SealCa, Status
from interlock.evidence.sealing import Sealer
from interlock.evidence.vault import PlainVault
from interlock.verify import Report, verify_bundle

ID = "01JTESTSESSION0000000000AA"


@dataclass(frozen=True)
class Writes:
    """Every write of a session in its order, as (file, bytes), and a data directory without the session."""

    data_dir: Path
    written: list[tuple[str, bytes]]


def _record(data_dir: Path, fill: object) -> Writes:
    written: list[tuple[str, bytes]] = []

    async def run() -> None:
        clock = ManualClock()
        store = make_store(data_dir, clock)
        await store.start()
        recorder = await open_session(store, ID)
        assert callable(fill)
        fill(recorder, clock)
        await recorder.close({"reason": "client-left"})
        await store.close()

    write = os.write
    with pytest.MonkeyPatch.context() as patch:

        def watched(fd: int, data: bytes) -> int:
            path = Path(f"/proc/self/fd/{fd}").readlink()
            if path.parent.name == ID:
                written.append((path.name, data))
            return write(fd, data)

        patch.setattr(linefile.os, "write", watched)
        asyncio.run(run())
    return Writes(data_dir, written)


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> Writes:
    return _record(tmp_path_factory.mktemp("everything") / "data", one_of_everything)


def crash(writes: Writes, sessions: Path, survived: int) -> Path:
    """Leave the files as a process leaves them that died after `survived` bytes of all its writes."""
    folder = sessions / ID
    folder.mkdir()
    files = {"events.jsonl": b"", "disclosures.jsonl": b""}
    for name, data in writes.written:
        files[name] += data[:survived]
        survived -= min(survived, len(data))
        if survived <= 0:
            break
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def recovered(writes: Writes, folder: Path) -> Report:
    clock = ManualClock()
    clock.advance(3600)
    shelf = PolicyShelf(writes.data_dir, dict)
    shelf.prepare()
    ca = SealCa.load_or_create(writes.data_dir / "evidence_ca")
    recover(folder, "session", Sealer(NODE, ca, shelf, PlainVault(), clock, system_entropy), "review")
    return verify_bundle(folder, writes.data_dir / "trust")


def complete_events(folder: Path) -> list[bytes]:
    return (folder / "events.jsonl").read_bytes().split(b"\n")[:-1]


@settings(max_examples=examples(60, fuzz=500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_crash_at_any_byte_verifies_as_aborted(writes: Writes, data: st.DataObject) -> None:
    total = sum(len(content) for _, content in writes.written)
    survived = data.draw(st.integers(0, total))
    with tempfile.TemporaryDirectory() as scratch:
        folder = crash(writes, Path(scratch), survived)
        before = complete_events(folder)
        report = recovered(writes, folder)
        after = complete_events(folder)
        assert report.problems == []
        assert report.result == "aborted"
        assert after[: len(before)] == before, "no complete event is lost"
        assert json.loads(after[-1])["type"] == "recovery" and len(after) == len(before) + 1
        forwards = sum(json.loads(line)["type"] == "forward" for line in before)
        assert len(report.released) == forwards
        assert all(released.text for released in report.released), "every released command is there with its text"


commands = st.sampled_from(["allowed", "denied", "approved", "output", "beat"])


@settings(max_examples=examples(12, fuzz=100), deadline=None)
@given(steps=st.lists(commands, max_size=8), where=st.floats(0, 1))
def test_any_session_recovers(steps: list[str], where: float) -> None:
    def fill(recorder: Recorder, clock: ManualClock) -> None:
        for number, step in enumerate(steps):
            match step:
                case "allowed":
                    allowed(recorder, f"cat {number}")
                case "denied":
                    denied(recorder, f"dd {number}")
                case "approved":
                    approved(recorder, f"rm {number}", clock.now(), f"req_{number}")
                case "output":
                    recorder.append(EventDraft("term.output", {"channel": 0, "stream": 1}, {"data": "eA=="}))
                case _:
                    recorder.append(EventDraft("heartbeat"))
            clock.advance(1)

    with tempfile.TemporaryDirectory() as scratch:
        writes = _record(Path(scratch) / "data", fill)
        total = sum(len(content) for _, content in writes.written)
        (Path(scratch) / "crashed").mkdir()
        report = recovered(writes, crash(writes, Path(scratch) / "crashed", int(where * total)))
        assert (report.result, report.problems) == ("aborted", [])


@pytest.fixture
def crashed(writes: Writes, tmp_path: Path) -> Iterator[Path]:
    total = sum(len(content) for _, content in writes.written)
    yield crash(writes, tmp_path, total * 2 // 3)


def test_recovery_that_is_interrupted_is_done_again(writes: Writes, crashed: Path, tmp_path: Path) -> None:
    once = tmp_path / "once" / ID
    once.parent.mkdir()
    shutil.copytree(crashed, once)
    recovered(writes, once)
    for name in ("seal.json", "seal.json.sig"):
        again = tmp_path / name / ID
        again.parent.mkdir()
        shutil.copytree(once, again)
        (again / name).unlink()
        for left in ("README.txt.tmp", "seal.json.tmp", "seal.json.sig.tmp"):
            (again / left).write_bytes(b"half")
        report = recovered(writes, again)
        assert (report.result, report.problems) == ("aborted", [])


def test_a_broken_chain_is_sealed_as_damaged_and_kept(writes: Writes, crashed: Path) -> None:
    lines = complete_events(crashed)
    lines[2] = lines[2].replace(b"test 1", b"test 2")
    found = b"\n".join(lines) + b"\n" + b'{"torn'
    (crashed / "events.jsonl").write_bytes(found)
    report = recovered(writes, crashed)
    assert (crashed / "events.jsonl").read_bytes() == found, "evidence of damage is evidence"
    assert report.status == "damaged" and report.result == "failed"
    assert json.loads((crashed / "seal.json").read_bytes())["status"] == str(Status.DAMAGED)
    assert any("damaged" in p.message for p in report.problems)


def test_unreadable_disclosures_are_sealed_as_damaged_and_kept(writes: Writes, crashed: Path) -> None:
    lines = (crashed / "disclosures.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = b"garbage\n"
    (crashed / "disclosures.jsonl").write_bytes(b"".join(lines))
    report = recovered(writes, crashed)
    assert report.status == "damaged" and (crashed / "disclosures.jsonl").read_bytes() == b"".join(lines)


def test_a_folder_without_files_is_sealed_too(writes: Writes, tmp_path: Path) -> None:
    (tmp_path / ID).mkdir()
    report = recovered(writes, tmp_path / ID)
    assert (report.result, report.problems, report.events) == ("aborted", [], 1)


async def test_the_store_recovers_at_start(writes: Writes, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(writes.data_dir, data_dir)
    shutil.rmtree(data_dir / "sessions" / ID)
    folder = crash(writes, data_dir / "sessions", 4000)
    clock = ManualClock()
    clock.advance(60)
    store = make_store(data_dir, clock)
    await store.start()
    try:
        assert verify_bundle(folder, data_dir / "trust").result == "aborted"
    finally:
        await store.close()
