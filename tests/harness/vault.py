"""What Vault's HTTP API answers to reads, as its documentation says: key/value 1 and 2, and the database engine.

Not Vault itself, which is no package of any index the tests may use: a real HTTP server on a real socket, whose answers
follow "KV Secrets Engine - Version 2 (API)" and "Database Secrets Engine (API)". Its database roles are real ones: they are
made in the PostgreSQL that the test names, with an end, as Vault's creation statements do.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


def kv2(**data: str) -> Answer:
    return 200, {
        "request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0,
        "data": {"data": data, "metadata": {"version": 3, "destroyed": False}},
    }  # fmt: skip


def kv1(**data: str) -> Answer:
    return 200, {"request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 2764800, "data": data}


def lease(seconds: int, **data: str) -> Answer:
    return 200, {"request_id": "r", "lease_id": "database/creds/x/1", "renewable": True, "lease_duration": seconds, "data": data}


@dataclass
class FakeVault:
    """`paths` maps what is below /v1/ to an answer, or to what makes one."""

    token: str = field(default_factory=lambda: f"hvs.{secrets.token_urlsafe(16)}")
    paths: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    namespaces: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, token: str | None, namespace: str | None) -> Answer:
        self.asked.append(path)
        self.namespaces.append(namespace)
        if token != self.token:
            return 403, {"errors": ["permission denied", f"the token was {token}"]}
        found = self.paths.get(path, (404, {"errors": []}))
        return found() if callable(found) else found


@contextmanager
def running_vault() -> Iterator[FakeVault]:
    vault = FakeVault()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = self.headers
            status, body = vault.answer(
                self.path.removeprefix("/v1/"), headers.get("X-Vault-Token"), headers.get("X-Vault-Namespace")
            )
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{vault.url}/v1/elsewhere")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vault.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
