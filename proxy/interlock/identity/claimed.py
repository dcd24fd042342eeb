"""Values of a token's claims, read strictly, whichever kind of token they are in. Pure.

Knows the shapes of RFC 7519 §2 and of OpenID Connect Core §2, and how Entra says that groups are missing. Must not know which
claims a kind of token has to have (`claims`, `idtoken`). Errors name the claim and never its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from interlock.errors import Reason
from interlock.identity.jose import rejected
from interlock.identity.principal import Assurance

SKEW_S = 60
MAX_GROUPS = 1000
MAX_NAME = 255
MAX_METHODS = 16
LAST_MOMENT = 2**37
"""Seconds since 1970: later ones are no date in Python."""


def name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise rejected(f"its {claim} is missing or malformed")
    return value


def moment(claims: Mapping[str, Any], claim: str) -> float:
    """Read a NumericDate (RFC 7519 §2): seconds since 1970."""
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise rejected(f"its {claim} is missing or malformed")
    if not math.isfinite(value) or not 0 <= value < LAST_MOMENT:
        raise rejected(f"its {claim} is missing or malformed")
    return float(value)


def groups(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """Return the groups; none when the claim is absent. Overage (Entra) fails closed: a deny rule may name a group."""
    elsewhere = claims.get("_claim_names")
    overage = claims.get("hasgroups") not in (None, False, "false") or (
        elsewhere is not None and (not isinstance(elsewhere, dict) or claim in elsewhere or "groups" in elsewhere)
    )
    if overage:
        raise rejected(
            "its groups did not fit and are left out (overage); assign fewer groups to the application", Reason.GROUPS_INCOMPLETE
        )
    value = claims.get(claim, [])
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        raise rejected(f"its {claim} is no list of groups")
    if not all(isinstance(group, str) and 0 < len(group) <= MAX_NAME and group.isprintable() for group in value):
        raise rejected(f"its {claim} is no list of groups")
    return frozenset(value)


def assurance(claims: Mapping[str, Any]) -> Assurance:
    """Read acr, amr and auth_time. What is malformed in the first two says nothing; a malformed time is an error."""
    acr, amr = claims.get("acr"), claims.get("amr")
    timed = claims.get("auth_time") is not None
    return Assurance(
        acr=acr if isinstance(acr, str) and len(acr) <= MAX_NAME else "",
        amr=tuple(method for method in amr if isinstance(method, str))[:MAX_METHODS] if isinstance(amr, list) else (),
        auth_time=datetime.fromtimestamp(moment(claims, "auth_time"), UTC) if timed else None,
    )
