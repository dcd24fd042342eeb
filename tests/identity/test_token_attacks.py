"""Tokens that were made to be read in two ways, or to pass for another kind; and that no part of any is ever logged."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from structlog.testing import capture_logs

from harness.clock import ManualClock
from harness.issuer import FakeIssuer, public_jwk, rsa_key
from harness.trust import TRUST
from interlock.config import Issuer
from interlock.errors import AuthenticationError, Reason
from interlock.identity.jose import MAX_TOKEN, digest
from interlock.identity.oidc import TokenVerifier


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as opened:
        yield opened


def verifier_for(issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient, **more: Any) -> TokenVerifier:
    pinned = Issuer(name="idp", issuer=issuer.issuer, audience="interlock", **more)
    return TokenVerifier([pinned], clock=clock, client=lambda: http)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=TRUST, timeout=60) as client:
        yield client


@pytest.fixture
def verifier(issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient) -> TokenVerifier:
    return verifier_for(issuer, clock, http)


def claims(issuer: FakeIssuer, clock: ManualClock, **more: Any) -> dict[str, Any]:
    now = int(clock.now().timestamp())
    made = {"iss": issuer.issuer, "aud": "interlock", "sub": "u1", "jti": "j1", "iat": now, "exp": now + 600, **more}
    return {name: value for name, value in made.items() if value is not ...}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: str, payload: str, key: Any = None) -> str:
    """Sign any bytes as header and payload: what a library would never write."""
    signing = f"{b64(header.encode())}.{b64(payload.encode())}"
    return f"{signing}.{b64((key or rsa_key()).sign(signing.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


HEADER = '{"alg":"RS256","kid":"k1","typ":"at+jwt"}'


async def code(verifier: TokenVerifier, token: str) -> Reason:
    with pytest.raises(AuthenticationError) as caught:
        await verifier.verify(token)
    return caught.value.code


class TestReadInTwoWays:
    async def test_the_hand_made_token_is_good(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        assert (await verifier.verify(signed(HEADER, json.dumps(claims(issuer, clock))))).jti == "j1"

    @pytest.mark.parametrize(
        "more",
        ['"sub":"admin"', '"exp":99999999999', '"groups":["interlock-admins"]', '"aud":"other"', '"\\u0073ub":"admin"'],
    )
    @pytest.mark.parametrize("first", [True, False])
    async def test_a_claim_that_stands_twice(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, more: str, first: bool
    ) -> None:
        """RFC 7519 §4: one reader takes the first, another the last."""
        body = json.dumps(claims(issuer, clock, groups=[]))[1:-1]
        payload = "{" + (f"{more},{body}" if first else f"{body},{more}") + "}"
        assert await code(verifier, signed(HEADER, payload)) is Reason.TOKEN_REJECTED

    async def test_a_member_of_act_that_stands_twice(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        payload = json.dumps(claims(issuer, clock))[:-1] + ',"act":{"sub":"a","sub":"b"}}'
        assert await code(verifier, signed(HEADER, payload)) is Reason.TOKEN_REJECTED

    @pytest.mark.parametrize(
        "header",
        [
            '{"alg":"RS256","alg":"none","kid":"k1","typ":"at+jwt"}',
            '{"alg":"RS256","kid":"k1","typ":"at+jwt","typ":"JWT"}',
            '{"alg":"RS256","kid":"k2","kid":"k1","typ":"at+jwt"}',
            '\ufeff{"alg":"RS256","kid":"k1","typ":"at+jwt"}',
            '{"alg":"RS256","kid":"k1","typ":"at+jwt","x":NaN}',
            '["RS256"]',
        ],
    )
    async def test_headers(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, header: str) -> None:
        assert await code(verifier, signed(header, json.dumps(claims(issuer, clock)))) is Reason.TOKEN_REJECTED

    @pytest.mark.parametrize("exp", ["Infinity", "-Infinity", "NaN", "1e400"])
    async def test_numbers_that_are_none(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, exp: str) -> None:
        payload = json.dumps(claims(issuer, clock, exp=...))[:-1] + f',"exp":{exp}}}'
        assert await code(verifier, signed(HEADER, payload)) is Reason.TOKEN_REJECTED

    @pytest.mark.parametrize("change", ["{}=", " {}", "{}\n", "{}.", "{0}", "é{}"])
    async def test_text_around_a_good_token(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, change: str
    ) -> None:
        token = issuer.token(claims(issuer, clock))
        other = change.format(token)
        if other == token:  # the base64 alphabet of RFC 4648 §4 inside is another text for the same bytes
            other = token.replace("-", "+").replace("_", "/") + ("" if {"-", "_"} & set(token) else "+")
        assert await code(verifier, other) is Reason.TOKEN_REJECTED

    async def test_utf_16(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        part = b64(json.dumps(claims(issuer, clock)).encode("utf-16"))
        assert await code(verifier, f"{b64(HEADER.encode())}.{part}.AA") is Reason.TOKEN_REJECTED

    async def test_a_twin_of_a_signature_is_no_other_token(
        self, issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        """ECDSA signatures have a twin (n - s): both verify, so a token is not named by its signature."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer.keys = [public_jwk(key, "k1")]
        verifier = verifier_for(issuer, clock, http, algorithms=["ES256"])
        token = issuer.token(claims(issuer, clock), key=key, algorithm="ES256")
        head, _, tail = token.rpartition(".")
        raw = base64.urlsafe_b64decode(tail + "==")
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        twin = f"{head}.{b64(raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32))}"
        assert twin != token
        assert (await verifier.verify(twin)).jti == (await verifier.verify(token)).jti
        assert digest(twin) == digest(token)


class TestLogged:
    async def test_no_part_of_any_refused_token(
        self, issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Everything that is refused, with the loudest logging there is: libraries included."""
        caplog.set_level(logging.DEBUG)
        verifier = verifier_for(issuer, clock, http)
        now = int(clock.now().timestamp())
        good = claims(issuer, clock, secret="the-secret-claim")
        attacks = [
            issuer.token({**good, "exp": now - 999}), issuer.token({**good, "iat": now + 999}),
            issuer.token({**good, "aud": "x"}), issuer.token({**good, "hasgroups": True}), issuer.token(good, key=rsa_key(1)),
            issuer.token(good, headers={"kid": "x"}),
            issuer.token(good, headers={"typ": "JWT"}).rpartition(".")[0] + ".AAAA",
            issuer.token({**good, "p": "x" * MAX_TOKEN}),
            jwt.encode(good, "s" * 40, "HS256", headers={"kid": "k1"}), jwt.encode(good, None, "none"),
            issuer.token({**good, "nonce": "n"}, headers={"typ": "JWT"}), "not-a-token-but-a-secret", "a.b.c",
        ]  # fmt: skip
        with capture_logs() as logs:
            said = []
            for token in attacks:
                with pytest.raises(AuthenticationError) as caught:
                    await verifier.verify(token)
                said.append(f"{caught.value!r} {caught.value.__cause__!r}")
        everything = "\n".join((repr(logs), caplog.text, *said))
        for token in attacks:
            for part in token.split("."):
                assert len(part) < 6 or part not in everything
        assert "the-secret-claim" not in everything
