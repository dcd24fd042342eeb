"""How a message proves where it comes from: Standard Webhooks 1.0, symmetric. Pure.

What is signed is `id.timestamp.body` with HMAC-SHA256 under the secret that both ends hold. The id stays the same over all
attempts, so that a receiver drops what it has seen; timestamp and signature are those of the attempt, so that it can drop
what is old.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from interlock.config import Secret
from interlock.errors import ConfigError

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret, as the standard has them."""


def key_of(secret: Secret) -> bytes:
    """Return the key that a secret spells. Raise ConfigError that says how to make one, and never what it is."""
    spelled = secret.reveal()
    try:
        key = base64.b64decode(spelled.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not spelled.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
        raise ConfigError(
            f"approvals.channels.webhook.secret must be {PREFIX} and the base64 of {SHORTEST} to {LONGEST} random bytes; "
            f'make one with: echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return key


def headers(key: bytes, ident: str, at: int, body: bytes) -> dict[str, str]:
    """Return the three headers of one attempt; `at` is in seconds since 1970."""
    signed = b".".join((ident.encode(), str(at).encode(), body))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": ident, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}
