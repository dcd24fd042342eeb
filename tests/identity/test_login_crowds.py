"""Crowds at the login: from one place and from many, before a provider that is slow or silent, and who leaves in the middle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import httpx
import pytest
from fastapi import FastAPI

from harness.change_journal import Journal, seeded
from harness.clock import ManualClock
from harness.entrance import issuance_over, logins_over, public_line
from harness.hostile_provider import CLI, ISSUER, HostileProvider
from harness.webserver import serving
from interlock.errors import AuthenticationError, InterlockError, OverloadedError, Reason
from interlock.identity.asking import AskingError
from interlock.identity.authenticate import Authenticator
from interlock.identity.directory import Directory
from interlock.identity.flows import MAX_FLOWS
from interlock.identity.idtoken import IdTokens
from interlock.identity.issuance import Issuance
from interlock.identity.keyset import KeySet
from interlock.identity.logins import Logins, Opened
from interlock.identity.provider import Provider, ProviderClient
from interlock.identity.signin import MAX_BROWSERS, BrowserFlow, Clients, Pending, SignIn, challenge_of
from interlock.identity.stepup import DecisionSessions
from interlock.identity.turnstile import Turnstile
from interlock.store.engine import Store
from interlock.web import problems
from interlock.web.access import Doorkeeper
from interlock.web.login import login_router
from interlock.web.whereabouts import Whereabouts

VERIFIER = "v" * 43
CHALLENGE = challenge_of(VERIFIER)
HERE = "http://127.0.0.1:4711/callback"
INSIDE, WAITING = 2, 3


@pytest.fixture
async def idp(clock: ManualClock) -> AsyncIterator[HostileProvider]:
    made = HostileProvider(clock)
    yield made
    made.open.set()
    await made.http.aclose()


@pytest.fixture
async def logins(directory: Directory, store: Store, clock: ManualClock, journal: Journal) -> AsyncIterator[Logins]:
    made = logins_over(directory, store.logins, clock=clock, journal=journal)
    yield made
    await made.close()


@pytest.fixture
def issuance(tmp_path: Path, logins: Logins, directory: Directory, clock: ManualClock, journal: Journal) -> Issuance:
    return issuance_over(tmp_path, logins, directory, clock=clock, journal=journal)


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile(at_once=INSIDE, waiting=WAITING)


@pytest.fixture
async def signin(idp: HostileProvider, logins: Logins, clock: ManualClock, turnstile: Turnstile) -> SignIn:
    keys = KeySet(ISSUER, jwks_url=None, clock=clock, client=lambda: idp.http)
    tokens = IdTokens(idp.config, keys, clock=clock, handle_claim="preferred_username")
    cli = ProviderClient(CLI)
    provider = Provider(ISSUER, clock=clock, asking=idp)
    made = SignIn(
        provider, tokens, logins, Clients("openid", cli, cli), clock=clock, entropy=seeded("crowd"), turnstile=turnstile
    )
    await provider.metadata()
    return made


async def begun(signin: SignIn, source: str = "here") -> BrowserFlow:
    return await signin.begin_browser(HERE, CHALLENGE, source)


def confirmed(idp: HostileProvider, flow: BrowserFlow) -> None:
    nonce = dict(pair.split("=") for pair in flow.address.partition("?")[2].split("&"))["nonce"]
    idp.grant(idp.id_token(nonce=nonce))


async def finish(signin: SignIn, flow: BrowserFlow) -> Opened:
    return await signin.finish(flow.flow, state=flow.state, code="c", verifier=VERIFIER, issuer=ISSUER, method="browser")


async def crowd(signin: SignIn, idp: HostileProvider, many: int) -> list[tuple[BrowserFlow, asyncio.Task[Opened]]]:
    """Let that many come back while the provider says nothing, until all that can ask have asked."""
    idp.open.clear()
    flows = [await begun(signin, f"source-{n}") for n in range(many)]
    tasks = [(flow, asyncio.ensure_future(finish(signin, flow))) for flow in flows]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


async def test_a_slow_provider_is_asked_by_few_the_rest_waits_and_who_is_too_many_loses_nothing(
    signin: SignIn, idp: HostileProvider, turnstile: Turnstile
) -> None:
    tasks = await crowd(signin, idp, 8)
    assert idp.times("/token") == INSIDE and turnstile._waiting == WAITING
    sent_away = [(flow, task) for flow, task in tasks if task.done()]
    assert len(sent_away) == 8 - INSIDE - WAITING
    for _, task in sent_away:
        assert isinstance(task.exception(), OverloadedError)
    idp.open.set()
    # One answer serves all: the token of one login is nobody else's.
    confirmed(idp, tasks[0][0])
    done = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
    assert [type(one) for one in done[: INSIDE + WAITING]] == [Opened] + [AuthenticationError] * (INSIDE + WAITING - 1)
    for flow, _ in sent_away:
        confirmed(idp, flow)
        assert isinstance(await finish(signin, flow), Opened)
    assert (turnstile._inside, turnstile._waiting, len(signin._flows)) == (0, 0, 0)


async def test_a_provider_that_never_answers_costs_those_who_asked_and_nobody_after_them(
    signin: SignIn, idp: HostileProvider, turnstile: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = idp.ask

    async def never(*_: object, **__: object) -> object:
        await idp.open.wait()
        raise AskingError("TimeoutError")

    monkeypatch.setattr(idp, "ask", never)
    tasks = await crowd(signin, idp, INSIDE + WAITING)
    idp.open.set()
    for _, task in tasks:
        with pytest.raises(InterlockError) as refused:
            await task
        assert refused.value.code is Reason.PROVIDER_UNAVAILABLE
    monkeypatch.setattr(idp, "ask", answer)
    flow = await begun(signin)
    confirmed(idp, flow)
    assert isinstance(await finish(signin, flow), Opened)
    assert (turnstile._inside, turnstile._waiting) == (0, 0)


async def test_who_leaves_gives_way_and_who_left_while_waiting_may_come_back(
    signin: SignIn, idp: HostileProvider, turnstile: Turnstile
) -> None:
    tasks = await crowd(signin, idp, INSIDE + WAITING)
    (_, asking), (later, waiting) = tasks[0], tasks[INSIDE]
    asking.cancel()
    waiting.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert idp.times("/token") == INSIDE + 1 and turnstile._waiting == WAITING - 2
    idp.open.set()
    await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
    confirmed(idp, later)
    assert isinstance(await finish(signin, later), Opened)
    assert (turnstile._inside, turnstile._waiting, len(signin._flows)) == (0, 0, 0)


async def test_who_waits_twice_for_one_login_is_let_in_once(signin: SignIn, idp: HostileProvider) -> None:
    await crowd(signin, idp, INSIDE)
    flow = await begun(signin)
    confirmed(idp, flow)
    twins = [asyncio.ensure_future(finish(signin, flow)) for _ in range(2)]
    await asyncio.sleep(0)
    idp.open.set()
    done = await asyncio.gather(*twins, return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["AuthenticationError", "Opened"]


async def test_an_answer_to_nothing_takes_nobodys_turn(signin: SignIn, idp: HostileProvider, turnstile: Turnstile) -> None:
    await crowd(signin, idp, INSIDE)
    flow = await begun(signin)
    wrong = ({"flow": "x" * 43, "state": "s"}, {"flow": flow.flow, "state": "another's"})
    for said in wrong:  # refused at once: neither waits for a turn
        with pytest.raises(AuthenticationError):
            await signin.finish(**said, code="c", verifier=VERIFIER, issuer=ISSUER, method="browser")
    assert turnstile._waiting == 0


async def test_a_code_is_asked_for_again_when_there_is_room(signin: SignIn, idp: HostileProvider, clock: ManualClock) -> None:
    device = await signin.begin_device("here")
    clock.advance(5)
    tasks = await crowd(signin, idp, INSIDE + WAITING)
    asked = idp.times("/token")
    assert await signin.poll(device.flow) == Pending(5)  # not slower: that it was not asked is our own affair
    with pytest.raises(OverloadedError):
        await signin.begin_device("here")
    assert signin._flows.held("here") == 1 and idp.times("/token") == asked
    idp.open.set()
    await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
    idp.grant(idp.id_token())
    clock.advance(5)
    assert isinstance(await signin.poll(device.flow), Opened)


async def test_one_place_begins_so_many_and_no_more(signin: SignIn, idp: HostileProvider) -> None:
    for _ in range(MAX_BROWSERS):
        await begun(signin, "flood")
    with pytest.raises(InterlockError) as refused:
        await begun(signin, "flood")
    assert refused.value.code is Reason.LIMIT_REACHED
    flow = await begun(signin, "dora")
    confirmed(idp, flow)
    assert isinstance(await finish(signin, flow), Opened)
    assert idp.times("/device") == 0  # nothing of it reached the provider


async def test_many_places_fill_the_table_and_keep_nobody_out(signin: SignIn, idp: HostileProvider) -> None:
    async def bots(tries: int) -> None:
        for number in range(tries):
            with contextlib.suppress(InterlockError):  # once the table is full, none of them gets more than the others have
                await begun(signin, f"bot-{number % 200}")

    await bots(MAX_FLOWS + 400)
    assert len(signin._flows) == MAX_FLOWS
    flow = await begun(signin, "dora")
    await bots(400)
    confirmed(idp, flow)
    assert isinstance(await finish(signin, flow), Opened)
    assert len(signin._flows) <= MAX_FLOWS


async def test_over_http_who_is_too_many_hears_when_to_come_back(
    signin: SignIn, idp: HostileProvider, logins: Logins, issuance: Issuance, authenticator: Authenticator,
    decisions: DecisionSessions,
) -> None:  # fmt: skip
    app = FastAPI()
    problems.install(app)
    where = Whereabouts("", None, None, "", "", False)
    app.include_router(login_router(signin, logins, issuance, where, Doorkeeper(authenticator, decisions, local=False)))
    key = public_line(asyncssh.generate_private_key("ssh-ed25519"))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        began = (await http.post("/v1/login/browser", json={"port": 4711, "challenge": CHALLENGE})).json()
        flow = BrowserFlow(began["flow"], began["address"], began["state"])
        answer = {"flow": flow.flow, "state": flow.state, "code": "c", "verifier": VERIFIER, "iss": ISSUER}
        tasks = await crowd(signin, idp, INSIDE + WAITING)
        refused = await http.post("/v1/login/browser/finish", json={**answer, "public_key": key})
        assert (refused.status_code, refused.json()["reason"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "5"
        idp.open.set()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        confirmed(idp, flow)
        # A key that is none is found before anything is redeemed for it.
        bad = await http.post("/v1/login/browser/finish", json={**answer, "public_key": "ssh-ed25519 AAAA"})
        assert bad.status_code == 422
        done = await http.post("/v1/login/browser/finish", json={**answer, "public_key": key})
        assert done.status_code == 200, done.text
        certificate = asyncssh.import_certificate(done.json()["certificate"]["certificate"])
        assert list(certificate.principals) == [f"interlock:{done.json()['identity'].partition(':')[2]}"]
        assert public_line(certificate.key) == key
