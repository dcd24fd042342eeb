"""The platforms whose tokens say which workload is asking: what their tokens look like, and what must be pinned of them.

Pure facts, for the configuration and for whoever reads tokens. Sources: GitHub "OpenID Connect reference", Kubernetes
"Managing Service Accounts" (projected tokens), SPIFFE JWT-SVID §3, Microsoft "Access token claims reference". Must not know
tokens' bytes, keys or the directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Name = Literal["generic", "github-actions", "kubernetes", "spiffe", "entra"]


@dataclass(frozen=True, slots=True)
class Platform:
    """`pins` are claims of which a workload must name all of one set: each set is one workload and no stranger's.

    `jti` says which claim names the token; where a platform may leave it out, `digest` allows the token's own SHA-256.
    `single_use`: the platform makes a token for each use, so that one that comes twice was taken.
    """

    types: tuple[str, ...]
    pins: tuple[frozenset[str], ...]
    subject: str = "sub"
    jti: str = "jti"
    digest: bool = False
    single_use: bool = False


PLATFORMS: Mapping[str, Platform] = {
    "generic": Platform(("at+jwt", "JWT"), (frozenset({"sub"}),)),
    # Everybody with an account there gets tokens for any audience: only these claims tell one repository from all others.
    "github-actions": Platform(
        ("JWT",), (frozenset({"sub"}), frozenset({"repository"}), frozenset({"repository_id"})), single_use=True
    ),
    "kubernetes": Platform(("",), (frozenset({"sub"}), frozenset({"namespace", "serviceaccount"})), digest=True),
    "spiffe": Platform(("JWT", "JOSE", ""), (frozenset({"sub"}),), digest=True),
    "entra": Platform(("JWT",), (frozenset({"oid"}), frozenset({"azp"}), frozenset({"appid"})), subject="oid", jti="uti"),
}

_NEVER_MATCHED = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "uti"})


def check_workload(platform: str, claims: Mapping[str, str | Sequence[str]]) -> None:
    """Raise ValueError unless these claims name a workload of this platform that no stranger can be."""
    if useless := sorted(_NEVER_MATCHED & claims.keys()):
        raise ValueError(f"claims: {', '.join(useless)} is checked for every token and names no workload; remove it")
    if not any(pin <= claims.keys() for pin in PLATFORMS[platform].pins):
        wanted = " or ".join(" with ".join(sorted(pin)) for pin in PLATFORMS[platform].pins)
        raise ValueError(f"claims: must name {wanted}, or others of the same issuer match too")
    for name, value in claims.items():
        for one in [value] if isinstance(value, str) else value:
            if not one or "*" in one:
                raise ValueError(f"claims.{name}: write whole values, one or a list; patterns are not matched")
        if not value:
            raise ValueError(f"claims.{name}: is empty; name the values")
