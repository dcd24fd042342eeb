"""Where logins to targets come from: each source gives what it should, fails closed, and shows nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.clock import ManualClock
from harness.vault import FakeVault, kv1, kv2, lease, running_vault
from interlock.config import Config, parse
from interlock.errors import ConfigError, Reason, TargetError
from interlock.postgres.credentials.kept import MARGIN_S, Kept
from interlock.postgres.credentials.login import Login, Provider
from interlock.postgres.credentials.sigv4 import Keys, presigned, signing_key
from interlock.postgres.credentials.source import Providers

SECRET = "hunter2-hunter2"


def configured(folder: Path, credentials: dict[str, Any], **more: Any) -> Config:
    target = {
        "name": "orders", "protocol": "postgres", "address": "orders.abc.eu-central-1.rds.amazonaws.com:5432", "database": "app",
        "role": "app ro+x", "credentials": credentials,
    }  # fmt: skip
    return parse({"version": 1, "node": {"data_dir": "data"}, "targets": [target], **more}, base=folder)


@pytest.fixture
async def opened() -> AsyncIterator[list[Providers]]:
    made: list[Providers] = []
    yield made
    for providers in made:
        await providers.close()


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with running_vault() as running:
        yield running


class Source:
    """The provider of one target, on a clock that the test moves."""

    def __init__(self, opened: list[Providers], folder: Path, credentials: dict[str, Any], **more: Any) -> None:
        self.clock = ManualClock()
        config = configured(folder, credentials, **more)
        providers = Providers(config, clock=self.clock)
        opened.append(providers)
        self.provider: Provider = providers.of(config.targets[0])

    async def login(self, role: str = "app ro+x") -> Login:
        return await self.provider.login(role)

    async def refused(self, role: str = "app ro+x") -> str:
        with pytest.raises(TargetError) as caught:
            await self.provider.login(role)
        assert caught.value.code is Reason.TARGET_CREDENTIAL
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return str(caught.value)


def password(login: Login) -> str:
    assert login.password is not None
    return login.password.reveal()


# -- environment and files ---------------------------------------------------------------------------------------------


async def test_a_file_is_read_anew_each_time(opened: list[Providers], tmp_path: Path) -> None:
    source = Source(opened, tmp_path, {"kind": "password", "from": "file:pw"})
    (tmp_path / "pw").write_text("one\n")
    assert password(await source.login()) == "one"
    (tmp_path / "pw").write_text("two\n")
    assert password(await source.login()) == "two"
    (tmp_path / "pw").unlink()
    assert "can't be read: No such file or directory" in await source.refused()


async def test_the_environment(opened: list[Providers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(opened, tmp_path, {"kind": "password", "from": "env:ORDERS_PW"})
    monkeypatch.setenv("ORDERS_PW", SECRET)
    login = await source.login()
    assert password(login) == SECRET and SECRET not in repr(login) and not login.clear
    monkeypatch.delenv("ORDERS_PW")
    assert "ORDERS_PW is not set" in await source.refused()


# -- Vault -------------------------------------------------------------------------------------------------------------


def from_vault(opened: list[Providers], folder: Path, vault: FakeVault, path: str, kind: str = "password", **more: Any) -> Source:
    (folder / "token").write_text(vault.token + "\n")
    settings = {"address": vault.url, "token": "file:token", **more}
    return Source(opened, folder, {"kind": kind, "from": f"vault:{path}"}, vault=settings)


@pytest.mark.parametrize("answer", [kv2(password=SECRET, user="x"), kv1(password=SECRET)], ids=["version 2", "version 1"])
async def test_a_secret_that_lies_in_vault(opened: list[Providers], tmp_path: Path, vault: FakeVault, answer: Any) -> None:
    vault.paths["secret/data/orders"] = answer
    source = from_vault(opened, tmp_path, vault, "secret/data/orders#password", namespace="team-a")
    assert [password(await source.login()) for _ in range(3)] == [SECRET] * 3
    assert vault.asked == ["secret/data/orders"] and vault.namespaces == ["team-a"]
    source.clock.advance(60)
    await source.login()
    assert len(vault.asked) == 2


async def test_a_role_that_vault_makes_is_kept_until_shortly_before_its_end(
    opened: list[Providers], tmp_path: Path, vault: FakeVault
) -> None:
    vault.paths["database/creds/ro"] = lambda: lease(3600, username=f"v-{len(vault.asked)}", password=SECRET)
    source = from_vault(opened, tmp_path, vault, "database/creds/ro", "vault-database")
    assert (await source.login()).role == "v-1"
    source.clock.advance(3600 - MARGIN_S - 1)
    assert (await source.login()).role == "v-1"
    source.clock.advance(1)
    assert (await source.login()).role == "v-2"
    assert "no other one can be asked for" in await source.refused("somebody")


async def test_a_static_role_holds_until_vault_changes_its_password(
    opened: list[Providers], tmp_path: Path, vault: FakeVault
) -> None:
    data: dict[str, Any] = {"username": "app", "password": SECRET, "ttl": 100, "rotation_period": 86400}
    vault.paths["database/static-creds/app"] = 200, {"lease_duration": 0, "data": data}
    source = from_vault(opened, tmp_path, vault, "database/static-creds/app", "vault-database")
    assert (await source.login()).role == "app"
    source.clock.advance(89)
    await source.login()
    assert len(vault.asked) == 1
    source.clock.advance(1)
    await source.login()
    assert len(vault.asked) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((403, {"errors": [SECRET]}), "does not let our token read it"),
        ((404, {"errors": []}), "nothing at this path"),
        ((503, {"errors": ["Vault is sealed"]}), "sealed"),
        ((500, SECRET.encode()), "Vault refused (500)"),
        ((307, b""), "Vault refused (307)"),
        ((200, SECRET.encode()), "no secret"),
        ((200, b"[" * 100_000), "no secret"),
        ((200, {"data": [SECRET]}), "no secret"),
        ((200, {"data": None}), "no secret"),
        ((200, {"data": {"data": {"other": SECRET}, "metadata": {}}}), "holds no text 'password'"),
        ((200, {"data": {"data": {"password": 7}, "metadata": {}}}), "holds no text 'password'"),
        ((200, {"data": {"data": {"password": ""}, "metadata": {}}}), "holds no text 'password'"),
        ((200, {"data": {"data": {"password": SECRET + "\0"}, "metadata": {}}}), "holds no text 'password'"),
        ((200, b"x" * 300_000), "too large"),
    ],
)  # fmt: skip
async def test_an_answer_of_vault_that_is_no_secret_fails_closed(
    opened: list[Providers], tmp_path: Path, vault: FakeVault, caplog: pytest.LogCaptureFixture, answer: Any, says: str
) -> None:
    caplog.set_level(logging.DEBUG)
    vault.paths["secret/data/orders"] = kv2(password="the old one")
    source = from_vault(opened, tmp_path, vault, "secret/data/orders#password")
    await source.login()
    vault.paths["secret/data/orders"] = answer
    source.clock.advance(61)
    said = await source.refused()
    assert says in said and "vault:secret/data/orders" in said
    # What was kept is over: neither this error nor the next one is answered with it.
    assert says in await source.refused()
    for secret in (SECRET, vault.token, "the old one"):
        assert secret not in said + caplog.text
    assert "elsewhere" not in vault.asked


async def test_vault_is_down_or_our_token_is_gone(opened: list[Providers], tmp_path: Path, vault: FakeVault) -> None:
    vault.paths["secret/data/orders"] = kv2(password=SECRET)
    source = from_vault(opened, tmp_path, vault, "secret/data/orders#password")
    (tmp_path / "token").write_text("hvs.of-somebody-else")
    said = await source.refused()
    assert "(403)" in said and "somebody-else" not in said
    (tmp_path / "token").unlink()
    assert "token can't be read" in await source.refused()
    (tmp_path / "token").write_text(vault.token)
    assert password(await source.login()) == SECRET  # a renewed token is taken without a restart
    down = Source(
        opened, tmp_path, {"kind": "password", "from": "vault:secret/data/orders#password"},
        vault={"address": "http://127.0.0.1:9", "token": "file:token"},
    )  # fmt: skip
    assert "Vault does not answer (ConnectError)" in await down.refused()


async def test_a_certificate_of_vault_that_can_not_be_read_stops_the_start(opened: list[Providers], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vault\.ca can't be read"):
        Source(
            opened, tmp_path, {"kind": "password", "from": "vault:secret/data/orders#password"},
            vault={"address": "https://vault.example", "token": "file:token", "ca": "none.pem"},
        )  # fmt: skip


async def test_a_refused_login_is_fetched_anew(opened: list[Providers], tmp_path: Path, vault: FakeVault) -> None:
    vault.paths["secret/data/orders"] = kv2(password="one")
    source = from_vault(opened, tmp_path, vault, "secret/data/orders#password")
    assert not source.provider.forget()
    assert password(await source.login()) == "one"
    vault.paths["secret/data/orders"] = kv2(password="two")
    assert source.provider.forget()
    assert password(await source.login()) == "two"


# -- what is kept ------------------------------------------------------------------------------------------------------


async def test_one_fetch_at_a_time_whoever_leaves() -> None:
    clock, begun, go, fetches = ManualClock(), asyncio.Event(), asyncio.Event(), []

    async def fetch() -> tuple[str, float]:
        fetches.append(True)
        begun.set()
        await go.wait()
        return "value", 3600

    kept = Kept(fetch, clock=clock)
    first, others = asyncio.ensure_future(kept.get()), [asyncio.ensure_future(kept.get()) for _ in range(5)]
    await begun.wait()
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*others) == ["value"] * 5 and len(fetches) == 1


async def test_its_life_is_counted_from_before_it_was_asked_for() -> None:
    clock = ManualClock()

    async def slow() -> tuple[int, float]:
        clock.advance(50)
        return 1, 100

    fetched: list[int] = []

    async def fetch() -> tuple[int, float]:
        fetched.append(1)
        return await slow()

    kept = Kept(fetch, clock=clock)
    await kept.get()
    clock.advance(39)
    await kept.get()
    assert len(fetched) == 1
    clock.advance(1)
    await kept.get()
    assert len(fetched) == 2


async def test_nothing_older_is_given_when_a_fetch_fails() -> None:
    clock, answers = ManualClock(), [("value", 100.0)]

    async def fetch() -> tuple[str, float]:
        if not answers:
            raise TargetError("no", reason=Reason.TARGET_CREDENTIAL)
        return answers.pop()

    kept = Kept(fetch, clock=clock)
    assert await kept.get() == "value"
    clock.advance(95)  # within the margin: it has not ended yet, and is not begun with either
    for _ in range(2):
        with pytest.raises(TargetError):
            await kept.get()


# -- AWS ---------------------------------------------------------------------------------------------------------------

EXAMPLE = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
"""The secret access key of AWS's documentation."""


