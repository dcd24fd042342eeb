"""RFC 8785, against an implementation that isn't ours."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from interlock.evidence import jcs

characters = st.characters(exclude_categories=("Cs",))
scalars = st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.text(characters)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(characters), inner), max_leaves=20
)


@given(values)
def test_gives_the_bytes_of_another_implementation(value: object) -> None:
    assert jcs.encode(value) == rfc8785.dumps(value)


def test_keys_are_ordered_by_utf16_units() -> None:
    # RFC 8785 §3.2.3: U+1F600 is D83D DE00 in UTF-16 and so sorts before U+FB33, though its code point is larger.
    assert jcs.encode({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


class Colour(StrEnum):
    RED = "red"


def test_kinds_of_the_domain_have_a_form() -> None:
    assert jcs.encode({"a": Colour.RED, "b": MappingProxyType({"z": (1, True)})}) == b'{"a":"red","b":{"z":[1,true]}}'


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        2**53,
        -(2**53),
        [[2**60]],
        {"a": {"b": 0.5}},
        b"bytes",
        {1: 2},
        {"a": object()},
        "\ud800",
        {"\udfff": 1},
        {"a"},
    ],
)
def test_refuses_what_readers_disagree_on(value: object) -> None:
    with pytest.raises(jcs.NotCanonicalError):
        jcs.encode(value)  # type: ignore[arg-type]  # that is the point


def test_refuses_endless_nesting() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(jcs.NotCanonicalError):
        jcs.encode(value)  # type: ignore[arg-type]  # nested lists of nothing
