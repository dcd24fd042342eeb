"""The algorithms of both legs, and the rule that both need strict key exchange.

AES-GCM comes first: it is the fastest in this process by far and not open to prefix truncation. The client's order
decides (RFC 4253 §7.1) and OpenSSH prefers chacha20 and CTR, so an OpenSSH client, which has had GCM since 6.2, is offered
nothing else; others may fall back to CTR. chacha20-poly1305 and CBC are never offered; SHA-1 is nowhere, neither in
key exchange nor in signatures. The NIST curves are no key exchange of ours: auditors count
them as failures, and machines in FIPS mode have group16.

Strict key exchange (kex-strict-*-v00@openssh.com, the answer to CVE-2023-48795) is required of clients and of targets alike:
a peer without it is refused in words, before anything is authenticated.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from asyncssh.kex import get_kex_algs

_WANTED_KEX = (
    "mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "diffie-hellman-group16-sha512",
)  # fmt: skip

KEX = tuple(name for name in _WANTED_KEX if name.encode() in get_kex_algs())
"""Those of the wanted ones that the crypto library of this machine has."""

GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
CIPHERS = (*GCM, "aes256-ctr", "aes128-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
COMPRESSION = ("none",)

SIGNATURES = (
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
"""By which a client may sign. `ssh-rsa` (SHA-1) is not here: an RSA key signs with rsa-sha2-*."""

CERTIFICATES = (
    "ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com", "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com",
)  # fmt: skip
"""Types of login certificates. With an RSA one, too, a client signs by one of SIGNATURES."""

HOST_KEYS = (
    "ssh-ed25519-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
"""By which a target may prove itself."""

OPTIONS: Mapping[str, Any] = MappingProxyType({
    "kex_algs": KEX, "encryption_algs": CIPHERS, "mac_algs": MACS, "compression_algs": COMPRESSION, "signature_algs": SIGNATURES,
    "x509_trusted_certs": None,
})  # fmt: skip
"""asyncssh's options for both legs. What is not named here is what asyncssh would choose."""

OLD_PEER = (
    "strict key exchange (kex-strict-*-v00@openssh.com, CVE-2023-48795) is required and the peer does not offer it: "
    "update it (OpenSSH 9.6 or later, or a distribution's backport)"
)


def is_certificate(blob: bytes) -> bool:
    """Whether a key blob is one of the certificates that are read at all: OpenSSH's, v01, of a key type that may sign."""
    return signature_algorithm(blob) in CERTIFICATES


def signature_algorithm(signature: bytes) -> str:
    """Return the algorithm that an SSH signature names (RFC 4253 §6.6), or an empty string when it names none."""
    size = int.from_bytes(signature[:4], "big")
    return signature[4 : 4 + size].decode("ascii", "replace") if 0 < size <= 64 else ""
