"""SSH user names as addresses: TARGET, or ACCOUNT@TARGET for another account. Pure (interface.md, Addresses)."""

from __future__ import annotations

import re
from dataclasses import dataclass

TARGET = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")

ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
"""Account names are also principals of the certificates we mint: no comma, no space, no control character (CVE-2026-35414)."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client wants to go. `account` is empty for the target's configured one."""

    target: str
    account: str = ""


def parse(user: str) -> Address | None:
    """Split at the right-most @; None when either part is not a name that could be configured."""
    account, at, target = user.rpartition("@")
    if TARGET.match(target) is None or (at and ACCOUNT.match(account) is None):
        return None
    return Address(target, account)
