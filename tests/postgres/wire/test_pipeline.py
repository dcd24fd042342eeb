"""The queue of answers and the names that depend on it, against a model of the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.answers import ErrorFields
from interlock.postgres.wire.names import OUTSIDE, Lookup, Names
from interlock.postgres.wire.pipeline import ANSWERS, Act, Asked, Pipeline, Step

SAID = ErrorFields("ERROR", "42501", "no")


def answers(pipeline: Pipeline, kinds: str, status: str = "I") -> list[Act]:
    acts = []
    for kind in kinds:
        act, _ = pipeline.answer(ord(kind))
        acts.append(act)
        if act is Act.READY:
            pipeline.ready(status)
    return acts


def test_a_refusal_is_dropped_when_something_before_it_failed() -> None:
    pipeline = Pipeline()
    for step in (Step.PARSE, Step.BIND, Step.EXECUTE):
        pipeline.ask(Asked(step))
    pipeline.ask(Asked(Step.REFUSED, refusal=SAID))
    pipeline.ask(Asked(Step.SYNC))
    assert answers(pipeline, "12EZ") == [Act.DONE, Act.DONE, Act.SKIP, Act.READY]
    assert len(pipeline) == 0


def test_skipping_lasts_until_a_sync_is_sent_and_takes_a_query_with_it() -> None:
    pipeline = Pipeline()
    pipeline.ask(Asked(Step.PARSE))
    pipeline.ask(Asked(Step.QUERY, ref=7))
    _, head = pipeline.answer(ord("E"))
    assert head.skipped_refs == [7]
    assert pipeline.skipping
    assert pipeline.drained
    pipeline.ask(Asked(Step.SYNC))
    assert not pipeline.skipping
    assert answers(pipeline, "Z") == [Act.READY]


def test_a_failed_query_does_not_skip() -> None:
    pipeline = Pipeline()
    pipeline.ask(Asked(Step.QUERY))
    pipeline.ask(Asked(Step.QUERY))
    assert answers(pipeline, "EZCZ", "E") == [Act.FAIL, Act.READY, Act.RESULT, Act.READY]
    assert pipeline.in_transaction


def test_copy_swallows_a_sync_that_came_before_its_end() -> None:
    pipeline = Pipeline()
    for step in (Step.EXECUTE, Step.SYNC):
        pipeline.ask(Asked(step))
    assert answers(pipeline, "G") == [Act.COPY_IN]
    assert pipeline.copy_in
    pipeline.ask(Asked(Step.COPY_END))
    pipeline.ask(Asked(Step.SYNC))
    assert not pipeline.copy_in
    assert answers(pipeline, "CZ") == [Act.LAST_RESULT, Act.READY]
    assert len(pipeline) == 0


def test_an_answer_to_nothing_is_noticed() -> None:
    for kind in "123CDEZ":
        with pytest.raises(RemoteProtocolError):
            Pipeline().answer(ord(kind))


@given(st.sampled_from(list(Step)), st.sampled_from("123tTnIsCEZGHWcSKRV"))
def test_only_the_table_moves_the_head(step: Step, kind: str) -> None:
    pipeline = Pipeline()
    pipeline.ask(Asked(step))
    if (step, kind) in ANSWERS:
        pipeline.answer(ord(kind))
    else:
        with pytest.raises(RemoteProtocolError):
            pipeline.answer(ord(kind))


class Server:
    """What PostgreSQL does with Parse, Close and Sync: the truth that the tables must never contradict."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.skipping = False
        self.out: list[str] = []

    def take(self, kind: str, name: str, meaning: int, fails: bool) -> None:
        if kind == "sync":
            self.skipping = False
            self.out.append("Z")
        elif self.skipping:
            return
        elif fails or (kind == "parse" and name and name in self.names):
            self.skipping = True
            self.out.append("E")
            if kind == "parse" and not name:
                self.names.pop("", None)
        elif kind == "parse":
            self.names[name] = meaning
            self.out.append("1")
        else:
            self.names.pop(name, None)
            self.out.append("3")


SENT = st.tuples(
    st.sampled_from(["parse", "parse", "sync", "close"]),
    st.sampled_from(["a", ""]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([0, 0, 0, 1, 3]),
)


@settings(max_examples=examples(250))
@given(st.lists(SENT, min_size=3, max_size=12))
def test_a_name_never_means_something_else_at_the_server(script: list[tuple[str, str, bool, int]]) -> None:
    """Answers arrive late by any amount. Whatever a look-up then says, the server says too, or would skip the message."""
    server, pipeline = Server(), Pipeline()
    names: Names[int] = Names()
    at = 0
    for meaning, (kind, name, fails, arrived) in enumerate(script):
        if not (pipeline.skipping and kind != "sync"):
            changes: tuple[Any, ...] = ()
            if kind == "parse":
                changes = (names.enter(name, meaning, pipeline.stretch),)
            elif kind == "close":
                changes = (names.enter(name, Lookup.ABSENT, pipeline.stretch),)
            step = {"parse": Step.PARSE, "close": Step.CLOSE, "sync": Step.SYNC}[kind]
            pipeline.ask(Asked(step, changes=changes))
            server.take(kind, name, meaning, fails)
        for answer in server.out[at : at + arrived]:
            pipeline.answer(ord(answer))
        at = min(len(server.out), at + arrived)
        for asked in ("", "a"):
            said = names.look_up(asked, pipeline.stretch)
            if said is Lookup.UNSETTLED or server.skipping or pipeline.skipping:
                continue
            if said is Lookup.ABSENT or isinstance(said, int):
                truth = server.names.get(asked, Lookup.ABSENT)
                # An unnamed statement that failed to parse is gone at the server; taking it for the older one is an
                # error there, never another statement.
                assert said == truth or (asked == "" and truth is Lookup.ABSENT)
    for answer in server.out[at:]:
        pipeline.answer(ord(answer))
    assert names.settled


def test_a_string_of_statements_that_failed_makes_its_names_unknown() -> None:
    pipeline, names = Pipeline(), Names[str]()
    pipeline.ask(Asked(Step.QUERY, changes=(names.enter("a", "DELETE", OUTSIDE),), statements=2))
    assert names.look_up("a", pipeline.stretch) is Lookup.UNSETTLED
    answers(pipeline, "EZ")
    assert names.look_up("a", pipeline.stretch) is Lookup.UNKNOWN
    pipeline.ask(Asked(Step.QUERY, changes=(names.enter("b", "DELETE", OUTSIDE),), statements=1))
    answers(pipeline, "EZ")
    assert names.look_up("b", pipeline.stretch) is Lookup.ABSENT


def test_portals_end_with_their_transaction_but_for_held_cursors() -> None:
    names: Names[str] = Names()
    for name in ("portal", "held"):
        names.enter(name, name, 0).settle()
    names.enter("open", "open", 0)
    names.forget_settled(lambda meaning: meaning == "held")
    assert set(names.snapshot()) == {"held", "open"}
