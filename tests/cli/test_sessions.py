"""`interlock sessions` and `interlock verify` as a person runs them."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.clock import ManualClock
from harness.transcripts import closed_session, make_store, open_session
from interlock.cli import sessions
from interlock.cli.main import build
from interlock.evidence.archive import Archive

ID = "01JTESTSESSION0000000000AA"
LIVE = "01JTESTSESSION0000000000BB"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a sealed session and one that is open: its process is gone without a word."""
    data_dir = tmp_path_factory.mktemp("cli") / "data"

    async def run() -> None:
        clock = ManualClock()
        store = make_store(data_dir, clock)
        await store.start()
        await closed_session(store, clock, ID)
        await open_session(store, LIVE)
        await asyncio.sleep(0)

    asyncio.run(run())
    return data_dir


def interlock(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(build(arguments), arguments)
    assert result.exit_code == exit_code, result.output
    return result.stdout


class DaemonOf:
    """Answers as the daemon's routes do (web/sessions.py), from an archive."""

    def __init__(self, data_dir: Path) -> None:
        self.archive = Archive(data_dir)

    def get(self, path: str) -> Any:
        match path.removeprefix("/v1/").split("/"):
            case ["sessions"]:
                return {"sessions": self.archive.list()}
            case ["sessions", name]:
                return self.archive.show(name)
            case ["sessions", name, "events"]:
                return {"events": self.archive.events(name)}
        raise AssertionError(path)

    def download(self, path: str) -> bytes:
        import tempfile

        name = path.split("/")[3]
        packed = io.BytesIO()
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(fileobj=packed, mode="w:gz") as tar:
            tar.add(self.archive.export(name, Path(scratch) / "bundle"), arcname=name)
        return packed.getvalue()


@pytest.fixture(params=["data_dir", "daemon"])
def where(request: pytest.FixtureRequest, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    if request.param == "data_dir":
        return ["--data-dir", str(data_dir)]
    monkeypatch.setattr(sessions, "Client", lambda server: DaemonOf(data_dir))
    return []


def test_list(where: list[str]) -> None:
    said = interlock("sessions", "list", *where)
    assert ID in said and "closed" in said and "claude-ci" in said and "open" in said
    rows = json.loads(interlock("sessions", "list", "--output", "json", *where))
    assert rows["v"] == 1 and [row["id"] for row in rows["sessions"]] == [LIVE, ID]


def test_show(where: list[str]) -> None:
    assert "web-1" in interlock("sessions", "show", ID, *where)
    assert json.loads(interlock("sessions", "show", ID, "-o", "json", *where))["seal"]["session"] == ID
    interlock("sessions", "show", "nothing", "--data-dir", "/nonexistent", exit_code=1)


def test_replay_without_a_terminal_prints_at_once(where: list[str]) -> None:
    said = interlock("sessions", "replay", ID, *where)
    assert "$ rm -rf /var/tmp/build\n" in said and "consumed by bob" in said and "hello, wörld" in said
    assert "opened web-1" in interlock("sessions", "replay", LIVE, *where), "also what is still open"


def test_export_verify_and_check(where: list[str], tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "bundle"
    interlock("sessions", "export", ID, str(out), *where)
    assert out.stat().st_mode & 0o077 == 0, "others on this machine read what the disclosures hold"
    said = interlock("verify", str(out), "--trust", str(data_dir / "trust"))
    assert "VERIFIED" in said and "approved by bob" in said
    interlock("sessions", "replay", ID, "--check", *where)
    interlock("sessions", "replay", str(out), "--check")
    interlock("sessions", "export", ID, str(out), *where, exit_code=8)
    interlock("sessions", "export", LIVE, str(tmp_path / "live"), *where, exit_code=8)
    interlock("sessions", "replay", str(out), "--cast", str(tmp_path / "again.cast"))
    assert (tmp_path / "again.cast").read_bytes() == (out / "replay.cast").read_bytes()
    (out / "disclosures.jsonl").chmod(0o600)
    (out / "disclosures.jsonl").write_bytes(b"")
    interlock("sessions", "replay", str(out), "--check", exit_code=8)
    interlock("verify", str(out), "--trust", str(data_dir / "trust"), exit_code=8)


def test_json_of_verify(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "bundle"
    Archive(data_dir).export(ID, out)
    answer = json.loads(interlock("verify", str(out), "--trust", str(data_dir / "trust"), "--output", "json"))
    assert answer["v"] == 1 and answer["bundles"][0]["result"] == "verified"


def test_a_replay_in_a_terminal_keeps_its_pauses_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(sessions.time, "sleep", slept.append)
    lines = [b"{}", b'[0.5, "o", "a"]', b'[1.0, "m", "mark"]', b'[60.5, "o", "b"]']
    sessions.play(lines, speed=2.0, waiting=True)
    assert slept == [0.25, sessions.LONGEST_PAUSE] and capsys.readouterr().out == "ab"
