"""Property tests take fixed seeds and no deadline, so that a busy machine fails none; `make fuzz` takes fresh seeds."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
settings.register_profile("fuzz", deadline=None, max_examples=2000)
settings.load_profile("fuzz" if os.environ.get("FUZZ") else "fixed")
