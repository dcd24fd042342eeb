"""AWS RDS and Aurora with IAM: a token in place of a password, signed here, good for fifteen minutes.

Knows: "IAM database authentication" of Amazon RDS: the token is a presigned request for the action rds-db:connect. Must
not know the protocol. Nothing is asked of AWS: a token is computed, and the server has it checked.

The server asks for the token in clear. It gets it inside TLS that proved its name, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from interlock.clock import Clock
from interlock.config import Credentials, Secret, SecretRef
from interlock.errors import ConfigError
from interlock.postgres.credentials.login import Login, unavailable
from interlock.postgres.credentials.sigv4 import Keys, presigned

LIFETIME_S = 900


class RdsToken:
    """Signs a token for each login: that costs a few microseconds, so none is kept."""

    def __init__(self, credentials: Credentials, *, address: str, target: str, base: Path, clock: Clock) -> None:
        self._credentials = credentials
        self._address = address
        self._target = target
        self._base = base
        self._clock = clock

    async def login(self, role: str) -> Login:
        try:
            keys = await asyncio.to_thread(self._keys)
        except ConfigError as error:
            raise unavailable(self._target, str(error)) from None
        token = presigned(
            keys, host=self._address, parameters={"Action": "connect", "DBUser": role}, region=self._credentials.region,
            service="rds-db", expires=LIFETIME_S, now=self._clock.now(),
        )  # fmt: skip
        return Login(role, Secret(token), clear=True)

    def forget(self) -> bool:
        return False

    async def close(self) -> None:
        return None

    def _keys(self) -> Keys:
        """Read the access keys now: they may be temporary ones that something else renews."""
        wanted = self._credentials
        access = (wanted.access_key or SecretRef(kind="env", where="AWS_ACCESS_KEY_ID")).resolve(self._base)
        secret = (wanted.secret_key or SecretRef(kind="env", where="AWS_SECRET_ACCESS_KEY")).resolve(self._base)
        if wanted.session_token is not None:
            token = wanted.session_token.resolve(self._base).reveal()
        else:
            # It belongs to the keys of the environment, and to no others.
            token = "" if wanted.access_key is not None else os.environ.get("AWS_SESSION_TOKEN", "")
        return Keys(access.reveal(), secret.reveal(), token)
