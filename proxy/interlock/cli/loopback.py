"""Where a browser on this machine comes back to after a login: one address on 127.0.0.1, one answer (RFC 8252 §7.3).

Takes what belongs to the login that is under way, by its `state`, and answers everything else with 404: any page in that
browser can send it something. Must not know the provider or the daemon.
"""

from __future__ import annotations

import hmac
import socket
import time
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from interlock.errors import AuthenticationError

MAX_HEAD = 16 * 1024
ONE_S = 5.0
"""Seconds one connection has: a browser opens some that it never uses."""

_PAGE = "<!doctype html><meta charset=utf-8><title>Interlock</title><p style='font:1.1rem system-ui;margin:3rem'>{}</p>"


@dataclass(frozen=True, slots=True)
class Answer:
    code: str
    issuer: str | None


class Loopback:
    """Listens from the start, so that the address is known before the browser opens."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(8)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()

    def wait(self, state: str, seconds: float) -> Answer:
        """Return the answer that carries `state`. Raise AuthenticationError when none comes in time or it is a refusal."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                break
            with connection:
                connection.settimeout(min(ONE_S, left))
                try:
                    found = _asked(connection)
                    if found is None or not hmac.compare_digest(found.get("state", "").encode(), state.encode()):
                        _reply(connection, "404 Not Found", "This is not the login that is under way.")
                        continue
                    if "error" in found or "code" not in found:
                        _reply(connection, "200 OK", "The login was refused. You can close this page.")
                        raise AuthenticationError("the login was refused at the identity provider")
                    _reply(connection, "200 OK", "You are logged in. You can close this page.")
                    return Answer(found["code"], found.get("iss"))
                except OSError:
                    continue
        raise AuthenticationError("nobody finished the login in the browser; run `interlock login` again, or with --device")


def _asked(connection: socket.socket) -> dict[str, str] | None:
    """Read the head of a request; return the parameters of GET /callback, or None for anything else."""
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = connection.recv(4096)
        if not chunk or len(head) + len(chunk) > MAX_HEAD:
            return None
        head += chunk
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or words[0] != b"GET":
        return None
    parts = urlsplit(words[1].decode("ascii", "replace"))
    if parts.path != "/callback":
        return None
    given = parse_qs(parts.query, keep_blank_values=True)
    return {name: values[0] for name, values in given.items() if len(values) == 1}


def _reply(connection: socket.socket, status: str, text: str) -> None:
    body = _PAGE.format(text).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; "
        "style-src 'unsafe-inline'\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
