"""Logging in to targets: what a real server takes from us, and what a false one does not get."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from harness.authority import Authority, Pair
from harness.postgres_server import ADMIN, PostgresServer, running_server
from harness.vault import kv2, lease, running_vault
from harness.wire_client import WireClient, message
from interlock.clock import SystemClock, system_entropy
from interlock.config import Config, parse
from interlock.errors import ConfigError, Reason, TargetError
from interlock.identity.scram import PLAIN, ScramCredentials, ScramServer, Verifier, derived_salt, verifier
from interlock.postgres.credentials.source import Providers
from interlock.postgres.upstream import Connector

pytestmark = pytest.mark.interop

T = TypeVar("T")
ROLES = ("certified", "both", "old", "clear", "other")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    for place in (folder, *folder.parents):
        if str(place).startswith("/tmp/"):
            place.chmod(0o755)
    return Authority(folder)


@pytest.fixture(scope="module")
def target(authority: Authority) -> Iterator[PostgresServer]:
    """One server that asks each role for something else: a certificate, both, md5, a password in clear, SCRAM."""
    pair = authority.server("localhost", "127.0.0.1")
    if os.geteuid() == 0:
        shutil.chown(pair.key, "postgres")
    settings = f"ssl=on\nssl_cert_file='{pair.certificate}'\nssl_key_file='{pair.key}'\nssl_ca_file='{authority.file}'\n"
    hba = (
        "hostssl all certified 127.0.0.1/32 cert\n"
        "hostssl all both 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n"
        "host all old 127.0.0.1/32 md5\n"
        "hostssl all clear 127.0.0.1/32 password\n"
        "host all other 127.0.0.1/32 reject\n"
        "host all all 127.0.0.1/32 scram-sha-256\n"
    )
    with running_server(settings, hba) as running:
        for role in ROLES:
            kind = "md5" if role == "old" else "scram-sha-256"
            running.run(
                f"SET password_encryption = '{kind}'; CREATE ROLE \"{role}\" LOGIN PASSWORD '{running.password}'",
                user=ADMIN, database="postgres",
            )  # fmt: skip
        yield running


class Login:
    """One configured target, and attempts to log in to it on the loop that the daemon runs on."""

    def __init__(self, folder: Path, port: int, role: str = "app", **change: Any) -> None:
        more = change.pop("more", {})
        data: dict[str, Any] = {
            "name": "orders", "protocol": "postgres", "address": f"localhost:{port}", "database": "app", "role": role,
            "credentials": {"kind": "password", "from": "file:pw"}, **change,
        }  # fmt: skip
        self.config: Config = parse({"version": 1, "node": {"data_dir": "data"}, "targets": [data], **more}, base=folder)

    async def connect(self, *, times: int = 1) -> list[dict[str, str]]:
        """Return the server's parameters of each connection."""
        providers = Providers(self.config, clock=SystemClock())
        try:
            target = self.config.targets[0]
            connector = Connector(self.config, target, entropy=system_entropy, provider=providers.of(target))
            told = []
            for _ in range(times):
                upstream = await connector.connect({"user": target.role, "database": target.database})
                told.append(upstream.parameters)
                upstream.dialogue.abort()
            return told
        finally:
            await providers.close()

    def role(self) -> str:
        """Log in; return as whom."""
        return uvloop.run(self.connect())[0]["session_authorization"]

    def refused(self, reason: Reason) -> str:
        with pytest.raises(TargetError) as caught:
            uvloop.run(self.connect())
        assert caught.value.code is reason, str(caught.value)
        return str(caught.value)


@pytest.fixture
def login(target: PostgresServer, authority: Authority, tmp_path: Path) -> Callable[..., Login]:
    """A login to the real server, whose certificate is trusted unless a test says otherwise."""
    (tmp_path / "pw").write_text(target.password)

    def made(role: str = "app", **change: Any) -> Login:
        return Login(tmp_path, target.port, role, **{"tls_ca": str(authority.file), **change})

    return made


def with_key(pair: Pair, kind: str = "certificate", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "certificate": str(pair.certificate), "key": f"file:{pair.key}", **more}


# -- what a real server takes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["verify-full", "require", "disable"])
def test_scram(login: Callable[..., Login], tls: str) -> None:
    assert login(tls=tls).role() == "app"


def test_a_client_certificate(login: Callable[..., Login], authority: Authority) -> None:
    assert login("certified", credentials=with_key(authority.client("certified"))).role() == "certified"


def test_a_client_certificate_and_a_password(login: Callable[..., Login], authority: Authority) -> None:
    pair = authority.client("both")
    assert login("both", credentials=with_key(pair, "password", **{"from": "file:pw"})).role() == "both"
    said = login("both", credentials=with_key(pair)).refused(Reason.TARGET_CREDENTIAL)
    assert "asks for a password beside the certificate" in said


