"""Bind values for people: what a real server sends in binary is shown as it shows it in text."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.postgres_server import PostgresServer
from interlock.postgres.wire.values import _BINARY, MAX_SHOWN, shown

LITERALS = [
    "true", "false", "'\\x00ff'::bytea", "(-5)::int2", "(-5)::int4", "9223372036854775807::int8", "7::oid", "'é'::text",
    "'abc'::varchar", "'ab'::bpchar(2)", "'{\"a\": 1}'::json", "'{\"a\": 1}'::jsonb", "1.5::float8", "'2026-01-02'::date",
    "'2026-01-02 03:04:05.000006'::timestamp", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "12345.6700::numeric",
    "(-0.0001)::numeric", "0::numeric", "100000000::numeric", "'NaN'::numeric", "123456789012345678901234567890.5::numeric",
    "'{1,2,NULL}'::int[]", "'{}'::int[]", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'::uuid[]",
]  # fmt: skip


@pytest.mark.interop
def test_binary_values_are_shown_as_the_server_shows_them(server: PostgresServer) -> None:
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("SET timezone = 'UTC'")
        for literal in LITERALS:
            cursor: Any = connection.execute(f"SELECT {literal}, ({literal})::text", binary=True)
            result = cursor.pgresult
            assert shown(result.get_value(0, 0), 1, result.ftype(0)) == result.get_value(0, 1).decode(), literal


@given(st.binary(max_size=60), st.sampled_from([*sorted(_BINARY), 0, 600, 99999]), st.sampled_from([0, 1]))
def test_any_bytes_are_shown_or_not_and_never_raise(raw: bytes, oid: int, code: int) -> None:
    text = shown(raw, code, oid)
    assert text is None or len(text) <= MAX_SHOWN + 40


def test_null_and_long_values() -> None:
    assert shown(None, 0, 25) is None
    long = shown(b"x" * 10_000, 0, 25)
    assert long is not None
    assert long.startswith("x" * MAX_SHOWN + "…")
    huge = shown(b"\xc3\xa9" * 20_000, 0, 25)
    assert huge is not None
    assert huge.endswith("(40000 bytes)")
