"""Nothing a text holds can hide from, or act on, the page or terminal that shows it."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.display import CLOSE, MAX_LINE, MAX_LINES, MAX_NAMED, OPEN, display, hide, inline, whole

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
    b"a   \n": (f"a{OPEN}3 blanks{CLOSE}", ""),
    b"a   b": ("a   b",),
    b"\t\ta": (f"{OPEN}2 tabs{CLOSE}a",),
    b"a" + b" " * 4096 + b"; rm x": (f"a{OPEN}4096 blanks{CLOSE}; rm x",),
    b"a" + b"\xc2\xa0" * 4096 + b"; rm x": (f"a{OPEN}4096 times U+00A0 no-break space{CLOSE}; rm x",),
    b"a\x1b]0;safe\x07b": (f"a{OPEN}U+001B escape{CLOSE}]0;safe{OPEN}U+0007{CLOSE}b",),
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


def test_words_that_only_look_like_others_are_named() -> None:
    shown = display("cat /etc/p\u0430sswd; \uff4c\uff53; \u041f\u0440\u0438\u0432\u0435\u0442".encode())
    assert f"a word that only looks like 'passwd': {OPEN}p U+0430 s s w d{CLOSE}" in shown.deceptions
    assert f"a word that only looks like 'ls': {OPEN}U+FF4C U+FF53{CLOSE}" in shown.deceptions
    assert sum("only looks like" in deception for deception in shown.deceptions) == 2


def test_so_many_deceptions_are_named_and_the_rest_counted() -> None:
    shown = display("".join(map(chr, range(0x2000, 0x2060))).encode())
    assert len(shown.deceptions) == MAX_NAMED + 1
    assert shown.deceptions[-1].startswith("and ")


def test_the_whole_of_a_text_is_never_cut() -> None:
    text = b"x" * (MAX_LINE + 5) + b"\ny" * (MAX_LINES + 10)
    shown = whole(text)
    assert not shown.cut
    assert "\n".join(shown.lines).encode() == text


def test_a_cut_never_falls_inside_of_a_mark() -> None:
    shown = display("abc\u202e".encode(), width=6)
    assert shown.lines[0].startswith(f"abc{OPEN}cut: ")
    assert inline("abc\u202e", 6).startswith(f"abc{OPEN}")


def test_what_is_hidden_shows_a_mark_that_no_text_can_hold() -> None:
    shown = display(b"echo 12345678901234 x", hidden=((5, 19),))
    assert shown.lines == (f"echo {OPEN}hidden: about 10 characters{CLOSE} x",)
    assert inline(f"echo {hide(14)} x") == shown.lines[0]
    pretended = display(f"echo {OPEN}hidden: about 10 characters{CLOSE} x".encode())
    assert pretended.lines != shown.lines
    raw = hide(14).encode("utf-8", "surrogatepass")
    assert "hidden" not in display(b"echo " + raw).lines[0]


ANY = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.text(alphabet="ab \t\n\u202e\u200b\u0430é⟦⟧8", max_size=40).map(str.encode),
    st.lists(
        st.sampled_from([b" " * 7, b" " * 8, b" ", b"\n", b"\t", b"a", "⟦8 blanks⟧".encode(), b"\xc2\xa0" * 8, b"\xff"])
    ).map(b"".join),
)
SAFE = re.compile(rf"[ -~{OPEN}{CLOSE}]*")


@given(ANY)
def test_any_bytes_become_plain_lines(text: bytes) -> None:
    """Nothing that is shown is a control, invisible or direction-changing character (property 11)."""
    shown = display(text)
    for line in (*shown.lines, inline(text.decode("utf-8", "surrogateescape"))):
        assert SAFE.fullmatch(line)
    assert all(ord(c) >= 0x20 and not unicodedata.category(c).startswith("C") for d in shown.deceptions for c in d)


@given(ANY, ANY)
def test_two_texts_never_look_the_same(one: bytes, other: bytes) -> None:
    if one != other:
        assert display(one).lines != display(other).lines
        assert whole(one).lines != whole(other).lines


@given(
    ANY,
    st.integers(0, 5),
    st.sampled_from([b" ", b"  ", b"\t", b"\n", b"\x00", b"\xc2\xa0", "\u200b".encode(), b"8", b"\r", b"\xff"]),
    st.integers(0, 200),
)
def test_one_more_character_anywhere_is_seen(text: bytes, width: int, more: bytes, place: int) -> None:
    """Also where the view is cut: then the hash of the rest differs."""
    longer = text[:place] + more + text[place:]
    assert display(text, lines=2, width=width).lines != display(longer, lines=2, width=width).lines
