"""A key-set server over real TLS that is slow, down, rotating or lying: nothing is believed, and the loop never stands still."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from harness.authority import Authority, Pair
from harness.change_journal import Journal
from harness.clock import ManualClock
from harness.issuer import FakeIssuer, public_jwk, rsa_key
from interlock.config import Issuer, parse
from interlock.entrance import open_entrance
from interlock.errors import AuthenticationError, ConfigError, Reason
from interlock.identity import keyset
from interlock.identity.directory import Directory
from interlock.identity.keyset import MAX_BODY, RETRY_S, STALE_S, UNKNOWN_KID_S, KeySet
from interlock.identity.logouts import Logouts
from interlock.identity.oidc import TokenVerifier
from interlock.store.engine import Store


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("idp"))


def context(pair: Pair) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.certificate, pair.key)
    return made


@pytest.fixture
async def issuer(ca: Authority) -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer(context(ca.server("127.0.0.1"))) as opened:
        yield opened


@pytest.fixture
async def http(ca: Authority) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=ssl.create_default_context(cafile=ca.file)) as client:
        yield client


@pytest.fixture
def keys(issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient) -> KeySet:
    return KeySet(issuer.issuer, jwks_url=None, clock=clock, client=lambda: http)


async def unavailable(keys: KeySet, kid: str = "k1") -> None:
    with pytest.raises(AuthenticationError) as caught:
        await keys.find(kid, "RS256")
    assert caught.value.code is Reason.ISSUER_UNAVAILABLE


class TestTrust:
    async def test_a_certificate_that_is_trusted_for_this_name(self, keys: KeySet, issuer: FakeIssuer) -> None:
        assert (await keys.find("k1", "RS256")).kid == "k1"
        assert issuer.issuer.startswith("https:")

    async def test_another_name_another_authority_and_one_that_is_over(
        self, ca: Authority, clock: ManualClock, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        for pair in (
            ca.server("idp.example"), Authority(tmp_path, "stranger").server("127.0.0.1"),
            ca.server("127.0.0.1", life=-timedelta(hours=1)),
        ):  # fmt: skip
            async with FakeIssuer(context(pair)) as liar:
                await unavailable(KeySet(liar.issuer, jwks_url=None, clock=clock, client=lambda: http))
                assert liar.requests == []

    async def test_the_configured_authority_alone_is_trusted(
        self, issuer: FakeIssuer, ca: Authority, clock: ManualClock, tmp_path: Path
    ) -> None:
        def pinned(file: Path | None) -> Issuer:
            return Issuer(name="idp", issuer=issuer.issuer, audience="interlock", ca=file)

        now = int(clock.now().timestamp())
        token = issuer.token({"iss": issuer.issuer, "aud": "interlock", "sub": "u", "jti": "j", "iat": now, "exp": now + 60})
        for file, accepted in ((ca.file, True), (None, False), (Authority(tmp_path, "other").file, False)):
            verifier = TokenVerifier([pinned(file)], clock=clock)
            if accepted:
                assert (await verifier.verify(token)).identity.subject == "u"
            else:
                with pytest.raises(AuthenticationError):
                    await verifier.verify(token)
            await verifier.close()
        with pytest.raises(ConfigError, match="ca"):
            TokenVerifier([pinned(tmp_path / "missing.pem")], clock=clock)

    async def test_people_log_in_by_the_keys_of_the_configured_authority(
        self, issuer: FakeIssuer, ca: Authority, clock: ManualClock, directory: Directory, store: Store, journal: Journal,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        (tmp_path / "keys").mkdir(mode=0o700, exist_ok=True)
        for file, trusted in ((ca.file, True), (Authority(tmp_path, "other").file, False)):
            config = parse(
                {
                    "version": 1, "node": {"data_dir": str(tmp_path)},
                    "identity": {
                        "issuers": [{"name": "idp", "issuer": issuer.issuer, "audience": "interlock", "ca": str(file)}],
                        "login": {"issuer": "idp", "cli": {"client_id": "cli"}},
                    },
                },
                base=tmp_path,
            )  # fmt: skip
            entrance = await open_entrance(
                config, tmp_path, store.logins, directory, journal=journal, clock=clock, entropy=bytes,
                logouts=Logouts(store.logouts, oldest={}, clock=clock, journal=journal),
            )  # fmt: skip
            assert entrance.signin is not None
            keys = entrance.signin._tokens._keys
            if trusted:
                assert (await keys.find("k1", "RS256")).kid == "k1"
            else:
                await unavailable(keys)
            await entrance.close()


class TestSlow:
    async def test_a_body_that_never_ends_is_cut_by_size(self, keys: KeySet, issuer: FakeIssuer) -> None:
        issuer.drip = True
        issuer.headers = "X: y\r\n"
        issuer.discovery = {"padding": "x" * (MAX_BODY + 10)}  # so that its length allows as much
        await unavailable(keys)

    async def test_silence_is_cut_by_time_and_others_log_in_meanwhile(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await keys.find("k1", "RS256")
        issuer.gate.clear()
        monkeypatch.setattr(keyset, "TIMEOUT_S", 0.05)
        clock.advance(3600)
        # The old keys are used once the fetch was given up, and nobody waits for a second one.
        assert (await keys.find("k1", "RS256")).kid == "k1"
        before = issuer.connections
        assert (await keys.find("k1", "RS256")).kid == "k1"
        assert issuer.connections == before

    async def test_the_loop_turns_all_the_while(self, keys: KeySet, issuer: FakeIssuer) -> None:
        """Counted, not timed: between the question and its answer the loop goes round as often as somebody asks it to."""
        issuer.gate.clear()
        issuer.keys = [public_jwk(rsa_key(), f"k{number}") for number in range(90)]
        waiting = [asyncio.ensure_future(keys.find(f"k{number}", "RS256")) for number in range(90)]
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while not all(task.done() for task in waiting):
                turns += 1
                if turns == 200:
                    issuer.gate.set()
                await asyncio.sleep(0)

        await turning()
        assert turns > 200
        assert {key.kid for key in await asyncio.gather(*waiting)} == {f"k{number}" for number in range(90)}

    async def test_keys_are_read_beside_the_loop(self, keys: KeySet, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reading a hundred keys takes milliseconds: while it does, other tasks go on."""
        turned, read = threading.Event(), keyset._parse
        began, loop = asyncio.Event(), asyncio.get_running_loop()

        def slow(body: bytes) -> Any:
            loop.call_soon_threadsafe(began.set)
            assert turned.wait(30), "the loop stood still while keys were read"
            return read(body)

        monkeypatch.setattr(keyset, "_parse", slow)
        waiting = asyncio.ensure_future(keys.find("k1", "RS256"))
        await began.wait()
        turned.set()
        assert (await waiting).kid == "k1"


