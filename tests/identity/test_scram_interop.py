"""SCRAM against the real thing: libpq and psql as clients of our side, PostgreSQL as the server of the other."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shutil
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from harness.postgres_server import ADMIN, PostgresServer, running_server
from interlock.errors import AuthenticationError, InterlockError
from interlock.identity.scram import (
    PLAIN,
    PLUS,
    ScramClient,
    ScramCredentials,
    ScramServer,
    derived_salt,
    impostor,
    salted_password,
    server_end_point,
    verifier,
)

pytestmark = pytest.mark.interop

PASSWORDS = [
    "plain",
    "with space, comma=equals",
    "pässwörd",
    "I\u00adX",  # the soft hyphen is mapped to nothing
    "\u2168 is nine",  # NFKC makes it IX
    "no\u00a0break",
    "\u0627\u0031",  # forbidden by the bidi rule
    "\u06271\u0628",
    "tab\there",
    "\u00e9\u0007",  # a control character among others
    "key \U0001f511",  # unassigned in Unicode 3.2
    "e\u0301\u0323",
    "\ufb01ne",
    "x" * 200,
]


@dataclass(frozen=True)
class Certificate:
    cert: Path
    key: Path
    der: bytes


def certificate(folder: Path, algorithm: hashes.HashAlgorithm | None) -> Certificate:
    """A self-signed certificate for 127.0.0.1; without a hash it is an Ed25519 one."""
    key = ec.generate_private_key(ec.SECP256R1()) if algorithm else ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=36500))
        .sign(key, algorithm)
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "key.pem").chmod(0o600)
    return Certificate(folder / "cert.pem", folder / "key.pem", made.public_bytes(Encoding.DER))


class TestEndPoint:
    @pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
    def test_the_certificates_own_hash(self, tmp_path: Path, algorithm: hashes.HashAlgorithm) -> None:
        digest = hashes.Hash(algorithm)
        made = certificate(tmp_path, algorithm)
        digest.update(made.der)
        assert server_end_point(made.der) == digest.finalize()

    def test_where_the_rfc_defines_none(self, tmp_path: Path) -> None:
        assert server_end_point(certificate(tmp_path, None).der) is None
        assert server_end_point(b"garbage") is None


# -- libpq as the client ------------------------------------------------------------------------------------------------


@dataclass
class Door:
    """A listener that speaks just enough Postgres to log in over our `ScramServer`, and answers nothing to queries."""

    credentials: ScramCredentials
    made: Certificate | None = None
    outcomes: list[str] = field(default_factory=list)
    offer_plus: bool = True

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        tasks: list[asyncio.Task[None]] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(asyncio.create_task(self._serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await asyncio.gather(*tasks)  # each ends when its client has left
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                await self._login(reader, writer)
            except InterlockError as error:
                self.outcomes.append(str(error.code))
                body = b"SFATAL\0C28P01\0Mrefused\0\0"
                writer.write(b"E" + struct.pack("!I", len(body) + 4) + body)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def _login(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def startup() -> bytes:
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            return await reader.readexactly(length - 4)

        binding = None
        packet = await startup()
        while packet[:4] in (struct.pack("!I", 80877103), struct.pack("!I", 80877104)):
            if packet[:4] == struct.pack("!I", 80877103) and self.made is not None:
                writer.write(b"S")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.made.cert, self.made.key)
                await writer.start_tls(context)
                binding = server_end_point(self.made.der)
            else:
                writer.write(b"N")
            packet = await startup()

        def authentication(code: int, body: bytes) -> None:
            writer.write(b"R" + struct.pack("!II", len(body) + 8, code) + body)

        async def message() -> bytes:
            kind, length = struct.unpack("!cI", await reader.readexactly(5))
            assert kind in (b"p", b"Q", b"X")
            return (b"" if kind == b"p" else kind) + await reader.readexactly(length - 4)

        exchange = ScramServer(self.credentials, entropy=secrets.token_bytes, binding=binding)
        offered = exchange.mechanisms if self.offer_plus else (PLAIN,)
        authentication(10, b"".join(m.encode() + b"\0" for m in offered) + b"\0")
        mechanism, _, rest = (await message()).partition(b"\0")
        authentication(11, exchange.first(mechanism.decode(), rest[4:]))
        accepted = exchange.final(await message())
        self.outcomes.append(f"{mechanism.decode()}:{accepted.verifier}")
        authentication(12, accepted.message)
        authentication(0, b"")
        for name, value in (("server_version", "15.0"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")):
            body = name.encode() + b"\0" + value.encode() + b"\0"
            writer.write(b"S" + struct.pack("!I", len(body) + 4) + body)
        writer.write(b"Z\0\0\0\x05I")
        while (await message())[:1] == b"Q":
            writer.write(b"I\0\0\0\x04Z\0\0\0\x05I")


def stored(*passwords: str) -> ScramCredentials:
    salt = derived_salt(b"secret", "agent")
    return ScramCredentials(salt, 4096, tuple(verifier(f"pwd-{i}", p, salt) for i, p in enumerate(passwords)))


async def libpq(port: int, password: str, **more: str) -> None:
    connection = await psycopg.AsyncConnection.connect(
        host="127.0.0.1", port=port, user="agent", dbname="x", password=password, connect_timeout=45, **more
    )
    await connection.close()


class TestLibpq:
    @pytest.mark.parametrize("password", PASSWORDS)
    async def test_every_password(self, password: str) -> None:
        door = Door(stored(password))
        async with door.open() as port:
            await libpq(port, password, sslmode="disable", require_auth="scram-sha-256")
        assert door.outcomes == ["SCRAM-SHA-256:pwd-0"]

    async def test_channel_binding(self, tmp_path: Path) -> None:
        door = Door(stored("a", "b", "c"), certificate(tmp_path, hashes.SHA384()))
        async with door.open() as port:
            await libpq(port, "b", sslmode="require", channel_binding="require")
        assert door.outcomes == ["SCRAM-SHA-256-PLUS:pwd-1"]

    async def test_the_downgrade_is_noticed_by_our_side_too(self, tmp_path: Path) -> None:
        """Somebody between us strikes PLUS from the offer: libpq says `y`, and we know that we offered it."""
        door = Door(stored("a"), certificate(tmp_path, hashes.SHA256()), offer_plus=False)
        async with door.open() as port:
            with pytest.raises(psycopg.OperationalError):
                await libpq(port, "a", sslmode="require", channel_binding="prefer")
        assert door.outcomes == ["not-authenticated"]

    async def test_a_client_that_wants_no_binding(self, tmp_path: Path) -> None:
        door = Door(stored("a"), certificate(tmp_path, hashes.SHA256()))
        async with door.open() as port:
            await libpq(port, "a", sslmode="require", channel_binding="disable")
        assert door.outcomes == ["SCRAM-SHA-256:pwd-0"]

    @pytest.mark.parametrize("password", ["wrong", "plain "])
    async def test_a_wrong_password_and_an_unknown_name(self, password: str) -> None:
        for credentials in (stored("plain"), impostor(b"secret", "nobody")):
            door = Door(credentials)
            async with door.open() as port:
                with pytest.raises(psycopg.OperationalError, match="refused"):
                    await libpq(port, password, sslmode="disable")
            assert door.outcomes == ["not-authenticated"]

    async def test_debians_psql(self, tmp_path: Path) -> None:
        door = Door(stored("pässwörd"), certificate(tmp_path, hashes.SHA256()))
        async with door.open() as port:
            psql = await asyncio.create_subprocess_exec(
                "psql", "-X", f"host=127.0.0.1 port={port} user=agent dbname=x sslmode=require channel_binding=require",
                "-c", ";", env={**os.environ, "PGPASSWORD": "pässwörd"},
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, errors = await psql.communicate()
        assert (psql.returncode, errors) == (0, b"")
        assert door.outcomes == ["SCRAM-SHA-256-PLUS:pwd-0"]


# -- PostgreSQL as the server -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"), hashes.SHA384())


@pytest.fixture(scope="module")
def server(tls: Certificate) -> Iterator[PostgresServer]:
    with running_server() as opened:
        # The server reads its key as its own user, from its own folder.
        for path in (tls.cert, tls.key):
            shutil.copy(path, opened.folder / path.name)
            if os.geteuid() == 0:
                shutil.chown(opened.folder / path.name, "postgres")
        (opened.folder / "key.pem").chmod(0o600)
        for name, value in (("ssl_cert_file", "cert.pem"), ("ssl_key_file", "key.pem")):
            opened.run(f"ALTER SYSTEM SET {name} = '{opened.folder / value}'", user=ADMIN)
        opened.run("ALTER SYSTEM SET ssl = on", user=ADMIN)
        opened.run("SELECT pg_reload_conf()", user=ADMIN)
        yield opened


class Leg:
    """Our client side on a socket, up to the end of the exchange."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def answer(self) -> tuple[int, bytes]:
        kind, length = struct.unpack("!cI", await self._reader.readexactly(5))
        body = await self._reader.readexactly(length - 4)
        if kind == b"E":
            raise AuthenticationError("the server refused")
        assert kind == b"R"
        return struct.unpack("!I", body[:4])[0], body[4:]

    def send(self, body: bytes) -> None:
        self._writer.write(b"p" + struct.pack("!I", len(body) + 4) + body)

    async def login(self, password: str, binding: bytes | None) -> str:
        packet = struct.pack("!I", 196608) + b"user\0app\0database\0app\0\0"
        self._writer.write(struct.pack("!I", len(packet) + 4) + packet)
        code, offered = await self.answer()
        assert code == 10
        client = ScramClient([m.decode() for m in offered.split(b"\0") if m], entropy=secrets.token_bytes, binding=binding)
        first = client.first()
        self.send(client.mechanism.encode() + b"\0" + struct.pack("!I", len(first)) + first)
        code, challenge = await self.answer()
        assert code == 11
        stretch = client.challenge(challenge)
        self.send(client.final(salted_password(password, stretch.salt, stretch.iterations)))
        code, final = await self.answer()
        assert code == 12
        client.verify(final)
        assert await self.answer() == (0, b"")
        return client.mechanism


