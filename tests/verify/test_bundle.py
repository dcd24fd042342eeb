"""Tampering: whatever is changed in a bundle, verification says so, and why."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from harness.clock import ManualClock
from harness.transcripts import NODE, closed_session, make_store
from interlock.clock import system_entropy
from interlock.evidence import sshsig
from interlock.evidence.archive import Archive
from interlock.evidence.events import TYPES
from interlock.evidence.seal import SealCa, trust_files
from interlock.verify import Report, rules, signature, verify_bundle
from interlock.verify.__main__ import main

ID = "01JTESTSESSION0000000000AA"
OTHER = "01JTESTSESSION0000000000BB"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("verify") / "data"

    async def run() -> None:
        clock = ManualClock()
        store = make_store(data_dir, clock)
        await store.start()
        await closed_session(store, clock, ID)
        await closed_session(store, clock, OTHER)
        await store.close()

    asyncio.run(run())
    for ident in (ID, OTHER):
        Archive(data_dir).export(ident, data_dir / "out" / ident)
    return data_dir


@pytest.fixture
def trust(data_dir: Path) -> Path:
    return data_dir / "trust"


@pytest.fixture
def bundle(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of an exported bundle, writable."""
    folder = shutil.copytree(data_dir / "out" / ID, tmp_path / "bundle")
    for path in folder.rglob("*"):
        path.chmod(0o700)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ask ssh-keygen once for the same question."""
    monkeypatch.setattr(signature, "check", functools.cache(signature.check))
    yield


def messages(report: Report) -> str:
    return "\n".join(f"{p.check}: {p.message}" for p in report.problems)


def lines(bundle: Path, name: str = "events.jsonl") -> list[bytes]:
    return (bundle / name).read_bytes().splitlines(keepends=True)


def test_the_untouched_bundle_verifies(bundle: Path, trust: Path) -> None:
    report = verify_bundle(bundle, trust)
    assert (report.result, report.problems) == ("verified", [])
    assert "replay.cast is the recording that the seal commits to" in report.checks


STRIDE = {"seal.json.sig": 7, "seal.json": 5}


@pytest.mark.parametrize(
    "name", ["events.jsonl", "disclosures.jsonl", "README.txt", "replay.cast", "policies", "seal.json", "seal.json.sig"]
)
def test_any_changed_byte_is_found(bundle: Path, trust: Path, name: str, quick: None) -> None:
    path = next((bundle / "policies").iterdir()) if name == "policies" else bundle / name
    whole = path.read_bytes()
    step = 1 if os.environ.get("FUZZ") else STRIDE.get(name, max(1, len(whole) // 80))
    unseen = []
    for at in range(0, len(whole), step):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        if verify_bundle(bundle, trust).ok:
            unseen.append(at)
    assert unseen == []


@pytest.mark.parametrize("name", ["events.jsonl", "disclosures.jsonl", "README.txt", "seal.json", "seal.json.sig", "replay.cast"])
def test_bytes_after_the_end_are_found(bundle: Path, trust: Path, name: str) -> None:
    with (bundle / name).open("ab") as file:
        file.write(b"\n")
    assert not verify_bundle(bundle, trust).ok


def _rewrite(bundle: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    (bundle / "events.jsonl").write_bytes(b"".join(change(lines(bundle))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda all_: all_[:3] + all_[4:], "removed"),
        (lambda all_: [*all_[:3], all_[4], all_[3], *all_[5:]], "removed, added or moved"),
        (lambda all_: all_[:-1], "cut, added or changed"),
        (lambda all_: [*all_[:-1], all_[-1][:-20]], "no end"),
        (lambda all_: [line.replace(b'"verdict":"deny"', b'"verdict":"allow"') for line in all_], "changed"),
        (lambda all_: [*all_, all_[-1]], "removed, added or moved"),
        (lambda all_: [all_[0].replace(b'{"', b'{ "', 1), *all_[1:]], "not canonical"),
        (lambda all_: [all_[0].replace(b'"v":1', b'"v":1.0', 1), *all_[1:]], "not an integer"),
        (lambda all_: [all_[0].replace(b'"v":1,', b'"v":1,"v":1,', 1), *all_[1:]], "not canonical"),
        (lambda all_: [], "cut, added or changed"),
    ],
    ids=["removed", "swapped", "tail", "torn", "edited", "repeated", "spaces", "float", "double-key", "emptied"],
)
def test_changed_lines_are_found(bundle: Path, trust: Path, change: Callable[[list[bytes]], list[bytes]], words: str) -> None:
    before = lines(bundle)
    _rewrite(bundle, change)
    assert lines(bundle) != before
    report = verify_bundle(bundle, trust)
    assert report.result == "failed" and words in messages(report)
    assert "'events.jsonl' is not the file that was sealed" in messages(report)


def test_a_rewritten_chain_needs_another_seal(bundle: Path, trust: Path) -> None:
    """Somebody who can write files but not sign makes a chain that is whole in itself."""
    head, out = "0" * 64, []
    for line in lines(bundle):
        event = json.loads(line)
        if event["type"] == "decision" and event["verdict"] == "deny":
            event["verdict"] = "allow"
        event["prev"] = head
        body = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        head = sha256(b"\x00" + body).hexdigest()
        out.append(body + b"\n")
    (bundle / "events.jsonl").write_bytes(b"".join(out))
    assert "the seal's head" in messages(verify_bundle(bundle, trust))
    seal = json.loads((bundle / "seal.json").read_bytes())
    seal["head"] = head
    seal["files"]["events.jsonl"] = sha256(b"".join(out)).hexdigest()
    (bundle / "seal.json").write_bytes(json.dumps(seal, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    assert "ssh-keygen does not accept the signature" in messages(verify_bundle(bundle, trust))


def test_the_seal_of_another_session_proves_nothing(bundle: Path, data_dir: Path, trust: Path) -> None:
    for name in ("seal.json", "seal.json.sig"):
        shutil.copy(data_dir / "out" / OTHER / name, bundle / name)
    said = messages(verify_bundle(bundle, trust))
    assert "it belongs to" in said and "not the file that was sealed" in said


def _sign_again(bundle: Path, ca: SealCa, **changes: object) -> None:
    seal = json.loads((bundle / "seal.json").read_bytes()) | changes
    raw = json.dumps(seal, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    key = ca.issue(seal["session"], NODE, "session", ManualClock().now(), system_entropy)
    (bundle / "seal.json").write_bytes(raw)
    (bundle / "seal.json.sig").write_bytes(key.sign(raw))


def test_another_authority_is_not_trusted(bundle: Path, trust: Path, tmp_path: Path) -> None:
    _sign_again(bundle, SealCa.load_or_create(tmp_path / "other"))
    assert "ssh-keygen does not accept" in messages(verify_bundle(bundle, trust))


def test_the_same_authority_is_trusted(bundle: Path, trust: Path, data_dir: Path) -> None:
    _sign_again(bundle, SealCa.load_or_create(data_dir / "evidence_ca"))
    assert verify_bundle(bundle, trust).ok, "or the test above proves nothing"


def test_a_key_of_another_session_is_not_accepted(bundle: Path, trust: Path, data_dir: Path) -> None:
    key = SealCa.load_or_create(data_dir / "evidence_ca").issue(OTHER, NODE, "session", ManualClock().now(), system_entropy)
    (bundle / "seal.json.sig").write_bytes(key.sign((bundle / "seal.json").read_bytes()))
    assert "ssh-keygen does not accept" in messages(verify_bundle(bundle, trust))


def test_a_signature_for_another_purpose_is_not_accepted(
    bundle: Path, trust: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.evidence.seal.NAMESPACE", "approve@interlock")
    _sign_again(bundle, SealCa.load_or_create(data_dir / "evidence_ca"))
    assert "ssh-keygen does not accept" in messages(verify_bundle(bundle, trust))


def test_a_key_that_was_not_valid_then_is_not_accepted(bundle: Path, trust: Path, data_dir: Path) -> None:
    clock = ManualClock()
    clock.advance(3 * 86400)
    key = SealCa.load_or_create(data_dir / "evidence_ca").issue(ID, NODE, "session", clock.now(), system_entropy)
    (bundle / "seal.json.sig").write_bytes(key.sign((bundle / "seal.json").read_bytes()))
    assert "ssh-keygen does not accept" in messages(verify_bundle(bundle, trust))


def test_a_seal_that_ssh_keygen_itself_signed_is_accepted(bundle: Path, trust: Path, data_dir: Path, tmp_path: Path) -> None:
    """The other way round: key, certificate and signature are OpenSSH's, only the authority is ours."""
    key, seal = str(tmp_path / "key"), tmp_path / "seal.json"
    shutil.copy(bundle / "seal.json", seal)
    for command in (
        ["-q", "-t", "ed25519", "-N", "", "-f", key],
        ["-q", "-s", str(data_dir / "evidence_ca"), "-I", "by-hand", "-n", ID, "-V", "20260101:20260103", f"{key}.pub"],
        ["-q", "-Y", "sign", "-f", f"{key}-cert.pub", "-n", signature.NAMESPACE, str(seal)],
    ):
        subprocess.run(["ssh-keygen", *command], check=True, capture_output=True, env={**os.environ, "TZ": "UTC"})
    shutil.copy(tmp_path / "seal.json.sig", bundle / "seal.json.sig")
    assert verify_bundle(bundle, trust).problems == []


