"""Both forms of the inner loop of the transcript, against each other and against what a line is."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.evidence import chain, disclosure
from interlock.evidence.chain import CLOCK_BOUND_US, MOST_GIVEN, MOST_TAILS, Chain, PlainChain
from interlock.evidence.events import EventDraft
from interlock.evidence.forms import BEFORE, Form, FormedDraft
from interlock.evidence.linefile import LineFile, Tally

compiled = pytest.mark.skipif(not chain.COMPILED, reason="no compiler at build time")
ENDS = [PlainChain, pytest.param(Chain, marks=compiled)]

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VALUES = st.one_of(TEXTS, st.integers(-(2**53) + 1, 2**53 - 1), st.none(), st.lists(TEXTS, max_size=2))
MADE = st.builds(
    lambda fields, secret, given, refers, ref: Form("decision", fields, secret, refers=refers).draft(
        ref if refers else None, tuple(disclosure.tail(name, value) for name, value in given.items())
    ),
    st.dictionaries(st.sampled_from(["a%", "rule", "z"]), VALUES, max_size=3),
    st.dictionaries(TEXTS, VALUES, max_size=3),
    st.dictionaries(TEXTS, VALUES, max_size=3),
    st.booleans(),
    st.sampled_from([0, 7, 2**40, BEFORE]),
)
PREV = b"ab" * 32


class Open:
    """A chain on two files, with clocks and salts that are told."""

    def __init__(self, root: Path, kind: type[Chain]) -> None:
        root.mkdir(exist_ok=True)
        self.files = [LineFile(root / name, create=True) for name in ("events.jsonl", "disclosures.jsonl")]
        self.now = 1_767_323_045_000_006
        self.met: list[Form] = []
        self.refused: set[Form] = set()
        self.drawn = 0
        self.chain = kind(b"S1", *self.files, lambda: self.now * 1000, lambda: self.now * 1000 - 5000, self._meet, self._draw)
        self.root = root

    def _meet(self, form: Form) -> bool:
        self.met.append(form)
        if form not in self.refused:
            self.chain.known.add(form)
        return form not in self.refused

    def _draw(self, wanted: int) -> None:
        drawn = range(self.drawn, self.drawn + max(32, wanted))
        self.drawn = drawn.stop
        self.chain.beginnings.extend(disclosure.beginnings(b"".join(n.to_bytes(disclosure.DRAWN, "big") for n in drawn)))

    def written(self) -> list[bytes]:
        return [(self.root / file.name).read_bytes() for file in self.files]

    def told(self) -> list[disclosure.Disclosure]:
        return [disclosure.parse_line(line + b"\n") for line in self.written()[1].splitlines()]


@compiled
@given(
    st.lists(st.tuples(st.lists(MADE, max_size=3).map(tuple), st.integers(0, 3_000_000)), max_size=5),
    st.sampled_from([0, 9, 2**40]),
)
def test_both_ends_write_the_same(
    tmp_path_factory: pytest.TempPathFactory, appends: list[tuple[tuple[FormedDraft, ...], int]], seq: int
) -> None:
    root = tmp_path_factory.mktemp("chain")
    both = [Open(root / "plain", PlainChain), Open(root / "compiled", Chain)]  # type: ignore[arg-type]  # the same but for its name
    for one in both:
        one.chain.seq = seq
    for drafts, later in appends:
        for one in both:
            one.now += later
        plain, quick = (one.chain.append(*drafts) for one in both)
        assert plain == quick
        states = [(one.chain.seq, one.chain.prev, one.chain.mono_us, one.chain.wall_us) for one in both]
        assert states[0] == states[1]
    assert both[0].written() == both[1].written()
    assert [file.size for file in both[0].files] == [file.size for file in both[1].files] == list(map(len, both[0].written()))


@pytest.mark.parametrize("kind", ENDS)
def test_a_line_hashes_the_one_before_and_commits_to_its_disclosures(tmp_path: Path, kind: type[Chain]) -> None:
    end = Open(tmp_path / "one", kind)
    end.chain.seq, end.chain.prev = 3, PREV
    asked = Form("pg.bind", {"parser": "p"}).draft(None, (disclosure.tail("text", "SELECT 1"), disclosure.tail("binds", [])))
    decided = Form("decision", {"verdict": "allow"}, {"reason": "%d\0"}, refers=True).draft(BEFORE)
    assert end.chain.append(asked, decided) == 3
    lines = end.written()[0].splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["prev"] == PREV.decode()
    assert second["prev"] == sha256(b"\0" + lines[0]).hexdigest()
    assert end.chain.prev.decode() == sha256(b"\0" + lines[1]).hexdigest()
    assert (first["seq"], second["seq"], second["ref"]) == (3, 4, 3)
    told = end.told()
    assert [(each.seq, each.name) for each in told] == [(3, "text"), (3, "binds"), (4, "reason")]
    assert first["_sd"] == sorted(each.digest for each in told[:2])
    assert second["_sd"] == [told[2].digest]


@pytest.mark.parametrize("kind", ENDS)
def test_no_salt_is_used_twice_and_none_is_taken_for_nothing(tmp_path: Path, kind: type[Chain]) -> None:
    end = Open(tmp_path / "one", kind)
    bare, committing = (Form("decision", {}, secret, refers=True).draft(0) for secret in ({}, {"reason": "r"}))
    end.chain.append(bare, *(committing,) * 5)
    assert len(end.chain.beginnings) == 32 - 5
    end.chain.append(*(committing,) * 40)
    assert len({line[6:38] for line in end.written()[1].splitlines()}) == 45


@pytest.mark.parametrize("kind", ENDS)
def test_what_there_are_no_salts_or_places_for_is_not_written(tmp_path: Path, kind: type[Chain]) -> None:
    end = Open(tmp_path / "one", kind)
    with pytest.raises(IndexError):
        end.chain.append(Form("decision", dict.fromkeys("a"), {str(n): n for n in range(MOST_TAILS + 1)}).draft())
    poor = kind(b"S1", *end.files, lambda: 0, lambda: 0, lambda _: True, lambda _: None)
    with pytest.raises(IndexError):
        poor.append(Form("decision", {}, {"reason": "r"}).draft())
    assert end.written() == [b"", b""]


@pytest.mark.parametrize("kind", ENDS)
def test_long_values_are_whole(tmp_path: Path, kind: type[Chain]) -> None:
    end = Open(tmp_path / "one", kind)
    end.chain.append(Form("pg.query", {"parser": "p" * 100_000}).draft(None, (disclosure.tail("text", "x" * 3_000_000),)))
    assert len(json.loads(end.written()[0])["parser"]) == 100_000
    assert end.told()[0].value == "x" * 3_000_000


@compiled
def test_the_compiled_form_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    end = Open(tmp_path / "one", Chain)
    with pytest.raises(TypeError):
        end.chain.append(Form("decision", {}, refers=True).draft(None))
    end.chain.beginnings[:] = [b"short"] * 8
    with pytest.raises(TypeError):
        end.chain.append(Form("decision", {}, {"r": 1}).draft())
    with pytest.raises(TypeError):
        Chain(b"S1", *end.files, lambda: "now", lambda: 0, lambda _: True, lambda _: None)  # type: ignore[arg-type,return-value]
    assert end.written() == [b"", b""]


@pytest.mark.parametrize("kind", ENDS)
def test_events_follow_each_other_and_their_disclosures_are_there(tmp_path: Path, kind: type[Chain]) -> None:
    end = Open(tmp_path / "one", kind)
    draft = Form("decision", {"verdict": "allow"}, {"reason": "r"}, refers=True).draft(BEFORE)
    assert (end.chain.append(draft), end.chain.append(draft, draft)) == (0, 1)
    events, disclosures = end.written()
    prev = "0" * 64
    for seq, line in enumerate(events.splitlines()):
        event = json.loads(line)
        assert (event["seq"], event["prev"], event["ts"]) == (seq, prev, "2026-01-02T03:04:05.000006Z")
        prev = sha256(b"\0" + line).hexdigest()
    assert end.chain.prev.decode() == prev
    assert [disclosure.parse_line(line + b"\n").seq for line in disclosures.splitlines()] == [0, 1, 2]
    assert end.met == [draft.form]


@pytest.mark.parametrize("kind", ENDS)
def test_what_is_not_ordinary_is_left_alone(tmp_path: Path, kind: type[Chain]) -> None:
    end = Open(tmp_path / "one", kind)
    draft = Form("heartbeat", {}).draft()
    strange = Form("heartbeat", {}).draft()
    end.refused.add(strange.form)
    much = Form("heartbeat", {}).draft(None, (disclosure.tail("a", 1),) * (MOST_GIVEN + 1))
    for refused in ((), (EventDraft("heartbeat"),), (draft, strange), (much,)):
        assert end.chain.append(*refused) is None
    assert end.written() == [b"", b""]
    end.chain.wall_us -= CLOCK_BOUND_US + 1
    assert end.chain.append(draft) is None
    end.chain.wall_us += CLOCK_BOUND_US + 1
    end.chain.open = False
    assert end.chain.append(draft) is None
    end.chain.open = True
    assert end.chain.append(draft) == 0


@pytest.mark.parametrize("kind", ENDS)
def test_disclosures_that_are_kept_elsewhere_are_not_ordinary(tmp_path: Path, kind: type[Chain]) -> None:
    file = LineFile(tmp_path / "events.jsonl", create=True)
    chain = kind(b"S1", file, object(), lambda: 0, lambda: 0, lambda _: True, lambda _: None)
    assert chain.append(Form("heartbeat", {}).draft()) is None


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("torn", [0, 1])
def test_after_a_write_that_failed_nothing_is_ordinary(tmp_path: Path, kind: type[Chain], torn: int) -> None:
    end = Open(tmp_path / "one", kind)
    draft = Form("decision", {}, {"reason": "r"}, refers=True).draft(0)
    end.chain.append(draft)
    fd, end.files[torn].fd = end.files[torn].fd, os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        end.chain.append(draft)
    end.files[torn].fd = fd
    assert not end.chain.open
    assert end.chain.append(draft) is None
    assert end.chain.seq == 1


@pytest.mark.parametrize("kind", ENDS)
def test_the_log_is_told_of_every_byte(tmp_path: Path, kind: type[Chain]) -> None:
    end, tally = Open(tmp_path / "one", kind), Tally(10_000)
    for file in end.files:
        file.share(tally, lambda _: None)
    draft = Form("decision", {}, {"reason": "r"}, refers=True).draft(0)
    for _ in range(3):
        end.chain.append(draft)
    assert sorted(file.name for file in tally.files) == ["disclosures.jsonl", "events.jsonl"]
    assert tally.waiting == sum(map(len, end.written()))
    assert [b"".join(file.fresh) for file in end.files] == end.written()
    for _ in range(200):
        end.chain.append(draft)
    assert [(file.lengthy, file.fresh) for file in end.files] == [(True, [])] * 2
    assert all(file.unsynced for file in end.files)
