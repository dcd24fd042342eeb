"""Both forms of the values of a Bind, against each other and against what the record says of the same values."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.evidence import jcs
from interlock.postgres.wire import given as given_module
from interlock.postgres.wire import requests
from interlock.postgres.wire.given import listed, listed_plain
from interlock.postgres.wire.requests import Bind
from interlock.postgres.wire.values import MAX_SHOWN, shown

compiled = pytest.mark.skipif(listed is listed_plain, reason="no compiler at build time")
FORMS = [listed_plain, pytest.param(listed, marks=compiled)]

TEXTS = st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
RAW = st.one_of(
    st.none(), st.binary(max_size=12), TEXTS, st.sampled_from([b'"\\\b\f\n\r\t\0\x1f\x7f', b"x" * 5000, "é".encode() * 5000])
)
OIDS = st.sampled_from([0, 16, 20, 23, 25, 701, 1114, 2950, 1700, 4_294_967_295])


@st.composite
def binds(draw: st.DrawFn) -> tuple[Bind, tuple[int, ...]]:
    raws = tuple(draw(st.lists(RAW, max_size=4)))
    codes = draw(st.sampled_from([(), (0,), (1,)]) | st.tuples(*(st.integers(0, 1) for _ in raws)))
    name = draw(st.sampled_from(["", "s", "é"]))
    return Bind("", name, codes, raws, ()), tuple(draw(st.lists(OIDS, max_size=4)))


@compiled
@given(binds())
def test_both_forms_give_the_same(case: tuple[Bind, tuple[int, ...]]) -> None:
    bind, types = case
    data = requests.encode_bind(bind)
    assert listed(data, bind.at, types, shown) == listed_plain(data, bind.at, types, shown)


@pytest.mark.parametrize("form", FORMS)
@given(case=binds())
def test_the_values_are_those_of_the_message_in_canonical_form(
    form: given_module.Listed, case: tuple[Bind, tuple[int, ...]]
) -> None:
    bind, types = case
    made = form(requests.encode_bind(bind), bind.at, types, shown)
    if not bind.values:
        assert made == b""
        return
    found = json.loads(made)
    assert made == jcs.encode(found)
    assert [None if value["raw"] is None else b64decode(value["raw"], validate=True) for value in found] == list(bind.values)
    assert [value["format"] for value in found] == [bind.format_of(index) for index in range(len(found))]
    assert [value["type"] for value in found] == [*types, 0, 0, 0, 0][: len(found)]
    for value, raw in zip(found, bind.values, strict=True):
        assert value["shown"] == (None if raw is None else shown(raw, value["format"], value["type"]))


@pytest.mark.parametrize("form", FORMS)
@given(data=st.binary(max_size=30), at=st.integers(-2, 40))
def test_whatever_stands_there_nothing_else_is_read(form: given_module.Listed, data: bytes, at: int) -> None:
    try:
        made = form(data, at, (), shown)
    except ValueError:
        return
    assert at >= 0
    assert made == listed_plain(data, at, (), shown)


@pytest.mark.parametrize("form", FORMS)
def test_a_long_text_is_cut_for_people_alone(form: given_module.Listed) -> None:
    bind = Bind("", "s", (), (b"x" * (MAX_SHOWN + 1),), ())
    (value,) = json.loads(form(requests.encode_bind(bind), bind.at, (25,), shown))
    assert value["shown"].startswith("x" * MAX_SHOWN + "…")
    assert len(b64decode(value["raw"])) == MAX_SHOWN + 1


@compiled
@pytest.mark.parametrize(
    "wrong",
    [(), (b"", 0, ()), ("", 0, (), shown), (b"", "0", (), shown), (b"", 0, [], shown), (b"\0\0\0\1\0\0\0\0", 0, ("t",), shown)],
)
def test_the_compiled_form_refuses_what_is_not_its_own(wrong: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        listed(*wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_what_goes_wrong_in_saying_a_value_comes_out(form: given_module.Listed) -> None:
    def broken(_raw: bytes, _code: int, _oid: int) -> str | None:
        raise LookupError

    bind = Bind("", "s", (1,), (b"x",), ())
    with pytest.raises(LookupError):
        form(requests.encode_bind(bind), bind.at, (25,), broken)
