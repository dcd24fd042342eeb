"""Our gate beside Microsoft's own: the validator of `microsoft-teams-apps`, fed the same tokens from the same key set.

The property: what ours accepts, theirs accepts. Where ours is stricter is a table, each line measured on both sides; the same
table is in docs/teams.md. Their keys come from our connector's address, so nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from harness import bot_connector
from harness.bot_connector import APP_ID, TENANT, BotConnector
from harness.budget import examples
from harness.trust import TRUST
from interlock.approvals.channels.teams.inbound import ISSUER, Expected, admit
from interlock.clock import SystemClock
from interlock.errors import AuthenticationError
from interlock.identity.keyset import KeySet

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="HtmlWidgetSecurityPolicy is in preview")  # said once, when it is imported
    from microsoft_teams.api.auth.cloud_environment import PUBLIC
    from microsoft_teams.apps.auth.token_validator import AGENT_365_PLATFORM_APP_ID, InboundActivityTokenValidator

DAY = 86_400
DOCS = Path(__file__).parents[2] / "docs" / "teams.md"


@dataclass(frozen=True)
class Verdicts:
    ours: bool
    theirs: bool


class Oracle:
    """Both validators over one connector's keys."""

    def __init__(self, service: BotConnector, http: httpx.AsyncClient) -> None:
        self.service = service
        self._clock = SystemClock()
        self._keys = KeySet(ISSUER, jwks_url=f"{service.url}/keys", clock=self._clock, client=lambda: http)
        self._expected = Expected(APP_ID, frozenset({TENANT}), frozenset({"smba.trafficmanager.net"}), loopback=True)
        cloud = replace(PUBLIC, openid_metadata_url=f"{service.url}/openidconfiguration", login_endpoint=f"{service.url}/login")
        self._theirs = InboundActivityTokenValidator(APP_ID, cloud)
        self._stranger = BotConnector().keys["k1"]
        service.add_key("webchat-only", endorsements=("webchat",))

    def now(self) -> int:
        return int(self._clock.now().timestamp())

    def token(self, changes: dict[str, Any], *, header: dict[str, Any] | None = None, forged: bool = False) -> str:
        """A good token with claims changed (None takes one away; `+n` and `-n` are seconds from now)."""
        now = self.now()
        claims = {"iss": ISSUER, "aud": APP_ID, "nbf": now - 10, "iat": now, "exp": now + 600, "serviceurl": self.service.url}
        for name, value in changes.items():
            claims[name] = now + int(value) if isinstance(value, str) and re.fullmatch(r"[+-]\d+", value) else value
        claims = {name: value for name, value in claims.items() if value is not None}
        words = {"alg": "RS256", "kid": "k1", **(header or {})}
        algorithm = words.pop("alg")
        if words["kid"] is None:
            words.pop("kid")
        key: Any = self._stranger if forged else self.service.keys.get(str(words.get("kid")), self.service.keys["k1"])
        if algorithm == "HS256":
            key = "x" * 64
        elif algorithm == "none":
            key = None
        # A claim of the wrong type is what a hostile service may send; PyJWT would refuse to write it.
        return jwt.api_jws.encode(json.dumps(claims).encode(), key, algorithm=algorithm, headers={"typ": "JWT", **words})

    async def judge(self, token: str, **activity: Any) -> Verdicts:
        card = {"actions": [{"verb": "approve", "data": {}}]}
        body = self.service.invoke(card, "m1", "approve", **activity)

        def ask_theirs() -> bool:
            try:
                asyncio.run(self._theirs.validate_token(token, str(body["serviceUrl"])))
            except Exception:  # it raises whatever its parts raise
                return False
            return True

        theirs = await asyncio.to_thread(ask_theirs)  # it fetches keys synchronously. Theirs first: time only takes away.
        try:
            await admit(f"Bearer {token}", json.dumps(body).encode(), self._expected, self._keys, self._clock.now())
        except AuthenticationError:
            return Verdicts(ours=False, theirs=theirs)
        return Verdicts(ours=True, theirs=theirs)


class Bench:
    """The oracle for tests that are not coroutines, as Hypothesis wants them."""

    def __init__(self, runner: asyncio.Runner, oracle: Oracle) -> None:
        self.oracle = oracle
        self._runner = runner

    def judge(self, token: str, **activity: Any) -> Verdicts:
        return self._runner.run(self.oracle.judge(token, **activity))


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    logging.getLogger("microsoft_teams").setLevel(logging.CRITICAL)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def begin() -> Oracle:
            service = await stack.enter_async_context(bot_connector.running())
            http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST))

            @service.app.get(f"/login/{TENANT}/discovery/v2.0/keys")
            async def entra_keys() -> dict[str, Any]:
                jwk = json.loads(RSAAlgorithm.to_jwk(service.keys["k1"].public_key()))
                return {"keys": [{**jwk, "kid": "k1", "use": "sig"}]}

            return Oracle(service, http)

        yield Bench(runner, runner.run(begin()))
        runner.run(stack.aclose())


# -- the property ----------------------------------------------------------------------------------------------------------

TIMES = st.sampled_from(
    [
        "-200000",
        "-310",
        "-290",
        "-10",
        "+0",
        "+290",
        "+310",
        "+600",
        "+86000",
        "+90000",
        None,
        "soon",
        1.5,
        True,
        [],
        float("nan"),
        float("inf"),
        10**400,
    ]
)
TOKENS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from([ISSUER, ISSUER + "/", "https://evil.example", None, [ISSUER]]),
        "aud": st.sampled_from([APP_ID, [APP_ID], [APP_ID, "x"], f"api://{APP_ID}", APP_ID.upper(), "x", None, 7]),
        "exp": TIMES,
        "nbf": TIMES,
        "iat": TIMES,
        "serviceurl": st.sampled_from(["", "http://127.0.0.1:1", None, 7, ["http://127.0.0.1:1"]]),
        "extra": st.text(max_size=20),
    },
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "RS256", "RS256", "RS512", "PS256", "HS256", "none"]),
        "kid": st.sampled_from(["k1", "k1", "webchat-only", "unknown", None, ""]),
        "typ": st.sampled_from(["JWT", "jwt", "x"]),
    },
)


