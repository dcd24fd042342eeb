"""Verifies one bundle: seal, signature, files, chain, texts and rules, each said in the report."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from interlock.verify import signature
from interlock.verify.finding import Report
from interlock.verify.proof import reviewers
from interlock.verify.rules import Rules
from interlock.verify.strict import Frontier, MalformedError, leaf, parse_object
from interlock.verify.texts import FILE as TEXTS
from interlock.verify.texts import Texts
from interlock.verify.timeline import parse_time

SPEC = "interlock-transcript/1"
VERSION = 1
EVENTS, SEAL, SIGNATURE, RECORDING = "events.jsonl", "seal.json", "seal.json.sig", "replay.cast"
MAX_SEAL = 1 << 20
GENESIS = "0" * 64
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}\Z")

_SEAL_KEYS: dict[str, tuple[type, ...]] = {
    "agent": (str, type(None)), "cast": (str, type(None)), "closed": (str,), "damage": (str, type(None)), "events": (int,),
    "files": (dict,), "head": (str,), "kind": (str,), "log_origin": (str, type(None)), "node": (str,), "observe": (bool,),
    "opened": (str,), "policies": (list,), "root": (str,), "session": (str,), "spec": (str,), "status": (str,),
    "sync": (str,), "target": (str, type(None)),
}  # fmt: skip
_COMMON: dict[str, type] = {"mono_us": int, "prev": str, "seq": int, "session": str, "ts": str, "type": str, "v": int}


def verify_bundles(bundles: Iterable[Path], trust: Path | None) -> list[Report]:
    """Verify each bundle, and that journals given together continue one another."""
    reports = [verify_bundle(bundle, trust) for bundle in bundles]
    journals = {r.session: r for r in reports if r.leaves is not None}
    for report in reports:
        if report.continues is None:
            continue
        before, events, head = report.continues
        known = journals.get(before)
        if known is None or known.leaves is None:
            report.notes.append(f"continues journal {before}, which was not given")
        elif not 0 < events <= len(known.leaves) or known.leaves[events - 1] != head:
            report.problem("chain", f"does not continue journal {before}, which it names", 0)
        else:
            report.checks.append(f"continues journal {before}")
    return reports


def verify_bundle(bundle: Path, trust: Path | None) -> Report:
    """Verify one bundle against the auditor's trust directory. Never raises for what a bundle holds."""
    report = Report(str(bundle))
    try:
        _verify(bundle, trust, report)
    except OSError as error:
        report.problem("files", f"{error.filename or bundle} can't be read: {error.strerror}")
    return report


def _verify(bundle: Path, trust: Path | None, report: Report) -> None:
    if not bundle.is_dir():
        report.problem("files", f"{bundle} is not a folder")
        return
    present = _present(bundle, report)
    if SEAL not in present or SIGNATURE not in present:
        missing = SEAL if SEAL not in present else SIGNATURE
        report.problem("seal", f"unsealed: there is no {missing}; the session is still open, or the seal was taken away")
        return
    raw = (bundle / SEAL).read_bytes()
    seal = _read_seal(raw, report)
    if seal is None:
        return
    _signature(bundle, raw, seal, trust, report)
    _files(bundle, seal, present, report)
    _events(bundle, seal, trust, report)
    if seal["status"] == "damaged":
        report.problem("status", f"the node found this transcript damaged and said so: {seal['damage']}")
    elif seal["status"] == "aborted":
        report.notes.append("the node died during this session; it was sealed as aborted when the node came back")
    if seal["sync"] == "review":
        report.notes.append(
            "sync mode review: a power failure (not a crash) may have lost up to 10 ms of allowed commands; "
            "approved and refused ones never"
        )


# -- files ------------------------------------------------------------------------------------------------------------


def _present(bundle: Path, report: Report) -> set[str]:
    """Return the names of all files, relative. Only plain files and folders may be in a bundle."""
    names: set[str] = set()
    for folder, folders, files in os.walk(bundle):
        for name in (*folders, *files):
            path = Path(folder) / name
            relative = str(path.relative_to(bundle))
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                names.add(relative)
            elif not stat.S_ISDIR(mode):
                report.problem("files", f"{relative!r} is neither a file nor a folder")
    return names


