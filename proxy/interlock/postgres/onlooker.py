"""Where output control and blast radius will look on: what columns a result has, and how many rows a command was about.

An onlooker is told, never asked. It gets copies, after the answer was applied and recorded; what it returns is not read, and when
it raises it is told no more. So nothing that it does changes what passes, what is refused or what is on record. A session
without one pays nothing for this; one with it goes the long way, where every answer is read.

Knows: RowDescription and command tags as bytes. Must not know: rows, sockets, decisions.
"""

from __future__ import annotations

from typing import Protocol


class Onlooker(Protocol):
    """`ref` is the seq of the decision that is being answered, None where that can't be told (a Describe)."""

    def described(self, ref: int | None, columns: bytes) -> None:
        """A RowDescription came: its body."""
        ...

    def completed(self, ref: int | None, tag: str, rows: int | None) -> None:
        """A CommandComplete came: its tag, and the number of rows in it."""
        ...
