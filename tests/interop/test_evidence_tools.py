"""A bundle under tools that are not ours: jq, sha256sum, openssl, ssh-keygen and asciinema."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.clock import ManualClock
from harness.transcripts import closed_session, make_store, open_session
from interlock.evidence.archive import Archive

pytestmark = pytest.mark.interop

ID = "01JTESTSESSION0000000000AA"


@pytest.fixture
async def bundle(tmp_path: Path) -> Path:
    clock = ManualClock()
    store = make_store(tmp_path / "data", clock)
    await store.start()
    await closed_session(store, clock, ID)
    await store.close()
    return Archive(tmp_path / "data").export(ID, tmp_path / "out")


@pytest.fixture
def script(bundle: Path, tmp_path: Path) -> Path:
    """The script as README.txt says to take it."""
    _, found, text = (bundle / "README.txt").read_text().partition("#!/bin/bash\n")
    assert found and len(text.splitlines()) <= 13, "short enough to be read"
    path = tmp_path / "check.sh"
    path.write_text(found + text)
    return path


def check(script: Path, bundle: Path, signers: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script), str(bundle), str(signers)], capture_output=True, text=True, check=False, timeout=60
    )  # fmt: skip


def test_the_script_of_the_readme_accepts_the_bundle(script: Path, bundle: Path, tmp_path: Path) -> None:
    done = check(script, bundle, tmp_path / "data/trust/allowed_signers")
    assert done.returncode == 0, done.stderr
    assert "good: 28 events, signed, unbroken, with every text" in done.stdout


@pytest.mark.parametrize("what", ["events", "seal", "disclosures", "policies", "signers", "tail"])
def test_the_script_of_the_readme_refuses_what_was_changed(script: Path, bundle: Path, tmp_path: Path, what: str) -> None:
    signers = tmp_path / "data/trust/allowed_signers"
    for path in bundle.rglob("*"):
        path.chmod(0o700)
    match what:
        case "events":
            path = bundle / "events.jsonl"
            path.write_bytes(path.read_bytes().replace(b'"verdict":"deny"', b'"verdict":"dena"'))
        case "seal":
            path = bundle / "seal.json"
            path.write_bytes(path.read_bytes().replace(b"local:claude-ci", b"local:claude-cj"))
        case "disclosures":
            path = bundle / "disclosures.jsonl"
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
        case "policies":
            next((bundle / "policies").iterdir()).write_text("{}")
        case "tail":
            path = bundle / "events.jsonl"
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        case _:
            signers = tmp_path / "nobody"
            signers.write_text("")
    assert check(script, bundle, signers).returncode != 0


def test_the_script_walks_the_chain_itself(script: Path, bundle: Path, tmp_path: Path) -> None:
    """With the other checks taken out it still finds a changed line: none of its checks leans on another."""
    text = script.read_text()
    script.write_text("\n".join(line for line in text.splitlines() if "sha256sum --check" not in line))
    path = bundle / "events.jsonl"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"verdict":"deny"', b'"verdict":"dena"'))
    done = check(script, bundle, tmp_path / "data/trust/allowed_signers")
    assert done.returncode == 8 and "the chain breaks" in done.stdout


def test_asciinema_plays_the_recording(bundle: Path) -> None:
    """Under `script`, because asciinema wants a terminal of its own even to print."""
    for verb in ("cat", "play -s 1000"):
        command = f"asciinema {verb} {bundle / 'replay.cast'}"
        done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, check=False, timeout=60)
        shown = done.stdout.decode()
        assert done.returncode == 0, shown
        assert "$ rm -rf /var/tmp/build" in shown and "hello, wörld" in shown and "consumed by bob" in shown


def test_the_verifier_runs_alone(bundle: Path, tmp_path: Path) -> None:
    """Copied to a machine without us, with no site-packages, it still verifies."""
    import sys

    import interlock.verify

    alone = tmp_path / "alone/interlock"
    shutil.copytree(Path(interlock.verify.__file__).parent, alone / "verify")
    (alone / "__init__.py").write_text("")
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); "]
    command[-1] += "from interlock.verify.__main__ import main; sys.exit(main())"
    arguments = [str(tmp_path / "alone"), str(bundle), "--trust", str(tmp_path / "data/trust"), "--output", "json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True


async def test_a_full_file_system_stops_the_session(tmp_path: Path) -> None:
    """A real disk that is full, when we may mount one."""
    import os

    from harness.transcripts import allowed
    from interlock.errors import EvidenceError
    from interlock.verify import verify_bundle

    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(small)], capture_output=True, check=False
    )
    if os.geteuid() != 0 or mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root; tests/evidence/test_writer.py fails the write instead")
    try:
        store = make_store(small / "data", ManualClock())
        await store.start()
        recorder = await open_session(store, ID)
        with pytest.raises(EvidenceError, match=r"[Nn]o space|full"):
            for number in range(10_000):
                allowed(recorder, f"echo {number}")
        written = (small / "data/sessions" / ID / "events.jsonl").read_bytes()
        with pytest.raises(EvidenceError):
            allowed(recorder, "echo after")
        await recorder.close({"reason": "evidence-unavailable"})
        await store.close()
        # Space is made; the next start seals what was left.
        (tmp_path / "copy").mkdir()
        shutil.copytree(small / "data", tmp_path / "copy/data")
        (tmp_path / "copy/data").chmod(0o700)
        again = make_store(tmp_path / "copy/data", ManualClock())
        await again.start()
        await again.close()
        report = verify_bundle(tmp_path / "copy/data/sessions" / ID, tmp_path / "copy/data/trust")
        assert (report.result, report.problems) == ("aborted", [])
        assert len(report.released) == written.count(b'"type":"forward"')
    finally:
        subprocess.run(["umount", str(small)], check=True)


async def test_a_read_only_file_system_is_refused_at_once(tmp_path: Path) -> None:
    from interlock.errors import EvidenceError

    folder = tmp_path / "frozen"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        store = make_store(folder / "data", ManualClock())
        await store.start()
        recorder = await open_session(store, ID)
        await store.close()
        again = make_store(folder / "data", ManualClock())
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(EvidenceError, match="Read-only"):
            await again.start()
        assert recorder.session == ID
    finally:
        subprocess.run(["umount", str(folder)], check=True)
