"""A short text does not become a large analysis: its size is bounded wherever it is kept, sent or shown, and no rule is lost."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harness.requests import START, draft
from interlock.approvals.desk import open_request
from interlock.approvals.model import ApprovalRequest
from interlock.approvals.portable import read_request, request_form
from interlock.cli.asker import parse_who
from interlock.cli.explanation import _effects
from interlock.commands.bounds import EFFECTS, OPAQUE, TOO_MANY, WORDS, bounded
from interlock.commands.model import Analysis, Command, Effect, Kind, Opaque, ShellContext, SqlContext, Wire
from interlock.commands.sql.analysis import analyze_sql
from interlock.errors import Reason
from interlock.policy import packs
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import Verdict
from interlock.policy.question import EXAMPLES, decide
from interlock.record import described
from interlock.web.shown import ROW_EFFECTS, Shown

LARGEST = 1024 * 1024
NOW = datetime(2026, 1, 5, 14, 0, tzinfo=UTC)
NAMES = " ".join(f"/t/{number:x}" for number in range(2300))
MANY = " ".join(f"{number:x}" for number in range(2000))
LONG = " ".join(f"/t/{number:x}-with-a-long-name-of-a-file" for number in range(400))
STARTS = " ".join(f"{number:x}" for number in range(800))

SHELL = {
    "rm with 2,300 paths": f"rm -rf {NAMES}",
    "cat with 2,300 paths": f"cat {NAMES}",
    "behind wrappers": f"sudo nice timeout 5 rm -rf {NAMES}",
    "a chain of wrappers": f"{'nice ' * 300}rm {MANY}",
    "a long working directory": f"cd /{'d' * 8000}; rm {' '.join(f'{n:x}' for n in range(1500))}",
    "a long destination": f"cp {' '.join(f'{n:x}' for n in range(1500))} /{'d' * 8000}",
    "many working directories": f"{''.join(f'cd {n}; ' for n in range(7))} rm {MANY}",
    "{} for each starting point": f"find {STARTS} -exec rm {'{} ' * 1000} \\;",
    "different words with {}": f"find {STARTS} -exec rm {' '.join(f'{{}}{n}' for n in range(900))} \\;",
    "patterns": f"rm {'* ' * 8000}",
}
SQL = {
    "functions for each table": (
        f"SELECT {','.join(f'f{n}()' for n in range(2400))} FROM {','.join(f't{n}' for n in range(1500))}"
    ),
    "EXECUTE of the same statement": (
        f"PREPARE a AS SELECT * FROM {','.join(f't{n}' for n in range(900))};" + "EXECUTE a;" * 1500
    ),
    "rights for many": (f"GRANT SELECT ON {','.join(f't{n}' for n in range(300))} TO {','.join(f'r{n}' for n in range(3000))}"),
    "64 KiB of tables": f"DROP TABLE {','.join(f't{n}' for n in range(9000))}",
    "64 KiB of statements": ";".join(f"SELECT a, b FROM t{n}" for n in range(2500)),
}


@pytest.fixture(scope="module")
def policy() -> PolicySet:
    return load([packs.shipped()])


def asked(text: str, wire: Wire = Wire.SSH) -> Command:
    if wire is Wire.SSH:
        return Command(wire, Kind.EXEC, text.encode(), context=ShellContext("bash"))
    return Command(wire, Kind.QUERY, text.encode(), context=SqlContext(assume_tables=True))


def opened(command: Command, analysis: Analysis) -> ApprovalRequest:
    return open_request(
        replace(draft(command), analysis=analysis), request_id="req_1", nonce="00ff", match="hmac-sha256:00", now=START
    )


def sizes(command: Command, analysis: Analysis) -> dict[str, int]:
    request, shown = opened(command, analysis), Shown()
    return {
        "transcript": len(json.dumps(described(command, analysis).secret)),
        "store": len(request_form(request)),
        "row": len(json.dumps(shown.row(request))),
        "whole": len(json.dumps(shown.whole(request))),
    }


@pytest.mark.parametrize("name", SHELL)
def test_shell_text_stays_small(name: str, analyse: object) -> None:
    assert callable(analyse)
    begun = time.monotonic()
    analysis = analyse(SHELL[name])
    assert time.monotonic() - begun < 10  # 70 s before there was a bound
    found = sizes(asked(SHELL[name]), analysis)
    assert max(found.values()) < LARGEST + len(SHELL[name]) * 8, found
    assert found["row"] < 192 * 1024
    assert not analysis.static
    assert analysis.sent is None


@pytest.mark.parametrize("name", SQL)
def test_sql_text_stays_small(name: str) -> None:
    command = asked(SQL[name], Wire.POSTGRES)
    begun = time.monotonic()
    analysis = analyze_sql(command.text, SqlContext(assume_tables=True), Kind.QUERY)
    assert time.monotonic() - begun < 5
    found = sizes(command, analysis)
    assert max(found.values()) < LARGEST + len(SQL[name]) * 8, found
    assert analysis.statements <= 1 or analysis.static or analysis.sent is None


def test_what_a_machine_allowed_is_for_a_human_when_its_words_are_too_many(analyse: object, policy: PolicySet) -> None:
    assert callable(analyse)
    few, many = (f"cat {' '.join(f'/srv/{n:x}' for n in range(count))}" for count in (3, 120))

    def decision(text: str) -> Verdict:
        return decide(policy, parse_who("agent"), EXAMPLES["ssh"], asked(text), analyse(text), NOW).verdict

    assert decision(few) is Verdict.ALLOW
    assert decision(many) is Verdict.REVIEW
    assert [o.reason for o in analyse(many).opaque] == [TOO_MANY]


@pytest.mark.parametrize(
    "text",
    [
        f"rm -rf {LONG}; rm -rf /",
        f"rm -rf {LONG} /",
        f"rm -rf {LONG}; mkfs.ext4 /dev/sda1",
        f"systemctl stop {LONG.replace('/', '')} auditd",
        f"{'nice ' * 20}systemctl stop {LONG.replace('/', '')} auditd",
    ],
    ids=["rm", "rm of all", "mkfs", "systemctl", "behind wrappers"],
)
def test_a_pack_denies_what_stands_behind_any_number_of_words(text: str, analyse: object, policy: PolicySet) -> None:
    assert callable(analyse)
    analysis = analyse(text)
    assert TOO_MANY in {o.reason for o in analysis.opaque}
    decision = decide(policy, parse_who("agent"), EXAMPLES["ssh"], asked(text), analysis, NOW)
    assert decision.verdict is Verdict.DENY
    assert decision.rule.startswith("linux-deny/"), decision.rule


def test_effects_keep_all_but_their_words(analyse: object) -> None:
    assert callable(analyse)
    analysis = analyse(f"sudo rm -rf {NAMES}; rm -f /etc/motd")
    assert {e.object for e in analysis.effects} >= {f"/t/{n:x}" for n in range(2300)}
    assert all(e.program == "rm" and e.force for e in analysis.effects if e.verb == "delete")
    assert all(e.recursive and e.via == ("sudo",) for e in analysis.effects if e.object.startswith("/t/"))
    assert sum(sum(map(len, e.argv)) for e in analysis.effects) <= WORDS
    # A different command line is never pushed out by repetitions of another one.
    assert [e.argv for e in analysis.effects if e.object == "/etc/motd" and e.verb == "delete"] == [("rm", "-f", "/etc/motd")]


def test_too_many_effects_are_refused_and_never_cut() -> None:
    def analysis(count: int) -> Analysis:
        return bounded(Analysis(tuple(Effect("delete", str(n), "rm") for n in range(count)), sent="x"))

    assert analysis(EFFECTS - 100).static
    refused = analysis(EFFECTS + 1)
    assert refused.unreadable is not None
    assert refused.unreadable.reason is Reason.TOO_LARGE
    assert refused.sent is None


def test_every_function_and_every_reason_is_told_once() -> None:
    functions = tuple(f"public.function_{n}" for n in range(2000))
    found = bounded(Analysis(tuple(Effect("select", f"t{n}", functions=functions) for n in range(500)), sent="x"))
    assert {f for e in found.effects for f in e.functions} == set(functions)
    assert len(found.effects) == 500
    opaque = (*(Opaque("glob", "*", n, n + 1) for n in range(9000)), Opaque("eval", "x"))
    few = bounded(Analysis(opaque=opaque))
    assert len(few.opaque) == OPAQUE + 3
    assert {o.reason for o in few.opaque} == {"glob", "eval", TOO_MANY}


def test_what_is_within_bounds_is_the_same_object() -> None:
    analysis = Analysis((Effect("delete", "a", "rm", ("rm", "a")),), (Opaque("glob"),))
    assert bounded(analysis) is analysis


def test_a_row_lists_fifty_effects_and_the_whole_view_all(analyse: object) -> None:
    assert callable(analyse)
    text = f"rm {' '.join(f'{n:x}' for n in range(200))}"
    request = opened(asked(text), analyse(text))
    shown = Shown()
    row, whole = shown.row(request), shown.whole(request)
    assert len(row["effects"]) == ROW_EFFECTS == 50
    assert len(whole["effects"]) == 200
    assert whole["effects"][:50] == row["effects"]
    assert set(row) <= set(whole)
    assert read_request(request_form(request), request.digest) == request


def test_explain_prints_a_page_of_it(analyse: object) -> None:
    assert callable(analyse)
    for name in ("rm with 2,300 paths", "patterns"):
        analysis = analyse(SHELL[name])
        effects, opaque = [e.to_json() for e in analysis.effects], [o.to_json() for o in analysis.opaque]
        answer = {"protocol": "ssh", "effects": effects, "opaque": opaque}
        lines = [str(line) for line in _effects(answer)]
        assert len(lines) < 100
        assert any("more" in line for line in lines)
