"""Work that must not be done in the daemon's own interpreter: a Python child that answers one request after another.

Requests and answers are bytes with their length before them, over the child's standard input and output. The child is started
for the first request and for the first after its death; it gets no file of ours, no variable of our environment, a bound of
memory, and it ends with its input, so none outlives the daemon for longer than one answer. What it says is for the caller to
judge: a text that broke the child may have made it say anything.

Blocks; used in threads, by one at a time (`kill` by any).
"""

from __future__ import annotations

import os
import resource
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LENGTH = struct.Struct("!I")
_ROOT = Path(__file__).parents[1]


class Child:
    """One process of `python -m MODULE`, which must call `serve`."""

    def __init__(self, module: str, *, memory: int, most: int, nice: int = 0, may_write: bool = True) -> None:
        """`memory` in bytes, `most` bytes of an answer; `nice` is added to our own niceness; `may_write` files."""
        self._module = module
        self._memory = memory
        self._most = most
        self._nice = nice
        self._may_write = may_write
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> bool:
        """See that there is a process. Return whether it is the one of last time, with what it remembers. Raise OSError."""
        if self._process is not None and self._process.poll() is None:
            return True
        self.end()
        self._process = self._started()
        return False

    def ask(self, request: bytes, deadline: float) -> bytes:
        """Return the answer of the process that `begin` left. Raise TimeoutError at `deadline` (time.monotonic), or EOFError or
        OSError when it is no good.

        After an error the child is to be ended: its next answer may be the one to this request.
        """
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        _write(process.stdin.fileno(), _LENGTH.pack(len(request)) + request, deadline)
        (length,) = _LENGTH.unpack(_read(process.stdout.fileno(), _LENGTH.size, deadline))
        if length > self._most:
            raise EOFError("answer too large")
        return _read(process.stdout.fileno(), length, deadline)

    def kill(self) -> None:
        """Let the request that is being answered fail with EOFError. From any thread."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        """Kill the process, if there is one, and forget it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # it died with our request unread
                        pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        # subprocess forks and runs the program in C, which is safe beside threads; a fork that goes on in Python is not.
        process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}, cwd="/", bufsize=0,
        )  # fmt: skip
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (self._memory, self._memory))
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        if not self._may_write:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
        if self._nice:
            with suppress(OSError):  # it may be gone already
                os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + self._nice)
        return process


def _write(fd: int, data: bytes, deadline: float) -> None:
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        _wait(fd, select.POLLOUT, deadline)
        view = view[os.write(fd, view[: 1 << 16]) :]


def _read(fd: int, length: int, deadline: float) -> bytes:
    got = bytearray()
    while len(got) < length:
        _wait(fd, select.POLLIN, deadline)
        chunk = os.read(fd, min(1 << 18, length - len(got)))
        if not chunk:
            raise EOFError
        got += chunk
    return bytes(got)


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()  # select() knows no descriptor above 1,023, and every session has some
    poll.register(fd, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Run in the child: answer requests until standard input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        answered = answer(requests.read(length))
        answers.write(_LENGTH.pack(len(answered)) + answered)
        answers.flush()
