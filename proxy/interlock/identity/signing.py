"""Does an SSHSIG hold: the check of `ssh-keygen -Y verify`, for a key blob that the caller knows. Pure.

OpenSSH PROTOCOL.sshsig, and PROTOCOL.u2f for security keys, which must say that somebody touched them. RSA signs with
SHA-2 only. Must not know whose a key is, nor what is signed.
"""

from __future__ import annotations

from hashlib import sha256, sha512

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from interlock.errors import ConfigError
from interlock.evidence import sshsig
from interlock.identity import sshkey

_HASHES = {b"sha256": sha256, b"sha512": sha512}
_RSA: dict[bytes, HashAlgorithm] = {b"rsa-sha2-256": SHA256(), b"rsa-sha2-512": SHA512()}
_ECDSA: dict[bytes, HashAlgorithm] = {
    b"ecdsa-sha2-nistp256": SHA256(),
    b"ecdsa-sha2-nistp384": SHA384(),
    b"ecdsa-sha2-nistp521": SHA512(),
    b"sk-ecdsa-sha2-nistp256@openssh.com": SHA256(),
}
"""Which hash goes with a key (RFC 5656 §6.2.1)."""

USER_PRESENT = 0x01


class BadSignatureError(ValueError):
    """The signature does not hold; the message says what is wrong with it."""


def check_sshsig(blob: bytes, namespace: str, message: bytes, public: bytes) -> None:
    """Raise BadSignatureError unless `blob` is a signature over `message` in `namespace` by exactly the key `public`."""
    try:
        parts = sshsig.opened(blob)
        if parts.public != public:
            raise BadSignatureError("another key made it")
        if parts.namespace != namespace.encode():
            raise BadSignatureError("it was made in another namespace; sign with `ssh-keygen -Y sign -n " + namespace + "`")
        hashed = _HASHES.get(parts.hashed_with)
        if hashed is None:
            raise BadSignatureError("it was made with another hash than sha256 or sha512")
        _check(parts.signature, parts.signed_data(hashed(message).digest()), sshkey.opened(public))
    except BadSignatureError:
        raise
    except InvalidSignature:
        raise BadSignatureError("it is not a signature over this by that key") from None
    except (ValueError, ConfigError) as error:
        raise BadSignatureError(str(error)) from None


def _check(signature: bytes, data: bytes, public: sshkey.PublicKey) -> None:
    reader = sshsig.Reader(signature)
    algorithm, value = reader.string(), reader.string()
    if public.on_security_key:
        flags, counter = reader.take(1), reader.take(4)
        if not flags[0] & USER_PRESENT:
            raise BadSignatureError("nobody touched the security key")
        data = sha256(public.application).digest() + flags + counter + sha256(data).digest()
    reader.end()
    match public.key:
        case rsa.RSAPublicKey() as key if algorithm in _RSA:
            key.verify(value, data, PKCS1v15(), _RSA[algorithm])
        case ec.EllipticCurvePublicKey() as key if algorithm == public.algorithm:
            numbers = sshsig.Reader(value)
            r, s = numbers.integer(), numbers.integer()
            numbers.end()
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(_ECDSA[algorithm]))
        case ed25519.Ed25519PublicKey() as key if algorithm == public.algorithm:
            key.verify(value, data)
        case _:
            raise BadSignatureError("its algorithm is not accepted for that key; RSA signs with SHA-2")
