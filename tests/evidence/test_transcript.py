"""One chain on disk: order of writes, what a failed write means, time."""

from __future__ import annotations

import errno
import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from harness.clock import ManualClock
from interlock.clock import system_entropy
from interlock.errors import EvidenceError
from interlock.evidence import disclosure, linefile
from interlock.evidence.chain import GENESIS
from interlock.evidence.events import EventDraft
from interlock.evidence.transcript import Transcript
from interlock.evidence.vault import PlainVault

SECRET = "hunter2"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def transcript(tmp_path: Path, clock: ManualClock) -> Transcript:
    return Transcript(
        tmp_path, "s1", clock=clock, entropy=system_entropy, vault=PlainVault(), on_policy=lambda digest: None
    )  # fmt: skip


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


def test_each_line_names_the_leaf_hash_of_the_line_before(transcript: Transcript, tmp_path: Path) -> None:
    assert transcript.append(EventDraft("session.open"), EventDraft("heartbeat")) == 0
    assert transcript.append(EventDraft("heartbeat")) == 2
    expected = GENESIS
    for seq, line in enumerate((tmp_path / "events.jsonl").read_bytes().splitlines()):
        event = json.loads(line)
        assert (event["seq"], event["prev"]) == (seq, expected)
        expected = sha256(b"\x00" + line).hexdigest()
    assert transcript.head == expected


def test_secret_values_are_committed_to_and_not_written(transcript: Transcript, tmp_path: Path) -> None:
    transcript.append(EventDraft("command", {"parser": "p"}, {"text": SECRET, "effects": [SECRET]}))
    assert SECRET not in (tmp_path / "events.jsonl").read_text()
    (event,) = events(tmp_path)
    lines = (tmp_path / "disclosures.jsonl").read_bytes().splitlines()
    said = [disclosure.parse_line(line) for line in lines]
    assert event["_sd"] == sorted(d.digest for d in said)
    assert {d.name: d.value for d in said} == {"text": SECRET, "effects": [SECRET]}


def test_disclosures_are_written_before_their_events(
    transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        order.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        return write(fd, data)

    monkeypatch.setattr(linefile.os, "write", watched)
    transcript.append(EventDraft("command", {}, {"text": "a"}), EventDraft("decision", {}, {"reason": "b"}))
    assert order == ["disclosures.jsonl", "events.jsonl"]


@pytest.mark.parametrize("failing", [0, 1], ids=["disclosures", "events"])
@pytest.mark.parametrize("how", ["ENOSPC", "short", "EIO"])
def test_after_a_failed_write_nothing_is_ever_written_again(
    transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, how: str
) -> None:
    transcript.append(EventDraft("session.open"))
    write, calls = os.write, 0

    def full(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls - 1 < failing:
            return write(fd, data)
        if how == "short":
            return write(fd, data[: len(data) // 2])
        raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))

    with monkeypatch.context() as patch:
        patch.setattr(linefile.os, "write", full)
        with pytest.raises(EvidenceError):
            transcript.append(EventDraft("command", {}, {"text": SECRET}))
    size = (tmp_path / "events.jsonl").stat().st_size
    with pytest.raises(EvidenceError):
        transcript.append(EventDraft("heartbeat"))
    assert (tmp_path / "events.jsonl").stat().st_size == size
    assert transcript.broken is not None and SECRET not in transcript.broken


@pytest.mark.parametrize(
    "draft",
    [
        EventDraft("heartbeat", {"x": 0.5}),  # type: ignore[dict-item]  # that is the point
        EventDraft("heartbeat", {"x": 2**53}),
        EventDraft("heartbeat", {}, {"text": "\ud800"}),
        EventDraft("heartbeat", {"seq": 1}),
        EventDraft("heartbeat", {"_sd": []}),
        EventDraft("invented.type"),
    ],
)
def test_a_value_without_a_form_refuses_the_whole_append_and_writes_nothing(
    transcript: Transcript, tmp_path: Path, draft: EventDraft
) -> None:
    with pytest.raises(EvidenceError):
        transcript.append(EventDraft("heartbeat", {}, {"a": 1}), draft)
    assert (tmp_path / "events.jsonl").read_bytes() == (tmp_path / "disclosures.jsonl").read_bytes() == b""
    assert transcript.append(EventDraft("session.open")) == 0, "nothing was written, so nothing is broken"


def test_a_clock_that_jumps_is_said_after_the_events_that_show_it(
    transcript: Transcript, tmp_path: Path, clock: ManualClock
) -> None:
    transcript.append(EventDraft("session.open"))
    clock.advance(3)
    clock.step(-7200)
    seq = transcript.seq
    assert transcript.append(EventDraft("heartbeat"), EventDraft("heartbeat")) == seq, "callers have counted on next_seq"
    step = events(tmp_path)[-1]
    assert (step["type"], step["ref"], step["step_us"]) == ("clock.step", seq, -7_200_000_000)
    clock.advance(3)
    transcript.append(EventDraft("heartbeat"))
    assert events(tmp_path)[-1]["type"] == "heartbeat", "said once"


def test_every_event_has_both_times(transcript: Transcript, tmp_path: Path, clock: ManualClock) -> None:
    clock.advance(1.25)
    transcript.append(EventDraft("session.open"))
    (event,) = events(tmp_path)
    assert (event["ts"], event["mono_us"]) == ("2026-01-02T02:13:01.250000Z", 1_250_000)


def test_a_transcript_never_overwrites_another(transcript: Transcript, tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(FileExistsError):
        Transcript(tmp_path, "s1", clock=clock, entropy=system_entropy, vault=PlainVault(), on_policy=lambda digest: None)