@pytest.mark.parametrize("wrong", ["none", "another name", "another authority", "expired"])
def test_a_client_certificate_that_the_server_does_not_take(
    login: Callable[..., Login], authority: Authority, tmp_path: Path, wrong: str
) -> None:
    if wrong == "none":
        said = login("certified", credentials={"kind": "none"}).refused(Reason.TARGET_CREDENTIAL)
        assert "did not accept our credential: no line of its pg_hba.conf" in said
    elif wrong == "another name":
        pair = authority.client("app")
        assert "did not accept our credential" in login("certified", credentials=with_key(pair)).refused(Reason.TARGET_CREDENTIAL)
    else:
        pair = (
            Authority(tmp_path, "other").client("certified")
            if wrong == "another authority"
            else authority.client("certified", life=-timedelta(days=1))
        )
        said = login("certified", credentials=with_key(pair)).refused(Reason.TARGET_IDENTITY)
        assert "did not accept our client certificate" in said


def test_a_key_that_is_not_the_certificates(login: Callable[..., Login], authority: Authority) -> None:
    one, other = authority.client("certified"), authority.client("certified")
    with pytest.raises(ConfigError, match="certificate and key of target orders can't be loaded"):
        uvloop.run(login("certified", credentials=with_key(Pair(one.certificate, other.key))).connect())


def test_md5_is_given_only_where_the_configuration_says_so(login: Callable[..., Login]) -> None:
    assert "md5: true" in login("old").refused(Reason.TARGET_IDENTITY)
    assert login("old", credentials={"kind": "password", "from": "file:pw", "md5": True}).role() == "old"


def test_a_password_in_clear_is_never_given(login: Callable[..., Login], target: PostgresServer) -> None:
    for credentials in ({"kind": "password", "from": "file:pw"}, {"kind": "password", "from": "file:pw", "md5": True}):
        assert "does not ask for SCRAM-SHA-256" in login("clear", credentials=credentials).refused(Reason.TARGET_IDENTITY)


def test_a_server_that_rejects_us_says_which_of_the_two(login: Callable[..., Login], tmp_path: Path) -> None:
    assert "no line of its pg_hba.conf" in login("other").refused(Reason.TARGET_CREDENTIAL)
    (tmp_path / "pw").write_text("wrong")
    said = login().refused(Reason.TARGET_CREDENTIAL)
    assert said.endswith("did not accept our credential")


def test_an_aws_token_goes_in_clear_to_a_server_that_proved_its_name(
    login: Callable[..., Login], tmp_path: Path, authority: Authority
) -> None:
    """RDS asks for a clear password and has the token checked. A real server refuses ours; a listening one sees it whole."""
    (tmp_path / "access").write_text("AKIDEXAMPLE")
    (tmp_path / "secret").write_text("secret")
    keys = {"kind": "rds-iam", "region": "eu-central-1", "access_key": "file:access", "secret_key": "file:secret"}
    assert "did not accept our credential" in login("clear", credentials=keys).refused(Reason.TARGET_CREDENTIAL)
    seen: list[bytes] = []

    async def collects(talk: Talk) -> None:
        await talk.to_tls(authority.server("127.0.0.1"))
        await talk.startup()
        talk.write(message(b"R", struct.pack("!I", 3)))
        seen.append(await talk.message())
        talk.write(message(b"E", b"SFATAL\0C28P01\0Mno\0\0"))

    refused_by(authority, tmp_path, collects, credentials=keys)
    assert len(seen) == 1 and seen[0].startswith(b"p") and b"Action=connect&DBUser=app&" in seen[0]


def test_a_role_that_vault_makes_and_takes_back(login: Callable[..., Login], target: PostgresServer, tmp_path: Path) -> None:
    made: list[str] = []

    def create() -> Any:
        name, password = f"v-app-{len(made)}", secrets.token_hex(8)
        target.run(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}' IN ROLE app", user=ADMIN)
        made.append(name)
        return lease(3600, username=name, password=password)

    with running_vault() as vault:
        vault.paths["database/creds/ro"] = create
        (tmp_path / "token").write_text(vault.token)
        one = login(
            credentials={"kind": "vault-database", "from": "vault:database/creds/ro"},
            more={"vault": {"address": vault.url, "token": "file:token"}},
        )

        async def taken_back() -> list[str]:
            providers = Providers(one.config, clock=SystemClock())
            configured = one.config.targets[0]
            connector = Connector(one.config, configured, entropy=system_entropy, provider=providers.of(configured))
            roles = []
            for turn in range(3):
                if turn == 2:
                    target.run('DROP ROLE "v-app-0"', user=ADMIN)  # as the end of a lease does
                upstream = await connector.connect({"user": "app", "database": "app"})
                roles.append(upstream.parameters["session_authorization"])
                upstream.dialogue.abort()
            await providers.close()
            return roles

        assert uvloop.run(taken_back()) == ["v-app-0", "v-app-0", "v-app-1"]
        assert made == ["v-app-0", "v-app-1"]


