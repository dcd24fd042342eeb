"""The CLI's way to the daemon: a unix socket in data_dir, or a URL."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from interlock.cli.kept import current_server
from interlock.control import SOCKET
from interlock.errors import InterlockError, Reason

DEFAULT_DATA_DIR = Path("/var/lib/interlock")

SILENCE_S = 45.0
"""Seconds without a word after which a stream is taken for dead; the daemon speaks every 15."""


def find_server(server: str | None) -> str:
    """Return the URL or socket path to use: --server, INTERLOCK_SERVER, the last login's, else the socket in data_dir."""
    return server or os.environ.get("INTERLOCK_SERVER") or current_server() or str(DEFAULT_DATA_DIR / SOCKET)


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event. `ident` is what to come back with."""

    kind: str
    ident: str
    data: str

    def json(self) -> Any:
        return json.loads(self.data)


class Client:
    """A synchronous client. Errors of the daemon come back as InterlockError with their reason code."""

    def __init__(self, server: str | None = None, *, token: str | None = None) -> None:
        self.server = find_server(server)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if self.server.startswith(("http://", "https://")):
            self._http = httpx.Client(base_url=self.server, headers=headers, timeout=30, trust_env=False)
        else:
            transport = httpx.HTTPTransport(uds=self.server.removeprefix("unix:"))
            self._http = httpx.Client(transport=transport, base_url="http://interlock", headers=headers, timeout=30)

    def close(self) -> None:
        """Close the connection. A verb that ends with its process need not."""
        self._http.close()

    def get(self, path: str, *, token: str | None = None, **params: str) -> Any:
        return self._call("GET", path, params=params, headers=_bearer(token))

    def post(self, path: str, json: Any = None, *, token: str | None = None) -> Any:
        return self._call("POST", path, json=json, headers=_bearer(token))

    def exchange(self, token: str) -> tuple[str, int]:
        """Exchange a platform's token for one of the daemon's own (RFC 8693): some platforms' tokens are good for one use.

        Return it and its seconds. Raise NotFoundError-coded InterlockError where there is no exchange.
        """
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }  # fmt: skip
        answer = self._call("POST", "/v1/token", data=form)
        return str(answer["access_token"]), int(answer["expires_in"])

    def patch(self, path: str, json: Any) -> Any:
        return self._call("PATCH", path, json=json)

    def delete(self, path: str, *, token: str | None = None) -> Any:
        return self._call("DELETE", path, headers=_bearer(token))

    def download(self, path: str) -> bytes:
        return self._answer("GET", path).content

    def events(self, path: str, last: str = "") -> Iterator[Event]:
        """Yield server-sent events until the stream ends. `last` is the id of the last one that is known.

        What a daemon says in between to show that it is there comes as an event of kind `""`.
        """
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30, read=SILENCE_S)) as response:
                if response.is_error:
                    response.read()
                    raise problem(response)
                kind = ident = data = ""
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    match name:
                        case "event":
                            kind = value
                        case "id":
                            ident = value
                        case "data":
                            data = value
                    if not line:
                        yield Event(kind if data else "", ident, data)
                        kind = data = ""
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        response = self._answer(method, path, **kwargs)
        return response.json() if response.content else None

    def _answer(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if response.is_error:
            raise problem(response)
        return response

    def _unreachable(self, error: Exception) -> InterlockError:
        return InterlockError(
            f"no daemon answers at {self.server} ({error.__class__.__name__})",
            reason=Reason.TARGET_UNREACHABLE,
            next_step="Start `interlock serve`, or name it with --server or INTERLOCK_SERVER: a URL or the socket in data_dir.",
        )


def _bearer(token: str | None) -> dict[str, str] | None:
    return {"Authorization": f"Bearer {token}"} if token else None


def problem(response: httpx.Response) -> InterlockError:
    """Turn a problem document (RFC 9457) back into the error it was."""
    try:
        document = response.json()
        told = document.get("detail") or document["error_description"]  # the latter from /v1/token (RFC 6749 §5.2)
        return InterlockError(str(told), reason=Reason(document["reason"]))
    except (ValueError, KeyError, TypeError):
        return InterlockError(f"the daemon answered {response.status_code}", reason=Reason.INTERNAL)
