"""A login: as which role, with what secret. And what every source of logins has in common.

Must not know: where secrets come from, the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from interlock.config import Secret
from interlock.errors import Reason, TargetError


@dataclass(frozen=True, slots=True)
class Login:
    """`clear`: the server asks for this secret in clear and may have it, inside TLS that proved the server's name."""

    role: str
    password: Secret | None = None
    clear: bool = False


class Provider(Protocol):
    """Gives the login of one target. Nothing it raises or logs holds any part of a secret."""

    async def login(self, role: str) -> Login:
        """Return how to log in as `role`, now. Raise TargetError (target-credential); never an older login instead."""
        ...

    def forget(self) -> bool:
        """The server refused the login. Return whether a fresh one may differ: it was kept, and is not any more."""
        ...


def unavailable(target: str, why: str) -> TargetError:
    return TargetError(f"the credential of target {target} can't be had: {why}", reason=Reason.TARGET_CREDENTIAL)
