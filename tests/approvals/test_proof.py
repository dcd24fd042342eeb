"""What a personal proof signs, and the forms in which one arrives: every way to bend either is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from interlock.approvals.model import Scope, VoteVerdict
from interlock.approvals.proof import GLASS, MAX_ARMOR, MAX_JSON, NAMESPACE, challenge, signed_from_json, signed_scope, statement
from interlock.errors import Reason, VoteError
from interlock.evidence import sshsig
from interlock.identity.sshkey import fingerprint

UNTIL = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
ANSWER: dict[str, Any] = {
    "digest": "sha256:" + "ab" * 32, "nonce": "0f" * 16, "verdict": "approve", "scope": "exact", "valid_until": UNTIL,
}  # fmt: skip
WEBAUTHN = {"kind": "webauthn", "id": "Y3JlZA", "client_data": "e30", "authenticator_data": "AAEC", "signature": "-_8"}


def test_the_statement_is_canonical_json_of_the_five_parts_and_the_challenge_its_hash() -> None:
    plain = {**ANSWER, "valid_until": "2026-01-02T04:00:00.000000Z"}
    assert statement(**ANSWER) == rfc8785.dumps(plain)
    assert challenge(**ANSWER) == sha256(rfc8785.dumps(plain)).digest()
    assert json.loads(statement(**{**ANSWER, "valid_until": None}))["valid_until"] is None


def test_words_of_the_model_and_other_zones_give_the_same_bytes() -> None:
    same = {
        **ANSWER, "verdict": VoteVerdict.APPROVE, "scope": Scope.EXACT,
        "valid_until": UNTIL.astimezone(timezone(timedelta(hours=2))),
    }  # fmt: skip
    assert statement(**same) == statement(**ANSWER)


@pytest.mark.parametrize(
    "changed",
    [
        {"digest": "sha256:" + "ab" * 31 + "ac"}, {"nonce": "0f" * 15 + "0e"}, {"verdict": "deny"}, {"scope": "once"},
        {"scope": GLASS},
        {"valid_until": None}, {"valid_until": UNTIL + timedelta(microseconds=1)},
    ],
)  # fmt: skip
def test_anything_changed_is_another_challenge(changed: dict[str, Any]) -> None:
    assert challenge(**{**ANSWER, **changed}) != challenge(**ANSWER)


def test_broken_glass_is_a_scope_of_its_own_and_nobody_else_s() -> None:
    assert signed_scope("once", break_glass=True) == GLASS not in set(Scope)
    assert signed_scope("exact", break_glass=False) == "exact"
    with pytest.raises(VoteError) as refused:
        signed_scope(GLASS, break_glass=False)
    assert refused.value.code is Reason.PROOF_REJECTED


def test_a_webauthn_proof_is_read_from_an_object_and_from_text() -> None:
    signed = signed_from_json(WEBAUTHN)
    assert signed == signed_from_json(json.dumps(WEBAUTHN))
    assert (signed.kind, signed.key, signed.public, signed.client_data) == ("webauthn", "Y3JlZA", b"", b"{}")
    assert (signed.authenticator_data, signed.signature) == (b"\x00\x01\x02", b"\xfb\xff")


def test_an_ssh_signature_names_its_key_by_fingerprint_and_carries_no_public_key() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    armored = sshsig.sign(key, NAMESPACE, statement(**ANSWER))
    signed = signed_from_json({"kind": "sshsig", "signature": armored.decode()})
    assert signed == signed_from_json({"kind": "sshsig", "signature": armored.decode().replace("\n", "\r\n")})
    assert (signed.kind, signed.public) == ("sshsig", b"")
    assert signed.key == fingerprint(sshsig.public_blob(key.public_key()))
    assert sshsig.armor(signed.signature) == armored


def _armored(blob: bytes) -> dict[str, Any]:
    return {"kind": "sshsig", "signature": sshsig.armor(blob).decode()}


BLOB = sshsig.dearmor(sshsig.sign(Ed25519PrivateKey.from_private_bytes(b"k" * 32), NAMESPACE, b"x"))


@pytest.mark.parametrize(
    "plain",
    [
        None, [], "", "null", "[" * 20_000, "{" * (MAX_JSON + 1), {"kind": "gpg", "signature": "x"}, {},
        {**WEBAUTHN, "public": "AAAA"}, {**WEBAUTHN, "id": ""}, {**WEBAUTHN, "id": "A" * 1368}, {**WEBAUTHN, "signature": 5},
        {**WEBAUTHN, "signature": "AA=="}, {**WEBAUTHN, "signature": "AB"}, {**WEBAUTHN, "signature": "A"},
        {**WEBAUTHN, "client_data": "e30+"}, {**WEBAUTHN, "client_data": "A" * 6000},
        {k: v for k, v in WEBAUTHN.items() if k != "client_data"},
        {"kind": "sshsig", "signature": "garbage"}, {"kind": "sshsig", "signature": "A" * (1 << 20)},
        {"kind": "sshsig", "signature": "-----BEGIN SSH SIGNATURE-----\n\u00e4\n-----END SSH SIGNATURE-----\n"},
        {"kind": "sshsig", "signature": "-----BEGIN SSH SIGNATURE-----\n" + b64encode(BLOB).decode()},
        {"kind": "sshsig", "signature": "-----BEGIN SSH SIGNATURE-----\n" + "A" * MAX_ARMOR + "\n-----END SSH SIGNATURE-----\n"},
        _armored(BLOB + b"x"), _armored(BLOB[:-1]), _armored(b"SSHSIG" + (2).to_bytes(4, "big") + BLOB[10:]), _armored(b""),
    ],
)  # fmt: skip
def test_other_forms_are_refused(plain: object) -> None:
    with pytest.raises(VoteError) as refused:
        signed_from_json(plain)
    assert refused.value.code is Reason.PROOF_REJECTED