async def connect(server: PostgresServer, password: str, tls: Certificate | None = None, binding: bytes | None = None) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        if tls is not None:
            writer.write(struct.pack("!II", 8, 80877103))
            assert await reader.readexactly(1) == b"S"
            context = ssl.create_default_context(cafile=str(tls.cert))
            context.check_hostname = False
            await writer.start_tls(context)
            binding = binding or server_end_point(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        return await Leg(reader, writer).login(password, binding)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class TestPostgres:
    async def test_every_password_in_clear_at_the_server(self, server: PostgresServer) -> None:
        """The server prepares each password itself: ours must come to the same bytes, and to the same verifier."""
        for password in PASSWORDS:
            kept = server.run(
                f"ALTER ROLE app PASSWORD {quoted(password)}; SELECT rolpassword FROM pg_authid WHERE rolname = 'app'", user=ADMIN
            )
            mechanism, salted, keys = kept.split("$")
            iterations, salt64 = salted.split(":")
            ours = verifier("v", password, base64.b64decode(salt64), int(iterations))
            assert mechanism == PLAIN
            assert keys == f"{base64.b64encode(ours.stored_key).decode()}:{base64.b64encode(ours.server_key).decode()}"
            assert await connect(server, password) == PLAIN
        with pytest.raises(AuthenticationError):
            await connect(server, "wrong")

    async def test_channel_binding(self, server: PostgresServer, tls: Certificate) -> None:
        server.run("ALTER ROLE app PASSWORD 'bound'", user=ADMIN)
        assert await connect(server, "bound", tls) == PLUS

    async def test_another_certificate_than_the_servers(self, server: PostgresServer, tls: Certificate) -> None:
        server.run("ALTER ROLE app PASSWORD 'bound'", user=ADMIN)
        with pytest.raises(AuthenticationError):
            await connect(server, "bound", tls, binding=b"\x00" * 48)
