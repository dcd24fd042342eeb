"""The labelled corpora: nothing that runs is missed, nothing plain is held up, nothing crashes.

A row passes when every expected effective command is reported, or the whole is opaque, or it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interlock.commands.model import Analysis
from interlock.errors import Reason

CORPORA = Path(__file__).parents[1] / "data" / "corpora"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPORA / name).read_text("utf-8").splitlines()]


def reported(analysis: Analysis, argv: list[str | None]) -> bool:
    return any(
        len(e.argv) == len(argv) and all(want is None or want == got for want, got in zip(argv, e.argv, strict=True))
        for e in analysis.effects
    )


SHELL = rows("shell_commands.jsonl")


@pytest.fixture(scope="module")
def analysed(grammars) -> dict[str, Analysis]:
    return dict(zip((r["id"] for r in SHELL), grammars.analyse_all([r["text"] for r in SHELL]), strict=True))


@pytest.mark.parametrize("row", SHELL, ids=[r["id"] for r in SHELL])
def test_every_effective_command_is_reported_or_the_whole_is_opaque_or_refused(row, analysed) -> None:
    analysis = analysed[row["id"]]
    if analysis.unreadable is not None or analysis.opaque:
        return
    for argv in row["expected"]["effective"]:
        assert reported(analysis, argv), f"{argv} is not among {[e.argv for e in analysis.effects]}"


@pytest.mark.parametrize("row", [r for r in SHELL if r["expected"]["need"] == "policy"], ids=lambda r: r["id"])
def test_policy_rows_are_static_and_have_a_rendering(row, analysed) -> None:
    analysis = analysed[row["id"]]
    assert analysis.unreadable is None
    assert analysis.opaque == ()
    assert analysis.sent
    assert analysis.effects
    for argv in row["expected"]["effective"]:
        assert reported(analysis, argv)


@pytest.mark.parametrize("row", [r for r in SHELL if r["expected"]["need"] == "reject"], ids=lambda r: r["id"])
def test_reject_rows_are_unreadable(row, analysed) -> None:
    assert analysed[row["id"]].unreadable is not None


HARMLESS = {"read", "list", "nothing"}


@pytest.mark.parametrize("row", [r for r in SHELL if r["expected"]["need"] == "approve"], ids=lambda r: r["id"])
def test_approve_rows_are_never_only_reads(row, analysed) -> None:
    """What needs a human is opaque, refused, or has an effect that is more than a read."""
    analysis = analysed[row["id"]]
    if analysis.unreadable is None and not analysis.opaque:
        assert {e.verb for e in analysis.effects} - HARMLESS


TRUTH = [r for r in rows("bash_truth.jsonl") if r["expected"]["touch_runs_bash"] or r["expected"]["touch_runs_dash"]]


def test_whenever_touch_runs_it_is_reported_or_opaque_or_refused(grammars) -> None:
    missed = [
        row["id"]
        for row, analysis in zip(TRUTH, grammars.analyse_all([r["text"] for r in TRUTH]), strict=True)
        if analysis.unreadable is None and not analysis.opaque and not any(e.argv[:1] == ("touch",) for e in analysis.effects)
    ]
    assert missed == []


def test_everyday_commands_never_crash_and_keep_their_static_share(grammars, record_property) -> None:
    everyday = rows("everyday_commands.jsonl")
    answers = grammars.analyse_all([r["text"] for r in everyday])
    failed = [r["id"] for r, a in zip(everyday, answers, strict=True) if any(o.reason.startswith("parser-") for o in a.opaque)]
    assert failed == []
    static = sum(a.static for a in answers)
    refused = sum(a.unreadable is not None for a in answers)
    record_property("static share", f"{static / len(everyday):.3f}")
    # A KPI that must not fall. Raise the floor when coverage grows; never lower it to make a change pass.
    assert static >= 880, f"{static} of {len(everyday)} are static"
    assert refused <= 20, f"{refused} are refused"
    for answer in answers:
        assert answer.effects or answer.opaque or answer.unreadable is not None
        assert (answer.sent is not None) == answer.static


def test_unreadable_reasons_are_the_documented_ones(grammars) -> None:
    wanted = {
        b"echo \xff": Reason.NOT_UTF8,
        b"ls\x1b[2K": Reason.DECEPTIVE_TEXT,
        "ls\u202e".encode(): Reason.DECEPTIVE_TEXT,
        "ls\u00a0x".encode(): Reason.DECEPTIVE_TEXT,
        b"ls\rx": Reason.DECEPTIVE_TEXT,
        b"ls\x00x": Reason.DECEPTIVE_TEXT,
        b"r\\\nm x": Reason.DECEPTIVE_TEXT,
        b"ls # \\\nrm": Reason.DECEPTIVE_TEXT,
        b"ls x\\": Reason.DECEPTIVE_TEXT,
        b"time -v ls": Reason.DECEPTIVE_TEXT,
        b"": Reason.EMPTY_COMMAND,
        b" \n\t": Reason.EMPTY_COMMAND,
        b"# only a comment": Reason.EMPTY_COMMAND,
        b"ls &&": Reason.SYNTAX_ERROR,
        b"x" * (128 * 1024 + 1): Reason.TOO_LARGE,
    }
    for text, reason in wanted.items():
        analysis = grammars.analyse(text)
        assert analysis.unreadable is not None, text
        assert analysis.unreadable.reason is reason, text
        assert analysis.sent is None
