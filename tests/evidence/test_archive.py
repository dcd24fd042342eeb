"""Reading back: list, show, events with their texts, export, and the recording that the seal commits to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.clock import ManualClock
from harness.transcripts import SECRET, closed_session, make_store, open_session
from interlock.errors import EvidenceError, NotFoundError, Reason
from interlock.evidence.archive import Archive, Bundle
from interlock.evidence.writer import TranscriptStore
from interlock.verify import verify_bundle

ID = "01JTESTSESSION0000000000AA"
LIVE = "01JTESTSESSION0000000000BB"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[TranscriptStore]:
    clock = ManualClock()
    store = make_store(tmp_path / "data", clock)
    await store.start()
    await closed_session(store, clock, ID)
    await open_session(store, LIVE)
    yield store
    await store.close()


@pytest.fixture
def archive(store: TranscriptStore) -> Archive:
    return Archive(store.data_dir)


def test_list_is_newest_first_and_knows_what_is_open(archive: Archive) -> None:
    rows = archive.list()
    assert [(row["id"], row["status"]) for row in rows] == [(LIVE, "open"), (ID, "closed")]
    assert (rows[1]["handle"], rows[1]["target"], rows[1]["account"]) == ("claude-ci", "web-1", "deploy")
    json.dumps(rows)


def test_show(archive: Archive) -> None:
    shown = archive.show(ID)
    assert shown["seal"]["session"] == ID and shown["closed"] == shown["seal"]["closed"]
    assert archive.show(LIVE)["seal"] is None


def test_events_have_their_texts(archive: Archive) -> None:
    events = archive.events(ID)
    texts = [e["disclosed"]["text"] for e in events if "text" in e["disclosed"]]
    assert texts[0] == "cat  /etc/motd" and f"echo {SECRET} > /etc/passwd" in texts
    json.dumps(events)


@pytest.mark.parametrize("name", ["01NOTHING", "../sessions", "", "a/../b", ".", "x" * 100])
def test_other_names_are_nothing(archive: Archive, name: str) -> None:
    with pytest.raises(NotFoundError):
        archive.show(name)


def test_an_export_verifies_and_has_the_recording(archive: Archive, tmp_path: Path) -> None:
    out = archive.export(ID, tmp_path / "out")
    report = verify_bundle(out, tmp_path / "data/trust")
    assert report.problems == [] and (out / "replay.cast").exists()
    assert Bundle(out).check_recording() == archive.bundle(ID).check_recording()
    with pytest.raises(EvidenceError, match="exists"):
        archive.export(ID, out)


def test_what_is_open_is_not_exported(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="open"):
        archive.export(LIVE, tmp_path / "out")


def test_a_changed_text_is_another_recording(archive: Archive, tmp_path: Path) -> None:
    out = archive.export(ID, tmp_path / "out")
    path = out / "disclosures.jsonl"
    path.chmod(0o600)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(EvidenceError) as caught:
        Bundle(out).check_recording()
    assert caught.value.code is Reason.EVIDENCE_INVALID
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(EvidenceError) as caught:
        Bundle(out).check_recording()
    assert caught.value.code is Reason.EVIDENCE_INCOMPLETE


def test_an_unreadable_session_does_not_hide_the_others(archive: Archive, store: TranscriptStore) -> None:
    broken = store.data_dir / "sessions/01BROKEN"
    broken.mkdir()
    (broken / "events.jsonl").write_bytes(b"garbage\n")
    assert [row["status"] for row in archive.list()] == ["open", "closed", "unreadable"]


def test_an_empty_data_directory_has_no_sessions(tmp_path: Path) -> None:
    assert Archive(tmp_path).list() == []
