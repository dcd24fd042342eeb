"""Which statement or portal a name means at the server, followed by what was sent, in the order it was sent.

Knows: prepared statements and portals have one name space each, shared by the protocol and by SQL's PREPARE, EXECUTE,
DECLARE and FETCH (PostgreSQL manual, "Extended Query", PREPARE, DECLARE).
Must not know: policy, sockets, what a statement does.

Theory of operation. A change is entered when its message is sent and is *open* until the server answered it. While it is
open nobody knows whether the name has its new or its old meaning, with one exception: within the same stretch between
two Syncs a failed message makes the server skip everything that follows, so there the new meaning may be used. A look-up
that meets an open change of an earlier stretch says UNSETTLED: the caller drains first. The change of a message that failed, or
was skipped, is taken out again. A name whose meaning can't be known any more (a string of several statements failed
somewhere) is UNKNOWN until it is set again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Lookup(Enum):
    """Why a look-up gave no meaning."""

    UNSETTLED = "an answer that decides about the name has not come yet"
    ABSENT = "the name means nothing at the server"
    UNKNOWN = "what the name means can't be known"


class _Slot(Generic[T]):
    __slots__ = ("meaning", "open", "stretch")

    def __init__(self, meaning: T | Lookup, stretch: int, open_: bool) -> None:
        self.meaning = meaning  # ABSENT or UNKNOWN besides a real one
        self.stretch = stretch
        self.open = open_


class Change(Generic[T]):
    """One entered change, to be settled or undone by the answer to its message."""

    __slots__ = ("name", "slot", "table")

    def __init__(self, table: Names[T], name: str, slot: _Slot[T]) -> None:
        self.table = table
        self.name = name
        self.slot = slot

    def settle(self) -> None:
        self.table._settle(self)

    def undo(self) -> None:
        self.table._undo(self)

    def confuse(self) -> None:
        """The message failed in a way that leaves open whether this change happened."""
        self.slot.meaning = Lookup.UNKNOWN
        self.table._settle(self)


OUTSIDE = -1
"""The stretch of a change that skipping does not protect: one made by a simple Query."""


class Names(Generic[T]):
    """One table of names. `version` grows with every change of a real name, so that a snapshot is made only when needed.

    Of each name the last known meaning and the open changes after it are kept, oldest first.
    """

    __slots__ = ("_open", "by_name", "version")

    def __init__(self) -> None:
        self.by_name: dict[str, list[_Slot[T]]] = {}
        self._open = 0
        self.version = 0

    def __len__(self) -> int:
        return len(self.by_name)

    @property
    def settled(self) -> bool:
        return not self._open

    def look_up(self, name: str, stretch: int) -> T | Lookup:
        slots = self.by_name.get(name)
        if slots is None:
            return Lookup.ABSENT
        slot = slots[-1]
        if slot.open and slot.stretch != stretch:
            return Lookup.UNSETTLED
        return slot.meaning

    def enter(self, name: str, meaning: T | Lookup, stretch: int) -> Change[T]:
        """Enter what a message that is being sent makes of the name; `Lookup.ABSENT` removes it."""
        slot = _Slot(meaning, stretch, True)
        self.by_name.setdefault(name, []).append(slot)
        self._open += 1
        self.version += bool(name)
        return Change(self, name, slot)

    def enter_settled(self, name: str, meaning: T) -> None:
        """Enter what a message has made of the name that is answered already. Nothing of the table may be open."""
        self.by_name[name] = [_Slot(meaning, OUTSIDE, False)]
        self.version += bool(name)

    def enter_all_absent(self, stretch: int, *, spared: str | None) -> list[Change[T]]:
        """Enter that every name is gone but `spared`."""
        return [self.enter(name, Lookup.ABSENT, stretch) for name in list(self.by_name) if name != spared]

    def forget_settled(self, keep: Callable[[T], bool]) -> None:
        """Drop every settled name that is not kept: the transaction that held them has ended."""
        gone = [
            name
            for name, slots in self.by_name.items()
            if not slots[-1].open and not (not isinstance(m := slots[-1].meaning, Lookup) and keep(m))
        ]
        for name in gone:
            del self.by_name[name]
        self.version += any(gone)  # the nameless one is in no snapshot that anybody reads

    def snapshot(self) -> Mapping[str, T]:
        return {name: m for name, slots in self.by_name.items() if not isinstance(m := slots[-1].meaning, Lookup)}

    def _close(self, slot: _Slot[T]) -> None:
        if slot.open:
            slot.open = False
            self._open -= 1

    def _settle(self, change: Change[T]) -> None:
        self._close(change.slot)
        slots = self.by_name.get(change.name)
        if slots is None or change.slot not in slots:
            return
        del slots[: slots.index(change.slot)]
        self._drop_if_absent(change.name, slots)
        self.version += bool(change.name)

    def _undo(self, change: Change[T]) -> None:
        self._close(change.slot)
        slots = self.by_name.get(change.name)
        if slots is None or change.slot not in slots:
            return
        slots.remove(change.slot)
        self._drop_if_absent(change.name, slots)
        self.version += bool(change.name)

    def _drop_if_absent(self, name: str, slots: list[_Slot[T]]) -> None:
        if not slots or (len(slots) == 1 and not slots[0].open and slots[0].meaning is Lookup.ABSENT):
            del self.by_name[name]
