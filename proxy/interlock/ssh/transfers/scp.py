"""The old protocol of scp, read on its way. Pure.

    speaker (whose files they are)                       listener
    T<mtime> 0 <atime> 0\\n                               0, or 1 and a sentence
    C<mode> <size> <name>\\n                              0: the content follows; 1 and a sentence: it does not
      <size bytes>, then 0, or 1 and a sentence          0, or 1 and a sentence
    D<mode> 0 <name>\\n … E\\n                             0 each, or 1 and a sentence: the folder is left out
    1 <sentence>\\n                                       nothing

Theory of operation. Whether content follows a name is said by the listener, so each waits for the other here as it does
there: nothing of the speaker goes on before the answer to what it said has come, and nothing of a hostile client is read
by us as content and by the target as names. At the target's end a name stands for one or two places, since only the
target knows whether the path of the command is a folder; both are decided.

Spec: sink() and source() in scp.c of OpenSSH 9. A name with a slash, `.` and `..` are refused on both ways: what is
written stays below the path of the command, at the target and at the client.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from enum import StrEnum

from interlock.commands.programs.options import Operand, Option, parse
from interlock.commands.programs.servers import SCP
from interlock.commands.sftp import FileOperation
from interlock.errors import RemoteProtocolError
from interlock.ssh.sftp.handles import Content
from interlock.ssh.transfers.steps import Carried, Named, Passed, Side, Step

MAX_LINE = 1024
"""Bytes; the smallest buffer of an scp holds 2048, and what is longer would be read as two lines there."""
MAX_DEPTH = 64
MAX_PLACES = 4

_NAME = re.compile(rb"([CD])([0-7]{4}) ([0-9]{1,18}) ([^/\x00-\x1f\x7f]{1,255})\n\Z")
_TIMES = re.compile(rb"T[0-9]{1,19} [0-9]{1,6} [0-9]{1,19} [0-9]{1,6}\n\Z")
_SET_ID = 0o6000


@dataclass(frozen=True, slots=True)
class ScpEnd:
    """How the scp at the target was started. `places` are as its words say them."""

    takes: bool
    places: tuple[str, ...]
    folder: bool = False  # -d: the path must be a folder

    @classmethod
    def of(cls, argv: tuple[str, ...], *, homes: bool = False) -> ScpEnd:
        """`homes`: a `~` in these words stands for the account's home, where relative paths begin."""
        items = parse(argv, SCP, first=1)
        names = {i.name for i in items if isinstance(i, Option)}
        places = [i.value for i in items if isinstance(i, Operand)]
        if homes:
            places = [(p[2:] or ".") if p.partition("/")[0] == "~" else p for p in places]
        return cls("-t" in names, tuple(places), "-d" in names)


class _State(StrEnum):
    ANSWER = "answer"  # the listener's turn
    LINE = "line"
    CONTENT = "content"
    STATUS = "status"  # how reading the file went at the speaker's
    OVER = "over"


class _After(StrEnum):
    """What the listener's answer is about."""

    BEGIN = "begin"
    TIMES = "times"
    FILE = "file"
    FOLDER = "folder"
    DONE = "done"  # a whole file
    BACK = "back"  # the end of a folder


