"""kill -9, for real: whatever a process said it had released is in the transcript, with its text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.clock import ManualClock
from harness.transcripts import make_store
from interlock.verify import verify_bundle

ID = "01JTESTSESSION0000000000AA"
ROOT = Path(__file__).parents[2]

RECORDER = f"""
import asyncio, sys
from pathlib import Path
from harness.transcripts import allowed, approved, make_store, open_session
from interlock.clock import SystemClock

async def main():
    clock = SystemClock()
    store = make_store(Path(sys.argv[1]), clock)
    await store.start()
    recorder = await open_session(store, "{ID}")
    for number in range(100000):
        if number % 10:
            allowed(recorder, f"command {{number}}")
        else:
            approved(recorder, f"command {{number}}", clock.now(), f"req_{{number}}")
            await recorder.sync()
        sys.stdout.write(f"command {{number}}\\n")
        sys.stdout.flush()

asyncio.run(main())
"""


@pytest.mark.parametrize("wanted", range(1, 600, 31) if os.environ.get("FUZZ") else (1, 73, 210, 401))
async def test_what_was_released_before_the_kill_is_there(tmp_path: Path, wanted: int) -> None:
    path = os.pathsep.join((str(ROOT / "proxy"), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path}
    released: list[str] = []
    command = [sys.executable, "-c", RECORDER, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            released.append(line.strip())
            if len(released) == wanted:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    store = make_store(tmp_path / "data", ManualClock())
    await store.start()
    await store.close()
    report = verify_bundle(tmp_path / "data/sessions" / ID, tmp_path / "data/trust")
    assert (report.result, report.problems) == ("aborted", [])
    recorded = [r.text for r in report.released]
    assert recorded[: len(released)] == released, "every release that was said is there, in order, with its text"
    journals = [verify_bundle(folder, tmp_path / "data/trust") for folder in sorted((tmp_path / "data/journal").iterdir())]
    assert all(j.ok for j in journals)
