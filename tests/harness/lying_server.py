"""A server that lets everybody in and then answers each message with the bytes that a test says, whatever was asked."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from harness.wire_client import message

SETTINGS = {
    "client_encoding": "UTF8", "standard_conforming_strings": "on", "server_encoding": "UTF8", "server_version": "15.18",
    "is_superuser": "off", "session_authorization": "app", "integer_datetimes": "on", "DateStyle": "ISO, MDY",
}  # fmt: skip
READY = message(b"Z", b"I")


def setting(name: str, value: str) -> bytes:
    return message(b"S", f"{name}\0{value}\0".encode())


class LyingServer:
    """Listens on `port`. To the sessions that come next it `says` what a test wants: `answers`, one for each read that a session
    brings, `greeting` behind the first ReadyForQuery, `settings` before it. Whoever reads the catalog is turned away."""

    def __init__(self) -> None:
        self.says()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def says(self, *answers: bytes, greeting: bytes = b"", leaves: bool = False, **settings: str) -> None:
        self._answers = answers
        self._leaves = leaves
        self._greeting = greeting
        self._settings = {**SETTINGS, **settings}

    def __enter__(self) -> LyingServer:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listening, *self._sockets):
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            self._sockets.append(near)
            threading.Thread(target=self._speak, args=(near,), daemon=True).start()

    def _speak(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            answers, greeting, leaves = self._answers, self._greeting, self._leaves
            start = near.recv(65536)
            if b"interlock:catalog" in start:
                near.sendall(message(b"E", b"SFATAL\0C53300\0Mno room\0\0"))
                near.close()
                return
            told = b"".join(setting(name, value) for name, value in self._settings.items())
            key = message(b"K", struct.pack("!II", 4711, 42))
            near.sendall(message(b"R", struct.pack("!I", 0)) + told + key + READY + greeting)
            if leaves:
                _end(near)
                return
            for answer in answers:
                if not near.recv(65536):
                    return
                near.sendall(answer)
            while near.recv(65536):
                pass


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
