"""Bind values for people: what a real server sends in binary is shown as it shows it in text."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from harness.postgres_server import PostgresServer
from interlock.postgres.wire.values import _BINARY, MAX_SHOWN, shown

LITERALS = [
    "true", "false", "'\\x00ff'::bytea", "(-5)::int2", "(-5)::int4", "9223372036854775807::int8", "7::oid", "'é'::text",
    "'abc'::varchar", "'ab'::bpchar(2)", "'{\"a\": 1}'::json", "'{\"a\": 1}'::jsonb", "1.5::float8", "'2026-01-02'::date",
    "'2026-01-02 03:04:05.000006'::timestamp", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "12345.6700::numeric",
    "(-0.0001)::numeric", "0::numeric", "100000000::numeric", "'NaN'::numeric", "123456789012345678901234567890.5::numeric",
    "'Infinity'::numeric", "'-Infinity'::numeric", "'-Infinity'::float4", "'NaN'::float8", "(-0.0)::float8", "1e15::float8",
    "1e14::float8", "1e-4::float8", "1e-5::float8", "123456.7::float4", "1e6::float4", "'{1,2,NULL}'::int[]", "'{}'::int[]",
    "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'::uuid[]", "'{{1,2},{3,NULL}}'::int[]", "'[0:1][5:6]={{1,2},{3,4}}'::int[]",
    "array['a b', '', 'NULL', 'x', 'q\"\\', NULL, '{}', 'é']", "array[true, false]", "'infinity'::date",
    "'-infinity'::timestamptz", "'0044-03-15 BC'::date", "'4713-01-01 BC'::date", "'5874897-12-31'::date",
    "'0044-03-15 12:00:00 BC'::timestamptz", "'12345-01-01 00:00:00'::timestamp", "'24:00'::time", "'03:04:05.6'::time",
    "'03:04:05+05:30'::timetz", "'03:04-00:00:07'::timetz", "'1 year 2 mons -3 days 04:05:06.7'::interval",
    "'-1 year 2 mons'::interval", "'-3 days +00:00:01'::interval", "'-00:00:00.5'::interval", "'0'::interval",
    "'1 mon'::interval", "'100000:00:00'::interval", "'10.0.0.1'::inet", "'10.0.0.1/8'::inet", "'10.0.0.0/8'::cidr",
    "'10.0.0.1/32'::cidr", "'::1'::inet", "'::ffff:1.2.3.4'::inet", "'::1.2.3.4'::inet", "'2001:db8::/32'::cidr",
    "'2001:db8:0:1::1'::inet", "'::'::inet", "'08:00:2b:01:02:03'::macaddr", "'08:00:2b:01:02:03:04:05'::macaddr8", "B'1011'",
    "B''::varbit", "'[1,5)'::int4range", "'empty'::int4range", "'(,)'::numrange", "'[2026-01-01,2026-02-01)'::daterange",
    "tstzrange('2026-01-01', '2026-01-02 03:04', '(]')", "'{[1,3),[7,)}'::int4multirange", "'16/B374D848'::pg_lsn", "'7'::xid",
    "array['[1,2)'::int4range, 'empty']", "array['1 day'::interval]", "array['10.0.0.1'::inet]", "'$.a'::jsonpath",
    "'{\"a\": [1]}'::jsonb", "array['{\"a\": 1}'::jsonb]", "'x'::\"char\"", "'name'::name",
]  # fmt: skip


def micros(lowest: int, highest: int) -> st.SearchStrategy[bytes]:
    return st.integers(lowest, highest).map(lambda n: struct.pack("!q", n))


def address(family: int, size: int, cidr: bool) -> st.SearchStrategy[bytes]:
    """Addresses of which many have runs of zeros, which is where their shortest form gets difficult."""
    octets = st.lists(
        st.sampled_from([b"\0\0", b"\0\0", b"\xff\xff", b"\0\1", b"\x0d\xb8"]), min_size=size // 2, max_size=size // 2
    )
    bits = st.just(8 * size) if cidr else st.integers(0, 8 * size)
    return st.builds(lambda parts, n: bytes([family, n, cidr, size]) + b"".join(parts), octets, bits)


def range_of(element: st.SearchStrategy[bytes], flags: tuple[int, ...]) -> st.SearchStrategy[bytes]:
    """Ranges as the server itself would write them: not empty, and of integers and dates only `[a,b)`, which is flag 2."""

    def sized(raw: bytes) -> bytes:
        return struct.pack("!i", len(raw)) + raw

    def ordered(flag: int, pair: list[bytes]) -> bytes:
        low, high = sorted(pair, key=lambda raw: int.from_bytes(raw, "big", signed=True))
        return bytes([flag]) + sized(low) + sized(high)

    two = st.lists(element, min_size=2, max_size=2, unique=True)
    half = st.builds(lambda flag, a: bytes([flag]) + sized(a), st.sampled_from([8, 18]), element)
    return st.one_of(st.builds(ordered, st.sampled_from(flags), two), half, st.just(b"\x01"), st.just(b"\x18"))


INT4 = st.integers(-(2**31), 2**31 - 1).map(lambda n: struct.pack("!i", n))
DATE = st.integers(-2_451_545, 2_145_031_948).map(lambda n: struct.pack("!i", n))
STAMP = micros(-211_813_488_000_000_000, 9_223_371_331_199_999_999)
NUMERIC = st.builds(
    lambda digits, weight, sign, scale: struct.pack("!HhHH", len(digits), weight, sign, scale) + b"".join(digits),
    st.lists(st.integers(0, 9999).map(lambda n: struct.pack("!H", n)), max_size=6), st.integers(-4, 6),
    st.sampled_from([0, 0x4000]), st.integers(0, 20),
)  # fmt: skip
RAW: dict[int, st.SearchStrategy[bytes]] = {
    20: micros(-(2**63), 2**63 - 1), 23: INT4, 700: st.binary(min_size=4, max_size=4), 701: st.binary(min_size=8, max_size=8),
    1700: NUMERIC, 1082: DATE, 1083: micros(0, 86_400_000_000), 1114: STAMP, 1184: STAMP,
    1266: st.builds(lambda n, zone: struct.pack("!qi", n, zone), st.integers(0, 86_400_000_000), st.integers(-57_599, 57_599)),
    1186: st.builds(
        lambda n, days, months: struct.pack("!qii", n, days, months), st.integers(-(10**16), 10**16),
        st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6),
    ),
    869: st.one_of(address(2, 4, False), address(3, 16, False)), 650: st.one_of(address(2, 4, True), address(3, 16, True)),
    829: st.binary(min_size=6, max_size=6), 2950: st.binary(min_size=16, max_size=16), 17: st.binary(max_size=20),
    25: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20).map(str.encode),
    3904: range_of(INT4, (2,)), 3912: range_of(DATE, (2,)), 3908: range_of(STAMP, (0, 2, 4, 6)),
    1009: st.lists(st.one_of(st.none(), st.text(st.sampled_from('a{}",\\ \tnNuUlL'), max_size=6)), min_size=1, max_size=5).map(
        lambda words: struct.pack("!iiIii", 1, any(w is None for w in words), 25, len(words), 1)
        + b"".join(struct.pack("!i", -1) if w is None else struct.pack("!i", len(w.encode())) + w.encode() for w in words)
    ),
}  # fmt: skip
"""Binary values by type. What the server does not take is left out; what it takes we must show as it does."""


@pytest.fixture(scope="module")
def direct(server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection


@pytest.mark.interop
def test_binary_values_are_shown_as_the_server_shows_them(direct: psycopg.Connection[Any]) -> None:
    for literal in LITERALS:
        binary: Any = direct.execute(f"SELECT {literal}", binary=True).pgresult
        text: Any = direct.execute(f"SELECT {literal}").pgresult
        assert shown(binary.get_value(0, 0), 1, binary.ftype(0)) == text.get_value(0, 0).decode(), literal


@pytest.mark.interop
@pytest.mark.parametrize("oid", RAW)
def test_whatever_the_server_takes_is_shown_as_the_server_shows_it(direct: psycopg.Connection[Any], oid: int) -> None:
    taken = 0

    @settings(max_examples=examples(60, fuzz=2000))
    @given(RAW[oid])
    def alike(raw: bytes) -> None:
        nonlocal taken
        answer = direct.pgconn.exec_params(b"SELECT $1", [raw], param_types=[oid], param_formats=[1])
        if answer.status == psycopg.pq.ExecStatus.TUPLES_OK:
            taken += 1
            assert shown(raw, 1, oid) == (answer.get_value(0, 0) or b"").decode()

    alike()
    assert taken >= 10


@given(st.binary(max_size=60), st.sampled_from([*sorted(_BINARY), 0, 600, 99999]), st.sampled_from([0, 1]))
def test_any_bytes_are_shown_or_not_and_never_raise(raw: bytes, oid: int, code: int) -> None:
    text = shown(raw, code, oid)
    assert text is None or len(text) <= MAX_SHOWN + 40


def test_long_values() -> None:
    long = shown(b"x" * 10_000, 0, 25)
    assert long is not None
    assert long.startswith("x" * MAX_SHOWN + "…")
    huge = shown(b"\xc3\xa9" * 20_000, 0, 25)
    assert huge is not None
    assert huge.endswith("(40000 bytes)")
