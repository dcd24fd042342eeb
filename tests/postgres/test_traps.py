"""docs/postgres-traps.md names a test for each trap: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "postgres-traps.md"
NAMED = re.compile(r"`([a-z_/]+\.py)::(\w+)`")


def test_every_trap_names_a_test_that_is_there() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| trap |")]
    assert len(rows) > 40
    missing = [row for row in rows if not NAMED.search(row)]
    assert not missing
    gone = [
        f"{file}::{name}"
        for row in rows
        for file, name in NAMED.findall(row)
        if re.search(rf"^ *(?:async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE) is None
    ]
    assert not gone
