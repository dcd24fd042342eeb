"""The CLI's way to the daemon: a unix socket in data_dir, or a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from interlock.control import SOCKET
from interlock.errors import InterlockError, Reason

DEFAULT_DATA_DIR = Path("/var/lib/interlock")


def find_server(server: str | None) -> str:
    """Return the URL or socket path to use: --server, INTERLOCK_SERVER, else the socket in the usual data_dir."""
    return server or os.environ.get("INTERLOCK_SERVER") or str(DEFAULT_DATA_DIR / SOCKET)


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

    def get(self, path: str, **params: str) -> Any:
        return self._call("GET", path, params=params)

    def post(self, path: str, json: Any = None, *, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else None
        return self._call("POST", path, json=json, headers=headers)

    def patch(self, path: str, json: Any) -> Any:
        return self._call("PATCH", path, json=json)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def download(self, path: str) -> bytes:
        return self._answer("GET", path).content

    def lines(self, path: str) -> Iterator[str]:
        """Yield the data lines of a server-sent event stream until it ends."""
        try:
            with self._http.stream("GET", path, timeout=httpx.Timeout(30, read=None)) as response:
                if response.is_error:
                    response.read()
                    raise problem(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield line.removeprefix("data: ")
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
            f"no daemon answers at {self.server} ({error.__class__.__name__}); start `interlock serve`, "
            "or name it with --server or INTERLOCK_SERVER",
            reason=Reason.TARGET_UNREACHABLE,
        )


def problem(response: httpx.Response) -> InterlockError:
    """Turn a problem document (RFC 9457) back into the error it was."""
    try:
        document = response.json()
        return InterlockError(str(document["detail"]), reason=Reason(document["reason"]))
    except (ValueError, KeyError, TypeError):
        return InterlockError(f"the daemon answered {response.status_code}", reason=Reason.INTERNAL)
