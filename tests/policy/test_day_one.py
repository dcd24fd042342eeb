"""Is a shipped pack useful on day one? The everyday corpus, decided by the packs, with the commonest reasons for a review.

`FUZZ=1 pytest -s tests/policy/test_day_one.py` prints the report over all rows; without FUZZ every fourth one is taken.
`interlock policy preview FILE` makes it of your own commands. The floors are what was reached: raise them when more is
understood, never lower one to make a change pass.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interlock.cli.main import build
from interlock.cli.preview import Previewed, Report, lines, preview
from interlock.commands.programs.loader import programs
from interlock.commands.shell.wrappers import WRAPPERS
from interlock.policy import packs
from interlock.policy.loader import load
from interlock.policy.model import Verdict

EVERYDAY = Path(__file__).parents[1] / "data" / "corpora" / "everyday_commands.jsonl"
STEP = 1 if os.environ.get("FUZZ") else 4
REDIRECTION = re.compile(r"[<>]")
QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.")


@pytest.fixture(scope="module")
def report() -> Report:
    texts = [("ssh", json.loads(line)["text"]) for line in EVERYDAY.read_text().splitlines()[::STEP]]
    return Report(asyncio.run(preview(load([packs.shipped()]), texts, datetime(2026, 1, 5, 14, tzinfo=UTC))))


def test_the_shares_and_the_commonest_reasons(report: Report) -> None:
    print("\n" + "\n".join(lines(report)))
    for name, count, alone in report.reasons()[:30]:
        print(f"  {count:>5} {alone:>5} alone  {name}")
    shares = report.shares()
    assert shares["commands"] == -(-1999 // STEP)
    assert shares["static"] >= 0.56 * shares["commands"]
    assert shares["allow"] >= 0.36 * shares["commands"]
    assert shares["reject"] <= 0.02 * shares["commands"]
    assert shares["allow"] + shares["review"] + shares["deny"] + shares["reject"] == shares["commands"]


def known(one: Previewed) -> bool:
    """Whether every program of a command is in the table, and nothing is redirected."""
    names = {effect.program.rpartition("/")[2] for effect in one.analysis.effects if effect.program}
    table = {*programs(), *WRAPPERS}
    return (
        one.analysis.unreadable is None
        and not REDIRECTION.search(QUOTED.sub("", one.text))
        and not any(part.reason == "unknown-program" for part in one.analysis.opaque)
        and bool(names)
        and all(name in table for name in names)
    )


def test_what_is_known_is_allowed_or_asked_about_for_a_real_reason(report: Report) -> None:
    """Of commands of known programs without redirections: allowed, denied, or asked about because of what they do.

    Looking at files whose names only the target knows counts as something that a command does; the share without it is printed.
    """
    rows = [one for one in report.seen if known(one)]
    vague = [one for one in rows if one.decision.verdict is Verdict.REVIEW and one.decision.rule == "default"]
    share = 1 - len(vague) / len(rows)
    looks = sum(one.decision.verdict is Verdict.REVIEW and one.decision.rule == "linux/unknown-files" for one in rows)
    print(f"\n{1 - (len(vague) + looks) / len(rows):.1%} without those that are asked about for looking at unknown files")
    print(f"{len(rows)} commands of known programs without redirections; {share:.1%} are decided for what they do")
    for one in vague[:: max(1, len(vague) // 15)]:
        print(f"  {', '.join(one.reasons)}: {one.text[:90]!r}")
    assert len(rows) >= 300
    assert share >= FLOOR


FLOOR = 0.90


def test_everything_allowed_has_a_rendering_and_reads_only(report: Report) -> None:
    """What the packs let pass in daily life only reads: the other verbs that they allow are wrappers and harmless forms."""
    for one in report.seen:
        if one.decision.verdict is not Verdict.ALLOW:
            continue
        assert one.analysis.sent is not None, one.text
        for effect in one.analysis.effects:
            harmless = effect.verb == "read" or effect.detail in ("wrapper", "harmless-form", "filter")
            assert harmless, (one.text, effect)


def test_preview_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "commands"
    file.write_text('uptime\nrm /srv/x\n\necho $x\n{"protocol": "sql", "text": "SELECT 1"}\nls &&\nrm -rf /\n')
    words = ["policy", "preview", str(file)]
    said = CliRunner().invoke(build(words), words)
    assert said.exit_code == 0, said.output
    rows = [line.split() for line in said.stdout.splitlines()]
    assert rows[0] == ["6", "commands"]
    assert [row[:2] for row in rows[1:6]] == [["static", "4"], ["allow", "2"], ["review", "2"], ["deny", "1"], ["reject", "1"]]
    assert ["linux/delete", "1", "1"] in rows and ["parameter", "1", "1"] in rows
    found = json.loads(CliRunner().invoke(build(words), [*words, "-o", "json"]).stdout)
    assert [answer["decision"] for answer in found["answers"]] == ["allow", "review", "review", "allow", "deny", "deny"]
    file.write_text('{"txt": 1}\n')
    assert CliRunner().invoke(build(words), words).exit_code == 2
