"""Both forms of cutting a text at its literals, against each other and against what a literal is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.commands.sql.literals import cut, cut_plain

compiled = pytest.mark.skipif(cut is cut_plain, reason="no compiler at build time")
FORMS = [cut_plain, pytest.param(cut, marks=compiled)]

PIECES = st.sampled_from(
    [b"0", b"7", b"10", b"123456789", b"1234567890", b"'", b"''", b"'a b'", b"'\xc3\xa9'", b"'\n'", b"\\", b"$1", b"$", b".",
     b"1.5", b"_", b"x", b"E", b" ", b"\t", b"\n", b"\r", b"(", b",", b"=", b"<", b">", b"-", b"+", b'"', b"\x01", b"\x7f",
     b"\x80", b"\xff", b"", b"--"]
)  # fmt: skip


@compiled
@given(st.one_of(st.lists(PIECES, max_size=12).map(b"".join), st.binary(max_size=30)))
def test_both_forms_give_the_same(text: bytes) -> None:
    assert cut(text) == cut_plain(text)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("text", "rest", "literals"),
    [
        (b"id = 12", b"id = \x01", (b"12",)),
        (b"12", b"\x01", (b"12",)),
        (b"n='a''b'", b"n='a''b'", ()),
        (b"n='ab'", b"n='\x01", (b"'ab'",)),
        (b"(1,-2)", b"(\x01,-\x01)", (b"1", b"2")),
        (b"x1 = $1", b"x1 = $1", ()),
        (b"1e5, 0x1F, 1_000, 1.5, 007", b"1e5, 0x1F, 1_000, 1.5, 007", ()),
        (b"1234567890", b"1234567890", ()),
        (b"'at the begin'", b"'at the begin'", ()),
        (b"E'a', N'b'", b"E'a', N'b'", ()),
        (b"= 'a\\'", b"= 'a\\'", ()),
        (b"", b"", ()),
    ],
)
def test_what_is_a_literal(form: Any, text: bytes, rest: bytes, literals: tuple[bytes, ...]) -> None:
    assert form(text) == (rest, literals)


@compiled
def test_the_compiled_form_refuses_what_is_not_its_own() -> None:
    for wrong in ("1", None, bytearray(b"1")):
        with pytest.raises(TypeError):
            cut(wrong)  # type: ignore[arg-type]
