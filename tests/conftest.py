"""Property tests take fixed seeds and no deadline, so that a busy machine fails none; `make fuzz` takes fresh seeds."""

from __future__ import annotations

from hypothesis import settings

from harness.budget import FUZZ, examples

settings.register_profile("fixed", deadline=None, derandomize=True, database=None, max_examples=examples(100))
settings.register_profile("fuzz", deadline=None, max_examples=2000)
settings.load_profile("fuzz" if FUZZ else "fixed")
