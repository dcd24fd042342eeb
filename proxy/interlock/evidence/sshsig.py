"""SSHSIG signatures (OpenSSH PROTOCOL.sshsig) and OpenSSH certificates for the keys that make them. Pure.

`sign` with a plain key gives the bytes of `ssh-keygen -Y sign`; with a certificate's blob as `public` the same signature
is accepted through a `cert-authority` line of allowed_signers. Keys and randomness come in as arguments.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA512, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, SSHCertificateBuilder, SSHCertificateType

MAGIC = b"SSHSIG"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n"
_COLUMNS = 70


def string(data: bytes) -> bytes:
    """Encode an RFC 4251 §5 string."""
    return len(data).to_bytes(4, "big") + data


def public_line(key: Ed25519PublicKey) -> str:
    """Return `ssh-ed25519 AAAA…` without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def public_blob(key: Ed25519PublicKey) -> bytes:
    return b64decode(public_line(key).split()[1])


def certify(
    ca: Ed25519PrivateKey,
    key: Ed25519PublicKey,
    *,
    key_id: str,
    principals: list[str],
    serial: int,
    after: datetime,
    before: datetime,
) -> bytes:
    """Return the blob of an OpenSSH user certificate on `key`, valid from `after` to `before` for `principals`."""
    builder = (
        SSHCertificateBuilder()
        .public_key(key)
        .type(SSHCertificateType.USER)
        .serial(serial)
        .key_id(key_id.encode())
        .valid_principals([p.encode() for p in principals])
        .valid_after(int(after.timestamp()))
        .valid_before(int(before.timestamp()))
    )
    return b64decode(builder.sign(ca).public_bytes().split()[1])


def sign(key: Ed25519PrivateKey, namespace: str, message: bytes, public: bytes | None = None) -> bytes:
    """Return the armored signature over `message`.

    `public` is the blob that names the signer: by default the plain public key, or a certificate on it.
    """
    hashed = Hash(SHA512())
    hashed.update(message)
    common = string(namespace.encode()) + string(b"") + string(b"sha512")
    signature = key.sign(MAGIC + common + string(hashed.finalize()))
    blob = (
        MAGIC
        + (1).to_bytes(4, "big")
        + string(public if public is not None else public_blob(key.public_key()))
        + common
        + string(string(b"ssh-ed25519") + string(signature))
    )
    return armor(blob)


def armor(blob: bytes) -> bytes:
    text = b64encode(blob).decode()
    lines = [text[at : at + _COLUMNS] + "\n" for at in range(0, len(text), _COLUMNS)]
    return (_BEGIN + "".join(lines) + _END).encode()
