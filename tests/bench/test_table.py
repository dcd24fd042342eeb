"""A bench is compared with the one before it, whatever that one left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.table import Figure, Row, earlier, keep, show

SLOW = Row("selects", "µs", "interlock", "pgbouncer", [4.0, 2.0, 9.0], [2.0, 2.0, 3.0], at_most=1.5)
FAST = Row("rows", "MB/s", "interlock", "direct", [5.0], [4.0], at_least=1.0)


def test_what_a_run_keeps_is_shown_beside_the_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert earlier(out) == {}
    keep(out, [SLOW], [Figure("logins", "a second", [60.0, 70.0], at_least=200)])
    assert [file.name for file in tmp_path.iterdir()] == ["bench.json"]
    before = earlier(out)
    assert before == {("selects", "µs", "pgbouncer"): 2.0}
    show([SLOW, FAST], before)
    header, slow, fast = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["budget", "before"]
    assert slow.split() == ["selects", "µs", "pgbouncer", "4.0", "2.0", "1.00", "2.00", "3.00", "≤", "1.5", "MISSED", "2.00"]
    assert fast.split()[-3:] == ["≥", "1", "kept"]


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", json.dumps({"rows": [{"what": "x"}]}), json.dumps({"rows": 7})])
def test_a_file_of_another_shape_costs_no_run(tmp_path: Path, left: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    out.write_text(left)
    assert earlier(out) == {}
    assert "can't be read" in capsys.readouterr().out


def test_figures_say_whether_they_keep_their_budget() -> None:
    assert str(Figure("logins", "a second", [60.0, 70.0, 80.0], at_least=200)).endswith("budget 200: MISSED")
    assert str(Figure("idle", "KB", [16.0], at_most=48)).endswith("budget 48: kept")
    assert str(Figure("idle", "KB", [16.0])).endswith("KB")
