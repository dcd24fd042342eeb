"""The beginning of a push: which refs it changes. Read, decided, and made anew before receive-pack hears of it. Pure.

    client → receive-pack   [shallow OBJECT]… OLD NEW REF\\0FEATURES … 0000 [OPTION … 0000] pack
                            ╰──────────── kept until it was decided ────────────╯ then streamed

Features may stand behind any command, as receive-pack reads them. A signed push has commands inside of a certificate and
is refused. receive-pack reads commands once, so what comes behind them is the pack and can't be more commands.

Spec: gitprotocol-pack(5); read_head_info() in builtin/receive-pack.c.
"""

from __future__ import annotations

import re
from dataclasses import replace

from interlock.commands.pushes import Push, RefChange
from interlock.errors import RemoteProtocolError
from interlock.ssh.transfers import pktlines
from interlock.ssh.transfers.pktlines import FLUSH
from interlock.ssh.transfers.steps import Carried, Passed, Pushed, Side, Step

MAX_COMMANDS = 64 * 1024
"""Bytes of commands: what a reviewer reads."""
MAX_CHANGES = 200

_COMMAND = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ([^\x00-\x20\x7f]{1,1024})\Z")
_SHALLOW = re.compile(rb"shallow ([0-9a-f]{40}|[0-9a-f]{64})\Z")
_FEATURES = re.compile(rb"[\x20-\x7e]*\Z")


class PushReading:
    """Keeps what a client sends to receive-pack until its commands were decided. The target's answers pass."""

    def __init__(self, repository: str) -> None:
        self._push = Push(repository, ())
        self._kept = bytearray()
        self._answers: list[bytes] = []
        self._features: list[bytes] = []
        self._size = 0
        self._commands = True  # else: options for the hooks
        self._decided = False
        self._streams = False
        self._empty = False

    def feed(self, side: Side, data: bytes) -> None:
        if side is Side.TARGET:
            self._answers.append(data)
        elif not self._empty:
            self._kept += data

    def waiting(self, side: Side) -> int:
        return len(self._kept) if side is Side.CLIENT else 0

    def starved(self, side: Side) -> bool:
        return side is Side.CLIENT

    def rest(self) -> Carried | None:
        return None

    def next(self) -> Step | None:
        if self._answers:
            return Passed(Side.CLIENT, self._answers.pop(0))
        if self._streams:
            piece = bytes(self._kept)
            self._kept.clear()
            return Passed(Side.TARGET, piece) if piece else None
        if self._decided:
            self._streams = True
            return Passed(Side.TARGET, self._anew())
        while (line := pktlines.take(self._kept)) is not None:
            self._size += len(line)
            if self._size > MAX_COMMANDS or len(self._push.changes) > MAX_CHANGES:
                raise RemoteProtocolError("the push changes more than can be shown to a reviewer: push fewer refs at once")
            if line != FLUSH:
                self._read(line)
            elif self._commands and not self._push.changes:
                self._empty = True  # nothing to push: what would come behind it is nothing either
                self._kept.clear()
                return Passed(Side.TARGET, pktlines.encode(FLUSH))
            elif self._commands and self._has(b"push-options"):
                self._commands = False
            else:
                self._decided = True
                self._push = replace(self._push, atomic=self._has(b"atomic"))
                return Pushed(self._push)
        if len(self._kept) > pktlines.MAX_LENGTH:
            raise RemoteProtocolError("the client sent what is no pkt-line")
        return None

    def _read(self, line: bytes) -> None:
        said, nul, features = line.removesuffix(b"\n").partition(b"\0")
        if not self._commands:
            if nul or not _FEATURES.match(said) or not said:
                raise RemoteProtocolError("an option of the push is not plain text")
            self._push = replace(self._push, options=(*self._push.options, said.decode()))
        elif (found := _COMMAND.match(said)) is not None:
            self._note(features)
            self._change(*found.groups())
        elif not nul and (shallow := _SHALLOW.match(said)) is not None:
            self._push = replace(self._push, shallow=(*self._push.shallow, shallow[1].decode()))
        elif said.startswith(b"push-cert"):
            raise RemoteProtocolError("signed pushes are not offered here: push without --signed")
        else:
            raise RemoteProtocolError("the client sent what is no command of a push")

    def _note(self, features: bytes) -> None:
        if not _FEATURES.match(features):
            raise RemoteProtocolError("the features of the push are not plain text")
        self._features += features.split()

    def _has(self, feature: bytes) -> bool:
        return any(one.partition(b"=")[0] == feature for one in self._features)  # as parse_feature_request() in connect.c

    def _change(self, old: bytes, new: bytes, name: bytes) -> None:
        try:
            change = RefChange(name.decode(), old.decode(), new.decode())
        except UnicodeDecodeError:
            raise RemoteProtocolError("the name of a ref is not UTF-8") from None
        if not change.sound:
            raise RemoteProtocolError("the push names what is no ref, or changes nothing")
        if any(known.name == change.name for known in self._push.changes):
            raise RemoteProtocolError("the push changes a ref twice")
        self._push = replace(self._push, changes=(*self._push.changes, change))

    def _anew(self) -> bytes:
        """The commands as they were decided, in one form."""
        lines = [b"shallow " + one.encode() for one in self._push.shallow]
        commands = [f"{c.old} {c.new} {c.name}".encode() for c in self._push.changes]
        commands[0] += b"\0 " + b" ".join(dict.fromkeys(self._features))
        options = [*(one.encode() for one in self._push.options), FLUSH] if not self._commands else []
        return b"".join(map(pktlines.encode, (*lines, *commands, FLUSH, *options)))
