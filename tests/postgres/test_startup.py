"""How connections begin: proof of identity, TLS, addresses, what a start-up packet may ask for, and targets that fail."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import OperationalError

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.loopback import free_port
from harness.postgres_server import PostgresServer, running_server
from harness.wire_client import WireClient, startup

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def tls(server: PostgresServer, certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with a certificate, in front of a target that has one too and takes TLS only."""
    settings = f"ssl=on\nssl_cert_file='{certificate}/cert.pem'\nssl_key_file='{certificate}/server.key'\n"
    (certificate / "server.key").write_bytes((certificate / "key.pem").read_bytes())
    _give_to_postgres(certificate)
    folder = tmp_path_factory.mktemp("proxy-tls")
    with running_server(settings, hba="hostssl all all 127.0.0.1/32 scram-sha-256\n") as target:
        config = configuration(
            target, folder, tls={"certificate": str(certificate / "cert.pem"), "key": str(certificate / "key.pem")}
        )
        data = config.targets[0].model_copy(update={"tls": "verify-full", "tls_ca": certificate / "cert.pem"})
        config = config.model_copy(update={"targets": [data]})
        with running_proxy(config, folder, VerbPolicy()) as running:
            yield running


def _give_to_postgres(certificate: Path) -> None:
    import os
    import shutil

    certificate.chmod(0o755)
    for parent in certificate.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    key = certificate / "server.key"
    key.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(key, "postgres")


def fatal(proxy: Proxy, **more: str) -> str:
    with pytest.raises(OperationalError) as caught:
        psycopg.connect(proxy.dsn(**more)).close()
    return str(caught.value)


# -- who ---------------------------------------------------------------------------------------------------------------


def test_a_wrong_password_an_unknown_name_and_an_empty_one(proxy: Proxy) -> None:
    wrong = 'password authentication failed for user "claude"'
    assert wrong in fatal(proxy, password="wrong")
    assert 'password authentication failed for user "nobody"' in fatal(proxy, user="nobody")
    with WireClient(proxy.port) as client:
        client.send(startup({"user": "", "database": "orders"}))
        assert client.fatal()["C"] == "28000"


def test_an_address_that_has_to_wait_is_told_so(server: PostgresServer, folder: Path) -> None:
    """Not that its password is wrong: a right one is not looked at either. Another address does not wait."""
    with running_proxy(configuration(server, folder), folder, VerbPolicy()) as proxy:
        while 'password authentication failed for user "claude"' in (said := fatal(proxy, password="wrong")):
            pass
        assert "interlock: too many failed logins; try again in " in said
        assert "limit-reached" in said
        with WireClient(proxy.port, source="127.0.0.77") as elsewhere:
            elsewhere.send(startup({"user": "claude", "database": "orders"}))
            elsewhere.authenticate(proxy.password)
            assert elsewhere.until_ready() == ["ZI"]


def test_no_access_is_28000_and_so_is_a_target_that_nobody_has(proxy: Proxy) -> None:
    with WireClient(proxy.port) as client:
        client.send(startup({"user": "claude", "database": "elsewhere"}))
        client.authenticate(proxy.password)
        assert client.fatal()["C"] == "28000"
    proxy.policy.open_to = lambda _principal, target: target.role == "app"
    try:
        with WireClient(proxy.port) as client:
            client.send(startup({"user": "postgres@claude", "database": "orders"}))
            client.authenticate(proxy.password)
            assert client.fatal()["C"] == "28000"
    finally:
        proxy.policy.open_to = lambda _principal, _target: True
    assert "access.refused" in proxy.desk.journal_text()


def test_role_and_database_are_part_of_the_address(proxy: Proxy, server: PostgresServer) -> None:
    with psycopg.connect(proxy.dsn(user="app@claude", database="orders/postgres")) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == ("app", "postgres")


