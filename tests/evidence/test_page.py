"""The page of event types says what the registry says."""

from __future__ import annotations

from pathlib import Path

from interlock.evidence.page import events_page

PAGE = Path(__file__).parents[2] / "docs/evidence/events.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == events_page(), "run `make docs`"
