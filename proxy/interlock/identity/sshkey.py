"""Registered SSH public keys: one line of `id_*.pub` into a blob and a fingerprint.

Knows RFC 4253 §6.6, RFC 5656, RFC 8709 and OpenSSH's sk- types (PROTOCOL.u2f). Must not know who owns a key. Options
(`command=…`) and certificates are refused: a line that carries conditions we would not keep must not look accepted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from interlock.errors import ConfigError
from interlock.evidence import sshsig

MAX_LINE = 8192
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 16384

_CURVES: dict[bytes, tuple[bytes, ec.EllipticCurve]] = {
    b"ecdsa-sha2-nistp256": (b"nistp256", ec.SECP256R1()),
    b"ecdsa-sha2-nistp384": (b"nistp384", ec.SECP384R1()),
    b"ecdsa-sha2-nistp521": (b"nistp521", ec.SECP521R1()),
    b"sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", ec.SECP256R1()),
}
_ED25519 = (b"ssh-ed25519", b"sk-ssh-ed25519@openssh.com")
_COMMENT = re.compile(r"[ -+\--~]{0,255}\Z")
"""Printable ASCII without the comma: a comment is shown on terminals and must not look like a list of principals."""


@dataclass(frozen=True, slots=True)
class SshKey:
    """A public key. `fingerprint` is OpenSSH's `SHA256:…`."""

    algorithm: str
    blob: bytes
    fingerprint: str
    comment: str = ""


def fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()


def parse(line: str) -> SshKey:
    """Read one public key line: `TYPE BASE64 [COMMENT]`. Raise ConfigError that says what to do."""
    line = line.strip("\r\n")
    if len(line) > MAX_LINE:
        raise ConfigError("the SSH key line is too long")
    if not line.isprintable():
        raise ConfigError("the SSH key line holds control characters; give one line of a .pub file")
    words = line.split(" ", 2)
    if len(words) < 2:
        raise ConfigError("an SSH key is a line such as `ssh-ed25519 AAAA… name`")
    algorithm, encoded = words[0], words[1]
    comment = words[2].strip() if len(words) == 3 else ""
    if not _COMMENT.match(comment):
        raise ConfigError("the comment of the SSH key must be printable ASCII without a comma")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("the SSH key is not base64; give one line of a .pub file, without options") from None
    _check(algorithm.encode("utf-8", "replace"), blob)
    return SshKey(algorithm, blob, fingerprint(blob), comment)


def _check(algorithm: bytes, blob: bytes) -> None:
    """The blob must be exactly one key of the type that the line names, and strong enough."""
    if opened(blob).algorithm != algorithm:
        raise ConfigError("the SSH key line names another type than the key inside it")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures can be checked with. `application` is what a security key signs for, usually `ssh:`."""

    algorithm: bytes
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    application: bytes = b""

    @property
    def on_security_key(self) -> bool:
        return self.algorithm.startswith(b"sk-")


def opened(blob: bytes) -> PublicKey:
    """Read a key blob whole. Raise ConfigError for what is malformed, weak or of a type that is not accepted."""
    try:
        return _opened(sshsig.Reader(blob))
    except ValueError:
        raise ConfigError("the SSH key is malformed") from None


def _opened(reader: sshsig.Reader) -> PublicKey:
    algorithm = reader.string()
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    if algorithm == b"ssh-rsa":
        e, n = reader.integer(), reader.integer()
        if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS:
            raise ConfigError(f"the RSA key has {n.bit_length()} bits; {MIN_RSA_BITS} are the least. Use ssh-ed25519.")
        key = rsa.RSAPublicNumbers(e, n).public_key()
    elif algorithm in _CURVES:
        name, curve = _CURVES[algorithm]
        if reader.string() != name:
            raise ConfigError("the ECDSA key names another curve than its type")
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, reader.string())
    elif algorithm in _ED25519:
        key = ed25519.Ed25519PublicKey.from_public_bytes(reader.string())
    else:
        raise ConfigError("this type of SSH key is not accepted; use ssh-ed25519, ecdsa-sha2-… or RSA of 2048 bits or more")
    application = reader.string() if algorithm.startswith(b"sk-") else b""
    reader.end()
    return PublicKey(algorithm, key, application)