@settings(max_examples=examples(300), deadline=None)
@given(claims=TOKENS, header=HEADERS, forged=st.booleans())
def test_what_ours_accepts_theirs_accepts(bench: Bench, claims: dict[str, Any], header: dict[str, Any], forged: bool) -> None:
    verdicts = bench.judge(bench.oracle.token(claims, header=header, forged=forged and header.get("alg") != "HS256"))
    assert verdicts.theirs or not verdicts.ours


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({}, {}),
        ({"exp": "-290"}, {}),
        ({"nbf": "+290"}, {}),
        ({"iat": "+290"}, {}),
        ({"iat": None}, {}),
        ({"nbf": None}, {}),
        ({"exp": "+86000"}, {}),
        ({"extra": "x" * 1000}, {}),
    ],
)
def test_good_tokens_pass_both(bench: Bench, claims: dict[str, Any], header: dict[str, Any]) -> None:
    """Else the property above would hold for a gate that refuses everything."""
    assert bench.judge(bench.oracle.token(claims, header=header)) == Verdicts(ours=True, theirs=True)


@pytest.mark.parametrize(
    ("claims", "header", "forged"),
    [
        ({}, {}, True),
        ({}, {"alg": "none"}, False),
        ({}, {"alg": "HS256"}, False),
        ({}, {"alg": "RS512"}, False),
        ({}, {"kid": None}, False),
        ({}, {"kid": "unknown"}, False),
        ({"iss": "https://evil.example"}, {}, False),
        ({"aud": "x"}, {}, False),
        ({"exp": "-310"}, {}, False),
        ({"nbf": "+310"}, {}, False),
        ({"iat": "+310"}, {}, False),
        ({"serviceurl": None}, {}, False),
        ({"serviceurl": "http://127.0.0.1:1"}, {}, False),
    ],
)
def test_bad_tokens_fail_both(bench: Bench, claims: dict[str, Any], header: dict[str, Any], forged: bool) -> None:
    assert bench.judge(bench.oracle.token(claims, header=header, forged=forged)) == Verdicts(ours=False, theirs=False)


# -- where ours is stricter ------------------------------------------------------------------------------------------------

STRICTER: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "the token never expires (no `exp`)": ({"exp": None}, {}, {}),
    "the token does not say since when it holds (neither `iat` nor `nbf`)": ({"iat": None, "nbf": None}, {}, {}),
    "the token lives for more than a day": ({"exp": "+90000"}, {}, {}),
    "a time is text": ({"exp": "99999999999"}, {}, {}),
    "the audience is a list": ({"aud": [APP_ID]}, {}, {}),
    "the audience is a list with somebody else in it": ({"aud": [APP_ID, "x"]}, {}, {}),
    "the audience is `api://` and our id": ({"aud": f"api://{APP_ID}"}, {}, {}),
    "the audience is `api://botid-` and our id": ({"aud": f"api://botid-{APP_ID}"}, {}, {}),
    "the signing key is not endorsed for `msteams`": ({}, {"kid": "webchat-only"}, {}),
    "the token is larger than 16 KiB": ({"extra": "x" * 16_384}, {}, {}),
    "the service URL is on no list": (
        {"serviceurl": "https://evil.example/emea/"}, {}, {"serviceUrl": "https://evil.example/emea/"},
    ),
    "the service URL is plain http": (
        {"serviceurl": "http://smba.trafficmanager.net/emea/"}, {}, {"serviceUrl": "http://smba.trafficmanager.net/emea/"},
    ),
    "the service URLs of token and body differ in a slash": (
        {"serviceurl": "https://smba.trafficmanager.net/emea"}, {}, {"serviceUrl": "https://smba.trafficmanager.net/emea/"},
    ),
    "the activity names another channel, recipient or tenant": ({}, {}, {"channelId": "webchat"}),
}  # fmt: skip
"""What it is → changed claims, changed header, changed activity. Accepted there, refused here, every one."""


@pytest.mark.parametrize("what", STRICTER)
def test_ours_is_stricter(bench: Bench, what: str) -> None:
    claims, header, activity = STRICTER[what]
    assert bench.judge(bench.oracle.token(claims, header=header), **activity) == Verdicts(ours=False, theirs=True)


ENTRA = "the token is one of Entra, for the Agent 365 platform, and vouches for no service URL"


def test_a_token_of_entra_is_theirs_alone(bench: Bench) -> None:
    """Their second door: a tenant's own tokens. Ours has the connector's key set and no other."""
    issuer = f"{bench.oracle.service.url}/login/{TENANT}/v2.0"
    claims = {"iss": issuer, "tid": TENANT, "azp": AGENT_365_PLATFORM_APP_ID, "serviceurl": None}
    assert bench.judge(bench.oracle.token(claims)) == Verdicts(ours=False, theirs=True)


def test_the_table_in_the_documentation_is_this_one() -> None:
    text = DOCS.read_text()
    listed = re.findall(r"^- (the .+|a time .+)[.;]$", text.split("Stricter than Microsoft's own validator", 1)[1], re.MULTILINE)
    assert listed == [*STRICTER, ENTRA]
