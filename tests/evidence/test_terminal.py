"""What a recording may not say to the terminal of whoever checks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.evidence import shown
from interlock.evidence.terminal import OutputFilter, visible

ATTACKS = [
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x07",
    "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
    "\x1bP+q544e\x1b\\",
    "\x1b_G\x1b\\",
    "\x1b^pm\x1b\\",
    "\x1b[c",
    "\x1b[6n",
    "\x1b[21t",
    "\x1b[5i",
    "\x1b[?1000h",
    "\x1b[>0q",
    "\x1bc",
    "\x1b(0",
    "\x1b#8",
    "\x9b6n",
    "\x9d0;t\x9c",
    "\u202etxt.exe",
    "\u200b",
    "\x1b[200~",
]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("drawing", [False, True])
def test_attacks_become_visible(attack: str, drawing: bool) -> None:
    shown = OutputFilter(drawing=drawing)
    out = shown.feed(f"a{attack}b") + shown.finish()
    assert out.startswith("a") and not any(c in out for c in "\x1b\x9b\x9d\x9c\u202e\u200b")


@pytest.mark.parametrize("colour", ["\x1b[m", "\x1b[1;31m", "\x1b[38;5;200m", "\x1b[38:2::1:2:3m"])
def test_colours_pass(colour: str) -> None:
    assert OutputFilter(drawing=False).feed(f"{colour}x") == f"{colour}x"


def test_drawing_needs_a_terminal() -> None:
    screen = "\x1b[2J\x1b[1;1H\x1b[?1049h"
    assert OutputFilter(drawing=True).feed(screen) == screen
    assert "\x1b" not in OutputFilter(drawing=False).feed(screen)


def test_lines_of_a_program_without_terminal_get_their_return() -> None:
    assert OutputFilter(drawing=False).feed("a\nb\r\nc\td\re") == "a\r\nb\r\nc\td^Me"


@given(st.sampled_from([*ATTACKS, "\x1b[1;31mred\x1b[0m", "plain \x1b"]), st.data())
def test_cuts_change_nothing(text: str, data: st.DataObject) -> None:
    text = f"x{text}y"
    at = data.draw(st.integers(0, len(text)))
    whole, cut = OutputFilter(drawing=False), OutputFilter(drawing=False)
    assert cut.feed(text[:at]) + cut.feed(text[at:]) + cut.finish() == whole.feed(text) + whole.finish()


@given(st.lists(st.text(max_size=20)))
def test_nothing_but_sequences_we_know_ever_passes(parts: list[str]) -> None:
    shown = OutputFilter(drawing=False)
    out = "".join(map(shown.feed, parts)) + shown.finish()
    for piece in out.split("\x1b")[1:]:
        assert piece.startswith("[") and piece.lstrip("[0123456789;:").startswith("m")


def test_visible_keeps_lines_and_shows_the_rest() -> None:
    assert visible("a\tb\nc\rd\x7f\x85\u202e") == "a\tb\nc^Md^?\\u{85}\\u{202e}"


@pytest.mark.parametrize(("kept", "drawing"), [("\n\t", False), ("\n\r\t\b\a", True)])
def test_every_character_there_is_is_printable_kept_or_shown(kept: str, drawing: bool) -> None:
    """All of Unicode, one by one: the tables that make it quick say what the rule says."""
    everything = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code != 0x1B)
    shown = OutputFilter(drawing=True).feed(everything) if drawing else visible(everything)
    assert shown == "".join(c if c.isprintable() or c in kept else _as_shown(c) for c in everything)


def _as_shown(character: str) -> str:
    code = ord(character)
    return f"^{chr(code ^ 0x40)}" if code < 0x20 or code == 0x7F else f"\\u{{{code:x}}}"


compiled = pytest.mark.skipif(not shown.COMPILED, reason="no compiler at build time")
KEPT = [shown.kept(""), shown.kept("\n\t"), shown.kept("\n\r\t\b\a"), shown.kept("".join(map(chr, range(0x20))))]


@compiled
@pytest.mark.parametrize("kept", KEPT)
def test_both_forms_show_every_character_the_same(kept: int) -> None:
    for begin in range(0, 0x110000, 0x1000):
        text = "".join(map(chr, range(begin, begin + 0x1000)))
        assert shown.shown(text, kept) == shown.shown_plain(text, kept)


@compiled
@given(st.text(), st.sampled_from(KEPT))
def test_both_forms_show_every_text_the_same(text: str, kept: int) -> None:
    found = shown.shown(text, kept)
    assert found == shown.shown_plain(text, kept)
    assert str(found.encode("utf-8"), "utf-8") == found, "a string as Python makes them"


@pytest.mark.parametrize("show", [pytest.param(shown.shown, marks=compiled), shown.shown_plain], ids=["compiled", "plain"])
def test_what_is_not_printable_is_shown_by_its_number(show: Callable[[str, int], str]) -> None:
    text = "a\tb\x00\x1b\x7f\x80\u202e\U000e0001\ud800é\ufffd\U0001f600\n"
    assert show(text, shown.kept("\t")) == "a\tb^@^[^?\\u{80}\\u{202e}\\u{e0001}\\u{d800}é\ufffd\U0001f600^J"
    assert show("", 0) == ""
    assert show("plain é", 0) == "plain é"
