"""Both forms of the loop over rows, against each other and against what a row is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.postgres.wire import rows
from interlock.postgres.wire.rows import skip_rows, skip_rows_plain

FORMS = [
    skip_rows_plain,
    pytest.param(skip_rows, marks=pytest.mark.skipif(not rows.COMPILED, reason="no compiler at build time")),
]
LENGTHS = st.one_of(st.integers(0, 40), st.sampled_from([0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFB, 0xFFFFFFFF]))
STREAMS = st.lists(
    st.builds(lambda kind, length, body: kind + length.to_bytes(4, "big") + body, st.sampled_from([b"D", b"D", b"C"]), LENGTHS,
              st.binary(max_size=40)),
).map(b"".join)  # fmt: skip


def row(body: bytes) -> bytes:
    return b"D" + (len(body) + 4).to_bytes(4, "big") + body


@pytest.mark.parametrize("form", FORMS)
def test_whole_rows_are_passed_and_nothing_else(form: Callable[[bytes, int], int]) -> None:
    whole = row(b"") + row(b"xyz") + row(b"y" * 300)
    assert form(whole, 0) == len(whole)
    assert form(b"ZZ" + whole, 2) == len(whole) + 2
    assert form(whole + b"C\0\0\0\4", 0) == len(whole)
    for cut in range(len(row(b"y" * 300))):
        assert form(whole + row(b"y" * 300)[:cut], 0) == len(whole)
    assert form(b"", 0) == form(whole, len(whole) + 3) - len(whole) - 3 == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [0, 3, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFB, 0xFFFFFFFF])
def test_a_length_that_lies_ends_it(form: Callable[[bytes, int], int], length: int) -> None:
    assert form(row(b"x") + b"D" + length.to_bytes(4, "big") + b"x" * 64, 0) == len(row(b"x"))


@given(STREAMS, st.integers(0, 60))
def test_both_forms_say_the_same(data: bytes, pos: int) -> None:
    assert skip_rows(data, pos) == skip_rows_plain(data, pos)


@pytest.mark.skipif(not rows.COMPILED, reason="no compiler at build time")
@pytest.mark.parametrize("wrong", [(b"D",), (bytearray(b"D"), 0), (b"D", -1), (b"D", 2**70), (b"D", "0")])
def test_the_compiled_form_refuses_what_is_no_place_in_bytes(wrong: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        skip_rows(*wrong)  # type: ignore[arg-type]