def _files(bundle: Path, seal: dict[str, Any], present: set[str], report: Report) -> None:
    sealed: dict[str, Any] = seal["files"]
    for name, expected in sorted(sealed.items()):
        if name not in present:
            report.problem("files", f"{name!r} is sealed and missing")
        elif _sha256(bundle / name) != expected:
            report.problem("files", f"{name!r} is not the file that was sealed")
    known = {*sealed, SEAL, SIGNATURE, TEXTS}
    if seal["cast"] is not None:
        known.add(RECORDING)
    for name in sorted(present - known):
        report.problem("files", f"{name!r} is not part of what was sealed")
    if EVENTS not in sealed:
        report.problem("files", f"the seal does not cover {EVENTS}")
    report.checks.append(f"{len(sealed)} files have the sealed hashes and nothing was added")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- seal -------------------------------------------------------------------------------------------------------------


def _read_seal(raw: bytes, report: Report) -> dict[str, Any] | None:
    try:
        if len(raw) > MAX_SEAL or not raw.endswith(b"\n"):
            raise MalformedError("too large, or without its last newline")
        seal = parse_object(raw[:-1])
        _seal_form(seal)
    except MalformedError as error:
        report.problem("seal", f"{SEAL} is not a seal: {error}")
        return None
    report.session, report.kind, report.status, report.node = seal["session"], seal["kind"], seal["status"], seal["node"]
    report.agent, report.target, report.sync = seal["agent"], seal["target"], seal["sync"]
    report.opened, report.closed, report.events = seal["opened"], seal["closed"], seal["events"]
    return seal


def _seal_form(seal: dict[str, Any]) -> None:
    if set(seal) != set(_SEAL_KEYS):
        raise MalformedError(f"keys {sorted(set(seal) ^ set(_SEAL_KEYS))} are missing or unknown")
    for name, kinds in _SEAL_KEYS.items():
        if type(seal[name]) not in kinds:
            raise MalformedError(f"{name} has the wrong type")
    forms = (
        ("spec", seal["spec"] == SPEC),
        ("session", _ID.match(seal["session"])),
        ("kind", seal["kind"] in ("session", "journal")),
        ("status", seal["status"] in ("closed", "aborted", "damaged")),
        ("sync", seal["sync"] in ("review", "every")),
        ("head", _HEX.match(seal["head"])),
        ("root", _HEX.match(seal["root"])),
        ("closed", parse_time(seal["closed"])),
        ("cast", seal["cast"] is None or _DIGEST.match(seal["cast"])),
        ("files", all(isinstance(v, str) and _HEX.match(v) for v in seal["files"].values())),
        ("policies", all(isinstance(p, str) for p in seal["policies"])),
    )
    for name, good in forms:
        if not good:
            raise MalformedError(f"{name} has an unknown form")


def _signature(bundle: Path, raw: bytes, seal: dict[str, Any], trust: Path | None, report: Report) -> None:
    closed = parse_time(seal["closed"])
    if trust is None:
        report.problem(
            "signature", "not checked: no trust directory; give --trust DIR with the allowed_signers of the operator's auditors"
        )
    elif closed is not None:
        why = signature.check(raw, (bundle / SIGNATURE).read_bytes(), seal["session"], closed, trust)
        if why is None:
            report.checks.append("the seal is signed by a key that the trusted authority certified for this session")
        else:
            report.problem("signature", why)


# -- events -----------------------------------------------------------------------------------------------------------


