"""Keys and signatures of the real `ssh-keygen`, and security keys in software, which ssh-keygen can't make without one."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from hashlib import sha256, sha512
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from interlock.evidence.sshsig import MAGIC, armor, string


def keygen(folder: Path, name: str = "id", kind: str = "ed25519", *more: str) -> Path:
    """Make a key; return the private file, whose public one is beside it with .pub."""
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path), *more], check=True)
    return path


def public_line(key: Path) -> str:
    return key.with_suffix(".pub").read_text().strip()


def public_blob(key: Path) -> bytes:
    return b64decode(public_line(key).split()[1])


def ssh_sign(key: Path, message: bytes, namespace: str = "approve@interlock", *more: str) -> str:
    """`ssh-keygen -Y sign`: the armored signature."""
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", namespace, *more]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout.decode()


class SecurityKey:
    """PROTOCOL.u2f: signs over the application, flags and counter besides the data."""

    def __init__(self, kind: str = "ed25519", application: bytes = b"ssh:") -> None:
        self.application = application
        if kind == "ed25519":
            self.algorithm = b"sk-ssh-ed25519@openssh.com"
            self.key = ed25519.Ed25519PrivateKey.generate()
            held = string(self.key.public_key().public_bytes_raw())
        else:
            self.algorithm = b"sk-ecdsa-sha2-nistp256@openssh.com"
            self.key = ec.generate_private_key(ec.SECP256R1())
            point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            held = string(b"nistp256") + string(point)
        self.blob = string(self.algorithm) + held + string(application)

    def sign(self, message: bytes, namespace: str = "approve@interlock", *, flags: int = 1, application: bytes = b"") -> str:
        common = string(namespace.encode()) + string(b"") + string(b"sha512")
        data = MAGIC + common + string(sha512(message).digest())
        tail = bytes([flags]) + (7).to_bytes(4, "big")
        data = sha256(application or self.application).digest() + tail + sha256(data).digest()
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            value = self.key.sign(data)
        else:
            value = b"".join(string(mpint(n)) for n in decode_dss_signature(self.key.sign(data, ec.ECDSA(SHA256()))))
        signature = string(self.algorithm) + string(value) + tail
        return armor(MAGIC + (1).to_bytes(4, "big") + string(self.blob) + common + string(signature)).decode()


def mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")
