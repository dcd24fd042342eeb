"""Which message of the webhook goes next, without a receiver or a clock that runs."""

from __future__ import annotations

from datetime import timedelta

from harness.requests import START
from interlock.approvals.channels.webhook.waiting import Slip, Waiting


def slip(ident: str, *, due: float = 0) -> Slip:
    return Slip(ident, 0, START + timedelta(seconds=due), START)


def test_of_one_request_one_message_is_out_at_a_time() -> None:
    waiting = Waiting()
    waiting.add(begun := slip("01A-1"))
    assert waiting.next(START) == begun
    waiting.add(ended := slip("01A-2"))  # while the first is on its way
    assert waiting.next(START) is None, "nobody hears of an end before the beginning was heard"
    waiting.done(begun)
    assert waiting.next(START) == ended


def test_a_message_that_failed_stays_before_what_came_after_it() -> None:
    waiting = Waiting()
    waiting.add(slip("01A-1"))
    waiting.add(ended := slip("01A-2"))
    assert waiting.next(START) is not None
    waiting.back(later := slip("01A-1", due=60))
    assert waiting.next(START) is None and waiting.next_due() == later.due
    assert waiting.next(later.due) == later
    waiting.done(later)
    assert waiting.next(later.due) == ended


def test_no_request_holds_up_another() -> None:
    waiting = Waiting()
    waiting.add(slip("01A-1"))
    assert waiting.next(START) is not None
    waiting.add(other := slip("01B-1"))
    assert waiting.next(START) == other
    assert len(waiting) == 2