class ScpReading:
    """Follows one scp. `speaker` has the files: the client where the target takes them."""

    def __init__(self, end: ScpEnd) -> None:
        self._end = end
        self._speaker, self._listener = (Side.CLIENT, Side.TARGET) if end.takes else (Side.TARGET, Side.CLIENT)
        self._kept = {Side.CLIENT: bytearray(), Side.TARGET: bytearray()}
        self._state, self._after = _State.ANSWER, _After.BEGIN
        self._folders: list[tuple[str, ...]] = []
        self._line = b""  # named, and waits for its decision
        self._entered: tuple[str, ...] = ()
        self._file = ""
        self._left = 0
        self._content: Content | None = None

    def feed(self, side: Side, data: bytes) -> None:
        self._kept[side] += data

    def waiting(self, side: Side) -> int:
        return len(self._kept[side])

    def starved(self, side: Side) -> bool:
        return side is (self._listener if self._state is _State.ANSWER else self._speaker)

    def rest(self) -> Carried | None:
        if self._content is None:
            return None
        return Carried("in" if self._end.takes else "out", self._file, self._content, complete=False)

    def next(self) -> Step | None:
        if self._line:
            line, self._line = self._line, b""
            return self._say(line, _After.FOLDER if line.startswith(b"D") else _After.FILE)
        match self._state:
            case _State.ANSWER:
                return self._answer()
            case _State.LINE:
                return self._speech()
            case _State.CONTENT:
                return self._piece()
            case _State.STATUS:
                return self._status()
            case _State.OVER:
                return self._last_words()

    # -- the listener ---------------------------------------------------------------------------------------------

    def _answer(self) -> Step | None:
        kept = self._kept[self._listener]
        if not kept:
            return None
        said = b"\0" if kept[0] == 0 else self._take_line(self._listener)
        if said is None:
            return None
        if said == b"\0":
            del kept[:1]
        self._answered(yes=said == b"\0")
        if said[0] > 1:
            self._state = _State.OVER
        return Passed(self._speaker, said)

    def _answered(self, *, yes: bool) -> None:
        self._state = _State.LINE
        match self._after:
            case _After.FILE if yes:
                self._content = Content()
                self._state = _State.CONTENT if self._left else _State.STATUS
            case _After.FOLDER if yes:
                self._folders.append(self._entered)
            case _After.BACK:
                self._folders.pop()
            case _:
                pass

    # -- the speaker ----------------------------------------------------------------------------------------------

    def _speech(self) -> Step | None:
        line = self._take_line(self._speaker)
        if line is None:
            return None
        if line[0] in (1, 2):
            self._state = _State.LINE if line[0] == 1 else _State.OVER
            return Passed(self._listener, line)
        if line == b"E\n" and self._folders:
            return self._say(line, _After.BACK)
        if _TIMES.match(line):
            return self._say(line, _After.TIMES)
        found = _NAME.match(line)
        if found is None:
            raise RemoteProtocolError(f"the {self._speaker} sent what is no line of scp, or a name that leads elsewhere")
        kind, mode, size, raw = found.groups()
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("a file's name is not UTF-8") from None
        if name in (".", ".."):
            raise RemoteProtocolError(f"the {self._speaker} sent a name that leads elsewhere: {name}")
        return self._named(line, folder=kind == b"D", mode=int(mode, 8), size=int(size), name=name)

    def _named(self, line: bytes, *, folder: bool, mode: int, size: int, name: str) -> Named:
        if len(self._folders) >= MAX_DEPTH:
            raise RemoteProtocolError("the folders are nested too deeply")
        places = self._places(name, folder=folder)
        self._line, self._left = line, size
        self._file, self._entered = places[0], places
        takes = self._end.takes
        verb = ("mkdir" if folder else "put") if takes else "ls" if folder else "get"
        options = (("mode", f"{mode:04o}"),) if takes else ()
        set_id = takes and not folder and bool(mode & _SET_ID)
        return Named(tuple(FileOperation(verb, (p,), options, "scp") for p in places), set_id)

    def _places(self, name: str, *, folder: bool) -> tuple[str, ...]:
        """Return where the name may be at the target."""
        if self._folders:
            return tuple(dict.fromkeys(posixpath.join(above, name) for above in self._folders[-1]))
        if not self._end.takes:
            # What is sent is what the words say, whatever name the target gives it.
            named = [p for p in self._end.places if posixpath.basename(p.rstrip("/")) == name]
            return tuple((named or list(self._end.places))[:MAX_PLACES])
        (place,) = self._end.places
        inside = posixpath.join(place, name)
        return (inside,) if self._end.folder else (inside, place)

    def _piece(self) -> Step | None:
        kept = self._kept[self._speaker]
        if not kept:
            return None
        piece = bytes(kept[: self._left])
        del kept[: len(piece)]
        assert self._content is not None
        self._content.passed(self._content.size, piece)
        self._left -= len(piece)
        if not self._left:
            self._state = _State.STATUS
        return Passed(self._listener, piece)

    def _status(self) -> Step | None:
        kept = self._kept[self._speaker]
        if not kept:
            return None
        if self._content is not None:
            # The file is recorded before the end of it goes on.
            carried = self.rest()
            assert carried is not None
            self._content = None
            return Carried(carried.direction, carried.place, carried.content, complete=kept[0] == 0)
        said = b"\0" if kept[0] == 0 else self._take_line(self._speaker)
        if said is None:
            return None
        if said == b"\0":
            del kept[:1]
        return self._say(said, _After.DONE)

    def _say(self, said: bytes, about: _After) -> Passed:
        self._state, self._after = _State.ANSWER, about
        return Passed(self._listener, said)

    def _last_words(self) -> Step | None:
        """What the target still says goes on; nothing more of the client's does."""
        said = bytes(self._kept[Side.TARGET])
        self._kept[Side.TARGET].clear()
        self._kept[Side.CLIENT].clear()
        return Passed(Side.CLIENT, said) if said else None

    def _take_line(self, side: Side) -> bytes | None:
        kept = self._kept[side]
        end = kept.find(b"\n", 0, MAX_LINE)
        if end < 0:
            if len(kept) >= MAX_LINE:
                raise RemoteProtocolError(f"the {side} sent a line that no scp sends")
            return None
        line = bytes(kept[: end + 1])
        del kept[: end + 1]
        return line
