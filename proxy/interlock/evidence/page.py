"""The reference page of event types, generated from the registry. Pure."""

from __future__ import annotations

from interlock.evidence.events import TYPES

_HEAD = """# Types of events

Generated from `evidence/events.py`. A transcript holds no other type: the writer refuses to write one and the verifier fails
on one. The form of an event is in [format.md](format.md).

| type | what happened |
|---|---|
"""


def events_page() -> str:
    """Return docs/evidence/events.md."""
    return _HEAD + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in TYPES.items())
