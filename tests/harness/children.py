"""The processes that a process has started and that live (proc(5), task/TID/children)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children(pid: int, module: str = "") -> list[int]:
    """Return the children of any thread of `pid`; with `module` those that run it (`python -m`)."""
    started: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # the thread has ended
            started += map(int, (task / "children").read_text().split())
    return [child for child in started if _runs(child, module)]


def _runs(pid: int, module: str) -> bool:
    try:
        return module in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has ended
        return False
