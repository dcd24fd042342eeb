"""Our verdicts beside joserfc's: two implementations of RFC 7515 and 7519, on tokens that Hypothesis makes.

joserfc checks signature, algorithm, key type and the registered claims. Whatever it refuses we refuse; what it accepts and we
refuse breaks a rule of ours that it does not have, and each such rule is named here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import warnings
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt as other
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet as OtherKeys

from harness.budget import examples
from harness.clock import ManualClock
from harness.issuer import FakeIssuer, public_jwk, rsa_key
from harness.trust import TRUST
from interlock.config import Issuer
from interlock.errors import AuthenticationError
from interlock.identity.claimed import SKEW_S
from interlock.identity.oidc import TokenVerifier

EXAMPLES = examples(120, fuzz=3000)
ALLOWED = ["RS256", "PS256", "ES256", "EdDSA"]

P256, ED = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
SIGNERS: dict[str, Any] = {
    "rsa": rsa_key(0), "stranger": rsa_key(1), "ec": P256, "ed": ED,
    "public": rsa_key(0).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
}  # fmt: skip
PUBLISHED = [public_jwk(rsa_key(0), "rsa"), public_jwk(P256, "ec"), public_jwk(ED, "ed")]
FITS = {
    "rsa": ["RS256", "RS384", "PS256"], "stranger": ["RS256", "PS256"], "ec": ["ES256"], "ed": ["EdDSA"], "public": ["HS256"],
}  # fmt: skip

OURS = ("jti", "sub", "iat", "exp", "typ", "azp", "max_age", "ID or logout", "future", "aud", "malformed", "twice", "kid", "key")
"""Words of our refusals that name a rule which joserfc was not asked about, or reads more generously."""


@st.composite
def tokens(draw: st.DrawFn) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    signer = draw(st.sampled_from(list(FITS)))
    algorithm = draw(st.sampled_from(FITS[signer]))
    kid = draw(st.sampled_from([signer, "rsa", "ec", "ed", None, "unknown"]))
    moment = st.integers(-100_000, 100_000)
    given: dict[str, Any] = {
        "iss": draw(st.sampled_from(["ISS", "ISS", "ISS", "https://other.example"])),
        "aud": draw(st.sampled_from(["interlock", "interlock", "other", ["interlock"], ["interlock", "x"], []])),
        "sub": "u", "jti": "j", "iat": draw(st.sampled_from([0, 0, 0, -60, 59, 61, -86_000, -90_000])),
        "exp": draw(st.sampled_from([600, 600, 600, 0, -59, -60, -61]) | moment),
        "nbf": draw(st.sampled_from([None, 0, 59, 61]) | moment),
    }  # fmt: skip
    for name in draw(st.sets(st.sampled_from(["exp", "aud", "iss", "nbf"]), max_size=1)):
        given.pop(name)
    return signer, algorithm, {"kid": kid, "typ": draw(st.sampled_from(["at+jwt", "JWT", "at+jwt", "id+jwt"]))}, given


def made(issuer: FakeIssuer, clock: ManualClock, token: tuple[str, str, dict[str, Any], dict[str, Any]]) -> str:
    signer, algorithm, headers, given = token
    now = int(clock.now().timestamp())
    claims = {name: value for name, value in given.items() if value is not None}
    claims |= {name: now + claims[name] for name in ("iat", "exp", "nbf") if name in claims}
    claims |= {"iss": issuer.issuer} if claims.get("iss") == "ISS" else {}
    if algorithm == "HS256":  # PyJWT would not take a public key for a secret: an attacker does
        unsigned = issuer.token(claims, headers={k: v for k, v in headers.items() if v is not None}).split(".")
        head = json.dumps({"alg": "HS256", **{k: v for k, v in headers.items() if v is not None}}).encode()
        signing = f"{base64.urlsafe_b64encode(head).rstrip(b'=').decode()}.{unsigned[1]}"
        mac = hmac.new(SIGNERS["public"], signing.encode(), hashlib.sha256).digest()
        return f"{signing}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    return issuer.token(claims, key=SIGNERS[signer], algorithm=algorithm, headers=headers)


def theirs(token: str, issuer: str, now: int) -> bool:
    keys = OtherKeys.import_key_set({"keys": PUBLISHED})  # type: ignore[arg-type]  # a plain JWK set
    rules = other.JWTClaimsRegistry(
        now=now, leeway=SKEW_S - 1,  # they refuse later than the leeway, we from it on
        iss={"essential": True, "value": issuer}, aud={"essential": True, "value": "interlock"}, exp={"essential": True},
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # they say that RFC 9864 has another name for EdDSA
            read = other.decode(token, keys, algorithms=ALLOWED)
        rules.validate(read.claims)
    except (JoseError, ValueError):
        return False
    return True


def test_two_implementations_agree() -> None:
    accepted = refused = 0

    async def ours(verifier: TokenVerifier, token: str) -> str | None:
        try:
            await verifier.verify(token)
        except AuthenticationError as error:
            return str(error)
        return None

    with asyncio.Runner() as runner:
        clock = ManualClock()
        issuer = runner.run(_opened())
        client = httpx.AsyncClient(trust_env=False, verify=TRUST, timeout=60)
        issuer.keys = PUBLISHED
        pinned = Issuer(name="idp", issuer=issuer.issuer, audience="interlock", algorithms=ALLOWED)
        verifier = TokenVerifier([pinned], clock=clock, client=lambda: client)

        @settings(max_examples=EXAMPLES, deadline=None)
        @given(tokens())
        def compare(case: tuple[str, str, dict[str, Any], dict[str, Any]]) -> None:
            nonlocal accepted, refused
            token = made(issuer, clock, case)
            said = runner.run(ours(verifier, token))
            they = theirs(token, issuer.issuer, int(clock.now().timestamp()))
            if said is None:
                accepted += 1
                assert they, f"accepted here, refused there: {case}"
            else:
                refused += 1
                assert not they or any(word in said for word in OURS), f"refused here ({said}), accepted there: {case}"

        try:
            compare()
        finally:
            runner.run(client.aclose())
            runner.run(issuer.__aexit__())
    assert accepted > EXAMPLES / 50 and refused > EXAMPLES / 4, (accepted, refused)


async def _opened() -> FakeIssuer:
    return await FakeIssuer().__aenter__()
