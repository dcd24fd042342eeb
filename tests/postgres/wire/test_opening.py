"""First packets and the `options` of a start-up packet."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire import opening
from interlock.postgres.wire.requests import SSL_REQUEST, encode_cancel, encode_startup


def test_the_four_first_packets() -> None:
    assert opening.opening(SSL_REQUEST) == opening.TlsRequest()
    assert opening.opening(struct.pack("!II", 8, 80877104)) == opening.GssRequest()
    assert opening.opening(encode_cancel(7, b"abcd")) == opening.CancelRequest(7, b"abcd")
    started = opening.opening(encode_startup({"user": "claude", "database": "orders"}))
    assert isinstance(started, opening.Startup)
    assert (started.minor, started.get("user"), started.get("database")) == (0, "claude", "orders")


def test_a_secret_is_not_shown() -> None:
    assert "abcd" not in repr(opening.CancelRequest(7, b"abcd"))


@given(st.binary(max_size=60))
def test_any_packet_is_decoded_or_refused(body: bytes) -> None:
    for code in (80877102, 80877103, 80877104, 0x00030000, 0x00030002, 0x00020000):
        packet = struct.pack("!II", len(body) + 8, code) + body
        try:
            opening.opening(packet)
        except RemoteProtocolError:
            pass


@given(st.binary(min_size=4, max_size=4))
def test_only_lengths_within_bounds_are_read(header: bytes) -> None:
    (length,) = struct.unpack("!I", header)
    if 8 <= length <= 64 * 1024:
        assert opening.packet_length(header) == length
    else:
        with pytest.raises(RemoteProtocolError):
            opening.packet_length(header)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("-c a=b", {"a": "b"}),
        ("  -c a=b   --c-d=e ", {"a": "b", "c_d": "e"}),
        ("-ca=b", {"a": "b"}),
        (r"-c a=b\ c\\", {"a": "b c\\"}),
        ("-c A=b", {"a": "b"}),
    ],
)
def test_options_as_the_server_reads_them(text: str, settings: dict[str, str]) -> None:
    assert opening.parse_options(text) == settings


@pytest.mark.parametrize("text", ["-c", "-c a", "-c =b", "-B 1", "-W", "a=b", "-c a=b -d 5", "--single-user", "-p -c"])
def test_other_options_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        opening.parse_options(text)
