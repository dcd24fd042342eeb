"""What a personal proof signs, and the form in which one arrives. Pure.

A reviewer's own key signs the *statement*: RFC 8785 of the answered digest, the request's nonce, the verdict, the scope
and its end. An SSHSIG is over these bytes (namespace `approve@interlock`), a WebAuthn assertion over a challenge that is
their SHA-256. So nothing of an answer can be changed, and no answer moved to another request, without the key.

Knows forms. Must not know whose key it is, nor whether a signature holds: that is `identity.signing`'s.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Protocol

from interlock.approvals.model import Signed
from interlock.clock import rfc3339
from interlock.errors import Reason, VoteError
from interlock.evidence import jcs, sshsig
from interlock.evidence.events import Json
from interlock.identity.principal import Identity
from interlock.identity.sshkey import fingerprint

NAMESPACE = "approve@interlock"
GLASS = "break_glass"
"""What an answer that breaks the glass signs in place of its scope: so no other signature is good for it, nor it for another."""
WEBAUTHN, SSHSIG = "webauthn", "sshsig"

MAX_CREDENTIAL_ID = 1366
"""Characters of base64url: a credential id has at most 1023 bytes (WebAuthn Level 3 §4)."""
MAX_PART = 4096
"""Bytes of client data, authenticator data or signature; an RSA signature of 16384 bits has 2048."""
MAX_ARMOR = 16_384
MAX_JSON = 32_768


class Proofs(Protocol):
    """Whoever knows people's keys. The desk asks it once for each answer that comes with a signature."""

    def check(self, person: Identity, signed: Signed, statement: bytes) -> Signed:
        """Return the proof with `public` as the directory has it. Raise VoteError (proof-rejected)."""
        ...


def statement(digest: str, nonce: str, verdict: str, scope: str, valid_until: datetime | None) -> bytes:
    """Return the bytes that are signed."""
    until = None if valid_until is None else rfc3339(valid_until)
    return jcs.encode({"digest": digest, "nonce": nonce, "scope": str(scope), "valid_until": until, "verdict": str(verdict)})


def signed_scope(scope: str, *, break_glass: bool) -> str:
    """Return the word that stands for the scope in the statement."""
    if break_glass:
        return GLASS
    if scope == GLASS:
        raise refused(f"{GLASS} is no scope of an ordinary answer")
    return scope


def challenge(digest: str, nonce: str, verdict: str, scope: str, valid_until: datetime | None) -> bytes:
    """Return the WebAuthn challenge that stands for this answer and for no other."""
    return challenge_of(statement(digest, nonce, verdict, scope, valid_until))


def challenge_of(signed_bytes: bytes) -> bytes:
    return sha256(signed_bytes).digest()


def signed_from_json(plain: object) -> Signed:
    """Read a proof as the API and the console's form carry it. Raise VoteError (proof-rejected).

    `{"kind": "webauthn", "id", "client_data", "authenticator_data", "signature"}`, base64url without padding, or
    `{"kind": "sshsig", "signature"}` with the armored text of `ssh-keygen -Y sign`. A string is read as JSON first. The
    public key is never taken from here: what the directory has is filled in by whoever checks.
    """
    match _opened(plain):
        case {"kind": "webauthn", **parts}:
            texts = _texts(parts, ("id", "client_data", "authenticator_data", "signature"))
            if len(texts["id"]) > MAX_CREDENTIAL_ID:
                raise refused("the credential id is too long")
            _bytes(texts["id"])
            return Signed(
                kind=WEBAUTHN,
                key=texts["id"],
                public=b"",
                signature=_bytes(texts["signature"]),
                client_data=_bytes(texts["client_data"]),
                authenticator_data=_bytes(texts["authenticator_data"]),
            )
        case {"kind": "sshsig", **parts}:
            armored = _texts(parts, ("signature",))["signature"]
            if len(armored) > MAX_ARMOR:
                raise refused("the SSH signature is too long")
            try:
                blob = sshsig.dearmor(armored.encode("ascii", "replace"))
                public = sshsig.opened(blob).public
            except ValueError as error:
                raise refused(f"the SSH signature can't be read: {error}") from None
            return Signed(kind=SSHSIG, key=fingerprint(public), public=b"", signature=blob)
        case _:
            raise refused("a proof is an object of kind webauthn or sshsig")


def recorded(signed: Signed) -> dict[str, Json]:
    """Return what the record keeps of a proof, base64url without padding. All of it is plain: without the nonce, which is
    committed to, neither the signature nor the challenge says anything about the command."""
    fields: dict[str, Json] = {
        "kind": signed.kind,
        "key": signed.key,
        "public": to_base64url(signed.public),
        "signature": to_base64url(signed.signature),
    }
    if signed.kind == WEBAUTHN:
        fields["client_data"] = to_base64url(signed.client_data)
        fields["authenticator_data"] = to_base64url(signed.authenticator_data)
    return fields


def _opened(plain: object) -> object:
    if not isinstance(plain, str):
        return plain
    if len(plain) > MAX_JSON:
        raise refused("the proof is too long")
    try:
        return json.loads(plain)
    except (ValueError, RecursionError):
        raise refused("the proof is not JSON") from None


def _texts(parts: Mapping[object, object], names: tuple[str, ...]) -> dict[str, str]:
    if set(parts) != set(names):
        raise refused(f"such a proof has exactly {', '.join(names)} beside its kind")
    texts = {name: value for name, value in parts.items() if isinstance(name, str) and isinstance(value, str)}
    if len(texts) != len(names):
        raise refused("every part of a proof is a string")
    return texts


def _bytes(text: str) -> bytes:
    """Decode base64url without padding, in its only spelling, so that what is recorded is what was sent."""
    if not text or len(text) > -(-MAX_PART * 4 // 3):
        raise refused("a part of the proof is empty or too long")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise refused("a part of the proof is not base64url") from None
    if to_base64url(data) != text:
        raise refused("a part of the proof is not base64url in its only spelling")
    return data


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refused(why: str) -> VoteError:
    return VoteError(why, reason=Reason.PROOF_REJECTED)
