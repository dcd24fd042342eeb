"""Children that work beside the daemon: what holds for each of them, tried with the one that reads transcripts."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from interlock.child import Child
from interlock.evidence.readback import MODULE, Answered, Asked, Work


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child(MODULE, memory=1 << 30, most=1 << 20)
    yield made
    made.end()


def ask(child: Child, directory: Path) -> Answered:
    request = msgspec.json.encode(Asked(Work.SURVEY, str(directory), "s"))
    return msgspec.json.decode(child.ask(request, time.monotonic() + 30), type=Answered)


def test_a_daemon_with_thousands_of_descriptors_has_children_too(child: Child, tmp_path: Path) -> None:
    """select(2) knows none above 1,023; a daemon with as many sessions has its pipes there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2000
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    held = [os.open("/dev/null", os.O_RDONLY)]
    try:
        while held[-1] < 1100:
            held.append(os.dup(held[0]))
        child.begin()
        assert (found := ask(child, tmp_path).found) is not None and found.events == 0
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_lives_on_until_it_is_ended(child: Child, tmp_path: Path) -> None:
    assert child.begin() is False
    ask(child, tmp_path)
    assert child.begin() is True, "what it remembers is still there"
    child.end()
    assert child.begin() is False


def test_an_answer_has_a_bound_and_a_deadline(tmp_path: Path) -> None:
    small = Child(MODULE, memory=1 << 30, most=10)
    small.begin()
    with pytest.raises(EOFError):
        ask(small, tmp_path)
    small.end()
    late = Child(MODULE, memory=1 << 30, most=1 << 20)
    late.begin()
    with pytest.raises(TimeoutError):
        late.ask(b"{}", time.monotonic())
    late.end()
