"""Nothing a text holds can hide from, or act on, the page or terminal that shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.display import CLOSE, MAX_LINE, MAX_LINES, OPEN, display

SHOWN = {
    b"rm -rf /srv": ("rm -rf /srv",),
    b"ls\nrm x": ("ls", "rm x"),
    b"ls -la\rrm x": (f"ls -la{OPEN}U+000D carriage return{CLOSE}rm x",),
    b"a\x1b[2Kb": (f"a{OPEN}U+001B escape{CLOSE}[2Kb",),
    "a\u202eb".encode(): (f"a{OPEN}U+202E right-to-left override{CLOSE}b",),
    "a\u200bb".encode(): (f"a{OPEN}U+200B zero width space{CLOSE}b",),
    "p\u0430ss".encode(): (f"p{OPEN}U+0430 cyrillic small letter a{CLOSE}ss",),
    b"a\xffb": (f"a{OPEN}byte 0xFF{CLOSE}b",),
    b"a\tb": (f"a{OPEN}tab{CLOSE}b",),
    b"a" + b" " * 300 + b"rm x": (f"a{OPEN}300 blanks{CLOSE}rm x",),
    b"a\n\n\n\n\nrm x": ("a", f"{OPEN}4 empty lines{CLOSE}", "rm x"),
    b"a ": (f"a{OPEN}blank{CLOSE}",),
    f"{OPEN}ok".encode(): (f"{OPEN}U+27E6 mathematical left white square bracket{CLOSE}ok",),
    b"": ("",),
}


@pytest.mark.parametrize("text", SHOWN)
def test_what_a_reviewer_sees(text: bytes) -> None:
    shown = display(text)
    assert shown.lines == SHOWN[text]
    assert shown.length == len(text)
    assert not shown.cut


def test_deceptions_are_named() -> None:
    assert display(b"uptime").deceptions == ()
    assert any("direction-changing" in d for d in display("a\u202eb".encode()).deceptions)
    assert any("control" in d for d in display(b"a\x1b[2K").deceptions)
    assert any("script other than Latin" in d for d in display("\u0430".encode()).deceptions)
    assert any("not ASCII" in d for d in display("ls —la".encode()).deceptions)
    assert any("not UTF-8" in d for d in display(b"\xff").deceptions)
    assert any("blanks" in d for d in display(b"a" + b" " * 80 + b"b").deceptions)
    assert any("empty lines" in d for d in display(b"a\n\n\n\nb").deceptions)


def test_what_is_cut_is_said() -> None:
    long = display(b"x" * (MAX_LINE + 5))
    assert long.cut
    assert "5 more characters" in long.lines[0]
    many = display(b"x\n" * (MAX_LINES + 10))
    assert many.cut
    assert "more lines" in many.lines[-1]


@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_any_bytes_become_plain_lines(text: bytes) -> None:
    shown = display(text)
    for line in shown.lines:
        assert all(" " <= c <= "~" or c in (OPEN, CLOSE) for c in line)


@given(st.text(alphabet="ab \t\n\u202e\u200bé", max_size=30), st.text(alphabet="ab \t\n\u202e\u200bé", max_size=30))
def test_two_texts_never_look_the_same(one: str, other: str) -> None:
    if one != other:
        assert display(one.encode()).lines != display(other.encode()).lines
