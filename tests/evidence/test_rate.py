"""How many events a second are recorded. Printed, never asserted: machines differ (`pytest -s` shows it)."""

from __future__ import annotations

import time
from pathlib import Path

from harness.transcripts import allowed, make_store, open_session
from interlock.clock import SystemClock
from interlock.commands.model import Kind

COMMANDS = 5000


async def test_events_recorded(tmp_path: Path) -> None:
    store = make_store(tmp_path / "data", SystemClock())
    await store.start()
    recorder = await open_session(store)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(COMMANDS):
        allowed(recorder, "select * from orders where id = 12345", Kind.QUERY)
    events = recorder.next_seq - 1
    by_cpu, by_clock = events / (time.process_time() - cpu), events / (time.perf_counter() - wall)
    print(f"\n{by_cpu:,.0f} events/s of CPU, {by_clock:,.0f} by the clock")
    sealing = time.perf_counter()
    await recorder.close({"reason": "client-left"})
    print(f"sealed in {time.perf_counter() - sealing:.2f} s")
    await store.close()
    assert events == 3 * COMMANDS
