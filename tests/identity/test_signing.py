"""SSHSIG of the real ssh-keygen against our check, and every signature that must not hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA512

from harness.ssh_signer import SecurityKey, keygen, public_blob, ssh_sign
from interlock.evidence.sshsig import MAGIC, armor, dearmor, string
from interlock.evidence.sshsig import public_blob as blob_of
from interlock.identity.signing import BadSignatureError, check_sshsig

NAMESPACE, MESSAGE = "approve@interlock", b'{"verdict":"approve"}'
KINDS = [("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "384"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048")]


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("hashed", ["sha256", "sha512"])
def test_what_ssh_keygen_signs_holds_and_nothing_else_does(tmp_path: Path, kind: tuple[str, ...], hashed: str) -> None:
    key = keygen(tmp_path, "id", *kind)
    blob = dearmor(ssh_sign(key, MESSAGE, NAMESPACE, f"-Ohashalg={hashed}").encode())
    check_sshsig(blob, NAMESPACE, MESSAGE, public_blob(key))
    other = public_blob(keygen(tmp_path, "other", *kind))
    for namespace, message, public in (
        (NAMESPACE, MESSAGE + b" ", public_blob(key)), ("file", MESSAGE, public_blob(key)), (NAMESPACE, MESSAGE, other),
    ):  # fmt: skip
        with pytest.raises(BadSignatureError):
            check_sshsig(blob, namespace, message, public)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_security_key_must_have_been_touched(kind: str) -> None:
    key = SecurityKey(kind)
    check_sshsig(dearmor(key.sign(MESSAGE).encode()), NAMESPACE, MESSAGE, key.blob)
    check_sshsig(dearmor(key.sign(MESSAGE, flags=5).encode()), NAMESPACE, MESSAGE, key.blob)
    for flags in (0, 4):
        with pytest.raises(BadSignatureError, match="touched"):
            check_sshsig(dearmor(key.sign(MESSAGE, flags=flags).encode()), NAMESPACE, MESSAGE, key.blob)
    with pytest.raises(BadSignatureError):
        check_sshsig(dearmor(key.sign(MESSAGE, application=b"ssh:other").encode()), NAMESPACE, MESSAGE, key.blob)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_ssh_keygen_agrees_about_our_security_key(tmp_path: Path, kind: str) -> None:
    """Else the tests of security keys would prove only that two parts of us agree."""
    key = SecurityKey(kind)
    (tmp_path / "sig").write_text(key.sign(MESSAGE))
    command = ["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(tmp_path / "sig")]
    assert subprocess.run(command, input=MESSAGE, capture_output=True, check=False).returncode == 0


def test_flags_of_a_security_key_are_signed() -> None:
    key = SecurityKey()
    blob = bytearray(dearmor(key.sign(MESSAGE, flags=0).encode()))
    blob[-5] |= 1
    with pytest.raises(BadSignatureError, match="not a signature"):
        check_sshsig(bytes(blob), NAMESPACE, MESSAGE, key.blob)


def _rsa(algorithm: bytes, digest: SHA1 | SHA512, *, bits: int = 2048, hashed_with: bytes = b"sha512") -> tuple[bytes, bytes]:
    import hashlib

    key = rsa.generate_private_key(65537, bits)
    numbers = key.public_key().public_numbers()
    public = string(b"ssh-rsa") + string(b"\x01\x00\x01") + string(b"\x00" + numbers.n.to_bytes(bits // 8, "big"))
    common = string(NAMESPACE.encode()) + string(b"") + string(hashed_with)
    value = key.sign(MAGIC + common + string(hashlib.new(hashed_with.decode(), MESSAGE).digest()), PKCS1v15(), digest)
    return MAGIC + (1).to_bytes(4, "big") + string(public) + common + string(string(algorithm) + string(value)), public


def test_rsa_signs_with_sha2_only() -> None:
    check_sshsig(*_args(*_rsa(b"rsa-sha2-512", SHA512())))
    for algorithm, digest in ((b"ssh-rsa", SHA1()), (b"rsa-sha2-512", SHA1()), (b"ssh-rsa", SHA512())):
        with pytest.raises(BadSignatureError):
            check_sshsig(*_args(*_rsa(algorithm, digest)))


def test_weak_keys_and_weak_hashes_are_refused() -> None:
    with pytest.raises(BadSignatureError, match="1024 bits"):
        check_sshsig(*_args(*_rsa(b"rsa-sha2-512", SHA512(), bits=1024)))
    for name in (b"sha1", b"md5"):
        with pytest.raises(BadSignatureError, match="another hash"):
            check_sshsig(*_args(*_rsa(b"rsa-sha2-512", SHA512(), hashed_with=name)))


def _args(blob: bytes, public: bytes) -> tuple[bytes, str, bytes, bytes]:
    return blob, NAMESPACE, MESSAGE, public


def test_every_changed_byte_and_every_other_form_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    public = blob_of(key.public_key())
    common = string(NAMESPACE.encode()) + string(b"") + string(b"sha512")
    import hashlib

    value = key.sign(MAGIC + common + string(hashlib.sha512(MESSAGE).digest()))
    good = MAGIC + (1).to_bytes(4, "big") + string(public) + common + string(string(b"ssh-ed25519") + string(value))
    check_sshsig(good, NAMESPACE, MESSAGE, public)
    bent = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    bent += [good[:at] for at in range(len(good))] + [good + b"\0", dearmor(armor(good)) + good]
    reserved = MAGIC + (1).to_bytes(4, "big") + string(public) + string(NAMESPACE.encode()) + string(b"x") + string(b"sha512")
    bent.append(reserved + string(string(b"ssh-ed25519") + string(value)))
    more = MAGIC + (1).to_bytes(4, "big") + string(public) + common
    bent.append(more + string(string(b"ssh-ed25519") + string(value) + b"\0"))
    for blob in bent:
        with pytest.raises(BadSignatureError):
            check_sshsig(blob, NAMESPACE, MESSAGE, public)
