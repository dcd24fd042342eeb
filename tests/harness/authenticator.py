"""An authenticator in software: makes real WebAuthn credentials and assertions, and bends each part on request.

For what a browser would never send. The whole path with a real browser is in tests/web/test_passkeys.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

from interlock.approvals.model import Signed

UP, UV, AT = 0x01, 0x04, 0x40
HOST, ORIGIN = "interlock.example", "https://interlock.example"


@dataclass
class Authenticator:
    """One credential. `count` is None for a synced passkey, whose counter is 0 for ever."""

    key: Any
    ident: bytes
    count: int | None = 0
    host: str = HOST
    origin: str = ORIGIN

    @property
    def id(self) -> str:
        return bytes_to_base64url(self.ident)

    @property
    def cose(self) -> bytes:
        public = self.key.public_key()
        match public:
            case ec.EllipticCurvePublicKey():
                numbers = public.public_numbers()
                size = (public.curve.key_size + 7) // 8
                curve = {"secp256r1": 1, "secp384r1": 2}[public.curve.name]
                shape = {1: 2, 3: -7, -1: curve, -2: numbers.x.to_bytes(size, "big"), -3: numbers.y.to_bytes(size, "big")}
            case ed25519.Ed25519PublicKey():
                shape = {1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()}
            case rsa.RSAPublicKey():
                n, e = public.public_numbers().n, public.public_numbers().e
                shape = {1: 3, 3: -257, -1: n.to_bytes(256, "big"), -2: e.to_bytes(3, "big")}
        return cbor2.dumps(shape)

    def registration(self, options: dict[str, Any], *, flags: int = UP | UV | AT, **client: Any) -> str:
        """Answer creation options as `navigator.credentials.create` would."""
        attested = bytes(16) + len(self.ident).to_bytes(2, "big") + self.ident + self.cose
        data = self._data(flags) + attested
        collected = self._collected("webauthn.create", base64url_to_bytes(options["challenge"]), client)
        return json.dumps(
            {
                "id": self.id, "rawId": self.id, "type": "public-key",
                "response": {
                    "clientDataJSON": bytes_to_base64url(collected),
                    "attestationObject": bytes_to_base64url(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
                },
            }
        )  # fmt: skip

    def assertion(self, challenge: bytes, /, *, flags: int = UP | UV, **client: Any) -> Signed:
        """Sign a challenge. The counter grows first, as an authenticator's does; `client` bends the client data."""
        if self.count is not None:
            self.count += 1
        data, collected = self._data(flags), self._collected("webauthn.get", challenge, client)
        return Signed("webauthn", self.id, b"", self._sign(data + sha256(collected).digest()), collected, data)

    def _data(self, flags: int) -> bytes:
        return sha256(self.host.encode()).digest() + bytes([flags]) + (self.count or 0).to_bytes(4, "big")

    def _collected(self, kind: str, challenge: bytes, changes: dict[str, Any]) -> bytes:
        collected = {"type": kind, "challenge": bytes_to_base64url(challenge), "origin": self.origin, "crossOrigin": False}
        return json.dumps(collected | changes, separators=(",", ":")).encode()

    def _sign(self, data: bytes) -> bytes:
        match self.key:
            case ec.EllipticCurvePrivateKey():
                return self.key.sign(data, ec.ECDSA(SHA256()))
            case rsa.RSAPrivateKey():
                return self.key.sign(data, PKCS1v15(), SHA256())
            case _:
                return self.key.sign(data)


def authenticator(name: str = "phone", algorithm: str = "ES256", **changes: Any) -> Authenticator:
    keys = {
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
    }
    return Authenticator(keys[algorithm](), f"credential of the {name}".encode(), **changes)


def as_json(signed: Signed) -> dict[str, str]:
    """The form in which the API and the console's form carry a proof."""
    return {
        "kind": "webauthn", "id": signed.key, "client_data": bytes_to_base64url(signed.client_data),
        "authenticator_data": bytes_to_base64url(signed.authenticator_data), "signature": bytes_to_base64url(signed.signature),
    }  # fmt: skip
