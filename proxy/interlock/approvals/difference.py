"""How a request differs from the last approved one of its kind, word by word. Pure.

Compares what is shown, marks included, so that a difference in an invisible character is a difference in sight. Costs
a bounded amount: what both have in front and at the end is taken off in one pass, and only a middle of up to MAX_WORDS on
each side is compared word by word; a longer one is told as removed and added whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from interlock.approvals.model import ApprovalRequest
from interlock.commands.display import CLOSE, OPEN, inline, whole
from interlock.commands.model import Command

MAX_WORDS = 400

_WORD = re.compile(rf"{OPEN}[^{CLOSE}]*{CLOSE}|[A-Za-z0-9_]+| +|\n|.")


class Change(StrEnum):
    SAME = "same"
    REMOVED = "removed"  # was in the earlier one
    ADDED = "added"  # is in this one


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of text that is shown in one way. `text` is as safe as `display` makes it, with newlines."""

    change: Change
    text: str


Segments = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Command, input and bind values, compared apart. `same` when nothing of these three differs."""

    request: str  # the id of the earlier one
    command: Segments
    stdin: Segments
    binds: Segments

    @property
    def same(self) -> bool:
        return all(segment.change is Change.SAME for segment in (*self.command, *self.stdin, *self.binds))


def difference(request: ApprovalRequest, earlier: ApprovalRequest) -> Difference:
    """Compare a request with an earlier one."""
    now, then = request.draft.command, earlier.draft.command
    return Difference(
        earlier.id,
        compare(_shown(then.text), _shown(now.text)),
        compare(_input(then), _input(now)),
        compare(_binds(then), _binds(now)),
    )


def compare(before: str, after: str) -> Segments:
    """Return the segments that lead from one shown text to the other; neighbours of one kind are joined."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    front = _common(old, new)
    back = _common(old[: front - len(old) - 1 : -1], new[: front - len(new) - 1 : -1])
    middle = list(_middle(old[front : len(old) - back], new[front : len(new) - back]))
    parts = [(Change.SAME, old[:front]), *middle, (Change.SAME, old[len(old) - back :])]
    joined: list[Segment] = []
    for change, words in parts:
        text = "".join(words)
        if not text:
            continue
        if joined and joined[-1].change is change:
            joined[-1] = Segment(change, joined[-1].text + text)
        else:
            joined.append(Segment(change, text))
    return tuple(joined)


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    """How many words both begin with."""
    count = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        count += 1
    return count


def _middle(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[Change, Sequence[str]]]:
    if max(len(old), len(new)) > MAX_WORDS:
        yield Change.REMOVED, old
        yield Change.ADDED, new
        return
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield Change.SAME, old[i:j]
            continue
        yield Change.REMOVED, old[i:j]
        yield Change.ADDED, new[k:m]


def _shown(text: bytes) -> str:
    return "\n".join(whole(text).lines)


def _input(command: Command) -> str:
    return "" if command.stdin is None else _shown(command.stdin.data)


def _binds(command: Command) -> str:
    def told(raw: bytes | None, shown: str | None) -> str:
        return "NULL" if raw is None else f"0x{raw.hex()}" if shown is None else inline(shown, 4000)

    return "\n".join(f"${number} = {told(value.raw, value.shown)}" for number, value in enumerate(command.binds, 1))
