"""Tokens of the company's issuer, end to end: as SSH password, as Postgres password over TLS, and at the API."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import asyncssh
import httpx
import pytest
import pytest_asyncio
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy.ext.asyncio import create_async_engine

from blackbox.conftest import World, open_world
from harness.issuer import FakeIssuer
from harness.postgres_server import PostgresServer

pytestmark = [pytest.mark.blackbox, pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

RULES = """\
version: 1
packs: [linux, linux-deny, postgres, postgres-deny]
default: {review: {groups: [sre]}}
access:
  - {who: {groups: [pipelines]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
"""


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)  # noqa: TID251  a certificate for the clients' own clocks
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = folder / "tls.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "tls.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, key_file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def federated(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer, issuer: FakeIssuer) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("federated")
    pem, key = certificate(folder)
    async with open_world(
        folder, server,
        tls={"certificate": str(pem), "key": str(key)},
        listen={"ssh": "127.0.0.1:0", "postgres": "127.0.0.1:0", "http": "127.0.0.1:0", "postgres_auth": "token"},
        identity={"issuers": [{"name": "idp", "issuer": issuer.issuer, "audience": "interlock", "kind": "service"}]},
    ) as world:  # fmt: skip
        (world.node.directory / "policies/ours.yaml").write_text(RULES)
        await asyncio.to_thread(world.node.stop)
        await asyncio.to_thread(world.node.start)
        yield world


def token(issuer: FakeIssuer, **claims: object) -> str:
    now = int(datetime.now(UTC).timestamp())  # noqa: TID251  the issuer has its own clock
    return issuer.token(
        {"iss": issuer.issuer, "aud": "interlock", "sub": "build-7", "jti": f"t{now}", "iat": now, "exp": now + 300,
         "groups": ["pipelines"], **claims}
    )  # fmt: skip


async def test_a_token_is_a_postgres_password_over_tls(federated: World, issuer: FakeIssuer) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    port = federated.node.port("postgres")
    link = await asyncpg.connect(
        host="127.0.0.1", port=port, user="build-7", database="orders", password=token(issuer), ssl=trusting
    )
    try:
        assert await link.fetchval("SELECT 6 * 7") == 42
    finally:
        await link.close()
    for bad in (token(issuer, aud="other"), token(issuer, exp=1), token(issuer, groups=["strangers"]), "a.b.c"):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(host="127.0.0.1", port=port, user="build-7", database="orders", password=bad, ssl=trusting)


async def test_a_token_is_an_ssh_password(federated: World, issuer: FakeIssuer) -> None:
    async with asyncssh.connect(
        "127.0.0.1", federated.node.port("ssh"), username="web-1", password=token(issuer), known_hosts=None, client_keys=None,
        config=None,
    ) as link:  # fmt: skip
        done = await link.run("echo hello from the pipeline")
    assert (done.exit_status, done.stdout) == (0, "hello from the pipeline\n")


async def test_a_token_is_an_api_bearer_and_never_decides(federated: World, issuer: FakeIssuer) -> None:
    url = f"https://{federated.node.addresses['http']}"
    headers = {"Authorization": f"Bearer {token(issuer)}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=False, trust_env=False, timeout=60) as http:
        who = (await http.get("/v1/whoami")).json()
        decided = await http.post("/v1/approvals/req_x/decision", json={"verdict": "approve", "digest": "sha256:0"})
    assert (who["kind"], who["groups"]) == ("service", ["pipelines"])
    assert "approvals:decide" not in who["scopes"]
    assert decided.json()["reason"] == "not-a-person"


async def test_no_part_of_a_token_is_in_any_log(federated: World, issuer: FakeIssuer) -> None:
    secret = token(issuer, aud="other", sub="needle-in-the-log")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1", federated.node.port("ssh"), username="web-1", password=secret, known_hosts=None, client_keys=None,
            config=None,
        )  # fmt: skip
    kept = "".join(f.read_text(errors="replace") for f in federated.node.data_dir.rglob("*.jsonl"))
    assert secret.split(".")[2] not in kept + "".join(federated.node.said)


async def test_sqlalchemy_introspects_without_a_human(world: World) -> None:
    address = sa.URL.create("postgresql+asyncpg", "claude", world.password, "127.0.0.1", world.node.port("postgres"), "orders")
    engine = create_async_engine(address)
    try:
        async with engine.connect() as link:
            tables = await link.run_sync(lambda sync: sa.inspect(sync).get_table_names())
            columns = await link.run_sync(lambda sync: [c["name"] for c in sa.inspect(sync).get_columns("described")])
            keys = await link.run_sync(lambda sync: sa.inspect(sync).get_pk_constraint("described"))
            await link.run_sync(lambda sync: sa.MetaData().reflect(sync))
    finally:
        await engine.dispose()
    assert "described" in tables and columns == ["id", "note"] and keys["constrained_columns"] == ["id"]
    assert await asyncio.to_thread(world.node.pending) == []


async def test_an_expired_credential_refuses_until_the_same_agent_obtains_a_new_one(world: World) -> None:
    short = (await asyncio.to_thread(world.node.json, "principals", "password", "claude", "--ttl", "3s"))["password"]
    link = await asyncpg.connect(
        host="127.0.0.1", port=world.node.port("postgres"), user="claude", database="orders", password=short, ssl=False
    )
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="expired"):
            async with asyncio.timeout(30):
                while True:  # each one passes until the credential ends
                    assert await link.fetchval("SELECT 1") == 1
        await asyncio.to_thread(world.node.password)
        assert await link.fetchval("SELECT 2") == 2
    finally:
        await link.close()