def test_the_signing_key_of_awss_own_example() -> None:
    """ "Examples of how to derive a signing key for Signature Version 4": 20150830, us-east-1, iam."""
    expected = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
    assert signing_key(EXAMPLE, "20150830", "us-east-1", "iam").hex() == expected


def test_the_presigned_request_of_awss_own_example() -> None:
    """ "Authenticating Requests: Using Query Parameters" of Amazon S3: GET examplebucket/test.txt, whose body is not signed."""
    url = presigned(
        Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), host="examplebucket.s3.amazonaws.com",
        path="/test.txt", parameters={}, region="us-east-1", service="s3", expires=86400, payload="UNSIGNED-PAYLOAD",
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )  # fmt: skip
    assert url == (
        "examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.parametrize(
    ("session", "signature"),
    [
        ("", "cc8afa7d5fcdbf60895e57439d9ff42d62aca87fbeae7c6ba1c47d92afcecf9c"),
        ("AQoDYXdz/+EXAMPLE==", "a61f7b132c32ba807dfcd5a204bc94c6fb4dd18a211ac000c2bcb7b621830ce3"),
    ],
    ids=["lasting keys", "temporary keys"],
)
async def test_the_token_that_botocore_makes(
    opened: list[Providers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: str, signature: str
) -> None:
    """The signatures are those of botocore 1.44.8, `generate_db_auth_token` with the same keys, host, role and moment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", EXAMPLE)
    monkeypatch.setenv("AWS_SESSION_TOKEN", session)
    source = Source(opened, tmp_path, {"kind": "rds-iam", "region": "eu-central-1"})
    source.clock.advance((datetime(2026, 11, 25, 21, tzinfo=UTC) - source.clock.now()).total_seconds())
    login = await source.login()
    token = "X-Amz-Security-Token=AQoDYXdz%2F%2BEXAMPLE%3D%3D&" if session else ""  # sorted in, as the signature has it
    assert login.clear and password(login) == (
        "orders.abc.eu-central-1.rds.amazonaws.com:5432/?Action=connect&DBUser=app%20ro%2Bx&X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIDEXAMPLE%2F20261125%2Feu-central-1%2Frds-db%2Faws4_request&X-Amz-Date=20261125T210000Z"
        f"&X-Amz-Expires=900&{token}X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
    )
    assert signature not in repr(login) and EXAMPLE not in repr(Keys("a", EXAMPLE))


async def test_keys_for_aws_that_are_not_there(opened: list[Providers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    source = Source(opened, tmp_path, {"kind": "rds-iam", "region": "eu-central-1"})
    assert "AWS_ACCESS_KEY_ID is not set" in await source.refused()
    # A token of the environment belongs to the keys of the environment: never to others.
    (tmp_path / "access").write_text("AKIDEXAMPLE")
    (tmp_path / "secret").write_text(EXAMPLE)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-environment")
    keyed = {"kind": "rds-iam", "region": "eu-central-1", "access_key": "file:access", "secret_key": "file:secret"}
    assert "of-the-environment" not in password(await Source(opened, tmp_path, keyed).login())
