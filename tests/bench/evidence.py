"""How many events a second a core records: the four of a prepared select, as gate and session append them.

In this process, with the node's own store on the disk of TMPDIR and `evidence.sync: review`. CPU is the whole process's: the
syncs in the background are in it. What sealing costs an event is a figure of its own: it comes after the session.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from bench.table import Figure, family_seconds
from harness.transcripts import DIGEST, make_store, open_session
from interlock.clock import SystemClock
from interlock.commands.model import Analysis, BindValue, Command, Effect, Kind, Wire
from interlock.evidence.events import Recorder
from interlock.policy.model import Decision, Verdict
from interlock.postgres.results import Results
from interlock.record import Drafts

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
STATEMENTS = int(os.environ.get("BENCH_STATEMENTS", "20000"))
BUDGET = 20_000
"""Events a second a core (docs/performance.md)."""

TEXT = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;"


async def measure() -> list[Figure]:
    """Record and seal one session a round."""
    recorded, sealed = [], []
    with tempfile.TemporaryDirectory(prefix="interlock-evidence-") as scratch:
        store = make_store(Path(scratch) / "data", SystemClock())
        await store.start()
        for number in range(ROUNDS):
            recorder = await open_session(store, f"bench-{number}")
            opened = recorder.next_seq
            before = time.process_time()
            await _selects(recorder)
            await recorder.sync()
            events = recorder.next_seq - opened
            assert events == 4 * STATEMENTS
            recorded.append(events / (time.process_time() - before))
            before = family_seconds(os.getpid())  # a long transcript is read back by a child
            await recorder.close({"reason": "client-left"})
            sealed.append(events / (family_seconds(os.getpid()) - before))
        await store.close()
    return [
        Figure("events recorded, 4 a prepared select", "events/s a core", recorded, at_least=BUDGET),
        Figure("events sealed", "events/s a core", sealed),
    ]


async def _selects(recorder: Recorder) -> None:
    """Record what one session's prepared selects leave: each has a value of its own."""
    drafts, results = Drafts(), Results(recorder.append)
    effects = (Effect("select", "public.pgbench_accounts", schema="public", columns=("abalance", "aid"), limited=False),)
    analysis = Analysis(effects, sent=TEXT.decode(), parser="libpg_query 17", statements=1)
    decision = Decision(Verdict.ALLOW, "postgres/reads", "reading is allowed", DIGEST)
    for number in range(STATEMENTS):
        value = str(number)
        command = Command(Wire.POSTGRES, Kind.BIND, TEXT, binds=(BindValue(value.encode(), 0, 23, value),))
        ref = recorder.append(*drafts.allowed(command, analysis, decision, TEXT)) + 1
        results.tag(ref, b"SELECT 1")
        results.flush()
        if number % 64 == 0:
            await asyncio.sleep(0)  # as in the daemon, the timer of the syncs has its turn