def test_a_plain_key_without_a_certificate_is_not_accepted(bundle: Path, trust: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signed = sshsig.sign(Ed25519PrivateKey.generate(), signature.NAMESPACE, (bundle / "seal.json").read_bytes())
    (bundle / "seal.json.sig").write_bytes(signed)
    assert "ssh-keygen does not accept" in messages(verify_bundle(bundle, trust))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agent": "local:mallory"}, "agent"),
        ({"target": "other"}, "target"),
        ({"sync": "every"}, "sync"),
        ({"observe": True}, "observe"),
        ({"opened": "2020-01-01T00:00:00.000000Z"}, "opened"),
        ({"policies": []}, "policies"),
        ({"node": "gw-2"}, "node"),
        ({"status": "aborted"}, "recovery"),
        ({"files": {}}, "not part of what was sealed"),
        ({"kind": "journal"}, "journal.open"),
        ({"status": "damaged", "damage": "line 3"}, "line 3"),
        ({"spec": "interlock-transcript/2"}, "spec"),
        ({"extra": 1}, "extra"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_signed_seal_that_disagrees_with_the_events_is_found(
    bundle: Path, trust: Path, data_dir: Path, change: dict[str, object], words: str
) -> None:
    _sign_again(bundle, SealCa.load_or_create(data_dir / "evidence_ca"), **change)
    report = verify_bundle(bundle, trust)
    assert not report.ok and words in messages(report)


def test_a_deleted_disclosure_is_incomplete_and_everything_else_still_holds(bundle: Path, trust: Path) -> None:
    texts = lines(bundle, "disclosures.jsonl")
    (bundle / "disclosures.jsonl").write_bytes(b"".join(texts[:2] + texts[3:]))
    report = verify_bundle(bundle, trust)
    assert report.result == "incomplete"
    assert [p.check for p in report.problems] == ["texts"] and "missing" in messages(report)


def test_no_disclosures_at_all_is_incomplete(bundle: Path, trust: Path) -> None:
    (bundle / "disclosures.jsonl").unlink()
    report = verify_bundle(bundle, trust)
    assert report.result == "incomplete"
    assert all(released.text is None for released in report.released)


def test_an_added_disclosure_is_found(bundle: Path, data_dir: Path, trust: Path) -> None:
    texts = lines(bundle, "disclosures.jsonl")
    other = lines(data_dir / "out" / OTHER, "disclosures.jsonl")
    (bundle / "disclosures.jsonl").write_bytes(b"".join([*texts[:2], other[2], *texts[2:]]))
    assert "no event commits to" in messages(verify_bundle(bundle, trust))


@pytest.mark.parametrize("name", ["events.jsonl", "README.txt", "seal.json", "seal.json.sig"])
def test_a_missing_file_is_found(bundle: Path, trust: Path, name: str) -> None:
    (bundle / name).unlink()
    assert name in messages(verify_bundle(bundle, trust))


def test_a_missing_policy_is_found(bundle: Path, trust: Path) -> None:
    shutil.rmtree(bundle / "policies")
    assert "its bytes are not here" in messages(verify_bundle(bundle, trust))


def test_an_added_file_is_found(bundle: Path, trust: Path) -> None:
    (bundle / "policies/extra.json").write_text("{}")
    assert "'policies/extra.json' is not part of what was sealed" in messages(verify_bundle(bundle, trust))


def test_a_link_is_found(bundle: Path, trust: Path) -> None:
    (bundle / "events.jsonl").rename(bundle.parent / "elsewhere")
    (bundle / "events.jsonl").symlink_to(bundle.parent / "elsewhere")
    assert "neither a file nor a folder" in messages(verify_bundle(bundle, trust))


def test_without_trust_nothing_is_verified(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERLOCK_TRUST", raising=False)
    assert "no trust directory" in messages(verify_bundle(bundle, None))
    assert main([str(bundle)]) == 8


def test_an_empty_trust_directory_trusts_nobody(bundle: Path, tmp_path: Path) -> None:
    assert "there is no allowed_signers" in messages(verify_bundle(bundle, tmp_path))


def test_a_revoked_authority_is_not_trusted(bundle: Path, data_dir: Path, tmp_path: Path) -> None:
    ca = SealCa.load_or_create(data_dir / "evidence_ca")
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust/allowed_signers").write_text(trust_files(ca))
    assert verify_bundle(bundle, tmp_path / "trust").ok
    (tmp_path / "ca.pub").write_text(ca.public_line + "\n")
    revoked = str(tmp_path / "trust/revoked.krl")
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", revoked, str(tmp_path / "ca.pub")], check=True)
    assert "ssh-keygen does not accept" in messages(verify_bundle(bundle, tmp_path / "trust"))


def test_exit_codes_and_words(bundle: Path, trust: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), "--trust", str(trust)]) == 0
    said = capsys.readouterr().out
    assert "VERIFIED" in said and "approved by bob" in said and "rm -rf /var/tmp/build" in said
    assert main([str(bundle), "--trust", str(trust), "--output", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and answer["bundles"][0]["released"][1]["approved_by"] == ["bob"]
    (bundle / "events.jsonl").write_bytes(b"")
    assert main([str(bundle), "--trust", str(trust)]) == 8
    assert "DOES NOT VERIFY" in capsys.readouterr().out
    assert main([str(bundle.parent / "nowhere"), "--trust", str(trust)]) == 8


def test_the_verifier_knows_the_types_that_are_written() -> None:
    assert set(TYPES) == rules.TYPES


def test_nested_json_of_any_depth_is_refused(bundle: Path, trust: Path) -> None:
    (bundle / "seal.json").write_bytes(b"[" * 100_000 + b"]" * 100_000 + b"\n")
    assert "not a seal" in messages(verify_bundle(bundle, trust))


def test_the_report_obeys_no_text(capsys: pytest.CaptureFixture[str], bundle: Path, trust: Path) -> None:
    evil = bundle.parent / "bundle\x1b]0;owned\x07"
    bundle.rename(evil)
    main([str(evil), "--trust", str(trust)])
    assert "\x1b" not in capsys.readouterr().out


def test_two_reports_do_not_share(bundle: Path, trust: Path) -> None:
    first, second = verify_bundle(bundle, trust), verify_bundle(bundle, None)
    assert first.ok and not second.ok
    assert replace(first.released[0], seq=0) == replace(second.released[0], seq=0)
