"""OAUTHBEARER's messages: what is read as a token, what as a question, and what as neither."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import RemoteProtocolError
from interlock.identity.oauthbearer import MAX_RESPONSE, Bearer, failure, metadata, response


@pytest.mark.parametrize(
    ("message", "token"),
    [
        # RFC 7628 §4.1 and §4.3, with the header that binds to no channel.
        (b"n,,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01",
         "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="),
        (b"n,,\x01auth=Bearer a.b.c\x01\x01", "a.b.c"),
        (b"y,,\x01auth=bearer   a.b.c\x01\x01", "a.b.c"),
        (b"n,,\x01auth=\x01\x01", ""),
    ],
)  # fmt: skip
def test_what_is_a_response(message: bytes, token: str) -> None:
    assert response(message) == Bearer(token)


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\x01", b"n,,", b"n,,\x01", b"n,,\x01\x01", b"n,,\x01auth=Bearer a", b"n,,\x01auth=Bearer a\x01",
        b"p=tls-server-end-point,,\x01auth=Bearer a\x01\x01",  # it binds to no channel
        b"n,a=alice,\x01auth=Bearer a\x01\x01",  # acting as somebody else
        b"n,,\x01auth=Basic YTpi\x01\x01", b"n,,\x01auth=Bearer\x01\x01", b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Bearer a b\x01\x01", b"n,,\x01auth=Bearer a\0b\x01\x01", b"n,,\x01auth=Bearer a,b\x01\x01",
        b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",  # which one would count?
        b"n,,\x01auth=\x01auth=Bearer b\x01\x01", b"n,,\x01user=x\x01\x01", b"n,,\x01=x\x01auth=Bearer a\x01\x01",
        b"n,,\x01host\x01auth=Bearer a\x01\x01", b"n,,\x01auth=Bearer a\x01\x01x", b"n,,\x01auth=Bearer a\x01\x01\x01\x01",
        b"n,,\x01" + b"".join(b"%s=1\x01" % (b"k" * i) for i in range(1, 18)) + b"auth=Bearer a\x01\x01",
        b"n,,\x01auth=Bearer " + b"a" * MAX_RESPONSE + b"\x01\x01",
    ],
)  # fmt: skip
def test_what_is_none(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        response(message)
    assert "Bearer" not in str(refused.value) or b"Bearer" not in message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_response_or_an_error(message: bytes) -> None:
    try:
        read = response(message)
    except RemoteProtocolError:
        return
    assert read.token.isascii() and b"\x01auth=" in message


def test_a_token_does_not_show() -> None:
    assert "secret" not in repr(Bearer("secret"))


def test_what_a_client_is_told() -> None:
    told = json.loads(failure(metadata("https://idp.example/tenant/"), "openid interlock"))
    assert told == {
        "status": "invalid_token",
        "openid-configuration": "https://idp.example/tenant/.well-known/openid-configuration",
        "scope": "openid interlock",
    }
