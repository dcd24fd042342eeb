"""What is kept encoded of a command that comes again is what would be recorded of it anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock import record
from interlock.commands.model import Analysis, BindValue, Command, Effect, HeldInput, Kind, Opaque, SqlContext, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.errors import EvidenceError
from interlock.evidence.events import EventDraft
from interlock.policy.model import Decision, Verdict
from interlock.record import Drafts, decided, described, forwarded

SEQ = 41
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
BINDS = st.lists(
    st.builds(
        BindValue, st.none() | st.binary(max_size=9), st.integers(0, 1), st.integers(0, 2**32 - 1), st.none() | TEXT
    ),
    max_size=3,
).map(tuple)  # fmt: skip
COMMANDS = st.builds(
    Command,
    wire=st.just(Wire.POSTGRES),
    kind=st.sampled_from(Kind),
    text=st.binary(max_size=9) | TEXT.map(str.encode),
    stdin=st.none() | st.builds(HeldInput, st.binary(max_size=5)),
    binds=BINDS,
    env=st.sampled_from([(), (("LC_TIME", "C"),)]),
)
ANALYSES = st.builds(
    Analysis,
    effects=st.lists(st.builds(Effect, st.sampled_from(["select", "read"]), TEXT), max_size=2).map(tuple),
    opaque=st.lists(st.builds(Opaque, st.sampled_from(["dynamic", "eval"]), TEXT), max_size=2).map(tuple),
    sent=st.none() | TEXT,
    statements=st.integers(0, 3),
    parser=st.sampled_from(["libpg_query 17", "100%"]),
)
DECISIONS = st.builds(
    Decision,
    st.just(Verdict.ALLOW), st.sampled_from(["ours/reads", "default"]), TEXT, st.just("sha256:" + "a" * 64),
    observed=st.sampled_from([(), ("ours/watch",)]), errors=st.sampled_from([(), ("ours/broken",)]),
)  # fmt: skip


def anew(command: Command, analysis: Analysis, decision: Decision, payload: bytes) -> Sequence[EventDraft]:
    return described(command, analysis), decided(decision, SEQ), forwarded(SEQ + 1, command, payload)


def kept(drafts: Drafts, command: Command, analysis: Analysis, decision: Decision, payload: bytes) -> Sequence[EventDraft]:
    return tuple(draft.placed(seq) for seq, draft in enumerate(drafts.allowed(command, analysis, decision, payload), SEQ))


@given(st.lists(st.tuples(COMMANDS, ANALYSES, DECISIONS, st.none() | TEXT), min_size=1, max_size=4), BINDS)
def test_a_command_that_comes_again_is_recorded_as_it_is(
    cases: list[tuple[Command, Analysis, Decision, str | None]], others: tuple[BindValue, ...]
) -> None:
    drafts = Drafts()
    for _ in range(2):
        for asked, analysis, decision, rendered in cases:
            payload = asked.text if rendered is None else rendered.encode()
            for command in (asked, replace(asked, binds=others)):
                assert kept(drafts, command, analysis, decision, payload) == anew(command, analysis, decision, payload)


def test_the_same_text_under_another_analysis_or_decision_is_another_command() -> None:
    """The objects that are dropped give their ids to the next ones, unless what is kept holds them."""
    drafts, command = Drafts(), Command(Wire.POSTGRES, Kind.QUERY, b"SELECT * FROM t")
    decision = Decision(Verdict.ALLOW, "default", "it reads", "sha256:aa")
    for number in range(50):
        analysis = Analysis((Effect("select", f"schema_{number}.t"),), sent="SELECT * FROM t")
        assert kept(drafts, command, analysis, decision, command.text) == anew(command, analysis, decision, command.text)
        del analysis
    analysis = Analysis(sent="SELECT * FROM t")
    for number in range(50):
        other = replace(decision, reason=f"because {number}")
        assert kept(drafts, command, analysis, other, command.text) == anew(command, analysis, other, command.text)
        del other


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "KEPT", 3)
    drafts, decision = Drafts(), Decision(Verdict.ALLOW, "default", "it reads", "sha256:aa")
    long = Command(Wire.POSTGRES, Kind.QUERY, b"SELECT '" + b"x" * record.MAX_KEPT + b"'")
    recurring = drafts.recurring(long, analysis := Analysis(), decision, long.text)
    assert drafts.recurring(long, analysis, decision, long.text) is not recurring
    short = [Command(Wire.POSTGRES, Kind.QUERY, b"SELECT %d" % number) for number in range(4)]
    first = [drafts.recurring(command, analysis, decision, command.text) for command in short]
    again = [drafts.recurring(command, analysis, decision, command.text) for command in reversed(short)]
    assert [one is two for one, two in zip(first, reversed(again), strict=True)] == [False, True, True, True]


def test_a_value_without_a_form_is_refused() -> None:
    command = Command(Wire.POSTGRES, Kind.BIND, b"SELECT $1", binds=(BindValue(b"x", 0, 25, "\ud800"),))
    with pytest.raises(EvidenceError):
        Drafts().allowed(command, Analysis(), Decision(Verdict.ALLOW, "default", "it reads", "sha256:aa"), command.text)


def test_what_is_secret_in_a_text_is_counted_and_nothing_of_it_is_in_the_event() -> None:
    text = b"UPDATE users SET password = 'hunter2', pin = 77 WHERE id = 7"
    found = analyze_sql(text, SqlContext(assume_tables=True), Kind.QUERY)
    command = Command(Wire.POSTGRES, Kind.QUERY, text)
    draft = described(command, found)
    assert draft.fields["secret_literals"] == 2
    assert "hunter2" not in str(draft.fields)
    assert draft.secret["text"] == text.decode()
    plain = analyze_sql(b"UPDATE users SET name = 'bob'", SqlContext(assume_tables=True), Kind.QUERY)
    assert "secret_literals" not in described(command, plain).fields
