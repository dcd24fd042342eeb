"""The key set: what is fetched, how often, how long it is trusted, and what an answer may not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from harness.clock import ManualClock
from harness.issuer import FakeIssuer, public_jwk, rsa_key
from harness.trust import TRUST
from interlock.errors import AuthenticationError, ConfigError
from interlock.identity.keyset import MAX_BODY, MAX_FRESH_S, MIN_FRESH_S, RETRY_S, STALE_S, UNKNOWN_KID_S, KeySet


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as opened:
        yield opened


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=TRUST, timeout=60) as client:
        yield client


@pytest.fixture
def keys(issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient) -> KeySet:
    return KeySet(issuer.issuer, jwks_url=None, clock=clock, client=lambda: http)


async def fails(keys: KeySet, kid: str | None = "k1") -> None:
    with pytest.raises(AuthenticationError):
        await keys.find(kid, "RS256")


class TestFreshness:
    @pytest.mark.parametrize(
        ("cache_control", "lasts"),
        [
            ("max-age=1", MIN_FRESH_S),
            ("no-store, max-age=9999", MIN_FRESH_S),
            ("max-age=0, no-cache", MIN_FRESH_S),
            ("", MIN_FRESH_S),
            ("max-age=banana", MIN_FRESH_S),
            ("public, max-age=3600", 3600),
            ("s-maxage=7200, max-age=600", 600),
            ("max-age=99999999", MAX_FRESH_S),
        ],
    )
    async def test_the_answer_decides_within_our_bounds(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock, cache_control: str, lasts: int
    ) -> None:
        issuer.cache_control = cache_control
        await keys.find("k1", "RS256")
        clock.advance(lasts - 1)
        await keys.find("k1", "RS256")
        assert issuer.key_fetches == 1
        clock.advance(1)
        await keys.find("k1", "RS256")
        assert issuer.key_fetches == 2

    async def test_a_removed_key_is_not_trusted_after_freshness(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        await keys.find("k1", "RS256")
        issuer.keys = [public_jwk(rsa_key(1), "k2")]
        clock.advance(3600)
        await fails(keys)

    async def test_stale_while_the_issuer_fails_and_then_closed(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        await keys.find("k1", "RS256")
        issuer.status = 503
        clock.advance(3600 + STALE_S - 1)
        await keys.find("k1", "RS256")
        clock.advance(1)
        await fails(keys)
        issuer.status = 200
        clock.advance(RETRY_S)
        await keys.find("k1", "RS256")

    async def test_a_wall_clock_set_back_keeps_no_key_alive(self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock) -> None:
        await keys.find("k1", "RS256")
        issuer.status = 503
        clock.advance(3600 + STALE_S)
        clock.step(-3600 - STALE_S)
        await fails(keys)

    async def test_a_failing_issuer_is_asked_every_half_minute_only(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        issuer.status = 500
        for _ in range(5):
            await fails(keys)
        assert len(issuer.requests) == 1
        clock.advance(RETRY_S)
        await fails(keys)
        assert len(issuer.requests) == 2


class TestSingleFlight:
    async def test_a_hundred_logins_are_one_fetch(self, keys: KeySet, issuer: FakeIssuer) -> None:
        issuer.gate.clear()
        waiting = [asyncio.ensure_future(keys.find("k1", "RS256")) for _ in range(100)]
        await issuer.asked.wait()
        issuer.gate.set()
        found = await asyncio.gather(*waiting)
        assert {key.kid for key in found} == {"k1"}
        assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]

    async def test_a_client_that_leaves_does_not_end_the_fetch_of_others(self, keys: KeySet, issuer: FakeIssuer) -> None:
        issuer.gate.clear()
        first, second = (asyncio.ensure_future(keys.find("k1", "RS256")) for _ in range(2))
        await issuer.asked.wait()
        first.cancel()
        issuer.gate.set()
        assert (await second).kid == "k1"
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_the_loop_turns_while_the_issuer_is_silent(self, keys: KeySet, issuer: FakeIssuer) -> None:
        issuer.gate.clear()
        waiting = asyncio.ensure_future(keys.find("k1", "RS256"))
        await issuer.asked.wait()  # our own server answers on the same loop: it could not if the loop were held
        assert not waiting.done()
        issuer.gate.set()
        await waiting


class TestUnknownKid:
    async def test_a_rotation_is_noticed_at_once(self, keys: KeySet, issuer: FakeIssuer) -> None:
        await keys.find("k1", "RS256")
        issuer.keys.append(public_jwk(rsa_key(1), "k2"))
        assert (await keys.find("k2", "RS256")).kid == "k2"

    async def test_made_up_kids_cause_one_fetch_a_minute(self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock) -> None:
        await keys.find("k1", "RS256")
        for number in range(50):
            await fails(keys, f"made-up-{number}")
        assert issuer.key_fetches == 2
        clock.advance(UNKNOWN_KID_S)
        await fails(keys, "made-up")
        assert issuer.key_fetches == 3
        await keys.find("k1", "RS256")

    async def test_a_known_kid_of_another_type_causes_none(self, keys: KeySet, issuer: FakeIssuer) -> None:
        await keys.find("k1", "RS256")
        with pytest.raises(AuthenticationError):
            await keys.find("k1", "ES256")
        assert issuer.key_fetches == 1


class TestAnswers:
    async def test_a_redirect_is_not_followed(self, keys: KeySet, issuer: FakeIssuer) -> None:
        async with FakeIssuer() as elsewhere:
            issuer.redirect_to = elsewhere.issuer + "/keys"
            await fails(keys)
            assert elsewhere.requests == []

    async def test_a_document_elsewhere_leads_to_the_keys_and_must_name_the_issuer(
        self, issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        """The Bot Connector's issuer is no address that serves its document."""
        where = issuer.issuer + "/.well-known/openid-configuration"
        bot = "https://api.botframework.example"
        issuer.discovery = {"issuer": bot}
        keys = KeySet(bot, jwks_url=None, clock=clock, client=lambda: http, metadata_url=where)
        assert (await keys.find("k1", "RS256")).kid == "k1"
        issuer.discovery = {}
        await fails(KeySet(bot, jwks_url=None, clock=clock, client=lambda: http, metadata_url=where))

    @pytest.mark.parametrize(
        "discovery",
        [
            {"issuer": "https://other.example"},
            {"issuer": None},
            {"jwks_uri": None},
            {"jwks_uri": 7},
            {"jwks_uri": "http://keys.example/"},
            {"jwks_uri": "http://169.254.169.254/latest"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": "https://user:pw@keys.example/"},
            {"jwks_uri": "https://"},
            {"jwks_uri": "https://[::1"},
        ],
    )
    async def test_discovery_leads_nowhere_else(self, keys: KeySet, issuer: FakeIssuer, discovery: dict[str, object]) -> None:
        issuer.discovery = discovery
        await fails(keys)
        assert issuer.key_fetches == 0

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b'{"keys": {}}',
            b'{"keys": []}',
            b'{"keys": [1, null, "x"]}',
            b'{"keys": [{"kty": "RSA", "kid": "k1"}]}',
            b'{"keys": [{"kty": "RSA", "kid": "k1", "n": "!!", "e": "AQAB"}]}',
            b'{"keys": [{"kty": "oct", "kid": "k1", "k": "c2VjcmV0"}]}',
            b'{"keys": [{"kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AA", "y": "AA"}]}',
            b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": "AA", "y": "AA"}]}',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"keys": [' + b"{}," * 200 + b"{}]}",
            json.dumps({"keys": [], "padding": "x" * MAX_BODY}).encode(),
        ],
    )
    async def test_bodies_that_are_no_key_set(self, keys: KeySet, issuer: FakeIssuer, body: bytes) -> None:
        issuer.raw_keys = body
        await fails(keys)

    async def test_one_bad_key_does_not_hide_the_good_ones(self, keys: KeySet, issuer: FakeIssuer) -> None:
        issuer.keys = [{"kty": "RSA", "kid": "broken", "n": "", "e": ""}, {"kty": "future"}, *issuer.keys]
        assert (await keys.find("k1", "RS256")).kid == "k1"

    async def test_a_private_key_in_the_set_is_read_as_its_public_half(self, keys: KeySet, issuer: FakeIssuer) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        secret = private.private_numbers().private_value
        issuer.keys = [{**public_jwk(private, "k1"), "d": "A" * 43}]
        assert secret
        assert not hasattr((await keys.find("k1", "ES256")).public, "private_numbers")

    async def test_an_issuer_that_is_not_there(self, clock: ManualClock, http: httpx.AsyncClient) -> None:
        async with FakeIssuer() as gone:
            address = gone.issuer
        await fails(KeySet(address, jwks_url=None, clock=clock, client=lambda: http))


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "http://idp.example", "http://10.0.0.1", "http://localhost.example", "ftp://127.0.0.1", "", "idp.example",
            "https://u@idp.example", "https://idp.example/?x=1", "https://idp.example/#x", "https://", "https://[::1", "https://a:b/",
        ],
    )  # fmt: skip
    async def test_issuers_that_can_not_be_pinned(self, clock: ManualClock, http: httpx.AsyncClient, address: str) -> None:
        with pytest.raises(ConfigError):
            KeySet(address, jwks_url=None, clock=clock, client=lambda: http)
        with pytest.raises(ConfigError):
            KeySet("https://idp.example", jwks_url=address, clock=clock, client=lambda: http)

    async def test_an_https_issuer_can_not_point_to_loopback_without_tls(self, issuer: FakeIssuer, clock: ManualClock) -> None:
        """The rule for loopback is the operator's to use: an answer from outside does not get it."""
        asked: list[str] = []

        async def outside(request: httpx.Request) -> httpx.Response:
            asked.append(str(request.url))
            return httpx.Response(200, json={"issuer": "https://idp.example", "jwks_uri": issuer.issuer + "/keys"})

        async with httpx.AsyncClient(transport=httpx.MockTransport(outside)) as client:
            await fails(KeySet("https://idp.example", jwks_url=None, clock=clock, client=lambda: client))
        assert asked == ["https://idp.example/.well-known/openid-configuration"]
