"""Every token rule of the design, each broken once, against an issuer that serves its keys over real HTTP."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from harness.clock import ManualClock
from harness.issuer import FakeIssuer, public_jwk, rsa_key
from harness.trust import TRUST
from interlock.config import Issuer
from interlock.errors import AuthenticationError, ConfigError, Reason
from interlock.identity.claims import verified
from interlock.identity.jose import MAX_TOKEN
from interlock.identity.oidc import TokenVerifier
from interlock.identity.principal import Identity

ALL = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as opened:
        yield opened


def pinned(issuer: FakeIssuer, **more: Any) -> Issuer:
    return Issuer(name="test", issuer=issuer.issuer, audience="interlock", **more)


@pytest.fixture
async def verifier(issuer: FakeIssuer, clock: ManualClock) -> AsyncIterator[TokenVerifier]:
    # TLS trust is loaded once for all tests: reading it takes longer than a test.
    async with httpx.AsyncClient(trust_env=False, verify=TRUST, timeout=60) as client:
        yield TokenVerifier([pinned(issuer, algorithms=ALL)], clock=clock, client=lambda: client)


def claims(issuer: FakeIssuer, clock: ManualClock, **more: Any) -> dict[str, Any]:
    now = int(clock.now().timestamp())
    made: dict[str, Any] = {"iss": issuer.issuer, "aud": "interlock", "sub": "u1", "jti": "j1", "groups": ["sre"]}
    made |= {"iat": now, "exp": now + 600, **more}
    return {name: value for name, value in made.items() if value is not ...}


CODES = {
    "fetched": Reason.ISSUER_UNAVAILABLE,
    "expired": Reason.TOKEN_EXPIRED,
    "max_age": Reason.TOKEN_EXPIRED,
    "overage": Reason.GROUPS_INCOMPLETE,
}


async def refusal(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(AuthenticationError) as caught:
        await verifier.verify(token)
    said = str(caught.value)
    assert caught.value.code is next((code for word, code in CODES.items() if word in said), Reason.TOKEN_REJECTED)
    assert token not in str(caught.value)
    return str(caught.value)


class TestAccepted:
    async def test_a_good_token(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        found = await verifier.verify(issuer.token(claims(issuer, clock, acr="2", amr=["pwd", "otp"])))
        assert found.identity == Identity(issuer.issuer, "u1")
        assert (found.jti, found.groups, found.actors) == ("j1", {"sre"}, ())
        assert found.expires.timestamp() == clock.now().timestamp() + 600
        assert (found.assurance.acr, found.assurance.amr) == ("2", ("pwd", "otp"))

    @pytest.mark.parametrize(
        ("algorithm", "key"),
        [
            ("PS256", rsa_key()),
            ("ES256", ec.generate_private_key(ec.SECP256R1())),
            ("ES384", ec.generate_private_key(ec.SECP384R1())),
            ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        ],
    )
    async def test_each_algorithm(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, algorithm: str, key: Any
    ) -> None:
        issuer.keys = [public_jwk(key, "k1")]
        assert await verifier.verify(issuer.token(claims(issuer, clock), key=key, algorithm=algorithm))

    @pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT"])
    async def test_types_of_access_tokens(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, typ: str
    ) -> None:
        assert await verifier.verify(issuer.token(claims(issuer, clock), headers={"typ": typ}))

    async def test_a_single_key_needs_no_kid(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        assert await verifier.verify(issuer.token(claims(issuer, clock), headers={"kid": None}))

    async def test_a_configured_key_set_address(self, issuer: FakeIssuer, clock: ManualClock) -> None:
        verifier = TokenVerifier([pinned(issuer, jwks_url=issuer.issuer + "/keys")], clock=clock)
        assert await verifier.verify(issuer.token(claims(issuer, clock)))
        assert issuer.requests == ["/keys"]
        await verifier.close()

    async def test_several_issuers_each_with_their_own_keys(self, clock: ManualClock) -> None:
        async with FakeIssuer() as one, FakeIssuer() as two:
            two.keys = [public_jwk(rsa_key(1), "k1")]
            verifier = TokenVerifier([pinned(one), pinned(two)], clock=clock)
            assert await verifier.verify(one.token(claims(one, clock)))
            assert await verifier.verify(two.token(claims(two, clock), key=rsa_key(1)))
            await refusal(verifier, one.token(claims(two, clock)))  # signed by one, says it is two's
            await verifier.close()


class TestHeader:
    async def test_no_signature(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        unsigned = jwt.encode(claims(issuer, clock), None, "none", headers={"kid": "k1", "typ": "at+jwt"})
        assert "algorithm" in await refusal(verifier, unsigned)
        signed = issuer.token(claims(issuer, clock)).split(".")
        await refusal(verifier, f"{unsigned.split('.')[0]}.{signed[1]}.")
        await refusal(verifier, f"{signed[0]}.{signed[1]}.")

    async def test_the_public_key_as_an_hmac_secret(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        """RFC 8725 §2.1: an attacker signs HS256 with the public key everybody can fetch."""
        for encoding in (Encoding.DER, Encoding.PEM):
            secret = rsa_key().public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"at+jwt","kid":"k1"}').rstrip(b"=")
            signed = header + b"." + issuer.token(claims(issuer, clock)).split(".")[1].encode()
            mac = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")
            assert "algorithm" in await refusal(verifier, (signed + b"." + mac).decode())

    async def test_an_algorithm_that_this_issuer_may_not_use(self, issuer: FakeIssuer, clock: ManualClock) -> None:
        verifier = TokenVerifier([pinned(issuer, algorithms=["ES256"])], clock=clock)
        assert "algorithm" in await refusal(verifier, issuer.token(claims(issuer, clock)))
        await verifier.close()

    async def test_a_key_of_another_type_than_the_algorithm(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        issuer.keys = [public_jwk(ec.generate_private_key(ec.SECP256R1()), "k1")]
        await refusal(verifier, issuer.token(claims(issuer, clock)))

    async def test_a_curve_of_another_algorithm(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        p384 = ec.generate_private_key(ec.SECP384R1())
        issuer.keys = [public_jwk(p384, "k1")]
        header = issuer.token(claims(issuer, clock), key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")
        await refusal(verifier, header)

    async def test_a_key_that_the_set_reserves_for_another_algorithm(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        issuer.keys = [public_jwk(rsa_key(), "k1", alg="PS256")]
        await refusal(verifier, issuer.token(claims(issuer, clock)))

    @pytest.mark.parametrize(
        "change", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": ["sign", "verify"]}, {"kty": "oct"}]
    )
    async def test_keys_that_are_not_for_signatures(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, change: dict[str, Any]
    ) -> None:
        issuer.keys = [{**public_jwk(rsa_key(), "k1"), **change}]
        await refusal(verifier, issuer.token(claims(issuer, clock)))

    async def test_a_weak_rsa_key(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        weak = rsa.generate_private_key(65537, 1024)
        issuer.keys = [public_jwk(weak, "k1")]
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            token = issuer.token(claims(issuer, clock), key=weak)
        await refusal(verifier, token)

    async def test_without_kid_several_keys_are_no_choice(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        issuer.keys = [public_jwk(rsa_key(0), "k1"), public_jwk(rsa_key(1), "k2")]
        await refusal(verifier, issuer.token(claims(issuer, clock), headers={"kid": None}))
        assert await verifier.verify(issuer.token(claims(issuer, clock)))

    async def test_two_keys_of_one_kid_are_no_choice(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        issuer.keys = [public_jwk(rsa_key(0), "k1"), public_jwk(rsa_key(1), "k1")]
        await refusal(verifier, issuer.token(claims(issuer, clock)))

    @pytest.mark.parametrize("kid", ["", 7, ["k1"], "k" * 256])
    async def test_malformed_kid(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, kid: Any) -> None:
        parts = issuer.token(claims(issuer, clock)).split(".")
        header = {"alg": "RS256", "typ": "at+jwt", "kid": kid}
        parts[0] = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        await refusal(verifier, ".".join(parts))

    async def test_keys_that_the_token_brings_are_ignored(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        """jku, x5u and jwk point to the attacker's key: nothing is fetched from there and the signature fails."""
        async with FakeIssuer() as attacker:
            attacker.keys = [public_jwk(rsa_key(1), "k1")]
            for header in (
                {"jku": attacker.issuer + "/keys"}, {"x5u": attacker.issuer + "/cert"},
                {"jwk": public_jwk(rsa_key(1), "k1")}, {"x5c": ["MIIB"]},
            ):  # fmt: skip
                assert "signature" in await refusal(verifier, issuer.token(claims(issuer, clock), key=rsa_key(1), headers=header))
            assert attacker.requests == []
        # Beside a good signature they do not matter either.
        assert await verifier.verify(issuer.token(claims(issuer, clock), headers={"jku": "https://attacker.example/"}))

    @pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"b64": True}])
    async def test_extensions_that_must_be_understood(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, header: dict[str, Any]
    ) -> None:
        parts = issuer.token(claims(issuer, clock)).split(".")
        parts[0] = base64.urlsafe_b64encode(
            json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": "k1", **header}).encode()
        ).rstrip(b"=").decode()  # fmt: skip
        assert "extensions" in await refusal(verifier, ".".join(parts))

    @pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "", None, "id+jwt"])
    async def test_other_types(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, typ: str | None) -> None:
        token = issuer.token(claims(issuer, clock), headers={"typ": typ})
        if typ is None:  # PyJWT writes one itself
            parts = token.split(".")
            parts[0] = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"k1"}').rstrip(b"=").decode()
            token = ".".join(parts)
        assert "typ" in await refusal(verifier, token)

    async def test_a_platform_without_typ_can_be_allowed(self, issuer: FakeIssuer, clock: ManualClock) -> None:
        """Kubernetes' projected tokens have none: the operator says so with an empty entry."""
        verifier = TokenVerifier([pinned(issuer, token_type=[""])], clock=clock)
        assert await verifier.verify(issuer.token(claims(issuer, clock), headers={"typ": ""}))
        await verifier.close()

    @pytest.mark.parametrize(
        "more", [{"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"typ": "ID"}, {"typ": "Refresh"}, {"events": {}}]
    )
    async def test_an_id_token_is_no_access_token(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, more: dict[str, Any]
    ) -> None:
        assert "not an access token" in await refusal(
            verifier, issuer.token(claims(issuer, clock, **more), headers={"typ": "JWT"})
        )


class TestClaims:
    @pytest.mark.parametrize("claim", ["exp", "iat", "sub", "jti", "iss", "aud"])
    async def test_required(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, claim: str) -> None:
        await refusal(verifier, issuer.token(claims(issuer, clock, **{claim: ...})))

    @pytest.mark.parametrize("sub", ["", "x" * 256, "a\nb", "a\x1b[1m", "\ud800", 7, None, ["u1"]])
    async def test_subjects_that_can_not_be(self, issuer: FakeIssuer, clock: ManualClock, sub: Any) -> None:
        with pytest.raises(AuthenticationError):
            verified(claims(issuer, clock, sub=sub), pinned(issuer), clock.now(), frozenset())

    @pytest.mark.parametrize("iss", ["https://other.example", "http://127.0.0.1", None, 7, ["x"]])
    async def test_another_issuer(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, iss: Any) -> None:
        payload = json.dumps({**claims(issuer, clock), "iss": iss}).encode()
        token = jwt.api_jws.encode(payload, rsa_key(), "RS256", headers={"kid": "k1", "typ": "at+jwt"})
        assert "issuer" in await refusal(verifier, token)
        assert issuer.requests == []

    async def test_an_issuer_that_only_looks_alike(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        for iss in (issuer.issuer + "/", issuer.issuer.upper(), issuer.issuer + "#", " " + issuer.issuer):
            assert "issuer" in await refusal(verifier, issuer.token(claims(issuer, clock, iss=iss)))

    @pytest.mark.parametrize("aud", ["Interlock", "interlock ", "other", [], ["other"], [7], {"interlock": 1}, None, 7])
    async def test_another_audience(self, issuer: FakeIssuer, clock: ManualClock, aud: Any) -> None:
        with pytest.raises(AuthenticationError, match="aud"):
            verified(claims(issuer, clock, aud=aud), pinned(issuer), clock.now(), frozenset())

    async def test_several_audiences_need_azp(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        both = ["interlock", "wiki"]
        assert "azp" in await refusal(verifier, issuer.token(claims(issuer, clock, aud=both)))
        assert "azp" in await refusal(verifier, issuer.token(claims(issuer, clock, aud=both, azp="wiki")))
        assert await verifier.verify(issuer.token(claims(issuer, clock, aud=both, azp="interlock")))
        assert await verifier.verify(issuer.token(claims(issuer, clock, aud=["interlock"], azp="wiki")))

    @pytest.mark.parametrize(
        ("more", "why"),
        [
            ({"exp": -60}, "expired"),
            ({"exp": -100_000}, "expired"),
            ({"iat": 61}, "future"),
            ({"nbf": 61}, "valid yet"),
            ({"iat": -86_400 - 61}, "max_age"),
        ],
    )
    async def test_times(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, more: dict[str, int], why: str
    ) -> None:
        now = int(clock.now().timestamp())
        token = issuer.token(claims(issuer, clock, **{name: now + offset for name, offset in more.items()}))
        assert why in await refusal(verifier, token)

    @pytest.mark.parametrize("more", [{"exp": -59}, {"iat": 59}, {"nbf": 60}, {"iat": -86_400 - 59}])
    async def test_a_minute_of_skew(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, more: dict[str, int]
    ) -> None:
        now = int(clock.now().timestamp())
        assert await verifier.verify(issuer.token(claims(issuer, clock, **{name: now + offset for name, offset in more.items()})))

    @pytest.mark.parametrize("value", [True, "1767320000", None, -1, 2**41, float("inf"), float("nan"), [1]])
    @pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
    async def test_times_that_are_none(self, issuer: FakeIssuer, clock: ManualClock, claim: str, value: Any) -> None:
        with pytest.raises(AuthenticationError):
            verified(claims(issuer, clock, **{claim: value}), pinned(issuer), clock.now(), frozenset())

    async def test_a_long_lived_token_gives_no_long_session(self, issuer: FakeIssuer, clock: ManualClock) -> None:
        now = clock.now().timestamp()
        found = verified(claims(issuer, clock, exp=now + 10**7), pinned(issuer, max_age="1h"), clock.now(), frozenset())
        assert found.expires.timestamp() == now + 3600


class TestGroups:
    @pytest.mark.parametrize(
        "more",
        [
            {"hasgroups": True, "groups": ...},
            {"hasgroups": "true", "groups": ...},
            {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph"}}, "groups": ...},
            {"_claim_names": {"groups": "src1"}},
            {"_claim_names": "groups"},
        ],
    )
    async def test_overage_fails_closed(
        self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock, more: dict[str, Any]
    ) -> None:
        assert "overage" in await refusal(verifier, issuer.token(claims(issuer, clock, **more)))

    async def test_overage_of_a_renamed_claim(self, issuer: FakeIssuer, clock: ManualClock) -> None:
        with pytest.raises(AuthenticationError, match="overage"):
            verified(
                claims(issuer, clock, _claim_names={"roles": "s"}), pinned(issuer, groups_claim="roles"), clock.now(), frozenset()
            )

    async def test_an_absent_claim_is_no_group(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        assert (await verifier.verify(issuer.token(claims(issuer, clock, groups=...)))).groups == frozenset()

    @pytest.mark.parametrize("groups", ["sre", {"sre": 1}, [1], [""], ["a\nb"], ["x" * 256], ["g"] * 1001, None])
    async def test_groups_that_can_not_be(self, issuer: FakeIssuer, clock: ManualClock, groups: Any) -> None:
        with pytest.raises(AuthenticationError, match="groups"):
            verified(claims(issuer, clock, groups=groups), pinned(issuer), clock.now(), frozenset())


class TestActors:
    @staticmethod
    def chain(*subjects: str) -> dict[str, Any]:
        act: dict[str, Any] = {}
        for subject in reversed(subjects):
            act = {"sub": subject, **({"act": act} if act else {})}
        return act

    async def test_the_outermost_acts_now(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        found = await verifier.verify(issuer.token(claims(issuer, clock, act=self.chain("now", "before", "first"))))
        assert found.actors == tuple(Identity(issuer.issuer, s) for s in ("now", "before", "first"))

    async def test_longer_than_three(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        token = issuer.token(claims(issuer, clock, act=self.chain("a", "b", "c", "d")))
        assert "longer" in await refusal(verifier, token)

    async def test_very_deep(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        deep = '{"sub":"a","act":' * 900 + "{}" + "}" * 900
        payload = json.dumps(claims(issuer, clock))[:-1] + f',"act":{deep}' + "}"
        token = jwt.api_jws.encode(payload.encode(), rsa_key(), "RS256", headers={"kid": "k1", "typ": "at+jwt"})
        await refusal(verifier, token)

    @pytest.mark.parametrize(
        "act",
        [
            None, "agent", {}, [], {"sub": ""}, {"sub": "a", "act": "b"}, {"sub": "a", "iss": "https://elsewhere.example"},
            {"sub": "a", "iss": 7}, {"sub": "u1"}, {"sub": "a", "act": {"sub": "a"}},
        ],
    )  # fmt: skip
    async def test_chains_that_can_not_be(self, issuer: FakeIssuer, clock: ManualClock, act: Any) -> None:
        with pytest.raises(AuthenticationError):
            verified(claims(issuer, clock, act=act), pinned(issuer), clock.now(), frozenset({issuer.issuer}))

    async def test_an_actor_of_another_pinned_issuer(self, issuer: FakeIssuer, clock: ManualClock) -> None:
        other = "https://ci.example"
        found = verified(
            claims(issuer, clock, act={"sub": "a", "iss": other}), pinned(issuer), clock.now(), frozenset({issuer.issuer, other})
        )
        assert found.actors == (Identity(other, "a"),)


class TestGarbage:
    async def test_too_long(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        token = issuer.token(claims(issuer, clock, padding="x" * MAX_TOKEN))
        assert "longer" in await refusal(verifier, token)
        assert issuer.requests == []

    async def test_one_bit_of_the_signed_part(self, verifier: TokenVerifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        header, _, signature = issuer.token(claims(issuer, clock)).split(".")
        other = issuer.token(claims(issuer, clock, sub="admin")).split(".")[1]
        assert "signature" in await refusal(verifier, f"{header}.{other}.{signature}")

    @pytest.mark.parametrize(
        "token", ["", ".", "..", "a.b.c", "ilk_x", "e30.e30.", "W10.W10.x", "e30.e30.e30.e30.e30", "\u2028..", "é.é.é"]
    )
    async def test_no_jwt(self, verifier: TokenVerifier, token: str) -> None:
        with pytest.raises(AuthenticationError):
            await verifier.verify(token)

    async def test_nested_beyond_reading(self, verifier: TokenVerifier) -> None:
        deep = base64.urlsafe_b64encode(b"[" * 15_000).decode().rstrip("=")
        with pytest.raises(AuthenticationError):
            await verifier.verify(f"{deep}.e30.x")

    @settings(max_examples=examples(100), deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["iss", "aud", "sub", "jti", "exp", "iat", "act", "groups", "azp", "nbf", "typ", "amr"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(["sub", "act", "iss"]), c, max_size=3),
            ),
        )
    )
    def test_claims_of_any_shape_are_refused_in_our_own_words(self, given_claims: dict[str, Any]) -> None:
        issuer = Issuer(name="t", issuer="https://i.example", audience="interlock")
        base: dict[str, Any] = {
            "iss": issuer.issuer,
            "aud": "interlock",
            "sub": "u",
            "jti": "j",
            "iat": 1767319980,
            "exp": 1767320000,
        }
        try:
            found = verified({**base, **given_claims}, issuer, ManualClock().now(), frozenset({issuer.issuer}))
        except AuthenticationError:
            return
        assert found.identity.issuer == issuer.issuer
        assert found.identity not in found.actors


class TestConfiguration:
    @pytest.mark.parametrize("algorithms", [["none"], ["HS256"], ["RS256", "HS512"], [], ["rs256"]])
    def test_algorithms_that_can_not_be_allowed(self, clock: ManualClock, algorithms: list[str]) -> None:
        with pytest.raises(ConfigError, match="algorithms"):
            TokenVerifier([Issuer(name="t", issuer="https://i.example", audience="a", algorithms=algorithms)], clock=clock)

    def test_one_issuer_twice(self, clock: ManualClock) -> None:
        issuer = Issuer(name="t", issuer="https://i.example", audience="a")
        with pytest.raises(ConfigError, match="same issuer"):
            TokenVerifier([issuer, issuer], clock=clock)
