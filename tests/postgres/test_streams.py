"""No stream of bytes leads a session astray: a few of those that `make fuzz-postgres` runs for as long as it is told."""

from __future__ import annotations

import asyncio
import os
import random  # noqa: TID251  seeded
import time
from collections import Counter

import pytest

from fuzz.postgres_codec import ATTEMPTS
from fuzz.postgres_streams import SIDES, Side, from_clients, run

FUZZ = bool(os.environ.get("FUZZ"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SESSIONS = 10**9 if FUZZ else 250
SEED = int(os.environ.get("FUZZ_SEED", "0")) or (random.SystemRandom().randrange(1 << 32) if FUZZ else 4)


@pytest.mark.timeout(SECONDS + 300 if FUZZ else 120)
@pytest.mark.parametrize("side", SIDES)
def test_no_stream_leads_a_session_astray(side: Side, capsys: pytest.CaptureFixture[str]) -> None:
    seen: Counter[str] = Counter()
    began = time.monotonic()
    done = 0
    while done < SESSIONS and not (FUZZ and time.monotonic() - began > SECONDS):
        asyncio.run(run(side, range(SEED + done, SEED + done + 50), seen))
        done += 50
    if FUZZ:
        with capsys.disabled():
            print(f"\n{side.__name__}: {done} sessions from seed {SEED}: {dict(seen)}")
    assert seen["protocol-violation" if side is from_clients else "target-protocol"]
    assert seen["lived"]


@pytest.mark.parametrize("what", ATTEMPTS)
def test_no_bytes_lead_the_codec_astray(what: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEED, SEED + 400):
        ATTEMPTS[what](random.Random(seed), seen)
    assert len(seen) > 1, seen  # both what is taken and what is not
