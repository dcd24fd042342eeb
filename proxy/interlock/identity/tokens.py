"""Secrets that we issue: opaque tokens (`ilk_…`) and short-lived Postgres passwords (`ilp_…`).

A secret has 256 random bits, is shown once and is stored as a hash or a SCRAM verifier: with that much entropy a plain
SHA-256 can't be guessed back, and a lookup costs one hash. Knows the form of secrets; must not know the store.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from interlock.clock import Clock, Entropy, ulid
from interlock.config import Secret
from interlock.identity.scram import Verifier, verifier

TOKEN_PREFIX = "ilk_"
PASSWORD_PREFIX = "ilp_"
DECISION_PREFIX = "ild_"
EXCHANGED_PREFIX = "ilx_"
LOGIN_PREFIX = "ils_"
"""Prefixes by which secret scanners, and people who find one in a log, know what it is."""

TOKEN_IDENT = "tok_"
PASSWORD_IDENT = "pwd_"
LOGIN_IDENT = "log_"
"""What the idents begin with, by which records and lists name such a secret."""

SECRET_BYTES = 32

_TOKEN = re.compile(r"ilk_[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class Issued:
    """A secret on its only way out. `id` names it in lists and records."""

    id: str
    secret: Secret
    expires: datetime


def new_secret(prefix: str, entropy: Entropy) -> str:
    return prefix + base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode()


def new_token(clock: Clock, entropy: Entropy, lifetime: timedelta) -> tuple[Issued, bytes]:
    """Make a token; return it and the hash to store (32 bytes)."""
    secret = new_secret(TOKEN_PREFIX, entropy)
    return Issued(TOKEN_IDENT + ulid(clock, entropy), Secret(secret), clock.now() + lifetime), fingerprint(secret)


def new_password(clock: Clock, entropy: Entropy, lifetime: timedelta, salt: bytes, iterations: int) -> tuple[Issued, Verifier]:
    """Make a Postgres password; return it and the verifier to store."""
    secret = new_secret(PASSWORD_PREFIX, entropy)
    ident = PASSWORD_IDENT + ulid(clock, entropy)
    return Issued(ident, Secret(secret), clock.now() + lifetime), verifier(ident, secret, salt, iterations)


def looks_like_token(secret: str) -> bool:
    """Tell our own opaque tokens from the JWTs of an issuer, by form alone."""
    return _TOKEN.match(secret) is not None


def fingerprint(secret: str) -> bytes:
    """Return the SHA-256 by which a secret is stored and found. Any text is allowed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
