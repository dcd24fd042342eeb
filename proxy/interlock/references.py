"""References to secrets, and what a secret is once it was read.

Secrets are never in the configuration: `env:NAME`, `file:PATH` and `vault:PATH#FIELD` say where they are, and `Secret` keeps
the value out of logs, errors and `repr`. Must not know what a secret is for.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from interlock.errors import ConfigError


class Secret:
    """A value that never shows: not in repr, str, logs, errors or comparisons that leak."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class SecretRef(BaseModel):
    """`env:NAME` or `file:PATH`: where a secret is, not what it is."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["env", "file"]
    where: str

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            kind, sep, where = value.partition(":")
            if sep and kind in ("env", "file") and where:
                return {"kind": kind, "where": where}
            if kind == "vault":
                raise ValueError("vault: is for the credentials of postgres targets; use env:NAME or file:PATH here")
            raise ValueError("refer to a secret as env:NAME or file:PATH; never write it here")
        return value

    def resolve(self, base: Path) -> Secret:
        """Read the secret now. Raise ConfigError that names the reference, never the value."""
        if self.kind == "env":
            value = os.environ.get(self.where)
            if not value:
                raise ConfigError(f"the environment variable {self.where} is not set; set it or refer to a file")
            return Secret(value)
        path = base / self.where
        try:
            return Secret(path.read_text().rstrip("\n"))
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(f"the secret file {path} can't be read: {why}") from None


_VAULT = re.compile(
    r"(?P<path>[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+)(?:#(?P<field>[A-Za-z0-9_.-]{1,128}))?\Z"
)
"""No segment begins with a dot: `..` would leave the path that a Vault policy was written for."""


class VaultRef(BaseModel):
    """`vault:PATH#FIELD`: an API path below /v1/, such as secret/data/orders, and the field of what is there."""

    model_config = ConfigDict(frozen=True)
    path: str
    field: str = ""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found = _VAULT.match(value.removeprefix("vault:"))
        if found is None:
            raise ValueError("refer to a secret in Vault as vault:MOUNT/PATH#FIELD, such as vault:secret/data/orders#password")
        return {"path": found["path"], "field": found["field"] or ""}


def referenced(value: object) -> object:
    """Choose the kind of reference by its prefix, so that an error speaks of the one that was meant."""
    if isinstance(value, str):
        return VaultRef.model_validate(value) if value.startswith("vault:") else SecretRef.model_validate(value)
    return value
