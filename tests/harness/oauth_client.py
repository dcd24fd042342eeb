"""libpq 18 as a real OAUTHBEARER client, in a process of its own because its hook is one for the whole process.

Run as a script: `oauth_client.py DSN TOKEN`. It prints one JSON object: what libpq was told to look for, and how it ended.
`run` starts it. libpq has no Python interface for the hook (PQsetAuthDataHook), so it is set through ctypes in the library
that psycopg brings.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROMPT_OAUTH_BEARER_TOKEN = 1


class _Request(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [
        ("openid_configuration", ctypes.c_char_p), ("scope", ctypes.c_char_p), ("run", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p), ("token", ctypes.c_char_p), ("user", ctypes.c_void_p),
    ]  # fmt: skip


def run(dsn: str, token: str) -> dict[str, Any]:
    """Connect in a child; return {"asked": [[configuration, scope]…], "connected", "error"}."""
    done = subprocess.run([sys.executable, __file__, dsn, token], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main(dsn: str, token: str) -> None:
    import psycopg
    import psycopg_binary  # type: ignore[import-not-found]  # a wheel without types

    libraries = Path(psycopg_binary.__file__).parent.parent / "psycopg_binary.libs"
    libpq = ctypes.CDLL(str(next(libraries.glob("libpq-*.so*"))))
    secret, asked = token.encode(), []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_Request))
    def clean(_connection: int, request: Any) -> None:
        request.contents.token = None

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def hook(kind: int, _connection: int, data: int) -> int:
        if kind != PROMPT_OAUTH_BEARER_TOKEN:
            return 0
        request = ctypes.cast(data, ctypes.POINTER(_Request)).contents
        asked.append([value and value.decode() for value in (request.openid_configuration, request.scope)])
        request.token, request.cleanup = secret, ctypes.cast(clean, ctypes.c_void_p).value
        return 1

    libpq.PQsetAuthDataHook.argtypes = [type(hook)]
    libpq.PQsetAuthDataHook(hook)
    try:
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SELECT current_user").fetchone()
        outcome = {"connected": row == ("app",), "error": ""}
    except psycopg.OperationalError as error:
        outcome = {"connected": False, "error": str(error)}
    print(json.dumps({"asked": asked, **outcome}))


if __name__ == "__main__":
    main(*sys.argv[1:])
