"""A form gives the bytes that the ordinary way gives, whatever its constant parts hold."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import ManualClock
from interlock.errors import EvidenceError
from interlock.evidence import disclosure
from interlock.evidence.events import EVERY_EVENT, EventDraft, Json
from interlock.evidence.forms import BEFORE, Form
from interlock.evidence.transcript import Transcript
from interlock.evidence.vault import PlainVault

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NAMES = st.from_regex(r"[a-z][a-z0-9_%]{0,8}", fullmatch=True).filter(lambda name: name not in EVERY_EVENT | {"ref"})
VALUES = st.recursive(
    TEXT | st.booleans() | st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def transcript(folder: Path) -> Transcript:
    """Return a transcript whose salts are numbers: two of them commit alike."""
    folder.mkdir()
    salts = count()

    def entropy(size: int) -> bytes:
        return b"".join(next(salts).to_bytes(disclosure.DRAWN, "big") for _ in range(size // disclosure.DRAWN))

    return Transcript(
        folder, "S1", clock=ManualClock(), entropy=entropy,
        vault=PlainVault(), on_policy=lambda _digest: None,
    )  # fmt: skip


def written(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "events.jsonl").read_bytes(), (folder / "disclosures.jsonl").read_bytes()


@given(
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.dictionaries(TEXT, VALUES, max_size=3),
    st.dictionaries(TEXT, VALUES, max_size=2),
    st.sampled_from([None, 0, BEFORE]),
)
def test_a_formed_event_is_written_as_the_plain_one_is(
    fields: dict[str, Json], own: dict[str, Json], given_: dict[str, Json], ref: int | None
) -> None:
    """Byte for byte the same two files, whatever the constant parts hold, and each line in its canonical form."""
    given_ = {name: value for name, value in given_.items() if name not in own}
    form = Form("decision", fields, own, refers=ref is not None)
    tails = tuple(disclosure.tail(name, value) for name, value in given_.items())
    with TemporaryDirectory() as scratch:
        formed, plain = transcript(Path(scratch) / "formed"), transcript(Path(scratch) / "plain")
        for each in (formed, plain):
            each.append(EventDraft("session.open"))
        expected = EventDraft(
            "decision", fields if ref is None else {**fields, "ref": 1 if ref == BEFORE else 0}, {**own, **given_}
        )
        assert formed.append(EventDraft("heartbeat"), form.draft(ref, tails)) == 1
        assert plain.append(EventDraft("heartbeat"), expected) == 1
        assert form.draft(ref, tails).placed(2) == expected
        events, texts = written(Path(scratch) / "formed")
        assert (events, texts) == written(Path(scratch) / "plain")
        assert formed.head == plain.head
        for line in (*events.splitlines(), *texts.splitlines()):
            assert rfc8785.dumps(json.loads(line)) == line


def test_a_long_run_of_forms_equals_one_of_plain_drafts(tmp_path: Path) -> None:
    """Over several drawings of salts."""
    text: dict[str, Json] = {"text": "SELECT 'ü%d' -- \u2028", "effects": [{"verb": "select", "object": "t"}]}
    bind = Form("pg.bind", {"verbs": ["select"], "opaque": [], "parser": "libpg_query 18", "statements": 1}, text)
    answer = Form(
        "decision", {"verdict": "allow", "rule": "ours/100%", "policy": "sha256:aa"}, {"reason": "it reads"}, refers=True
    )
    formed, plain = transcript(tmp_path / "formed"), transcript(tmp_path / "plain")
    for number in range(40):
        values: Json = [{"raw": None, "shown": str(number)}]
        seq = formed.seq
        formed.append(bind.draft(None, (disclosure.tail("binds", values),)), answer.draft(BEFORE))
        plain.append(
            EventDraft("pg.bind", bind.fields, {**text, "binds": values}),
            EventDraft("decision", {"ref": seq, **answer.fields}, {"reason": "it reads"}),
        )
    assert written(tmp_path / "formed") == written(tmp_path / "plain")
    assert formed.head == plain.head


def test_every_disclosure_has_a_salt_of_its_own(tmp_path: Path) -> None:
    """Salts are drawn many at a time; none may ever be used twice."""
    recorded = transcript(tmp_path / "t")
    form = Form("pg.query", {}, {"text": "SELECT 1", "effects": []})
    for _ in range(100):
        recorded.append(form.draft())
    lines = (tmp_path / "t" / "disclosures.jsonl").read_bytes().splitlines()
    assert len({json.loads(line)["d"][:32] for line in lines}) == len(lines) == 200


@given(st.binary(min_size=2 * disclosure.DRAWN, max_size=2 * disclosure.DRAWN))
def test_a_salt_is_what_was_drawn(drawn: bytes) -> None:
    for at, begin in enumerate(disclosure.beginnings(drawn)):
        salt = drawn[at * disclosure.DRAWN : (at + 1) * disclosure.DRAWN][-disclosure.SALT :]
        whole, digest = disclosure.commit(salt, "text", "x")
        assert begin + disclosure.tail("text", "x") == whole.encode()
        assert json.loads(urlsafe_b64decode(whole + "=" * (-len(whole) % 4))) == [
            urlsafe_b64encode(salt).decode().rstrip("="), "text", "x"
        ]  # fmt: skip
        read = disclosure.parse_line(disclosure.line(whole, 3))
        assert (read.name, read.value, read.digest, read.seq) == ("text", "x", digest, 3)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("decision", {"seq": 1}),
        ("decision", {"_sd": []}),
        ("decision", {"ref": 1}),
        ("decision", {"_a": 1}),
        ("decision", {"A": 1}),
        ("no.such", {}),
    ],
)
def test_a_form_that_could_hide_a_field_of_the_writer_is_refused(kind: str, fields: dict[str, Json]) -> None:
    with pytest.raises(EvidenceError):
        Form(kind, fields, refers=True)
