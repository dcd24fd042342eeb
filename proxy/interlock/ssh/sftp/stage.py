"""An upload that a reviewer must see: kept here until the client has closed the file, then shown, decided and sent whole. Pure.

A file that was approved before its content is known could be anything. So the client is told that the file is open, what
it writes stays here, and its CLOSE waits for the answer.
"""

from __future__ import annotations

from dataclasses import replace

from interlock.ssh.sftp.packets import Attrs
from interlock.ssh.stdin import HeldBuffer


class Stage:
    """The content of one file, in order from the beginning. `problem` says why it can't be one."""

    def __init__(self, limit: int, *, anywhere: bool) -> None:
        """`anywhere`: the file is opened to append, and the offsets of its writes mean nothing."""
        self.held = HeldBuffer(limit)
        self.later = False  # something is to be done to the file once it is there: `changes`
        self.changes = Attrs()
        self.problem = ""
        self.refused = False  # the client was told
        self._anywhere = anywhere

    def write(self, offset: int, data: bytes) -> None:
        if not self._anywhere and offset != self.held.size:
            self.problem = "an upload that a person must see is sent from its beginning, in order; do not resume it"
        self.held.feed(data)

    def change(self, attrs: Attrs) -> None:
        """Keep what is to be done to the file once it is there. A size that it has anyway needs nothing."""
        if attrs.size is not None and attrs.size != self.held.size:
            self.problem = "an upload that a person must see is not cut or filled up afterwards"
        for name in ("owner", "mode", "times"):
            if (value := getattr(attrs, name)) is not None:
                self.changes = replace(self.changes, **{name: value})
                self.later = True

    def close(self) -> None:
        self.held.end()
