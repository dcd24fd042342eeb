"""What a verb prints: whatever an agent wrote, a terminal shows it and obeys none of it."""

from __future__ import annotations

import json

import pytest
import typer

from interlock.cli.output import emit_json, fail
from interlock.errors import InterlockError

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
