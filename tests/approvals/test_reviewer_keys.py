"""Personal proofs against the directory: the right person's key over exactly this answer, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness import stores
from harness.authenticator import HOST, ORIGIN, Authenticator, as_json, authenticator
from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from harness.ssh_signer import SecurityKey, keygen, public_blob, public_line, ssh_sign
from interlock.approvals.model import Signed
from interlock.approvals.proof import GLASS, Proofs, challenge, signed_from_json, statement
from interlock.approvals.reviewer_keys import ReviewerKeys
from interlock.errors import Reason, VoteError
from interlock.evidence.sshsig import dearmor
from interlock.identity.directory import Directory
from interlock.identity.passkeys import RelyingParty
from interlock.identity.principal import Identity, Kind
from interlock.identity.registration import NewPasskey
from interlock.store.engine import Store

UNTIL = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
ANSWER: dict[str, Any] = {
    "digest": "sha256:" + "ab" * 32, "nonce": "0f" * 16, "verdict": "approve", "scope": "once", "valid_until": None,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "another request": {"digest": "sha256:" + "cd" * 32}, "another nonce": {"nonce": "ee" * 16},
    "the verdict": {"verdict": "deny"},
    "a wider scope": {"scope": "rule_in_session"}, "the glass": {"scope": GLASS}, "a later end": {"valid_until": UNTIL},
}  # fmt: skip


@dataclass
class House:
    directory: Directory
    store: Store
    journal: Journal
    keys: ReviewerKeys
    phone: Authenticator

    @property
    def bob(self) -> Identity:
        return self.who("bob")

    def who(self, handle: str) -> Identity:
        entry = self.directory.by_handle(handle)
        assert entry is not None
        return entry.identity

    def refuses(self, signed: Signed, *, person: Identity | None = None, **answer: Any) -> str:
        with pytest.raises(VoteError) as refused:
            self.keys.check(person or self.bob, signed, statement(**{**ANSWER, **answer}))
        assert refused.value.code is Reason.PROOF_REJECTED
        return str(refused.value)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    journal, phone = Journal(), authenticator()
    store = await stores.opened(tmp_path)
    directory = Directory(store.principals, clock=ManualClock(), entropy=seeded("d"), journal=journal)
    await directory.load()
    for handle in ("alice", "bob"):
        await directory.add(handle, Kind.HUMAN)
    await directory.add("claude", Kind.AGENT, owner="alice")
    keys: Proofs = ReviewerKeys(directory, RelyingParty(HOST, ORIGIN), journal=journal)
    assert isinstance(keys, ReviewerKeys)
    opened = House(directory, store, journal, keys, phone)
    await directory.add_passkey("bob", NewPasskey(phone.id, phone.cose, 0, "phone"), by=opened.bob)
    yield opened
    await keys.close()
    await store.close()


def signed_by(phone: Authenticator, **bent: Any) -> Signed:
    return signed_from_json(as_json(phone.assertion(challenge(**ANSWER), **bent)))


async def test_a_passkey_s_proof_comes_back_with_the_directory_s_public_key(house: House) -> None:
    signed = replace(signed_by(house.phone), public=b"the client's own")
    checked = house.keys.check(house.bob, signed, statement(**ANSWER))
    assert checked == replace(signed, public=house.phone.cose, statement=statement(**ANSWER))


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS.keys())
async def test_a_proof_is_of_one_answer_only(house: House, changed: dict[str, Any], tmp_path: Path) -> None:
    key = keygen(tmp_path)
    await house.directory.add_ssh_key("bob", public_line(key))
    by_ssh = signed_from_json({"kind": "sshsig", "signature": ssh_sign(key, statement(**ANSWER))})
    house.refuses(signed_by(house.phone), **changed)
    house.refuses(by_ssh, **changed)
    assert house.keys.check(house.bob, by_ssh, statement(**ANSWER)).public == public_blob(key)


@pytest.mark.parametrize(
    "bent", [{"origin": "https://evil.example"}, {"flags": 0x01}, {"crossOrigin": True}, {"type": "webauthn.create"}]
)
async def test_a_bent_assertion_is_refused(house: House, bent: dict[str, Any]) -> None:
    house.refuses(signed_by(house.phone, **bent))


async def test_another_relying_party_s_assertion_is_refused(house: House) -> None:
    house.phone.host = "evil.example"
    house.refuses(signed_by(house.phone))


async def test_another_person_s_passkey_is_worth_nothing_and_says_no_more_than_an_unknown_one(house: House) -> None:
    told = house.refuses(signed_by(house.phone), person=house.who("alice"))
    assert told == house.refuses(signed_by(authenticator("stranger")))
    assert "bob" not in told


async def test_a_linked_account_s_key_counts_and_a_disabled_one_s_does_not(house: House) -> None:
    await house.directory.add("bob-admin", Kind.HUMAN)
    await house.directory.link("bob", house.who("bob-admin"))
    house.keys.check(house.who("bob-admin"), signed_by(house.phone), statement(**ANSWER))
    await house.directory.set_disabled("bob", True)
    house.refuses(signed_by(house.phone), person=house.who("bob-admin"))
    house.refuses(signed_by(house.phone))


async def test_a_removed_passkey_does_not_sign(house: House) -> None:
    await house.directory.remove_passkey("bob", house.phone.id)
    house.refuses(signed_by(house.phone))


async def test_a_counter_that_stands_or_goes_back_is_refused_and_recorded(house: House) -> None:
    first, second = signed_by(house.phone), signed_by(house.phone)
    copied = signed_by(replace(house.phone, count=1))
    house.keys.check(house.bob, second, statement(**ANSWER))
    for replayed, count in ((copied, 2), (first, 1)):
        assert "counter" in house.refuses(replayed)
        event = house.journal.of("login")[-1].fields
        assert (event["method"], event["outcome"], event["credential"]) == ("passkey", "refused", house.phone.id)
        assert (event["counter"], event["known_counter"]) == (count, 2)
    house.phone.count = None  # an authenticator that counted and now says 0 went back too
    house.refuses(signed_by(house.phone))
    assert len(house.journal.of("login")) == 3


async def test_a_refused_counter_stays_refused_although_the_journal_is_broken(house: House) -> None:
    copied = replace(house.phone)
    house.keys.check(house.bob, signed_by(house.phone), statement(**ANSWER))
    house.journal.broken = True
    house.refuses(signed_by(copied))


async def test_the_same_delivery_again_is_the_same_answer_and_no_alarm(house: House) -> None:
    signed = signed_by(house.phone)
    once = house.keys.check(house.bob, signed, statement(**ANSWER))
    assert house.keys.check(house.bob, signed, statement(**ANSWER)) == once
    house.refuses(signed, verdict="deny")
    house.refuses(replace(signed, signature=signed.signature + b"\0"))
    assert house.journal.of("login") == []


async def test_the_counter_is_kept_for_the_next_process(house: House) -> None:
    signed = signed_by(house.phone)
    house.keys.check(house.bob, signed, statement(**ANSWER))
    await house.keys.close()
    again = Directory(house.store.principals, clock=ManualClock(), entropy=seeded("2"), journal=house.journal)
    await again.load()
    keys = ReviewerKeys(again, RelyingParty(HOST, ORIGIN), journal=house.journal)
    with pytest.raises(VoteError, match="counter"):
        keys.check(house.bob, signed, statement(**ANSWER))
    keys.check(house.bob, signed_by(house.phone), statement(**ANSWER))
    await keys.close()


async def test_a_synced_passkey_has_no_counter(house: House) -> None:
    synced = authenticator("synced", count=None)
    await house.directory.add_passkey("bob", NewPasskey(synced.id, synced.cose, 0, "cloud"), by=house.bob)
    for _ in range(2):
        house.keys.check(house.bob, signed_by(synced), statement(**ANSWER))
    assert house.journal.of("login") == []


async def test_a_refused_assertion_does_not_move_the_counter(house: House) -> None:
    forged = signed_by(house.phone)
    house.refuses(forged, verdict="deny")
    house.keys.check(house.bob, forged, statement(**ANSWER))


async def test_what_is_revoked_signs_nothing(house: House, tmp_path: Path) -> None:
    key = keygen(tmp_path, "bob")
    await house.directory.add_ssh_key("bob", public_line(key))
    bobs = house.directory.get(house.bob)
    assert bobs is not None
    keys = ReviewerKeys(
        house.directory, RelyingParty(HOST, ORIGIN), journal=house.journal,
        revoked={house.phone.id, bobs.ssh_keys[0].fingerprint}.__contains__,
    )  # fmt: skip
    signed = signed_from_json({"kind": "sshsig", "signature": ssh_sign(key, statement(**ANSWER))})
    for proof in (signed, signed_by(house.phone)):
        with pytest.raises(VoteError, match="is revoked"):
            keys.check(house.bob, proof, statement(**ANSWER))


async def test_without_a_page_no_passkey_counts(house: House) -> None:
    keys = ReviewerKeys(house.directory, None, journal=house.journal)
    with pytest.raises(VoteError, match="public_url"):
        keys.check(house.bob, signed_by(house.phone), statement(**ANSWER))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
async def test_a_security_key_signs_when_touched(house: House, kind: str) -> None:
    from base64 import b64encode

    key = SecurityKey(kind)
    await house.directory.add_ssh_key("bob", f"{key.algorithm.decode()} {b64encode(key.blob).decode()} token")
    touched = signed_from_json({"kind": "sshsig", "signature": key.sign(statement(**ANSWER))})
    assert house.keys.check(house.bob, touched, statement(**ANSWER)).public == key.blob
    house.refuses(signed_from_json({"kind": "sshsig", "signature": key.sign(statement(**ANSWER), flags=0)}))


async def test_ssh_signatures_of_others_and_in_other_namespaces_are_refused(house: House, tmp_path: Path) -> None:
    key, alices, nobodys = (keygen(tmp_path, name) for name in ("bob", "alice", "nobody"))
    await house.directory.add_ssh_key("bob", public_line(key))
    await house.directory.add_ssh_key("alice", public_line(alices))
    for signer, namespace in ((alices, "approve@interlock"), (nobodys, "approve@interlock"), (key, "file"), (key, "git")):
        armored = ssh_sign(signer, statement(**ANSWER), namespace)
        house.refuses(signed_from_json({"kind": "sshsig", "signature": armored}))
    good = dearmor(ssh_sign(key, statement(**ANSWER)).encode())
    for blob in (b"", good[:-1], good + b"\0", good[:40]):
        house.refuses(Signed("sshsig", "SHA256:x", public_blob(key), blob))


async def test_agents_and_unknown_kinds_sign_nothing(house: House, tmp_path: Path) -> None:
    key = keygen(tmp_path)
    await house.directory.add_ssh_key("claude", public_line(key))
    armored = signed_from_json({"kind": "sshsig", "signature": ssh_sign(key, statement(**ANSWER))})
    house.refuses(armored, person=house.who("claude"))
    house.refuses(armored, person=house.who("alice"))  # the owner does not sign with the agent's key
    house.refuses(armored, person=Identity("okta", "nobody"))
    house.refuses(replace(armored, kind="gpg"))


async def test_a_widened_end_is_another_answer(house: House) -> None:
    signed = signed_from_json(as_json(house.phone.assertion(challenge(**{**ANSWER, "scope": "exact", "valid_until": UNTIL}))))
    house.refuses(signed, scope="exact", valid_until=UNTIL + timedelta(seconds=1))
    house.keys.check(house.bob, signed, statement(**{**ANSWER, "scope": "exact", "valid_until": UNTIL}))
