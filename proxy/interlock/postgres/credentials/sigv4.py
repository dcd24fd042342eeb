"""AWS Signature Version 4, as far as a presigned URL needs it.

Pure. Knows: AWS's "Signature Version 4" (canonical request, string to sign, signing key, query parameters).
Must not know: what is signed, where keys come from.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY = hashlib.sha256(b"").hexdigest()
"""What stands for a request without a body."""


@dataclass(frozen=True, slots=True)
class Keys:
    """One pair of access keys; `token` belongs to temporary ones."""

    access: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def presigned(
    keys: Keys,
    *,
    host: str,
    parameters: Mapping[str, str],
    region: str,
    service: str,
    expires: int,
    now: datetime,
    path: str = "/",
    payload: str = EMPTY,
) -> str:
    """Return `host` + `path` + the signed query of a GET, without a scheme. `host` has its port, if that is not the usual."""
    moment = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    signed = {
        **parameters,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": keys.token} if keys.token else {}),
    }
    query = "&".join(sorted(f"{_encoded(name)}={_encoded(value)}" for name, value in signed.items()))
    request = f"GET\n{quote(path, safe='/-_.~')}\n{query}\nhost:{host}\n\nhost\n{payload}"
    to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = signing_key(keys.secret, moment[:8], region, service)
    return f"{host}{path}?{query}&X-Amz-Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """Derive the key of one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")
