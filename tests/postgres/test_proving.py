"""How clients prove who they are, against libpq itself and against clients that cheat: SCRAM, OAUTHBEARER, certificates."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from psycopg import OperationalError

from harness import oauth_client
from harness.authority import Authority, Pair
from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.issuer import FakeIssuer, running_issuer
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, message, startup
from interlock.clock import SystemClock
from interlock.errors import AuthenticationError
from interlock.identity import certificate as certificates
from interlock.identity.principal import Identity
from interlock.identity.scram import PLAIN, PLUS, ScramClient, salted_password, server_end_point

pytestmark = pytest.mark.interop

ISSUER = "https://idp.example.test"
"""libpq takes no issuer without https. Only the keys are fetched, and those from loopback."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Pair:
    return authority.server("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def many(
    server: PostgresServer, authority: Authority, shown: Pair, issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """A proxy that takes certificates, SCRAM and OAUTHBEARER on one port."""
    with listening(server, tmp_path_factory.mktemp("many"), authority, shown, ["cert", "scram", "oauth"], issuer) as running:
        yield running


@pytest.fixture(scope="module")
def certified(
    server: PostgresServer, authority: Authority, shown: Pair, issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    with listening(server, tmp_path_factory.mktemp("cert"), authority, shown, "cert", issuer) as running:
        yield running


def listening(server: PostgresServer, folder: Path, authority: Authority, shown: Pair, methods: Any, issuer: FakeIssuer) -> Any:
    pinned = {"name": "idp", "issuer": ISSUER, "jwks_url": f"{issuer.issuer}/keys", "audience": "interlock", "kind": "human"}
    config = configuration(
        server, folder,
        listen={"postgres": "127.0.0.1:0", "postgres_auth": methods, "postgres_oauth": {"scope": "openid interlock"}},
        tls={"certificate": str(shown.certificate), "key": str(shown.key), "client_ca": str(authority.file)},
        identity={"issuers": [pinned]},
    )  # fmt: skip
    return running_proxy(config, folder, VerbPolicy())


OPEN: list[WireClient] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().socket.close()


def wire(proxy: Proxy, *, tls: bool = True) -> WireClient:
    """A connection that the test's end closes."""
    client = WireClient(proxy.port)
    OPEN.append(client)
    if tls:
        client.to_tls(context())
    return client


def fatal(dsn: str) -> str:
    with pytest.raises(OperationalError) as caught:
        psycopg.connect(dsn).close()
    return str(caught.value)


def context(*, pair: Pair | None = None) -> ssl.SSLContext:
    """A client that looks at no certificate: what it is told is what the tests are about."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if pair is not None:
        made.load_cert_chain(pair.certificate, pair.key)
    return made


# -- SCRAM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binding", ["require", "disable"])
def test_libpq_with_and_without_channel_binding(many: Proxy, authority: Authority, binding: str) -> None:
    dsn = many.dsn(sslmode="verify-full", sslrootcert=str(authority.file), channel_binding=binding, require_auth="scram-sha-256")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_every_live_password_opens_and_names_its_session(many: Proxy) -> None:
    issued = [many.run(many.desk.directory.issue_password("claude")) for _ in range(2)]
    for password in issued:
        with psycopg.connect(many.dsn(password=password.secret.reveal(), sslmode="require")) as connection:
            connection.execute("SELECT 1")
        idents = [event["credential"]["ident"] for event in many.of("session.open")]
        assert password.id in idents
    many.run(many.desk.directory.revoke_password("claude", issued[0].id))
    assert "password authentication failed" in fatal(many.dsn(password=issued[0].secret.reveal(), sslmode="require"))
    psycopg.connect(many.dsn(password=issued[1].secret.reveal(), sslmode="require")).close()


class Scram:
    """One exchange by hand, in which a cheat may change what it sends."""

    def __init__(self, proxy: Proxy, *, tls: bool = True) -> None:
        self.client = wire(proxy, tls=tls)
        self.client.send(startup({"user": "claude", "database": "orders"}))
        kind, body = self.client.read()
        assert kind == "R"
        self.offered = [name.decode() for name in body[4:].split(b"\0") if name]

    def initial(self, mechanism: str, data: bytes) -> None:
        self.client.send(message(b"p", mechanism.encode() + b"\0" + struct.pack("!I", len(data)) + data))

    def exchange(self, proxy: Proxy, binding: bytes | None, *, change: Any = None) -> None:
        machine = ScramClient(self.offered if binding else [PLAIN], entropy=secrets.token_bytes, binding=binding)
        self.initial(machine.mechanism, machine.first())
        stretch = machine.challenge(self.client.read()[1][4:])
        final = machine.final(salted_password(proxy.password, stretch.salt, stretch.iterations))
        self.client.send(message(b"p", change(final) if change else final))


def binding_of(shown: Pair) -> bytes:
    found = server_end_point(ssl.PEM_cert_to_DER_cert(shown.certificate.read_text()))
    assert found is not None
    return found


def test_the_mechanisms_that_are_offered(many: Proxy) -> None:
    assert Scram(many).offered == [PLUS, PLAIN, "OAUTHBEARER"]
    assert Scram(many, tls=False).offered == [PLAIN]  # no token may be asked for in clear


def test_a_proof_bound_to_our_certificate_opens(many: Proxy, shown: Pair) -> None:
    exchange = Scram(many)
    exchange.exchange(many, binding_of(shown))
    assert exchange.client.until_ready() == ["ZI"]


def test_a_proof_bound_to_another_certificate_is_none(many: Proxy, authority: Authority) -> None:
    """What somebody in the middle, with a certificate of its own, passes on."""
    exchange = Scram(many)
    exchange.exchange(many, binding_of(authority.server("localhost")))
    fields = exchange.client.fatal()
    assert fields["C"] == "28P01" and "password authentication failed" in fields["M"]


def test_a_client_that_was_not_shown_the_offer_of_binding_is_refused(many: Proxy) -> None:
    """The flag y: it could bind, and somebody took PLUS out of our offer."""
    exchange = Scram(many)
    exchange.initial(PLAIN, b"y,,n=,r=abcdefghijklmnop")
    assert exchange.client.fatal()["C"] == "28P01"


def test_a_nonce_of_another_exchange_is_refused(many: Proxy) -> None:
    def other(final: bytes) -> bytes:
        head, _, rest = final.partition(b",r=")
        nonce, _, proof = rest.partition(b",")
        return head + b",r=" + nonce[:-4] + b"AAAA," + proof

    exchange = Scram(many)
    exchange.exchange(many, None, change=other)
    assert exchange.client.fatal()["C"] == "08P01"


def test_a_mechanism_that_was_not_offered_is_refused(many: Proxy) -> None:
    exchange = Scram(many, tls=False)
    exchange.initial("OAUTHBEARER", b"n,,\x01auth=Bearer a.b.c\x01\x01")
    assert exchange.client.fatal()["C"] == "08P01"


def test_a_proof_of_another_session_is_refused(many: Proxy) -> None:
    recorded: list[bytes] = []
    first = Scram(many)
    first.exchange(many, None, change=lambda final: recorded.append(final) or final)
    assert first.client.until_ready() == ["ZI"]
    again = Scram(many)
    again.initial(PLAIN, b"n,,n=,r=" + base64.b64encode(secrets.token_bytes(18)))
    again.client.read()
    again.client.send(message(b"p", recorded[0]))
    assert again.client.fatal()["C"] == "08P01"


# -- OAUTHBEARER -------------------------------------------------------------------------------------------------------


def token(issuer: FakeIssuer, **more: Any) -> str:
    now = int(SystemClock().now().timestamp())
    return issuer.token({
        "iss": ISSUER, "aud": "interlock", "sub": "u-alice", "jti": secrets.token_hex(8), "iat": now, "exp": now + 300,
        **more,
    })  # fmt: skip


def bearer(proxy: Proxy, **more: str) -> str:
    """A DSN without a password, so that libpq has a token to offer and nothing else."""
    words = {
        "host": "127.0.0.1", "port": str(proxy.port), "user": "u-alice", "dbname": "orders", "sslmode": "require",
        "oauth_issuer": ISSUER, "oauth_client_id": "cli", "require_auth": "oauth", **more,
    }  # fmt: skip
    return " ".join(f"{key}='{value}'" for key, value in words.items())


@pytest.fixture(scope="module")
def oauth(
    server: PostgresServer, authority: Authority, shown: Pair, issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    with listening(server, tmp_path_factory.mktemp("oauth"), authority, shown, "oauth", issuer) as running:
        yield running


def test_libpq_18_asks_where_to_get_a_token_and_logs_in_with_it(oauth: Proxy, issuer: FakeIssuer) -> None:
    secret, refusals = token(issuer), oauth.desk.journal_text().count('"outcome":"refused"')
    answer = oauth_client.run(bearer(oauth), secret)
    assert answer == {
        "asked": [[f"{ISSUER}/.well-known/openid-configuration", "openid interlock"]], "connected": True, "error": "",
    }  # fmt: skip
    opened = oauth.of("session.open")[-1]
    assert opened["credential"]["kind"] == "jwt"
    journal = oauth.desk.journal_text()
    assert secret not in journal
    assert journal.count('"outcome":"refused"') == refusals  # the question was no failed login


def test_libpq_18_with_a_token_that_is_not_accepted(oauth: Proxy, issuer: FakeIssuer) -> None:
    secret = token(issuer, aud="somebody-else")
    answer = oauth_client.run(bearer(oauth), secret)
    assert not answer["connected"] and 'OAuth bearer authentication failed for user "u-alice"' in answer["error"]
    assert '"outcome":"refused"' in oauth.desk.journal_text() and secret not in oauth.desk.journal_text()


@pytest.mark.parametrize("wrong", [{"exp": 1000}, {"sub": "u-bob"}, {"jti": None}], ids=["exp", "sub", "jti"])
def test_a_token_that_is_not_accepted_is_refused_in_the_mechanisms_own_way(
    oauth: Proxy, issuer: FakeIssuer, wrong: dict[str, Any]
) -> None:
    client = sasl_of(oauth, token(issuer, **wrong))
    kind, body = client.read()
    assert kind == "R" and json.loads(body[4:])["status"] == "invalid_token"
    client.send(message(b"p", b"\x01"))
    assert client.fatal()["C"] == "28P01"


def test_libpq_18_takes_no_other_issuer_than_its_own(oauth: Proxy, issuer: FakeIssuer) -> None:
    """The client's own guard: a server can't send it to another issuer with the user's name on its lips."""
    answer = oauth_client.run(bearer(oauth, oauth_issuer="https://elsewhere.example"), token(issuer))
    assert not answer["connected"] and not answer["asked"] and "issuer" in answer["error"]


def test_no_token_is_asked_for_in_clear(oauth: Proxy, issuer: FakeIssuer) -> None:
    answer = oauth_client.run(bearer(oauth, sslmode="disable"), token(issuer))
    assert not answer["connected"] and "inside TLS only" in answer["error"]


def sasl(proxy: Proxy, data: bytes) -> WireClient:
    client = wire(proxy)
    client.send(startup({"user": "u-alice", "database": "orders"}))
    assert client.read() == ("R", struct.pack("!I", 10) + b"OAUTHBEARER\0\0")
    client.send(message(b"p", b"OAUTHBEARER\0" + struct.pack("!I", len(data)) + data))
    return client


def test_an_empty_token_is_answered_with_where_to_get_one(oauth: Proxy) -> None:
    client = sasl(oauth, b"n,,\x01auth=\x01\x01")
    kind, body = client.read()
    assert kind == "R" and body[:4] == struct.pack("!I", 11)
    assert json.loads(body[4:]) == {
        "status": "invalid_token", "scope": "openid interlock",
        "openid-configuration": f"{ISSUER}/.well-known/openid-configuration",
    }  # fmt: skip
    client.send(message(b"p", b"\x01"))
    assert client.fatal()["C"] == "28000"


def test_no_second_token_after_a_refusal(oauth: Proxy, issuer: FakeIssuer) -> None:
    client = sasl(oauth, b"n,,\x01auth=Bearer wrong\x01\x01")
    client.read()
    good = b"n,,\x01auth=Bearer " + token(issuer).encode() + b"\x01\x01"
    client.send(message(b"p", good))
    assert client.fatal()["C"] == "08P01"


def test_libpq_chooses_among_the_methods_of_one_listener(many: Proxy, issuer: FakeIssuer) -> None:
    psycopg.connect(many.dsn(sslmode="require", require_auth="scram-sha-256")).close()
    assert sasl_of(many, token(issuer)).until_ready() == ["ZI"]


def sasl_of(proxy: Proxy, secret: str, *, user: str = "u-alice") -> WireClient:
    client = wire(proxy)
    client.send(startup({"user": user, "database": "orders"}))
    client.read()
    data = b"n,,\x01auth=Bearer " + secret.encode() + b"\x01\x01"
    client.send(message(b"p", b"OAUTHBEARER\0" + struct.pack("!I", len(data)) + data))
    return client


# -- the end of a credential -------------------------------------------------------------------------------------------


def ended(issuer: FakeIssuer, **more: Any) -> str:
    """A token that has ended a moment ago, which the skew of clocks still lets in."""
    return token(issuer, exp=int(SystemClock().now().timestamp()) - 30, **more)


def answer(client: WireClient) -> list[str]:
    client.send(WireClient.query("SELECT 1"))
    return client.until_ready()


ALLOWED, EXPIRED = ["T", "D", "C", "ZI"], ["E42501", "ZI"]


def test_a_session_ends_with_its_token_until_the_same_subject_has_a_new_one(oauth: Proxy, issuer: FakeIssuer) -> None:
    client = sasl_of(oauth, ended(issuer, groups=["sre"]))
    assert client.until_ready() == ["ZI"]
    assert answer(client) == EXPIRED and "credential-expired" in client.errors[-1]["D"]
    # Somebody else's, and the same subject's with less than the session has: neither prolongs it.
    for user, other in (("u-bob", ["sre"]), ("u-alice", []), ("u-alice", ["dba"])):
        assert sasl_of(oauth, token(issuer, sub=user, groups=other), user=user).until_ready() == ["ZI"]
        assert answer(client) == EXPIRED
    renewing = sasl_of(oauth, token(issuer, groups=["sre", "dba"]))
    assert renewing.until_ready() == ["ZI"]
    assert answer(client) == ALLOWED


def test_a_token_for_somebody_else_prolongs_no_session_for_the_first(oauth: Proxy, issuer: FakeIssuer) -> None:
    """An agent acts for two people. What one of them lets it do does not go on because the other one does."""
    oauth.run(oauth.desk.directory.link("claude", Identity(ISSUER, "bot")))
    acts = {"act": {"sub": "bot"}}
    client = sasl_of(oauth, ended(issuer, **acts), user="claude")
    assert client.until_ready() == ["ZI"] and answer(client) == EXPIRED
    assert sasl_of(oauth, token(issuer, sub="u-carol", **acts), user="claude").until_ready() == ["ZI"]
    assert answer(client) == EXPIRED
    later = SystemClock().now() + timedelta(hours=1)
    oauth.loop.call_soon_threadsafe(oauth.gate.renew, Identity(ISSUER, "bot"), later)  # one of its own, for nobody
    assert answer(client) == EXPIRED
    assert sasl_of(oauth, token(issuer, **acts), user="claude").until_ready() == ["ZI"]
    assert answer(client) == ALLOWED


# -- certificates ------------------------------------------------------------------------------------------------------


def shows(proxy: Proxy, pair: Pair | None, **more: str) -> str:
    words = {"password": "", "sslmode": "require", **more}
    files = {"sslcert": str(pair.certificate), "sslkey": str(pair.key)} if pair else {"sslcertmode": "disable"}
    return proxy.dsn(**words, **files)


def test_a_certificate_is_who_one_is(certified: Proxy, authority: Authority) -> None:
    pair = authority.client("claude")
    with psycopg.connect(shows(certified, pair)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("app",)
        assert not connection.pgconn.used_password
    opened = certified.of("session.open")[-1]
    assert opened["credential"]["kind"] == "certificate"
    assert opened["credential"]["ident"] == certificates.read(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())).ident


def test_whose_certificate_it_is_not(certified: Proxy, authority: Authority) -> None:
    refused = 'certificate authentication failed for user "claude"'
    assert refused in fatal(shows(certified, authority.client("bob")))
    assert refused in fatal(shows(certified, authority.client("claude", "bob")))
    assert refused in fatal(shows(certified, authority.client("CLAUDE")))
    assert "takes a client certificate only" in fatal(shows(certified, None))
    assert 'authentication failed for user "nobody"' in fatal(shows(certified, authority.client("nobody"), user="nobody"))


@pytest.mark.parametrize("wrong", ["authority", "expired", "usage"])
def test_certificates_that_tls_itself_refuses(certified: Proxy, authority: Authority, tmp_path: Path, wrong: str) -> None:
    pair = {
        "authority": lambda: Authority(tmp_path, "other").client("claude"),
        "expired": lambda: authority.client("claude", life=-timedelta(days=1)),
        "usage": lambda: authority.client("claude", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    }[wrong]()
    before = len(certified.of("session.open"))
    assert "interlock" not in fatal(shows(certified, pair))  # an alert of TLS, or a connection that ends
    assert len(certified.of("session.open")) == before


def test_a_certificate_of_somebody_stopped_opens_nothing(certified: Proxy, authority: Authority) -> None:
    certified.run(certified.desk.directory.set_disabled("claude", True))
    try:
        assert "certificate authentication failed" in fatal(shows(certified, authority.client("claude")))
    finally:
        certified.run(certified.desk.directory.set_disabled("claude", False))


def test_whoever_shows_a_certificate_is_judged_by_it(many: Proxy, authority: Authority) -> None:
    """Beside another method: a certificate of somebody else is not made good by a password."""
    psycopg.connect(shows(many, authority.client("claude"))).close()
    psycopg.connect(shows(many, None, password=many.password)).close()
    assert "certificate authentication failed" in fatal(shows(many, authority.client("bob"), password=many.password))


def test_a_certificate_with_two_names_names_nobody(authority: Authority) -> None:
    der = ssl.PEM_cert_to_DER_cert(authority.client("bob", "claude").certificate.read_text())
    with pytest.raises(AuthenticationError):
        certificates.read(der)
    with pytest.raises(AuthenticationError):
        certificates.read(der[:-1])
