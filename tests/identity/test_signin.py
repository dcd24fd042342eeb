"""Logins under way against a provider that lies, is slow, or answers for somebody else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest

from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from harness.hostile_provider import CLI, ISSUER, WEB, HostileProvider
from harness.issuer import rsa_key
from interlock.config import Secret
from interlock.errors import InterlockError, Reason
from interlock.identity.directory import Directory
from interlock.identity.idtoken import IdTokens
from interlock.identity.keyset import KeySet
from interlock.identity.logins import Logins, Opened
from interlock.identity.principal import Kind
from interlock.identity.provider import Provider, ProviderClient
from interlock.identity.signin import MAX_PER_SOURCE, Clients, Pending, SignIn, challenge_of
from interlock.store.engine import Store

VERIFIER = "v" * 43
CHALLENGE = challenge_of(VERIFIER)


@pytest.fixture
async def idp(clock: ManualClock) -> AsyncIterator[HostileProvider]:
    made = HostileProvider(clock)
    yield made
    await made.http.aclose()


@pytest.fixture
async def logins(directory: Directory, store: Store, clock: ManualClock, journal: Journal) -> AsyncIterator[Logins]:
    made = Logins(directory, store.logins, clock=clock, entropy=seeded("logins"), journal=journal, lifetime=28800, register=True)
    yield made
    await made.close()


@pytest.fixture
def signin(idp: HostileProvider, logins: Logins, clock: ManualClock) -> SignIn:
    keys = KeySet(ISSUER, jwks_url=None, clock=clock, client=lambda: idp.http)
    tokens = IdTokens(idp.config, keys, clock=clock, handle_claim="preferred_username")
    cli = ProviderClient(CLI)
    clients = Clients("openid", cli=cli, device=cli, web=ProviderClient(WEB, Secret("the web's secret: ü&")))
    provider = Provider(ISSUER, clock=clock, asking=idp)
    return SignIn(provider, tokens, logins, clients, clock=clock, entropy=seeded("signin"))


async def refused(call: Any) -> Reason:
    with pytest.raises(InterlockError) as error:
        await call
    return error.value.code


# -- device grant ----------------------------------------------------------------------------------------------------------


async def test_the_provider_is_asked_no_oftener_than_it_wants(signin: SignIn, idp: HostileProvider, clock: ManualClock) -> None:
    flow = await signin.begin_device("here")
    for _ in range(50):
        assert await signin.poll(flow.flow) == Pending(5)
    assert idp.times("/token") == 0
    clock.advance(5)
    assert await signin.poll(flow.flow) == Pending(5)
    assert idp.times("/token") == 1
    idp.token = {"error": "slow_down"}
    clock.advance(5)
    assert await signin.poll(flow.flow) == Pending(10)  # RFC 8628 §3.5: by five seconds, for this and all later ones
    clock.advance(9)
    await signin.poll(flow.flow)
    assert idp.times("/token") == 2


async def test_a_network_that_fails_costs_no_login(signin: SignIn, idp: HostileProvider, clock: ManualClock) -> None:
    flow = await signin.begin_device("here")
    clock.advance(5)
    idp.raw, idp.status = b"<html>", 502
    assert isinstance(await signin.poll(flow.flow), Pending)
    idp.raw = idp.status = None
    idp.grant(idp.id_token())
    clock.advance(10)
    assert isinstance(await signin.poll(flow.flow), Opened)


async def test_a_confirmed_code_is_redeemed_once(signin: SignIn, idp: HostileProvider, clock: ManualClock) -> None:
    flow = await signin.begin_device("here")
    idp.grant(idp.id_token())
    clock.advance(5)
    opened = await signin.poll(flow.flow)
    assert isinstance(opened, Opened)
    assert (opened.principal.handle, opened.principal.groups) == ("dora", {"dba"})
    assert await refused(signin.poll(flow.flow)) is Reason.NOT_AUTHENTICATED


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_grant", "something_else"])
async def test_a_refusal_ends_the_flow(signin: SignIn, idp: HostileProvider, clock: ManualClock, error: str) -> None:
    flow = await signin.begin_device("here")
    idp.token = {"error": error, "error_description": "quotes device-secret"}
    clock.advance(5)
    with pytest.raises(InterlockError) as told:
        await signin.poll(flow.flow)
    assert "device-secret" not in str(told.value)
    idp.grant(idp.id_token())
    clock.advance(5)
    assert await refused(signin.poll(flow.flow)) is Reason.NOT_AUTHENTICATED


async def test_a_code_that_nobody_confirms_is_over(signin: SignIn, idp: HostileProvider, clock: ManualClock) -> None:
    flow = await signin.begin_device("here")
    idp.grant(idp.id_token())
    clock.advance(600)
    assert await refused(signin.poll(flow.flow)) is Reason.NOT_AUTHENTICATED
    assert idp.times("/token") == 0


async def test_the_older_spelling_of_google_is_understood(signin: SignIn, idp: HostileProvider, clock: ManualClock) -> None:
    idp.device["verification_url"] = idp.device.pop("verification_uri")
    del idp.device["verification_uri_complete"]
    flow = await signin.begin_device("here")
    assert (flow.address, flow.complete) == (f"{ISSUER}/go", "")
    idp.status = 428  # which is how it says `authorization_pending`
    clock.advance(5)
    assert await signin.poll(flow.flow) == Pending(5)


async def test_nobody_guesses_a_flow(signin: SignIn, idp: HostileProvider) -> None:
    flow = await signin.begin_device("here")
    assert len(base64.urlsafe_b64decode(flow.flow + "=")) == 32
    assert flow.flow not in repr(flow)
    assert await refused(signin.poll("x" * 43)) is Reason.NOT_AUTHENTICATED


@pytest.mark.parametrize(
    "told",
    [
        {"verification_uri": "javascript:alert(1)"}, {"verification_uri": "http://idp.example/go"},
        {"verification_uri_complete": "https://user:pw@idp.example/"}, {"user_code": "AB\x1b]0;CD"}, {"user_code": "ＡＢ"},
        {"user_code": ""}, {"device_code": 7}, {"interval": -1}, {"interval": True}, {"expires_in": 0}, {"expires_in": "600"},
        {"verification_uri": "https://idp.example/" + "a" * 3000},
    ],
)  # fmt: skip
async def test_what_is_shown_to_people_is_checked(signin: SignIn, idp: HostileProvider, told: dict[str, Any]) -> None:
    idp.device |= told
    assert await refused(signin.begin_device("here")) is Reason.PROVIDER_UNAVAILABLE


@pytest.mark.parametrize(
    "told",
    [
        {"issuer": "https://other.example"}, {"token_endpoint": "http://idp.example/token"},
        {"token_endpoint": "https://user:pw@idp.example/"}, {"authorization_endpoint": ""}, {"token_endpoint": ["https://x"]},
        {"device_authorization_endpoint": "http://127.0.0.1/device"},
    ],
)  # fmt: skip
async def test_a_discovery_document_that_leads_elsewhere_is_not_followed(
    signin: SignIn, idp: HostileProvider, told: dict[str, Any]
) -> None:
    idp.metadata |= told
    assert await refused(signin.begin_device("here")) is Reason.PROVIDER_UNAVAILABLE
    assert [path for path, _, _ in idp.asked] == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("raw", [b"[]", b"", b"{" * 100_000, b'{"a":"' + b"x" * 300_000 + b'"}'])
async def test_an_answer_that_is_none_is_bounded(signin: SignIn, idp: HostileProvider, raw: bytes) -> None:
    idp.raw = raw
    assert await refused(signin.begin_device("here")) is Reason.PROVIDER_UNAVAILABLE


async def test_a_redirect_is_not_followed(signin: SignIn, idp: HostileProvider) -> None:
    idp.status = 307
    assert await refused(signin.begin_device("here")) is Reason.PROVIDER_UNAVAILABLE
    assert idp.times("/device") == 1


async def test_one_source_fills_only_its_own_room(signin: SignIn, clock: ManualClock) -> None:
    for _ in range(MAX_PER_SOURCE):
        await signin.begin_device("flood")
    assert await refused(signin.begin_device("flood")) is Reason.LIMIT_REACHED
    await signin.begin_device("somebody else")
    clock.advance(600)
    await signin.begin_device("flood")


# -- ID tokens -------------------------------------------------------------------------------------------------------------

MODULUS = rsa_key().public_key().public_numbers().n.to_bytes(256, "big")

FORGED: dict[str, Callable[[HostileProvider], str]] = {
    "of another client": lambda idp: idp.id_token(aud="other"),
    "of two clients": lambda idp: idp.id_token(aud=[CLI, "other"], azp=CLI),
    "issued to another client": lambda idp: idp.id_token(azp="other"),
    "of another issuer": lambda idp: idp.id_token(iss="https://other.example"),
    "expired": lambda idp: idp.id_token(exp=1),
    "of an hour ago": lambda idp: idp.id_token(iat=int(idp.clock.now().timestamp()) - 3600),
    "of tomorrow": lambda idp: idp.id_token(iat=int(idp.clock.now().timestamp()) + 86400),
    "authenticated in the future": lambda idp: idp.id_token(auth_time=int(idp.clock.now().timestamp()) + 3600),
    "without a subject": lambda idp: idp.id_token(without="sub"),
    "with an empty subject": lambda idp: idp.id_token(sub=""),
    "with a subject that turns lines around": lambda idp: idp.id_token(sub="a\u202eb"),
    "with a number as subject": lambda idp: idp.id_token(sub=7),
    "with times as text": lambda idp: idp.id_token(exp="tomorrow"),
    "with an infinite end": lambda idp: idp.id_token(exp=float("inf")),
    "of another key": lambda idp: idp.id_token(key=rsa_key(1)),
    "signed by HMAC with the public key": lambda idp: idp.id_token(key=MODULUS, algorithm="HS256"),
    "unsigned": lambda idp: ".".join([_b64({"alg": "none", "kid": "k1"}), idp.id_token().split(".")[1], ""]),
    "an access token": lambda idp: idp.id_token(headers={"typ": "at+jwt"}),
    "a logout token": lambda idp: idp.logout_token(),
    "a logout token without its typ": lambda idp: idp.id_token(events={"x": {}}),
    "with an extension": lambda idp: idp.id_token(headers={"crit": ["x"], "x": 1}),
    "with groups elsewhere": lambda idp: idp.id_token(_claim_names={"groups": "src1"}),
    "with too many groups": lambda idp: idp.id_token(hasgroups=True),
    "with groups that are no list": lambda idp: idp.id_token(groups="sre"),
    "with a subject that stands twice": lambda idp: _twice(idp.id_token()),
    "larger than any": lambda idp: idp.id_token(padding="x" * 40_000),
    "not a token": lambda idp: "a.b.c",
}  # fmt: skip


INCOMPLETE = dict.fromkeys(("with groups elsewhere", "with too many groups"), Reason.GROUPS_INCOMPLETE)
"""An administrator can mend these at the provider, so they are told apart, as for any other token."""


def _twice(token: str) -> str:
    """Sign the claims of a token again with another subject before its own; readers differ in which one counts."""
    claims = base64.urlsafe_b64decode(token.split(".")[1] + "==")
    return jwt.api_jws.encode(
        b'{"sub":"another",' + claims[1:], rsa_key(), algorithm="RS256", headers={"kid": "k1", "typ": "JWT"}
    )


def _b64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("forged", FORGED)
async def test_an_id_token_that_breaks_a_rule_logs_nobody_in(
    signin: SignIn, idp: HostileProvider, clock: ManualClock, journal: Journal, directory: Directory, forged: str
) -> None:
    token = FORGED[forged](idp)
    flow = await signin.begin_device("here")
    idp.grant(token)
    clock.advance(5)
    with pytest.raises(InterlockError) as error:
        await signin.poll(flow.flow)
    reason = INCOMPLETE.get(forged, Reason.TOKEN_REJECTED)
    assert error.value.code is reason
    assert directory.entries() == ()
    assert token not in str(error.value) and token not in repr(journal.events)
    (noted,) = journal.of("login")
    assert (noted.fields["outcome"], noted.fields["reason"], noted.fields["source"]) == ("refused", str(reason), "here")


async def test_the_rules_let_a_good_one_pass(signin: SignIn, idp: HostileProvider, clock: ManualClock) -> None:
    """Or every refusal above would mean nothing."""
    flow = await signin.begin_device("here")
    idp.grant(idp.id_token(amr=["pwd", "hwk"], acr="urn:mfa"))
    clock.advance(5)
    opened = await signin.poll(flow.flow)
    assert isinstance(opened, Opened)
    assert (opened.principal.assurance.acr, opened.principal.assurance.amr) == ("urn:mfa", ("pwd", "hwk"))


# -- browser -----------------------------------------------------------------------------------------------------------------


async def begun(signin: SignIn, idp: HostileProvider, **claims: Any) -> tuple[str, str]:
    """Begin at the command line and have the provider give a token for it; return the flow and the state."""
    flow = await signin.begin_browser("http://127.0.0.1:5000/callback", CHALLENGE, "here")
    asked = dict(pair.split("=") for pair in flow.address.partition("?")[2].split("&"))
    assert asked["code_challenge"] == CHALLENGE and asked["code_challenge_method"] == "S256"
    idp.grant(idp.id_token(**{"nonce": asked["nonce"], **claims}))
    return flow.flow, flow.state


GOOD: dict[str, Any] = {"code": "c0de", "verifier": VERIFIER, "issuer": ISSUER, "method": "browser"}


async def test_a_browser_logs_in(signin: SignIn, idp: HostileProvider) -> None:
    flow, state = await begun(signin, idp)
    opened = await signin.finish(flow, state=state, **GOOD)
    assert opened.principal.handle == "dora"
    (form,) = [form for path, form, _ in idp.asked if path == "/token"]
    assert form == {"grant_type": "authorization_code", "code": "c0de", "code_verifier": VERIFIER, "client_id": CLI,
                    "redirect_uri": "http://127.0.0.1:5000/callback"}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "another login's"}, {"verifier": "w" * 43}, {"verifier": "short"}, {"verifier": CHALLENGE},
        {"issuer": "https://other.example"}, {"issuer": None}, {"code": "c\nd"}, {"code": ""},
    ],
)  # fmt: skip
async def test_an_answer_of_another_login_redeems_nothing(signin: SignIn, idp: HostileProvider, wrong: dict[str, Any]) -> None:
    flow, state = await begun(signin, idp)
    assert await refused(signin.finish(flow, **{"state": state, **GOOD, **wrong})) is Reason.NOT_AUTHENTICATED
    assert idp.times("/token") == 0
    # And the flow is spent: a second guess needs a second login.
    assert await refused(signin.finish(flow, state=state, **GOOD)) is Reason.NOT_AUTHENTICATED


@pytest.mark.parametrize("nonce", ["another", "", 7])
async def test_the_token_of_another_login_is_refused(signin: SignIn, idp: HostileProvider, nonce: object) -> None:
    flow, state = await begun(signin, idp, nonce=nonce)
    assert await refused(signin.finish(flow, state=state, **GOOD)) is Reason.TOKEN_REJECTED


async def test_the_verifier_must_be_the_one_that_began(signin: SignIn) -> None:
    for challenge in ("", VERIFIER[:20], hashlib.sha256(VERIFIER.encode()).hexdigest(), CHALLENGE + "="):
        assert await refused(signin.begin_browser("http://127.0.0.1:5000/callback", challenge, "here"))


async def test_the_consoles_secret_goes_to_the_token_endpoint_alone(signin: SignIn, idp: HostileProvider) -> None:
    flow, verifier = await signin.begin_console("https://gw.example/console/login/oidc/callback", "here", again=False)
    nonce = dict(pair.split("=") for pair in flow.address.partition("?")[2].split("&"))["nonce"]
    idp.grant(idp.id_token(aud=WEB, nonce=nonce))
    await signin.finish(flow.flow, state=flow.state, code="c", verifier=verifier, issuer=ISSUER, method="console")
    for path, form, headers in idp.asked:
        assert ("authorization" in headers) == (path == "/token")
        assert "client_secret" not in form
    basic = next(headers["authorization"] for path, _, headers in idp.asked if path == "/token")
    # RFC 6749 §2.3.1: both are form-encoded before they are joined.
    assert base64.b64decode(basic.removeprefix("Basic ")) == b"interlock-web:the%20web%27s%20secret%3A%20%C3%BC%26"


# -- the end -------------------------------------------------------------------------------------------------------------------


async def logged_in(signin: SignIn, idp: HostileProvider, clock: ManualClock, **claims: Any) -> Opened:
    flow = await signin.begin_device("here")
    idp.grant(idp.id_token(**claims))
    clock.advance(flow.interval)
    opened = await signin.poll(flow.flow)
    assert isinstance(opened, Opened)
    return opened


async def test_a_logout_ends_the_session_it_names_and_no_other(
    signin: SignIn, idp: HostileProvider, clock: ManualClock, logins: Logins
) -> None:
    one = await logged_in(signin, idp, clock)
    two = await logged_in(signin, idp, clock, sid="s2")
    other = await logged_in(signin, idp, clock, sub="00u2", sid="s3")
    assert await signin.log_out(idp.logout_token(without="sub")) == 1
    assert await refused(_resolved(logins, one)) is Reason.TOKEN_REJECTED
    assert logins.resolve(two.secret.reveal()).handle == "dora"
    assert await signin.log_out(idp.logout_token(without="sid")) == 1
    assert await refused(_resolved(logins, two)) is Reason.TOKEN_REJECTED
    assert await signin.log_out(idp.logout_token(sub="00u1", sid="s3")) == 0  # both must fit
    assert logins.resolve(other.secret.reveal())


async def test_a_logout_that_comes_twice_ends_no_login_that_began_after_it(
    signin: SignIn, idp: HostileProvider, clock: ManualClock, logins: Logins
) -> None:
    """Whoever captured a logout token could keep a person out with it, for as long as it is valid."""
    before = await logged_in(signin, idp, clock)
    captured = idp.logout_token()
    assert await signin.log_out(captured) == 1
    clock.advance(60)
    again = await logged_in(signin, idp, clock)
    assert await signin.log_out(captured) == 0
    assert logins.resolve(again.secret.reveal()).handle == "dora"
    assert await refused(_resolved(logins, before)) is Reason.TOKEN_REJECTED
    assert await signin.log_out(idp.logout_token()) == 1


async def _resolved(logins: Logins, opened: Opened) -> None:
    logins.resolve(opened.secret.reveal())


NO_LOGOUT: dict[str, Callable[[HostileProvider], str]] = {
    "an ID token": lambda idp: idp.id_token(),
    "with a nonce": lambda idp: idp.logout_token(nonce="n"),
    "for another": lambda idp: idp.logout_token(aud="other"),
    "of nobody": lambda idp: idp.id_token(
        headers={"typ": "logout+jwt"}, events={"http://schemas.openid.net/event/backchannel-logout": {}}, jti="j", sub=None,
        sid=None,
    ),
    "without an event": lambda idp: idp.logout_token(events={}),
    "with an event of another kind": lambda idp: idp.logout_token(events={"http://other": {}}),
    "of an hour ago": lambda idp: idp.logout_token(iat=int(idp.clock.now().timestamp()) - 3600),
    "of another key": lambda idp: idp.logout_token(key=rsa_key(1)),
    "without an id": lambda idp: idp.logout_token(without="jti"),
}  # fmt: skip


@pytest.mark.parametrize("forged", NO_LOGOUT)
async def test_what_is_no_logout_token_ends_nothing(
    signin: SignIn, idp: HostileProvider, clock: ManualClock, logins: Logins, forged: str
) -> None:
    opened = await logged_in(signin, idp, clock)
    assert await refused(signin.log_out(NO_LOGOUT[forged](idp))) is Reason.TOKEN_REJECTED
    assert logins.resolve(opened.secret.reveal())


async def test_the_name_at_the_provider_opens_nobodys_account(
    signin: SignIn, idp: HostileProvider, clock: ManualClock, directory: Directory
) -> None:
    """A local Dora has rights; whoever calls themselves so at the provider is somebody else until an administrator links them."""
    local = await directory.add("dora", Kind.HUMAN, groups=["sre"], passphrase="correct horse battery")
    stranger = await logged_in(signin, idp, clock, email="dora@corp.example")
    assert (stranger.principal.handle, stranger.principal.groups) == ("dora-2", {"dba"})
    assert stranger.principal.identity != local.identity
    await directory.unlink("dora-2", next(iter(stranger.principal.linked)))
    await directory.link("dora", next(iter(stranger.principal.linked)))
    linked = await logged_in(signin, idp, clock)
    assert (linked.principal.handle, linked.principal.groups) == ("dora", {"dba", "sre"})
    assert linked.principal.identity == local.identity  # its history goes on


@pytest.mark.parametrize("name", ["jwt-abc", "../etc", "", "Ünïcode", "-", "a b;c", "x" * 200, "root@evil\n"])
async def test_a_handle_is_always_one(
    signin: SignIn, idp: HostileProvider, clock: ManualClock, directory: Directory, name: str
) -> None:
    opened = await logged_in(signin, idp, clock, preferred_username=name)
    assert directory.by_handle(opened.principal.handle) is not None
    assert not opened.principal.handle.startswith("jwt-")
