"""A way to a PostgreSQL on which cancel requests and statements arrive in the order that a test says."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
import threading
import time
from types import TracebackType

CANCEL = struct.pack("!I", 80877102)
PATIENCE = 30


class OvertakingWay:
    """Forwards TCP connections to the server on `port`. Cancels wait for `let_cancels_go`, statements while they are kept.

    `passed` is everything that went to the server on connections that cancel nothing; `cancels` counts those that arrived here.
    """

    def __init__(self, port: int) -> None:
        self._far = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._cancels_go = threading.Event()
        self._statements_go = threading.Event()
        self._statements_go.set()
        self._sockets: list[socket.socket] = []
        self._near: list[socket.socket] = []
        self._changed = threading.Condition()
        self.passed = b""
        self.cancels = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> OvertakingWay:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.let_cancels_go()
        self._statements_go.set()
        for one in (self._listening, *self._sockets):
            _end(one)  # closing alone would wake nobody who waits in it

    def let_cancels_go(self) -> None:
        self._cancels_go.set()

    def keep_statements(self) -> None:
        self._statements_go.clear()

    def let_statements_go(self) -> None:
        self._statements_go.set()

    def wait_for_cancels(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.cancels >= count, PATIENCE), f"{self.cancels} cancels arrived"

    def wait_until_passed(self, data: bytes) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: data in self.passed, PATIENCE), data

    def catch_up(self) -> None:
        """Return once everything that was sent here before has passed: what is not in `passed` then, was not sent."""
        end = time.monotonic() + PATIENCE
        while True:
            with self._changed:
                if not any(map(_unread, self._near)):
                    return
            assert time.monotonic() < end, "statements are kept, so they do not pass"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._arrived, args=(near,), daemon=True).start()

    def _arrived(self, near: socket.socket) -> None:
        first = near.recv(65536)
        self._near.append(near)
        far = socket.create_connection(("127.0.0.1", self._far), timeout=PATIENCE)
        far.settimeout(None)
        self._sockets += [near, far]
        cancels = first[4:8] == CANCEL
        if cancels:
            with self._changed:
                self.cancels += 1
                self._changed.notify_all()
            self._cancels_go.wait(PATIENCE)
        far.sendall(first)
        threading.Thread(target=_pour, args=(far, near), daemon=True).start()
        try:
            while near.recv(1, socket.MSG_PEEK):
                self._statements_go.wait(PATIENCE)
                with self._changed:  # whoever has this lock sees each byte either unread or passed
                    data = near.recv(65536)
                    self.passed += data
                    self._changed.notify_all()
                far.sendall(data)
        except OSError:
            pass
        _end(far)


def _unread(one: socket.socket) -> int:
    """Return how many bytes wait in a socket that is open."""
    try:
        return int.from_bytes(fcntl.ioctl(one.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