class TestDown:
    async def test_old_keys_for_a_while_and_then_closed_and_back(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        await keys.find("k1", "RS256")
        issuer.status = 500
        clock.advance(3600)
        assert await keys.find("k1", "RS256")
        clock.advance(STALE_S - 1)
        assert await keys.find("k1", "RS256")
        clock.advance(1)
        await unavailable(keys)
        issuer.status = 200
        clock.advance(RETRY_S)
        assert await keys.find("k1", "RS256")


class TestRotating:
    async def test_the_new_key_at_once_and_the_old_one_while_it_is_published(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        await keys.find("k1", "RS256")
        issuer.keys = [public_jwk(rsa_key(), "k1"), public_jwk(rsa_key(1), "k2")]
        found = await asyncio.gather(*(keys.find("k2", "RS256") for _ in range(20)))
        assert {key.kid for key in found} == {"k2"}
        assert issuer.key_fetches == 2
        issuer.keys = issuer.keys[1:]
        clock.advance(3600)
        with pytest.raises(AuthenticationError) as caught:
            await keys.find("k1", "RS256")
        assert caught.value.code is Reason.TOKEN_REJECTED

    async def test_a_key_whose_name_stays_is_the_new_one_after_a_while(
        self, keys: KeySet, issuer: FakeIssuer, clock: ManualClock
    ) -> None:
        first = (await keys.find("k1", "RS256")).public.public_numbers()
        issuer.keys = [public_jwk(rsa_key(1), "k1")]
        clock.advance(3600)
        assert (await keys.find("k1", "RS256")).public.public_numbers() != first

    async def test_one_issuer_s_made_up_kids_cost_another_nothing(
        self, keys: KeySet, issuer: FakeIssuer, ca: Authority, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        async with FakeIssuer(context(ca.server("127.0.0.1"))) as second:
            other = KeySet(second.issuer, jwks_url=None, clock=clock, client=lambda: http)
            await asyncio.gather(keys.find("k1", "RS256"), other.find("k1", "RS256"))
            for number in range(20):
                with pytest.raises(AuthenticationError):
                    await keys.find(f"x{number}", "RS256")
            assert (issuer.key_fetches, second.key_fetches) == (2, 1)
            second.keys.append(public_jwk(rsa_key(1), "k2"))
            assert (await other.find("k2", "RS256")).kid == "k2"
            clock.advance(UNKNOWN_KID_S)


class TestLying:
    async def test_a_compressed_answer_is_not_unpacked(
        self, issuer: FakeIssuer, clock: ManualClock, http: httpx.AsyncClient
    ) -> None:
        """A kilobyte may hold a gigabyte, so not even one that holds the right keys is."""
        issuer.raw_keys = gzip.compress(json.dumps({"keys": issuer.keys}).encode())
        issuer.headers = "Content-Encoding: gzip\r\n"
        await unavailable(KeySet(issuer.issuer, jwks_url=f"{issuer.issuer}/keys", clock=clock, client=lambda: http))

    async def test_a_redirect_leads_nowhere(self, keys: KeySet, issuer: FakeIssuer) -> None:
        async with FakeIssuer() as elsewhere:
            issuer.redirect_to = elsewhere.issuer
            await unavailable(keys)
            assert elsewhere.connections == 0

    async def test_discovery_that_names_plain_http(self, keys: KeySet, issuer: FakeIssuer) -> None:
        async with FakeIssuer() as plain:
            issuer.discovery = {"jwks_uri": plain.issuer + "/keys"}
            await unavailable(keys)
            assert plain.connections == 0

    async def test_headers_without_end(self, keys: KeySet, issuer: FakeIssuer) -> None:
        issuer.headers = "X: " + "y" * 200_000 + "\r\n"
        await unavailable(keys)

    @pytest.mark.parametrize("change", [{"e": "huge"}, {"n": "huge"}])
    async def test_a_key_that_is_made_to_be_slow(self, keys: KeySet, issuer: FakeIssuer, change: dict[str, str]) -> None:
        good = public_jwk(rsa_key(), "k1")
        slow = {"e": good["n"], "n": "y" * 12_000 + "Q"}
        issuer.keys = [{**good, **{name: slow[name] for name in change}}]
        await unavailable(keys)

    async def test_the_log_has_no_part_of_an_answer(self, keys: KeySet, issuer: FakeIssuer) -> None:
        issuer.raw_keys = b'{"keys": "a secret that a broken proxy echoes"}'
        with capture_logs() as logs:
            await unavailable(keys)
        assert [entry["event"] for entry in logs] == ["keyset.fetch_failed"]
        assert "echoes" not in repr(logs)
