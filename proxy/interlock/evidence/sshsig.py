"""SSHSIG signatures (OpenSSH PROTOCOL.sshsig) and OpenSSH certificates for the keys that make them. Pure.

Reading is strict and raises ValueError. Whether a signature holds is `identity.signing`'s.
`sign` with a plain key gives the bytes of `ssh-keygen -Y sign`; with a certificate's blob as `public` the same signature
is accepted through a `cert-authority` line of allowed_signers. Keys and randomness come in as arguments.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
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


def dearmor(text: bytes) -> bytes:
    """Return the blob of an armored signature. Lines of any width end with LF or CRLF. Raise ValueError."""
    lines = text.replace(b"\r\n", b"\n").strip(b"\n").split(b"\n")
    if len(lines) < 3 or lines[0] + b"\n" != _BEGIN.encode() or lines[-1] + b"\n" != _END.encode():
        raise ValueError("it is not armored as ssh-keygen -Y sign does")
    try:
        return b64decode(b"".join(lines[1:-1]), validate=True)
    except binascii.Error:
        raise ValueError("its armor is not base64") from None


@dataclass(frozen=True, slots=True)
class Opened:
    """The parts of a blob. `signature` is `string algorithm, string …` as the key type defines it."""

    public: bytes
    namespace: bytes
    hashed_with: bytes
    signature: bytes

    def signed_data(self, digest: bytes) -> bytes:
        """Return what the key signed, for a message with this digest."""
        return MAGIC + string(self.namespace) + string(b"") + string(self.hashed_with) + string(digest)


def opened(blob: bytes) -> Opened:
    """Take a blob apart. Raise ValueError for another version, reserved data or bytes after the end."""
    if not blob.startswith(MAGIC + (1).to_bytes(4, "big")):
        raise ValueError("it is not an SSHSIG of version 1")
    reader = Reader(blob[len(MAGIC) + 4 :])
    public, namespace, reserved, hashed_with, signature = (reader.string() for _ in range(5))
    reader.end()
    if reserved:
        raise ValueError("its reserved field is not empty")
    return Opened(public, namespace, hashed_with, signature)


class Reader:
    """RFC 4251 §5 of a bounded blob. Raises ValueError where it ends too early or too late."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def take(self, length: int) -> bytes:
        if len(self._rest) < length:
            raise ValueError("it is cut short")
        value, self._rest = self._rest[:length], self._rest[length:]
        return value

    def string(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "big"))

    def integer(self) -> int:
        """Read a positive mpint in its only spelling."""
        data = self.string()
        value = int.from_bytes(data, "big", signed=True)
        if value <= 0 or data != value.to_bytes(value.bit_length() // 8 + 1, "big"):
            raise ValueError("a number in it has another spelling")
        return value

    def end(self) -> None:
        if self._rest:
            raise ValueError("it has bytes after its end")