ADDRESSES = {
    # user, database, what comes of it: what the server sees, or an SQLSTATE
    "the target alone": ("claude", "orders", "app@app"),
    "another database": ("claude", "orders/postgres", "app@postgres"),
    "another role": ("app@claude", "orders", "app@app"),
    "both": ("postgres@claude", "orders/postgres", "postgres@postgres"),
    "an empty role and an empty database are none": ("@claude", "orders/", "app@app"),
    "a role with an @ in it": ("odd@role@claude", "orders", "odd@role@app"),
    "a database with a slash and a blank in it": ("claude", "orders/odd/data base", "app@odd/data base"),
    "a database that looks like settings": ("claude", "orders/app host=elsewhere sslmode=disable", "3D000"),
    "a database that looks like an address": ("claude", "orders/app?host=elsewhere&user=postgres", "3D000"),
    "a role that looks like an address": ("postgres:pw@elsewhere/@claude", "orders", "08004"),
    "a role that nobody has": ("nobody@claude", "orders", "08004"),
    "no database": ("claude", "", "28000"),
    "a target that is not there": ("claude", "/app", "28000"),
    "the handle alone behind an @": ("claude@", "orders", "28P01"),
    "another letter case": ("Claude", "orders", "28P01"),
}  # fmt: skip


@pytest.mark.parametrize("what", ADDRESSES)
def test_an_address_is_fields_and_never_a_string_of_settings(proxy: Proxy, server: PostgresServer, what: str) -> None:
    """CVE-2021-41395: a database name that became part of a connection string connected somewhere else."""
    user, database, expected = ADDRESSES[what]
    odd = {
        "odd@role": f"CREATE ROLE \"odd@role\" LOGIN PASSWORD '{server.password}'",
        "odd/data base": 'CREATE DATABASE "odd/data base"',
    }
    undo = {"odd@role": 'DROP ROLE "odd@role"', "odd/data base": 'DROP DATABASE "odd/data base" WITH (FORCE)'}
    named = next((name for name in odd if name in f"{user} {database}"), "")
    if named:
        server.run(odd[named], user="postgres")
    try:
        with WireClient(proxy.port) as client:
            client.send(startup({"user": user, "database": database} if database else {"user": user}))
            client.authenticate(proxy.password)
            if len(expected) == 5:
                assert client.fatal()["C"] == expected
                return
            client.until_ready()
            client.send(WireClient.query("SELECT current_user || '@' || current_database()"))
            client.read()
            assert client.read()[1][6:].decode() == expected
    finally:
        if named:
            server.run(undo[named], user="postgres")


# -- encryption --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binding", ["require", "disable"])
def test_tls_with_and_without_channel_binding(tls: Proxy, certificate: Path, binding: str) -> None:
    dsn = tls.dsn(sslmode="verify-full", sslrootcert=str(certificate / "cert.pem"), channel_binding=binding)
    with psycopg.connect(dsn.replace("127.0.0.1", "localhost")) as connection:
        assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
        assert connection.pgconn.ssl_in_use


