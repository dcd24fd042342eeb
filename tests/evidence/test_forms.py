"""A form gives the bytes that the ordinary way gives, whatever its constant parts hold."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import ManualClock
from interlock.errors import EvidenceError
from interlock.evidence import disclosure, jcs
from interlock.evidence.events import EVERY_EVENT, EventDraft, Json
from interlock.evidence.forms import Form, Place
from interlock.evidence.transcript import Transcript
from interlock.evidence.vault import PlainVault

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NAMES = st.from_regex(r"[a-z][a-z0-9_%]{0,8}", fullmatch=True).filter(lambda name: name not in EVERY_EVENT | {"ref"})
VALUES = st.recursive(
    TEXT | st.booleans() | st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PLACE = Place(b"S1", b"2026-01-02T03:04:05.000006Z", 77)
PREV = b"ab" * 32


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.booleans(), st.lists(st.sampled_from([b"aa", b"bb"]), max_size=2))
def test_a_line_is_the_canonical_form_of_its_event(fields: dict[str, Json], refers: bool, digests: list[bytes]) -> None:
    form = Form("decision", fields, refers=refers)
    line = form.encode(PLACE, 5, PREV, 4 if refers else None, digests)
    event: dict[str, Json] = {
        **fields, "mono_us": 77, "prev": PREV.decode(), "seq": 5, "session": "S1", "ts": PLACE.ts.decode(),
        "type": "decision", "v": 1,
    }  # fmt: skip
    if refers:
        event["ref"] = 4
    if digests:
        event["_sd"] = [digest.decode() for digest in digests]
    assert line == jcs.encode(event)


def transcript(folder: Path) -> Transcript:
    folder.mkdir()
    salts = count()

    def entropy(size: int) -> bytes:
        return b"".join(next(salts).to_bytes(disclosure.SALT, "big") for _ in range(size // disclosure.SALT))

    return Transcript(
        folder, "S1", clock=ManualClock(), entropy=entropy,
        vault=PlainVault(), on_policy=lambda _digest: None,
    )  # fmt: skip


def test_a_transcript_of_forms_equals_one_of_plain_drafts(tmp_path: Path) -> None:
    """The same events, once encoded beforehand and once not: byte for byte the same two files."""
    text: dict[str, Json] = {"text": "SELECT 'ü%d' -- \u2028", "effects": [{"verb": "select", "object": "t"}]}
    bind = Form("pg.bind", {"verbs": ["select"], "opaque": [], "parser": "libpg_query 18", "statements": 1}, text)
    answer = Form(
        "decision", {"verdict": "allow", "rule": "ours/100%", "policy": "sha256:aa"}, {"reason": "it reads"}, refers=True
    )
    formed, plain = transcript(tmp_path / "formed"), transcript(tmp_path / "plain")
    for number in range(20):
        values: dict[str, Json] = {"binds": [{"raw": None, "shown": str(number)}]}
        seq = formed.seq
        formed.append(bind.draft(None, values), answer.draft(seq))
        plain.append(
            EventDraft("pg.bind", bind.fields, {**text, **values}),
            EventDraft("decision", {"ref": seq, **answer.fields}, {"reason": "it reads"}),
        )
    for name in ("events.jsonl", "disclosures.jsonl"):
        assert (tmp_path / "formed" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert formed.head == plain.head


def test_every_disclosure_has_a_salt_of_its_own(tmp_path: Path) -> None:
    """Salts are drawn many at a time; none may ever be used twice."""
    written = transcript(tmp_path / "t")
    form = Form("pg.query", {}, {"text": "SELECT 1", "effects": []})
    for _ in range(100):
        written.append(form.draft())
    lines = (tmp_path / "t" / "disclosures.jsonl").read_bytes().splitlines()
    assert len({json.loads(line)["d"][:32] for line in lines}) == len(lines) == 200


def test_the_parts_of_a_disclosure_are_the_whole() -> None:
    salts = bytes(range(48))
    for at, begin in enumerate(disclosure.beginnings(salts)):
        whole, _ = disclosure.commit(salts[at * 16 : at * 16 + 16], "text", "x")
        assert begin + disclosure.tail("text", "x") == whole.encode()
        assert disclosure.parse_line(disclosure.line(whole, 3)).value == "x"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("decision", {"seq": 1}), ("decision", {"_sd": []}), ("decision", {"ref": 1}), ("decision", {"_a": 1}), ("no.such", {})],
)
def test_a_form_that_could_hide_a_field_of_the_writer_is_refused(kind: str, fields: dict[str, Json]) -> None:
    with pytest.raises(EvidenceError):
        Form(kind, fields, refers=True)


def test_a_name_is_committed_to_once() -> None:
    with pytest.raises(EvidenceError):
        Form("pg.bind", {}, {"text": "a"}).draft(None, {"text": "b"})
