"""Personal proofs under the verifier: what a reviewer signed verifies, and whatever a node makes of it does not."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1

from harness.authenticator import UP, UV, Authenticator, authenticator
from harness.clock import ManualClock
from harness.people import BOB, CAROL
from harness.ssh_signer import SecurityKey, keygen, public_blob, ssh_sign
from harness.transcripts import analysis, command, decision, make_store, open_session, request, vote
from interlock import record
from interlock.approvals.minutes import answer_event
from interlock.approvals.model import ApprovalRequest, Proof, Signed, State, Vote
from interlock.approvals.proof import signed_scope, statement
from interlock.evidence import sshsig
from interlock.evidence.events import EventDraft
from interlock.evidence.sshsig import MAGIC, string
from interlock.identity.sshkey import fingerprint
from interlock.policy.model import Verdict
from interlock.verify import Report, verify_bundle
from interlock.verify.cose import CoseError, public_key
from interlock.verify.finding import Severity

Signer = Callable[[bytes], Signed]


def by_passkey(phone: Authenticator, **bent: Any) -> Signer:
    def sign(message: bytes) -> Signed:
        return replace(phone.assertion(hashlib.sha256(message).digest(), **bent), public=phone.cose)

    return sign


def by_ssh(key: Path, namespace: str = "approve@interlock") -> Signer:
    def sign(message: bytes) -> Signed:
        public = public_blob(key)
        blob = sshsig.dearmor(ssh_sign(key, message, namespace).encode())
        return Signed("sshsig", fingerprint(public), public, blob)

    return sign


def by_security_key(key: SecurityKey, flags: int = 1) -> Signer:
    def sign(message: bytes) -> Signed:
        return Signed("sshsig", fingerprint(key.blob), key.blob, sshsig.dearmor(key.sign(message, flags=flags).encode()))

    return sign


def message_of(asked: ApprovalRequest, counted: Vote) -> bytes:
    scope = signed_scope(counted.scope, break_glass=counted.break_glass)
    return statement(counted.digest, asked.nonce, counted.verdict, scope, counted.valid_until)


def signed_vote(asked: ApprovalRequest, clock: ManualClock, signer: Signer, **changes: Any) -> Vote:
    counted = replace(vote(asked, clock.now()), proof=Proof.PERSONAL, **changes)
    message = message_of(asked, counted)
    return replace(counted, signed=replace(signer(message), statement=message))


Votes = Callable[[ApprovalRequest, ManualClock], tuple[Vote, ...]]


async def told(
    tmp_path: Path, votes: Votes, change: Callable[[EventDraft], EventDraft] = lambda d: d, reviewers: str | None = None
) -> Report:
    """Record a session with one review that was answered by these votes, seal it, and verify it."""
    clock = ManualClock()
    store = make_store(tmp_path / "data", clock)
    await store.start()
    recorder = await open_session(store)
    seq = recorder.next_seq
    asked = command("rm x")
    recorder.append(record.described(asked, analysis("rm x")), record.decided(decision(Verdict.REVIEW), seq))
    waiting = request(asked, clock.now())
    recorder.append(record.requested(seq + 1, waiting))
    consumed = replace(waiting, state=State.CONSUMED, votes=votes(waiting, clock))
    recorder.append(change(record.answered(consumed)), record.forwarded(seq + 1, asked, b"rm x"))
    await recorder.close({"reason": "client-left"})
    await store.close()
    if reviewers is not None:
        (tmp_path / "data/trust/reviewers").write_text(reviewers)
    return verify_bundle(tmp_path / "data/sessions" / recorder.session, tmp_path / "data/trust")


def problems(report: Report, check: str = "proofs") -> str:
    assert report.result == "failed"
    return " ".join(p.message for p in report.problems if p.check == check)


SIGNERS: dict[str, Callable[[Path], Signer]] = {
    "ES256": lambda _: by_passkey(authenticator()),
    "EdDSA": lambda _: by_passkey(authenticator(algorithm="EdDSA")),
    "RS256": lambda _: by_passkey(authenticator(algorithm="RS256")),
    "synced": lambda _: by_passkey(authenticator(count=None)),
    "ssh-ed25519": lambda folder: by_ssh(keygen(folder)),
    "ssh-ecdsa": lambda folder: by_ssh(keygen(folder, "id", "ecdsa")),
    "ssh-rsa": lambda folder: by_ssh(keygen(folder, "id", "rsa", "-b", "2048")),
    "sk-ed25519": lambda _: by_security_key(SecurityKey()),
    "sk-ecdsa": lambda _: by_security_key(SecurityKey("ecdsa")),
}


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS.keys())
async def test_what_a_reviewer_signed_verifies(tmp_path: Path, signer: Callable[[Path], Signer]) -> None:
    sign = signer(tmp_path)
    report = await told(tmp_path, lambda asked, clock: (signed_vote(asked, clock, sign),))
    assert report.problems == []
    assert any("1 answers are signed by a reviewer's own key" in check for check in report.checks)
    assert any("reviewers" in note for note in report.notes)


async def test_scope_and_end_are_part_of_what_is_signed(tmp_path: Path) -> None:
    sign = by_passkey(authenticator())

    def votes(asked: ApprovalRequest, clock: ManualClock) -> tuple[Vote, ...]:
        return (signed_vote(asked, clock, sign, scope="exact", valid_until=clock.now() + timedelta(minutes=5)),)

    assert (await told(tmp_path, votes)).problems == []


CHANGES: dict[str, dict[str, Any]] = {
    "scope": {"scope": "rule_in_session"},
    "no scope": {"scope": "once", "valid_until": "2026-01-02T03:00:00.000000Z"},
    "another end": {"valid_until": "2026-01-02T02:13:01.000000Z"},
}


@pytest.mark.parametrize("kind", ["passkey", "ssh"])
@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES.keys())
async def test_a_node_that_changes_an_answer_is_found_out(tmp_path: Path, changed: dict[str, Any], kind: str) -> None:
    sign = by_passkey(authenticator()) if kind == "passkey" else by_ssh(keygen(tmp_path))

    def change(draft: EventDraft) -> EventDraft:
        return replace(draft, fields={**draft.fields, "votes": [{**draft.fields["votes"][0], **changed}]})

    report = await told(tmp_path, lambda asked, clock: (signed_vote(asked, clock, sign),), change)
    assert "not signed as it says" in problems(report)


@pytest.mark.parametrize("glass", [True, False], ids=["glass made ordinary", "ordinary made glass"])
async def test_a_signature_that_breaks_the_glass_and_an_ordinary_one_are_two(tmp_path: Path, glass: bool) -> None:
    sign = by_passkey(authenticator())
    honest = await told(tmp_path, lambda asked, clock: (signed_vote(asked, clock, sign, break_glass=glass),))
    assert honest.problems == []

    def change(draft: EventDraft) -> EventDraft:
        bare = {k: v for k, v in draft.fields["votes"][0].items() if k != "break_glass"}
        return replace(draft, fields={**draft.fields, "votes": [bare if glass else {**bare, "break_glass": True}]})

    bent = await told(tmp_path / "2", lambda asked, clock: (signed_vote(asked, clock, sign, break_glass=glass),), change)
    assert "another answer" in problems(bent)

    def scoped(draft: EventDraft) -> EventDraft:
        (same,) = change(draft).fields["votes"]
        return replace(draft, fields={**draft.fields, "votes": [{**same, "scope": "break_glass"}]})

    if glass:
        bent = await told(tmp_path / "3", lambda asked, clock: (signed_vote(asked, clock, sign, break_glass=True),), scoped)
        assert "no ordinary answer" in problems(bent)


async def test_a_signature_over_a_denial_is_no_approval(tmp_path: Path) -> None:
    sign = by_passkey(authenticator())

    def votes(asked: ApprovalRequest, clock: ManualClock) -> tuple[Vote, ...]:
        denial = statement(asked.digest, asked.nonce, "deny", "once", None)
        proven = replace(sign(denial), statement=denial)
        return (replace(vote(asked, clock.now()), proof=Proof.PERSONAL, signed=proven),)

    assert "another answer" in problems(await told(tmp_path, votes))


async def test_a_signature_of_another_request_is_none_of_this(tmp_path: Path) -> None:
    sign = by_ssh(keygen(tmp_path))

    def votes(asked: ApprovalRequest, clock: ManualClock) -> tuple[Vote, ...]:
        other = statement("sha256:" + "00" * 32, asked.nonce, "approve", "once", None)
        honest = statement(asked.digest, asked.nonce, "approve", "once", None)
        proven = tuple(replace(sign(other), statement=told) for told in (other, honest))
        return tuple(replace(vote(asked, clock.now()), proof=Proof.PERSONAL, signed=signed) for signed in proven)

    found = problems(await told(tmp_path, votes))
    assert "another answer" in found
    assert "does not accept" in found


async def test_personal_without_a_signature_is_a_lie(tmp_path: Path) -> None:
    report = await told(tmp_path, lambda asked, clock: (replace(vote(asked, clock.now()), proof=Proof.PERSONAL),))
    assert "there is no signature" in problems(report)
    sign = by_passkey(authenticator())

    def change(draft: EventDraft) -> EventDraft:
        bare = {k: v for k, v in draft.fields["votes"][0].items() if k != "signed"}
        return replace(draft, fields={**draft.fields, "votes": [bare]})

    report = await told(tmp_path / "2", lambda asked, clock: (signed_vote(asked, clock, sign),), change)
    assert "there is no signature" in problems(report)


async def test_a_signature_is_checked_also_where_the_vote_claims_less(tmp_path: Path) -> None:
    sign = by_passkey(authenticator())

    def votes(asked: ApprovalRequest, clock: ManualClock) -> tuple[Vote, ...]:
        honest = statement(asked.digest, asked.nonce, "approve", "once", None)
        return (replace(vote(asked, clock.now()), signed=replace(sign(b"anything"), statement=honest)),)

    assert "another answer" in problems(await told(tmp_path, votes))


@pytest.mark.parametrize("kind", ["", "certain", None, 5])
async def test_other_kinds_of_proof_do_not_exist(tmp_path: Path, kind: object) -> None:
    def change(draft: EventDraft) -> EventDraft:
        return replace(draft, fields={**draft.fields, "votes": [{**draft.fields["votes"][0], "proof": kind}]})

    report = await told(tmp_path, lambda asked, clock: (vote(asked, clock.now()),), change)
    assert "not a kind of proof" in problems(report)


BENT: dict[str, Callable[[Path], Signer]] = {
    "nobody verified": lambda _: by_passkey(authenticator(), flags=UP),
    "nobody there": lambda _: by_passkey(authenticator(), flags=UV),
    "a frame": lambda _: by_passkey(authenticator(), crossOrigin=True),
    "a frame of another": lambda _: by_passkey(authenticator(), topOrigin="https://evil.example"),
    "a registration": lambda _: by_passkey(authenticator(), type="webauthn.create"),
    "another page": lambda _: by_passkey(authenticator(host="evil.example")),
    "no secure page": lambda _: by_passkey(authenticator(origin="http://interlock.example")),
    "no page": lambda _: by_passkey(authenticator(), origin=None),
    "another namespace": lambda folder: by_ssh(keygen(folder), "file"),
    "untouched": lambda _: by_security_key(SecurityKey(), flags=0),
    "untouched ecdsa": lambda _: by_security_key(SecurityKey("ecdsa"), flags=4),
    "RSA with SHA-1": lambda _: _rsa_sha1,
}


def _rsa_sha1(message: bytes) -> Signed:
    key = rsa.generate_private_key(65537, 2048)
    public = string(b"ssh-rsa") + string(b"\x01\x00\x01")
    public += string(b"\x00" + key.public_key().public_numbers().n.to_bytes(256, "big"))
    common = string(b"approve@interlock") + string(b"") + string(b"sha512")
    value = key.sign(MAGIC + common + string(hashlib.sha512(message).digest()), PKCS1v15(), SHA1())
    blob = MAGIC + (1).to_bytes(4, "big") + string(public) + common + string(string(b"ssh-rsa") + string(value))
    return Signed("sshsig", fingerprint(public), public, blob)


@pytest.mark.parametrize("signer", BENT.values(), ids=BENT.keys())
async def test_what_the_desk_would_refuse_the_verifier_refuses(tmp_path: Path, signer: Callable[[Path], Signer]) -> None:
    sign = signer(tmp_path)
    assert problems(await told(tmp_path, lambda asked, clock: (signed_vote(asked, clock, sign),)))


PARTS: dict[str, Callable[[Signed], Signed]] = {
    "another key": lambda s: replace(s, public=authenticator().cose),
    "no key": lambda s: replace(s, public=b""),
    "a map of nothing": lambda s: replace(s, public=b"\xa0"),
    "a signature cut": lambda s: replace(s, signature=s.signature[:-1]),
    "no signature": lambda s: replace(s, signature=b""),
    "other data": lambda s: replace(s, authenticator_data=s.authenticator_data[:-1] + b"\xff"),
    "short data": lambda s: replace(s, authenticator_data=s.authenticator_data[:36]),
    "client data with a blank": lambda s: replace(s, client_data=s.client_data + b" "),
    "client data of a list": lambda s: replace(s, client_data=b"[]"),
    "another kind": lambda s: replace(s, kind="sshsig"),
    "an unknown kind": lambda s: replace(s, kind="gpg"),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
async def test_any_part_changed_does_not_verify(tmp_path: Path, part: Callable[[Signed], Signed]) -> None:
    sign = by_passkey(authenticator())
    report = await told(tmp_path, lambda asked, clock: (signed_vote(asked, clock, lambda m: part(sign(m))),))
    assert report.result == "failed"
    assert {p.check for p in report.problems} <= {"proofs", "events"}


async def test_ssh_names_must_be_those_of_the_key_that_signed(tmp_path: Path) -> None:
    key, other = keygen(tmp_path), keygen(tmp_path, "other")
    sign = by_ssh(key)
    for number, change in enumerate(
        (
            lambda s: replace(s, key=fingerprint(public_blob(other))),
            lambda s: replace(s, public=public_blob(other), key=fingerprint(public_blob(other))),
            lambda s: replace(s, signature=s.signature + b"\0"),
            lambda s: replace(s, signature=s.signature[:30]),
            lambda s: replace(s, signature=b"garbage"),
        )
    ):
        report = await told(
            tmp_path / str(number), lambda asked, clock, c=change: (signed_vote(asked, clock, lambda m: c(sign(m))),)
        )
        assert problems(report)


async def test_two_people_do_not_sign_with_one_key(tmp_path: Path) -> None:
    sign = by_passkey(authenticator())

    def votes(asked: ApprovalRequest, clock: ManualClock) -> tuple[Vote, ...]:
        return (
            signed_vote(asked, clock, sign),
            signed_vote(asked, clock, sign, reviewer=CAROL, reviewer_handle="carol"),
        )

    assert "the same key" in problems(await told(tmp_path, votes))


async def test_the_auditor_s_own_list_says_whose_a_key_is(tmp_path: Path) -> None:
    phone = authenticator()
    listed = f"# keys of reviewers\n\n{fingerprint(phone.cose)} {BOB}\n"
    cases = {"his": (listed, True), "hers": (listed.replace(str(BOB), str(CAROL)), False), "none": ("", False)}
    for name, (reviewers, good) in cases.items():
        report = await told(
            tmp_path / name, lambda asked, clock: (signed_vote(asked, clock, by_passkey(phone)),), reviewers=reviewers
        )
        assert report.ok is good, name
        if good:
            assert not any("node's word" in note for note in report.notes)
        else:
            assert "does not give to them" in problems(report)


async def test_what_was_signed_is_committed_to_and_without_it_the_proof_is_incomplete(tmp_path: Path) -> None:
    sign = by_passkey(authenticator())
    report = await told(tmp_path, lambda asked, clock: (signed_vote(asked, clock, sign),))
    bundle = Path(report.bundle)
    assert '"nonce"' not in (bundle / "events.jsonl").read_text()
    (bundle / "disclosures.jsonl").unlink()
    again = verify_bundle(bundle, tmp_path / "data/trust")
    assert [p.severity for p in again.problems if p.check == "proofs"] == [Severity.INCOMPLETE]
    assert again.result == "incomplete"


async def test_the_node_s_journal_carries_and_proves_the_same(tmp_path: Path) -> None:
    """An approval that is never used has no transcript: the journal alone speaks for it."""
    sign = by_passkey(authenticator())
    for name, spoil in (("good", False), ("bad", True)):
        clock = ManualClock()
        store = make_store(tmp_path / name, clock)
        await store.start()
        waiting = request(command("rm x"), clock.now())
        counted = signed_vote(waiting, clock, sign)
        event = answer_event(waiting, counted, 1)
        store.journal.append(replace(event, fields={**event.fields, "verdict": "deny"}) if spoil else event)
        await store.close()
        (journal,) = (tmp_path / name / "journal").iterdir()
        report = verify_bundle(journal, tmp_path / name / "trust")
        assert report.ok is not spoil, report.problems
        assert ("proofs" in {p.check for p in report.problems}) is spoil


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x04", b"\x04" + b"x" * 64, b"\xa1", b"\xa1\x01", b"\xbf\x01\x02\xff", b"\xa2\x01\x02\x01\x02", b"\x82\x01\x02",
        b"\xa1\x41a\x02", b"\xb8\xff", b"\xa1\x01\x5b" + b"\xff" * 8, authenticator().cose + b"\0", authenticator().cose[:-1],
        authenticator(algorithm="P-384").cose,
    ],
    ids=itertools.count(),  # the keys are other ones each time, and the tests' names must not be
)  # fmt: skip
def test_other_keys_are_refused(data: bytes) -> None:
    with pytest.raises(CoseError):
        public_key(data)
