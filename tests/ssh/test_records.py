"""What the SSH front end records: the short way of large output says what the plain one says."""

from __future__ import annotations

import os
from base64 import b64encode

import pytest

from interlock.evidence.events import EventDraft
from interlock.ssh import records


@pytest.mark.parametrize("size", [0, 1, records.LARGE - 1, records.LARGE, records.LARGE + 1, 32768, 32768])
def test_what_passed_is_the_same_event_whatever_its_size(size: int) -> None:
    data = os.urandom(size)
    expected = EventDraft("term.output", {"channel": 3, "stream": 2, "bytes": size}, {"data": b64encode(data).decode()})
    assert records.output(3, 2, data).placed(7) == expected
    typed = EventDraft("term.input", {"channel": 3, "bytes": size}, {"data": b64encode(data).decode()})
    assert records.typed(3, data).placed(7) == typed


def test_two_channels_share_no_form() -> None:
    data = bytes(records.LARGE)
    said = [records.output(*place, data).placed(0).fields for place in ((1, 1), (1, 2), (2, 1))]
    assert said == [{"channel": c, "stream": s, "bytes": len(data)} for c, s in ((1, 1), (1, 2), (2, 1))]
