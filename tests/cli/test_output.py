"""What a verb prints: whatever an agent wrote, a terminal shows it and obeys none of it."""

from __future__ import annotations

import json

import pytest
import typer

from interlock.cli.output import emit_json, fail
from interlock.errors import ConfigError, InterlockError

NASTY = "rm \x9b2J\x1b[2J \u202e txt \x7f \U000e0041 é"


def test_json_is_ascii_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"text": NASTY})
    out = capsys.readouterr().out
    assert all(" " <= c <= "~" or c == "\n" for c in out) and json.loads(out) == {"text": NASTY}


def test_an_error_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(InterlockError(NASTY))
    said = capsys.readouterr().err
    assert not {"\x9b", "\x1b", "\u202e", "\x7f", "\U000e0041"} & set(said)


def test_an_error_in_a_file_of_ones_own_shows_its_lines_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(ConfigError(f"site.yaml:6: no such name\n    6 | {NASTY}"))
    said = capsys.readouterr().err
    assert said.splitlines()[1].startswith("    6 | rm ") and "\x1b" not in said and "\u202e" not in said


def test_an_error_that_came_from_elsewhere_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(InterlockError("no\ninterlock: all is well"))
    assert "\ninterlock:" not in capsys.readouterr().err
