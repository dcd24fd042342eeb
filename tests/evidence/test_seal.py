"""Signatures, both ways with OpenSSH's own ssh-keygen."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from harness.clock import ManualClock
from interlock.clock import system_entropy
from interlock.evidence import sshsig
from interlock.evidence.seal import NAMESPACE, SealCa, trust_files

MESSAGE = b'{"seal":1}\n'


def keygen(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *arguments], input=stdin, capture_output=True, check=False, timeout=30)


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    path = tmp_path / "key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return key


def test_gives_the_bytes_of_ssh_keygen(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    done = keygen("-Y", "sign", "-f", str(tmp_path / "key"), "-n", NAMESPACE, stdin=MESSAGE)
    assert done.returncode == 0, done.stderr
    assert sshsig.sign(key, NAMESPACE, MESSAGE) == done.stdout


def test_ssh_keygen_accepts_a_plain_signature(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    (tmp_path / "sig").write_bytes(sshsig.sign(key, NAMESPACE, MESSAGE))
    (tmp_path / "signers").write_text(f"gw-1 {sshsig.public_line(key.public_key())}\n")
    arguments = ("-Y", "verify", "-f", str(tmp_path / "signers"), "-I", "gw-1", "-n", NAMESPACE, "-s", str(tmp_path / "sig"))
    assert keygen(*arguments, stdin=MESSAGE).returncode == 0
    assert keygen(*arguments, stdin=MESSAGE + b" ").returncode != 0


def test_ssh_keygen_accepts_a_session_key_through_one_authority_line(tmp_path: Path) -> None:
    now = ManualClock().now()
    ca = SealCa.load_or_create(tmp_path / "ca")
    key = ca.issue("01SESSION", "gw-1", "session", now, system_entropy)
    (tmp_path / "sig").write_bytes(key.sign(MESSAGE))
    (tmp_path / "signers").write_text(trust_files(ca))
    assert trust_files(ca).count("\n") == 1

    def verify(who: str, namespace: str, when: str) -> int:
        arguments = ("-f", str(tmp_path / "signers"), "-I", who, "-n", namespace, "-s", str(tmp_path / "sig"))
        return keygen("-Y", "verify", *arguments, f"-Overify-time={when}", stdin=MESSAGE).returncode

    assert verify("01SESSION", NAMESPACE, "20260102021300Z") == 0
    assert verify("gw-1", NAMESPACE, "20260102021300Z") == 0
    assert verify("01ANOTHER", NAMESPACE, "20260102021300Z") != 0
    assert verify("01SESSION", "approve@interlock", "20260102021300Z") != 0
    assert verify("01SESSION", NAMESPACE, "20260102021100Z") != 0, "before the certificate"
    assert verify("01SESSION", NAMESPACE, "20260103021300Z") != 0, "after the certificate"


def test_ssh_keygen_reads_our_key_and_certificate(tmp_path: Path) -> None:
    ca = SealCa.load_or_create(tmp_path / "ca")
    done = keygen("-y", "-f", str(tmp_path / "ca"))
    assert done.stdout.decode().split()[:2] == ca.public_line.split()
    now = ManualClock().now()
    key = Ed25519PrivateKey.generate()
    blob = sshsig.certify(
        Ed25519PrivateKey.generate(), key.public_key(), key_id="session:x@gw-1", principals=["x", "gw-1"], serial=7,
        after=now, before=now + timedelta(hours=24),
    )  # fmt: skip
    import base64

    (tmp_path / "x-cert.pub").write_text(f"ssh-ed25519-cert-v01@openssh.com {base64.b64encode(blob).decode()}\n")
    shown = keygen("-L", "-f", str(tmp_path / "x-cert.pub")).stdout.decode()
    assert 'Key ID: "session:x@gw-1"' in shown and "Serial: 7" in shown and "user certificate" in shown


def test_we_accept_the_authority_key_that_ssh_keygen_made(tmp_path: Path) -> None:
    assert keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(tmp_path / "made")).returncode == 0
    ca = SealCa.load_or_create(tmp_path / "made")
    assert ca.public_line.split() == (tmp_path / "made.pub").read_text().split()[:2]


def test_a_certificate_lasts_at_most_a_day_and_can_be_renewed(tmp_path: Path) -> None:
    ca, clock = SealCa.load_or_create(tmp_path / "ca"), ManualClock()
    key = ca.issue("x", "gw-1", "session", clock.now(), system_entropy)
    assert key.covers(clock.now()) and key.valid_before - key.valid_after == timedelta(hours=24)
    clock.advance(24 * 3600)
    assert not key.covers(clock.now())
    assert key.renewed(ca, clock.now(), system_entropy).covers(clock.now())


@settings(max_examples=examples(20), deadline=None)
@given(st.binary(max_size=300))
def test_another_implementation_agrees(message: bytes) -> None:
    import asyncssh

    raw = Ed25519PrivateKey.generate()
    pem = raw.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    theirs = asyncssh.create_sshsig(asyncssh.import_private_key(pem), message, namespace=NAMESPACE)
    assert sshsig.sign(raw, NAMESPACE, message) == theirs