async def test_asyncpg_over_tls(tls: Proxy, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    connection = await asyncpg.connect(
        host="localhost", port=tls.port, user="claude", database="orders", password=tls.password, ssl=context
    )
    try:
        assert len(await connection.fetch("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")) == 20_000
    finally:
        await connection.close()


def test_a_certificate_that_does_not_verify_gets_nothing(
    server: PostgresServer, tls: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("distrust")
    config = tls.config
    other = folder / "other.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=other", "-keyout", "/dev/null", "-out", other],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    target = config.targets[0].model_copy(update={"tls_ca": other})
    (folder / "orders.pw").write_bytes((config.base / "orders.pw").read_bytes())
    config = config.model_copy(update={"targets": [target], "tls": None, "base": folder})
    with running_proxy(config, folder, VerbPolicy()) as distrustful:
        message = fatal(distrustful)
    assert "certificate that does not verify" in message


def test_tokens_pass_inside_tls_only(certificate: Path, server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("proxy-token")
    config = configuration(
        server, folder,
        listen={"postgres": "127.0.0.1:0", "postgres_auth": "token"},
        tls={"certificate": str(certificate / "cert.pem"), "key": str(certificate / "key.pem")},
    )  # fmt: skip
    with running_proxy(config, folder, VerbPolicy()) as proxy:
        token = proxy.run(proxy.desk.directory.issue_token("claude")).secret.reveal()
        with psycopg.connect(proxy.dsn(password=token, sslmode="require")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert "inside TLS only" in fatal(proxy, password=token, sslmode="disable")
        assert "password authentication failed" in fatal(proxy, password=token, sslmode="require", user="bob")
        assert "password authentication failed" in fatal(proxy, password="ilk_wrong", sslmode="require")
        assert token not in proxy.desk.journal_text()


# -- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"replication": "database"}, "0A000"),
        ({"replication": "true"}, "0A000"),
        ({"options": "-c search_path=evil"}, "42501"),
        ({"options": "-c role=postgres"}, "42501"),
        ({"options": "-P"}, "42501"),
        ({"options": "--session_authorization=postgres"}, "42501"),
        ({"search_path": "evil"}, "42501"),
        ({"client_encoding": "SJIS"}, "22023"),
        ({"standard_conforming_strings": "off"}, "22023"),
        ({"session_preload_libraries": "x"}, "42501"),
        ({"statement_timeout": "'; DROP"}, "22023"),
    ],
)
def test_start_up_parameters_come_from_a_list(proxy: Proxy, parameters: dict[str, str], code: str) -> None:
    with WireClient(proxy.port) as client:
        client.send(startup({"user": "claude", "database": "orders", **parameters}))
        client.authenticate(proxy.password)
        assert client.fatal()["C"] == code


def test_harmless_parameters_arrive(proxy: Proxy) -> None:
    with psycopg.connect(
        proxy.dsn(options="-c statement_timeout=7s --extra_float_digits=2", application_name="tool")
    ) as connection:
        shown = connection.execute("SELECT current_setting('statement_timeout'), current_setting('application_name')").fetchone()
    assert shown == ("7s", "interlock:claude tool")


def test_options_of_the_protocol_that_nobody_knows_are_named(proxy: Proxy) -> None:
    with WireClient(proxy.port) as client:
        client.send(startup({"user": "claude", "database": "orders", "_pq_.fancy": "1"}, version=0x00030002))
        kind, body = client.read()
        assert (kind, body) == ("v", b"\x00\x03\x00\x02\x00\x00\x00\x01_pq_.fancy\x00")
        client.authenticate(proxy.password)
        assert client.until_ready() == ["ZI"]


# -- targets that fail -------------------------------------------------------------------------------------------------


def broken_target(server: PostgresServer, folder: Path, **change: Any) -> Any:
    config = configuration(server, folder)
    return config.model_copy(update={"targets": [config.targets[0].model_copy(update=change)]})


def test_a_target_that_is_down(server: PostgresServer, folder: Path) -> None:
    with running_proxy(broken_target(server, folder, address=f"127.0.0.1:{free_port()}"), folder, VerbPolicy()) as proxy:
        with WireClient(proxy.port) as client:
            client.send(startup({"user": "claude", "database": "orders"}))
            client.authenticate(proxy.password)
            fields = client.fatal()
        assert fields["C"] == "08001"
        assert "target orders does not answer" in fields["M"]
        assert "target-unreachable" in fields["D"]
        assert [e["reason"] for e in proxy.of("session.close")] == ["target-unreachable"]


def test_a_target_that_rejects_our_credential(server: PostgresServer, folder: Path) -> None:
    config = configuration(server, folder)
    (folder / "orders.pw").write_text("not the password")
    with running_proxy(config, folder, VerbPolicy()) as proxy, WireClient(proxy.port) as client:
        client.send(startup({"user": "claude", "database": "orders"}))
        client.authenticate(proxy.password)
        fields = client.fatal()
    assert fields["C"] == "08004"
    assert "did not accept our credential" in fields["M"]
    assert "not the password" not in str(fields)


def test_a_target_that_asks_for_a_clear_password_gets_nothing(folder: Path) -> None:
    hba = "host all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 password\n"
    with (
        running_server(hba=hba) as clear,
        running_proxy(configuration(clear, folder), folder, VerbPolicy()) as proxy,
        WireClient(proxy.port) as client,
    ):
        client.send(startup({"user": "claude", "database": "orders"}))
        client.authenticate(proxy.password)
        fields = client.fatal()
    assert fields["C"] == "08001"
    assert "does not ask for SCRAM-SHA-256" in fields["M"]


def test_a_catalog_that_is_read_is_in_the_journal(proxy: Proxy) -> None:
    with psycopg.connect(proxy.dsn()) as connection:
        connection.execute("SELECT 1")
    journal = proxy.desk.journal_text()
    assert '"type":"catalog"' in journal
    assert '"loaded":true' in journal