def _events(bundle: Path, seal: dict[str, Any], trust: Path | None, report: Report) -> None:
    path = bundle / EVENTS
    if not path.is_file():
        report.problem("chain", f"there is no {EVENTS}")
        return
    listed = reviewers(trust)
    rules, texts, tree = Rules(report, seal["kind"], listed), Texts(bundle, report), Frontier()
    head, count, first, last = GENESIS, 0, None, None
    leaves: list[str] | None = [] if seal["kind"] == "journal" else None
    with path.open("rb") as file:
        for line in file:
            event = _event(line, count, head, seal["session"], report)
            if event is None:
                break
            hashed = leaf(line[:-1])
            tree.add(hashed)
            head = hashed.hex()
            if leaves is not None:
                leaves.append(head)
            rules.feed(event, texts.of(count, event.get("_sd", [])))
            first, last = first or event, event
            count += 1
    report.leaves = leaves
    for name, found in (("events", count), ("head", head), ("root", tree.root())):
        if seal[name] != found:
            report.problem("chain", f"the seal's {name} is {seal[name]} and the file gives {found}: cut, added or changed")
    recording = texts.of_seal(seal["cast"])
    _recording(bundle, seal, recording, report)
    if seal["status"] != "damaged":
        rules.finish(seal["status"])
        _agree(seal, first or {}, last or {}, rules, report)
    _policies(bundle, rules, report)
    report.checks += [
        f"{count} events follow one another without a gap, and the last is the sealed one",
        "every event has its time; both clocks agree, or the record says where they parted",
        f"{rules.forwards} released commands: each has an earlier decision that allows it, or an approval of that very request",
        f"{texts.found} texts are those that were committed to; {texts.missing} are missing",
    ]
    if rules.proven:
        report.checks.append(f"{rules.proven} answers are signed by a reviewer's own key, over exactly that answer")
        if listed is None:
            report.notes.append("whose keys those are is the node's word; list them in the file reviewers of your trust folder")


def _event(line: bytes, count: int, head: str, session: str, report: Report) -> dict[str, Any] | None:
    """Return the event when it is the next of the chain; report the first break and return None."""
    try:
        if not line.endswith(b"\n"):
            raise MalformedError("the last line has no end")
        event = parse_object(line[:-1])
        for name, kind in _COMMON.items():
            if type(event.get(name)) is not kind:
                raise MalformedError(f"{name} is missing")
        committed = event.get("_sd", [])
        if not isinstance(committed, list) or not all(isinstance(d, str) and _DIGEST.match(d) for d in committed):
            raise MalformedError("_sd is not a list of digests")
        if len(set(committed)) != len(committed):
            raise MalformedError("_sd names a digest twice")
        if event["v"] != VERSION or event["session"] != session:
            raise MalformedError(f"it belongs to {event['session']!r}, version {event['v']}")
        if event["seq"] != count:
            raise MalformedError(f"its seq is {event['seq']}: an event was removed, added or moved")
        if event["prev"] != head:
            raise MalformedError("it does not follow the event before it, which was changed")
        return event
    except MalformedError as error:
        report.problem("chain", f"the chain breaks at event {count}: {error}", count)
        return None


def _agree(seal: dict[str, Any], first: dict[str, Any], last: dict[str, Any], rules: Rules, report: Report) -> None:
    """The seal repeats facts of the events for people; they must be the same facts."""
    facts = {
        "opened": first.get("ts"),
        "closed": last.get("ts"),
        "target": first.get("target"),
        "agent": first.get("principal"),
        "policies": sorted(rules.policies),
        "observe": rules.observe,
    }
    if first.get("type") in ("session.open", "journal.open"):
        facts |= {"sync": first.get("sync"), "node": first.get("node")}
    for name, found in facts.items():
        if seal[name] != found:
            report.problem("seal", f"the seal's {name} is {seal[name]!r} and the events say {found!r}")


def _policies(bundle: Path, rules: Rules, report: Report) -> None:
    """Every policy that decided is there, and its digest is the hash of its bytes."""
    for digest in sorted(rules.policies):
        plain = digest.removeprefix("sha256:")
        path = bundle / "policies" / f"{plain}.json"
        if not _HEX.match(plain) or not path.is_file():
            report.problem("policies", f"the policy {digest} decided and its bytes are not here", incomplete=True)
        elif _sha256(path) != plain:
            report.problem("policies", f"the bytes of the policy {digest} are not those that decided")


def _recording(bundle: Path, seal: dict[str, Any], expected: Any, report: Report) -> None:
    if expected is None or not (bundle / RECORDING).is_file():
        return
    if _sha256(bundle / RECORDING) != expected:
        report.problem("recording", f"{RECORDING} is not the recording that the seal commits to")
    else:
        report.checks.append(f"{RECORDING} is the recording that the seal commits to")


def to_json(reports: list[Report]) -> str:
    return json.dumps(
        {"v": 1, "ok": all(r.ok for r in reports), "bundles": [r.to_json() for r in reports]}, indent=2, ensure_ascii=False
    )
