"""`listen:` and `tls:`: where clients come in, and how they log in to Postgres."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from interlock.config.values import Address, Strict

PostgresAuth = Literal["scram", "token", "oauth", "cert"]
_POSTGRES_AUTH = ("scram", "token", "oauth", "cert")


def _postgres_auth(value: object) -> object:
    chosen = value if isinstance(value, list) else [value]
    if not chosen or any(name not in _POSTGRES_AUTH for name in chosen) or len(set(chosen)) != len(chosen):
        raise ValueError("choose scram, token, oauth or cert, or a list of different ones")
    if "token" in chosen and {"scram", "oauth"} & set(chosen):
        # PostgreSQL's protocol has one authentication request a connection, and a clear password is another than SASL.
        raise ValueError("token asks for a clear password and scram and oauth for SASL: one listener can't ask for both")
    return value


class PostgresOAuth(Strict):
    """What a client without a token is told: whose token to get, with which scope. `issuer` is a name of identity.issuers."""

    issuer: str = ""
    scope: str = "openid"


class Listen(Strict):
    ssh: Address | None = None
    postgres: Address | None = None
    http: Address | None = None
    metrics: Address | None = None
    postgres_auth: Annotated[PostgresAuth | list[PostgresAuth], BeforeValidator(_postgres_auth)] = "scram"
    postgres_oauth: PostgresOAuth = PostgresOAuth()

    @property
    def postgres_methods(self) -> frozenset[str]:
        return frozenset([self.postgres_auth] if isinstance(self.postgres_auth, str) else self.postgres_auth)


class Tls(Strict):
    """`client_ca` signs the certificates of clients that may log in with one (listen.postgres_auth: cert)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