def test_a_password_of_vault_that_is_wrong_is_tried_twice_and_no_more(
    login: Callable[..., Login], target: PostgresServer, tmp_path: Path
) -> None:
    with running_vault() as vault:
        vault.paths["secret/data/orders"] = kv2(password="wrong")
        (tmp_path / "token").write_text(vault.token)
        one = login(
            credentials={"kind": "password", "from": "vault:secret/data/orders#password"},
            more={"vault": {"address": vault.url, "token": "file:token"}},
        )
        said = one.refused(Reason.TARGET_CREDENTIAL)
        assert said.endswith("did not accept our credential") and len(vault.asked) == 2
        vault.paths["secret/data/orders"] = kv2(password=target.password)
        assert one.role() == "app"


# -- certificates of servers -------------------------------------------------------------------------------------------


class Talk:
    """The server's side of one connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def packet(self) -> bytes:
        length = await self.reader.readexactly(4)
        return length + await self.reader.readexactly(struct.unpack("!I", length)[0] - 4)

    async def to_tls(self, pair: Pair) -> None:
        assert await self.packet() == WireClient.SSL_REQUEST
        self.write(b"S")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        await self.writer.start_tls(context)

    async def startup(self) -> None:
        await self.packet()

    async def message(self) -> bytes:
        kind = await self.reader.readexactly(1)
        return kind + await self.packet()

    def write(self, data: bytes) -> None:
        self.writer.write(data)


Behaviour = Callable[[Talk], Awaitable[None]]


async def _serving(behaviour: Behaviour, attempt: Callable[[int], Coroutine[Any, Any, T]]) -> T:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(Talk(reader, writer))
            await reader.read()  # until the client leaves
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client that leaves is what most of these tests want
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        return await attempt(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


def refused_by(authority: Authority, folder: Path, behaviour: Behaviour, **change: Any) -> TargetError:
    """Log in to a false server; return what we say of it."""
    (folder / "pw").write_text("our password")

    async def attempt(port: int) -> TargetError:
        one = Login(folder, port, **{"tls_ca": str(authority.file), "address": f"127.0.0.1:{port}", **change})
        with pytest.raises(TargetError) as caught:
            await one.connect()
        return caught.value

    error = uvloop.run(_serving(behaviour, attempt))
    assert "our password" not in str(error)
    return error


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("authority", "signed by an authority that is not trusted here: name that one as tls_ca"),
        ("name", "for another name than the address in the configuration"),
        ("address", "not for this IP address"),
        ("expired", "has expired"),
        ("plain", "does not offer TLS"),
        ("old", "could not agree on TLS with us"),
    ],
)
def test_a_server_that_does_not_prove_its_name_is_sent_nothing(
    authority: Authority, tmp_path: Path, wrong: str, says: str
) -> None:
    pair = {
        "authority": lambda: Authority(tmp_path, "other").server("127.0.0.1"),
        "expired": lambda: authority.server("127.0.0.1", life=-timedelta(days=1)),
        "address": lambda: authority.server("elsewhere.example"),
        "name": lambda: authority.server("127.0.0.1"),
    }.get(wrong, lambda: authority.server("127.0.0.1"))()
    heard: list[bytes] = []

    async def behaviour(talk: Talk) -> None:
        if wrong in ("plain", "old"):
            await talk.packet()
            talk.write(b"N" if wrong == "plain" else b"S")
            if wrong == "old":
                await talk.reader.readexactly(5)
                talk.write(b"\x15\x03\x01\x00\x02\x02\x46")  # the fatal alert protocol_version
            return
        await talk.to_tls(pair)
        heard.append(await talk.reader.readexactly(1))

    change = {"tls_name": "orders.example"} if wrong == "name" else {}
    error = refused_by(authority, tmp_path, behaviour, **change)
    assert error.code is Reason.TARGET_IDENTITY and says in str(error) and not heard


def test_a_server_under_another_name_than_its_address(authority: Authority, target: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(target.password)
    change = {"address": f"127.0.0.1:{target.port}", "tls_ca": str(authority.file)}
    assert Login(tmp_path, target.port, tls_name="localhost", **change).role() == "app"
    assert "another name" in Login(tmp_path, target.port, tls_name="db", **change).refused(Reason.TARGET_IDENTITY)


# -- servers that cheat ------------------------------------------------------------------------------------------------


def test_bytes_behind_the_answer_to_our_request_for_tls(authority: Authority, tmp_path: Path) -> None:
    """CVE-2021-23222: what came in clear must not be read as if it had come inside TLS."""

    async def behaviour(talk: Talk) -> None:
        await talk.packet()
        talk.write(b"S" + message(b"R", struct.pack("!I", 0)))

    assert refused_by(authority, tmp_path, behaviour).code in (Reason.TARGET_IDENTITY, Reason.TARGET_UNREACHABLE)


@pytest.mark.parametrize("code", [0, 2, 3, 5, 6, 7, 9])
def test_a_server_that_skips_the_proof_gets_no_password(authority: Authority, tmp_path: Path, code: int) -> None:
    sent: list[bytes] = []

    async def behaviour(talk: Talk) -> None:
        await talk.packet()
        talk.write(message(b"R", struct.pack("!I", code) + (b"salt" if code == 5 else b"")))
        sent.append(await talk.reader.read(1))

    error = refused_by(authority, tmp_path, behaviour, tls="disable")
    assert error.code is Reason.TARGET_IDENTITY and not any(sent)


def scram(
    behave: Callable[[Talk, ScramServer, bytes], Awaitable[None]], *, mechanisms: bytes = b"SCRAM-SHA-256\0\0"
) -> Behaviour:
    """A server that knows the password, up to the point where it begins to cheat."""

    async def behaviour(talk: Talk) -> None:
        await talk.packet()
        talk.write(message(b"R", struct.pack("!I", 10) + mechanisms))
        first = await talk.message()
        salt = derived_salt(b"s", "app")
        known = verifier("v", "our password", salt)
        forged = Verifier("v", known.stored_key, secrets.token_bytes(32))  # it has seen proofs, but never the password
        machine = ScramServer(ScramCredentials(salt, 4096, (forged,)), entropy=system_entropy)
        answer = machine.first(PLAIN, first[5:].partition(b"\0")[2][4:])
        await behave(talk, machine, answer)

    return behaviour


def test_a_server_that_does_not_know_the_password(authority: Authority, tmp_path: Path) -> None:
    async def forges(talk: Talk, machine: ScramServer, answer: bytes) -> None:
        talk.write(message(b"R", struct.pack("!I", 11) + answer))
        accepted = machine.final((await talk.message())[5:])
        talk.write(message(b"R", struct.pack("!I", 12) + accepted.message) + message(b"R", struct.pack("!I", 0)))

    error = refused_by(authority, tmp_path, scram(forges), tls="disable")
    assert error.code is Reason.TARGET_IDENTITY and "did not prove that it knows the password" in str(error)


def test_a_server_that_says_ok_in_place_of_its_proof(authority: Authority, tmp_path: Path) -> None:
    async def skips(talk: Talk, _machine: ScramServer, answer: bytes) -> None:
        talk.write(message(b"R", struct.pack("!I", 11) + answer))
        await talk.message()
        talk.write(message(b"R", struct.pack("!I", 0)) + message(b"Z", b"I"))

    assert "broke the protocol" in str(refused_by(authority, tmp_path, scram(skips), tls="disable"))


@pytest.mark.parametrize("wrong", ["nonce", "iterations", "many iterations"])
def test_a_challenge_that_would_weaken_the_proof_gets_none(authority: Authority, tmp_path: Path, wrong: str) -> None:
    proofs: list[bytes] = []

    async def bends(talk: Talk, _machine: ScramServer, answer: bytes) -> None:
        nonce, salt, count = answer.split(b",")
        if wrong == "nonce":
            nonce = b"r=" + b"A" * 48
        elif wrong == "iterations":
            count = b"i=1"
        else:
            count = b"i=999999999"
        talk.write(message(b"R", struct.pack("!I", 11) + b",".join((nonce, salt, count))))
        proofs.append(await talk.reader.read(1))

    refused_by(authority, tmp_path, scram(bends), tls="disable")
    assert not any(proofs)


def test_an_unverified_certificate_must_be_bound_to_the_proof(authority: Authority, tmp_path: Path) -> None:
    """tls: require. Somebody in the middle has a certificate of its own, and passes on SCRAM without binding."""
    sent: list[bytes] = []

    async def behaviour(talk: Talk) -> None:
        await talk.to_tls(Authority(tmp_path, "middle").server("127.0.0.1"))
        await talk.startup()
        talk.write(message(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"))
        sent.append(await talk.reader.read(1))

    error = refused_by(authority, tmp_path, behaviour, tls="require")
    assert error.code is Reason.TARGET_IDENTITY and "offers no channel binding" in str(error) and not any(sent)
