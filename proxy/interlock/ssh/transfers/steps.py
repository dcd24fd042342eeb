"""The words between a reading of a transfer and whoever carries it: what may go on, what must be decided, what passed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from interlock.commands.pushes import Push
from interlock.commands.sftp import FileOperation
from interlock.ssh.sftp.handles import Content


class Side(StrEnum):
    CLIENT = "client"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Passed:
    """Bytes that may go on to `to`."""

    to: Side
    data: bytes


@dataclass(frozen=True, slots=True)
class Named:
    """Places where a file may come to lie, or from which it comes: each is decided before its name goes on."""

    operations: tuple[FileOperation, ...]
    set_id: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push asks for. Once it was released, `carry_on` says what goes to receive-pack."""

    push: Push


@dataclass(frozen=True, slots=True)
class Carried:
    """A whole file passed, or what came of it. `direction`: in (written) | out (read)."""

    direction: str
    place: str
    content: Content = field(compare=False)
    complete: bool = True


Step = Passed | Named | Pushed | Carried


class Reading(Protocol):
    """One transfer, read. Bytes are fed from both sides, and `next` is asked until it has nothing more to say.

    After `Named` and `Pushed` it is asked again only when that was released.
    """

    def feed(self, side: Side, data: bytes) -> None: ...

    def next(self) -> Step | None:
        """Return the next step; None: more bytes are needed. Raise RemoteProtocolError."""
        ...

    def waiting(self, side: Side) -> int:
        """Return how many bytes of a side are kept."""
        ...

    def starved(self, side: Side) -> bool:
        """Tell, once there is no next step, whether it is this side that must say more."""
        ...

    def rest(self) -> Carried | None:
        """Return the file that was cut off when it ended, if one was."""
        ...


class Plain:
    """A transfer whose protocol nobody reads here: what it may do was decided with its words."""

    def __init__(self) -> None:
        self._kept: list[Passed] = []

    def feed(self, side: Side, data: bytes) -> None:
        self._kept.append(Passed(Side.TARGET if side is Side.CLIENT else Side.CLIENT, data))

    def next(self) -> Step | None:
        return self._kept.pop(0) if self._kept else None

    def waiting(self, side: Side) -> int:
        return 0

    def starved(self, side: Side) -> bool:
        return True

    def rest(self) -> Carried | None:
        return None
