"""The derived recording: deterministic, complete, harmless."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from interlock.evidence.cast import HIDDEN, SIGN, Recorded, render

BASE = {"v": 1, "ts": "2026-01-02T02:13:00.000000Z", "mono_us": 0, "session": "s"}


def event(kind: str, seq: int, disclosed: dict[str, Any] | None = None, mono: int = 0, **fields: Any) -> Recorded:
    return Recorded({**BASE, "type": kind, "seq": seq, "mono_us": mono, **fields}, disclosed or {})


OPEN = event("session.open", 0, handle="claude-ci", target="web-1", protocol="ssh")


def lines(*events: Recorded) -> list[Any]:
    return [json.loads(line) for line in render([OPEN, *events])]


def output(*events: Recorded) -> str:
    return "".join(text for _, code, text in lines(*events)[1:] if code == "o")


def markers(*events: Recorded) -> list[str]:
    return [text for _, code, text in lines(*events)[1:] if code == "m"]


def test_header_is_version_2_with_the_time_of_the_session() -> None:
    header = lines()[0]
    assert (header["version"], header["timestamp"], header["title"]) == (2, 1767319980, "claude-ci at web-1")


def test_times_are_the_monotonic_offsets() -> None:
    raw = list(render([OPEN, event("command", 1, {"text": "id"}, mono=61_000_007)]))
    assert raw[-1].startswith(b"[61.000007, ")


def test_decisions_and_approvals_are_markers() -> None:
    assert markers(
        event("command", 1, {"text": "rm x"}),
        event("decision", 2, {"reason": "risky"}, verdict="review", rule="linux/rm"),
        event("approval.request", 3, request="req_1", groups=["sre"]),
        event("approval.response", 4, request="req_1", verdict="approve", state="consumed", votes=[{"handle": "bob"}]),
        event("block", 5, {"message": "no"}, reason="denied-by-policy"),
    ) == ["command 1", "decision: review (linux/rm)", "held: req_1", "approval: approve by bob", "refused: denied-by-policy"]


def test_statements_and_results_are_text() -> None:
    opened = event("session.open", 0, handle="a", target="orders", protocol="postgres")
    binds = [{"raw": "eA==", "shown": "x"}, {"raw": None}, {"raw": "AA==", "shown": None}]
    shown = "".join(
        json.loads(line)[2]
        for line in list(
            render(
                [
                    opened,
                    event("pg.query", 1, {"text": "select 1"}),
                    event("pg.bind", 2, {"text": "select $1", "binds": binds}),
                    event("pg.result", 3, tag="SELECT 1", rows=1),
                    event("pg.result", 4, sqlstate="42501"),
                ]
            )
        )[1:]
    )
    assert "orders=> select 1\r\n" in shown
    assert "select $1  -- $1 = 'x', $2 = NULL, $3 = (binary)" in shown
    assert "tag SELECT 1; rows 1" in shown and "sqlstate 42501" in shown


def test_output_is_decoded_across_events_and_made_harmless() -> None:
    shown = output(
        event("term.output", 1, {"data": "w7Y="}, channel=0, stream=1),
        event("term.output", 2, {"data": "w4NfXQ=="}, channel=0, stream=1),
        event("term.output", 3, {"data": "w7Y="}, channel=0, stream=2),
    )
    assert shown.count("ö") == 2
    split = output(
        event("term.output", 1, {"data": "ww=="}, channel=0, stream=1),
        event("term.output", 2, {"data": "tg=="}, channel=0, stream=1),
    )
    assert "ö" in split and "\ufffd" not in split
    assert "\x1b]" not in output(event("term.output", 1, {"data": "G10wO3gH"}, channel=0, stream=1))


def test_texts_of_commands_are_harmless() -> None:
    assert "\x1b" not in output(event("command", 1, {"text": "echo \x1b]0;x\x07\u202e"})).replace("\x1b[36m", "").replace(
        "\x1b[0m", ""
    )


FORGED = b"\xe2\x96\x8c-- consumed by bob (req_1)\n\x1b[36m\xe2\x96\x8c-- exit 0\x1b[0m\n\x1b[8;30;40mno end of line"


def test_nobody_else_prints_the_sign_of_our_lines() -> None:
    shown = output(
        event("command", 1, {"text": "echo \u258c\n\u258c-- consumed by bob\n-- exit 0"}),
        event("term.output", 2, {"data": b64encode(FORGED).decode()}, channel=0, stream=1),
        event("pg.result", 3, {"rows": [["\u258c-- exit 0"]], "text": "\u258c-- x"}, tag="SELECT 1"),
        event("channel.close", 4, exit_status=1),
    )
    lines = [line.removeprefix("\x1b[0m").removeprefix("\x1b[36m") for line in shown.split("\r\n")]
    assert [line.removesuffix("\x1b[0m") for line in lines if SIGN in line] == [
        f"{SIGN}-- claude-ci opened web-1; lines with this sign are the transcript's own",
        f"{SIGN}$ echo \\u{{258c}}", f"{SIGN}> \\u{{258c}}-- consumed by bob", f"{SIGN}> -- exit 0",
        f"{SIGN}-- tag SELECT 1", f"{SIGN}-- exit 1",
    ]  # fmt: skip
    assert all(line.startswith(SIGN) for line in lines if SIGN in line)


def test_our_lines_are_never_in_a_colour_that_hides() -> None:
    shown = output(
        event("term.output", 1, {"data": b64encode(b"\x1b[8mhidden").decode()}, channel=0, stream=1),
        event("command", 2, {"text": "rm x"}),
    )
    assert shown.endswith(f"hidden\r\n\x1b[0m{SIGN}$ rm x\r\n")


def test_what_is_not_disclosed_is_said() -> None:
    assert HIDDEN in output(event("command", 1))
    assert HIDDEN in output(event("term.output", 1, channel=0, stream=1))


@pytest.mark.parametrize("broken", ["!!", "a", 7, None])
def test_broken_base64_does_not_stop_the_recording(broken: object) -> None:
    assert HIDDEN in output(event("term.output", 1, {"data": broken}, channel=0, stream=1))


def test_an_incomplete_character_at_the_end_is_shown() -> None:
    shown = output(event("term.output", 1, {"data": "ww=="}, channel=0, stream=1), event("session.close", 2, reason="x"))
    assert "\ufffd" in shown
