"""The client's messages: what is encoded is decoded, and every other byte string is an error, never an exception of Python."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire import requests

NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
VALUES = st.lists(st.none() | st.binary(max_size=30), max_size=6)


@given(NAMES, st.binary(max_size=50).filter(lambda b: b"\0" not in b), st.lists(st.integers(0, 2**32 - 1), max_size=5))
def test_parse_round_trip(name: str, text: bytes, oids: list[int]) -> None:
    parsed = requests.Parse(name, text, tuple(oids))
    assert requests.parse(requests.encode_parse(parsed)) == parsed


@given(NAMES, NAMES, VALUES, st.sampled_from([0, 1]), st.booleans())
def test_bind(portal: str, statement: str, values: list[bytes | None], code: int, each: bool) -> None:
    formats = [code] * len(values) if each else [code]
    body = f"{portal}\0{statement}\0".encode() + struct.pack(f"!H{len(formats)}H", len(formats), *formats)
    body += struct.pack("!H", len(values))
    body += b"".join(struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in values)
    bound = requests.bind(requests.message(b"B", body + struct.pack("!HH", 1, 1)))
    assert (bound.portal, bound.statement, bound.values) == (portal, statement, tuple(values))
    assert [bound.format_of(i) for i in range(len(values))] == [code] * len(values)


@given(st.binary(max_size=80))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    for kind, decode in (
        (b"P", requests.parse), (b"B", requests.bind), (b"E", requests.execute), (b"Q", requests.query),
        (b"f", requests.copy_fail),
    ):  # fmt: skip
        try:
            decode(requests.message(kind, body))  # type: ignore[operator]  # a union of functions
        except RemoteProtocolError:
            pass


@given(st.binary(min_size=2, max_size=40))
def test_describe_takes_only_its_two_kinds(body: bytes) -> None:
    try:
        named = requests.named(requests.message(b"D", body))
    except RemoteProtocolError:
        return
    assert body == f"{named.of}{named.name}\0".encode()


def test_a_query_is_its_text_up_to_the_only_nul() -> None:
    assert requests.query(requests.encode_query(b"SELECT 1")) == b"SELECT 1"
    for body in (b"SELECT 1", b"SELECT 1\0\0", b"SELECT 1\0; DROP TABLE t\0"):
        with pytest.raises(RemoteProtocolError):
            requests.query(requests.message(b"Q", body))
