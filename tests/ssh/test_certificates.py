"""Login certificates at the front end: stock ssh, forged certificates, and the private hook of asyncssh that reads them."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import pytest_asyncio
from asyncssh.packet import String

from harness import stores
from harness.change_journal import Journal
from harness.entrance import issuance_over, logins_over, public_line, somebody
from harness.hostile_provider import CLI, ISSUER, HostileProvider
from harness.openssh_server import OpenSshServer
from harness.people import BOB, person
from harness.ssh_bench import SshBench, until
from harness.ssh_forger import Forger
from interlock.clock import SystemClock, system_entropy
from interlock.identity.authenticate import Authenticator
from interlock.identity.derived import Ended, principal_name
from interlock.identity.directory import Directory
from interlock.identity.idtoken import IdTokens
from interlock.identity.issuance import Issuance
from interlock.identity.keyset import KeySet
from interlock.identity.logins import Logins, Opened
from interlock.identity.principal import Kind
from interlock.identity.provider import Provider, ProviderClient
from interlock.identity.signin import Clients, SignIn
from interlock.ssh import connection

pytestmark = pytest.mark.interop

HOURS_8 = 8 * 3600


@dataclass
class Office:
    """The front end with the real directory, register and authority behind it, and somebody who has just logged in."""

    bench: SshBench
    directory: Directory
    logins: Logins
    issuance: Issuance
    idp: HostileProvider
    login: Opened
    key: asyncssh.SSHKey
    ca: asyncssh.SSHKey

    @property
    def principal(self) -> str:
        return principal_name(self.login.principal.identity)

    async def certificate(self) -> asyncssh.SSHCertificate:
        return asyncssh.import_certificate((await self.issuance.issue(self.login.principal, public_line(self.key))).line)

    async def forge(self, *, ca: asyncssh.SSHKey | None = None, key: asyncssh.SSHKey | None = None, **changes: Any) -> Any:
        """A certificate like a real one that was issued, in everything but `changes`."""
        issued: Any = await self.certificate()
        said: dict[str, Any] = {
            "serial": issued._serial, "principals": list(issued.principals), "valid_after": issued._valid_after,
            "valid_before": issued._valid_before, **changes,
        }  # fmt: skip
        return (ca or self.ca).generate_user_certificate(key or self.key, "dora", **said)

    async def enters(self, certificate: Any, *, key: asyncssh.SSHKey | None = None) -> bool:
        try:
            link = await asyncssh.connect(
                "127.0.0.1", self.bench.listener.port, username="web-1", config=None, agent_path=None,
                client_keys=[(key or self.key, certificate)], preferred_auth="publickey",
                known_hosts=str(self.bench.directory / "proxy_known_hosts"),
            )  # fmt: skip
        except asyncssh.PermissionDenied:
            return False
        async with link:
            return (await link.run("echo in")).stdout == "in\n"

    def who(self) -> list[object]:
        return [event.fields["handle"] for event in self.bench.memory.transcripts.all("session.open")]


@pytest_asyncio.fixture
async def office(tmp_path: Path, target: OpenSshServer) -> AsyncIterator[Office]:
    clock, journal = SystemClock(), Journal()
    store = await stores.opened(tmp_path)
    directory = Directory(store.principals, clock=clock, entropy=system_entropy, journal=journal)
    await directory.load()
    logins = logins_over(directory, store.logins, clock=clock, journal=journal, entropy=system_entropy)
    issuance = issuance_over(tmp_path, logins, directory, clock=clock, journal=journal)
    authenticator = Authenticator(directory, clock=clock, journal=journal, logins=logins, issuance=issuance)
    idp: Any = HostileProvider(clock)  # type: ignore[arg-type]  # only asks what time it is
    keys = KeySet(ISSUER, jwks_url=None, clock=clock, client=lambda: idp.http)
    cli = ProviderClient(CLI)
    signin = SignIn(
        Provider(ISSUER, clock=clock, asking=idp),
        IdTokens(idp.config, keys, clock=clock, handle_claim="preferred_username"), logins, Clients("openid", cli, cli),
        clock=clock, entropy=system_entropy,
    )  # fmt: skip
    bench = SshBench(tmp_path / "proxy", target, authenticator=authenticator, signin=signin)
    await bench.start()
    logins.subscribe(lambda told: bench.memory.gate.end(told.credentials, "the login behind this session has ended"))
    opened = await logins.open(somebody(), method="device", source="here")
    ca = asyncssh.read_private_key(tmp_path / "ssh_ca")
    yield Office(bench, directory, logins, issuance, idp, opened, asyncssh.generate_private_key("ssh-ed25519"), ca)
    await bench.stop()
    await authenticator.close()
    await logins.close()
    await idp.http.aclose()
    await store.close()


async def test_stock_ssh_enters_with_a_login_certificate_and_leaves_with_the_login(office: Office) -> None:
    folder = office.bench.directory
    (folder / "id").touch(mode=0o600)
    (folder / "id").write_bytes(office.key.export_private_key())
    (folder / "id-cert.pub").write_bytes((await office.certificate()).export_certificate())
    ssh = await office.bench.spawn("echo in; sleep 600", identity="id")
    assert ssh.stdout is not None
    async with asyncio.timeout(30):
        assert await ssh.stdout.readline() == b"in\n"
    await office.logins.end([office.login.id], "logout")
    async with asyncio.timeout(30):
        _, said = await ssh.communicate()
    assert (ssh.returncode, b"the login behind this session has ended" in said) == (255, True), said
    assert office.who() == ["dora"]
    assert (await office.bench.ssh("true", identity="id")).status == 255


async def test_a_revoked_serial_ends_its_own_session_and_no_other(office: Office) -> None:
    one, two = await office.certificate(), await office.certificate()
    links = [
        await asyncssh.connect(
            "127.0.0.1", office.bench.listener.port, username="web-1", config=None, agent_path=None,
            client_keys=[(office.key, certificate)], known_hosts=None,
        )
        for certificate in (one, two)
    ]  # fmt: skip
    await office.logins.derived.end_certificate(f"{one._serial:016x}")  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        await links[0].wait_closed()
    assert (await links[1].run("echo in")).stdout == "in\n"
    links[1].close()
    assert not await office.enters(one) and await office.enters(two)


FORGERIES: dict[str, Callable[[Office], Any]] = {
    "by an authority of one's own": lambda o: o.forge(ca=asyncssh.generate_private_key("ssh-ed25519")),
    "by the certified key itself": lambda o: o.forge(ca=o.key),
    "under a serial that was never issued": lambda o: o.forge(serial=7),
    "without principals": lambda o: o.forge(principals=[]),
    "with a second principal": lambda o: o.forge(principals=[o.principal, "root"]),
    "with the target's account as principal": lambda o: o.forge(principals=["web-1"]),
    "with another person's principal": lambda o: o.forge(principals=["interlock:somebody#0123456789"]),
    "that has ended": lambda o: o.forge(valid_after=1, valid_before=2),
    "that has not begun": lambda o: o.forge(valid_after="+1h", valid_before="+2h"),
    "with a forced command": lambda o: o.forge(force_command="id"),
    "for another address": lambda o: o.forge(source_address=["203.0.113.0/24"]),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_certificate_proves_nothing(office: Office, forgery: str) -> None:
    assert not await office.enters(await FORGERIES[forgery](office))
    assert office.who() == []


async def test_the_forgeries_differ_from_a_good_one_in_what_they_say(office: Office) -> None:
    """Or every refusal above would mean nothing. Even the authority's own key makes only what is in the register."""
    assert await office.enters(await office.forge())


async def test_a_certificate_for_another_key_is_refused_though_the_authority_signed_it(office: Office) -> None:
    """A stolen authority key alone makes nobody: serial, key and principal must be in the register together."""
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    assert not await office.enters(await office.forge(key=stranger), key=stranger)


async def test_a_host_certificate_is_no_login(office: Office) -> None:
    issued: Any = await office.certificate()
    host = office.ca.generate_host_certificate(office.key, "dora", serial=issued._serial, principals=list(issued.principals))
    assert not await office.enters(host)


async def test_an_offered_certificate_is_not_a_proven_one(office: Office) -> None:
    """Offer the certificate of somebody of more rights, then sign with one's own registered key (CVE-2024-45337)."""
    own = asyncssh.generate_private_key("ssh-ed25519")
    await office.directory.add("eve", Kind.HUMAN, ssh_keys=[public_line(own)])
    certificate = await office.certificate()
    forger = await Forger.connect(office.bench.listener.port, str(office.bench.directory / "proxy_known_hosts"))
    try:
        shown = _as_key(certificate)
        forger.offer(shown, "web-1")
        assert await forger.answers.get() == "offered"
        forger.sign(shown, "web-1", by=own)  # with somebody else's key: the certificate does not become one's own
        assert await forger.answers.get() == "failure"
        forger.sign(own, "web-1")
        assert await forger.answers.get() == "success"
    finally:
        forger.abort()
        await forger.wait_closed()
    assert office.who() == ["eve"]


def _as_key(certificate: Any) -> Any:
    """What the forger sends where a key stands: it only asks for the blob."""

    class Shown:
        public_data = certificate.public_data

    return Shown()


async def test_a_certificate_inside_a_certificate_is_refused(office: Office) -> None:
    """The signing key of a certificate is a key and nothing else (CVE-2025-49825: nested certificates)."""
    issued: Any = await office.certificate()
    blob: bytes = issued.public_data
    at = blob.rindex(String(office.ca.public_data))
    nested = blob[:at] + String(blob) + blob[at + len(String(office.ca.public_data)) :]
    with pytest.raises(asyncssh.KeyImportError):
        asyncssh.public_key.decode_ssh_certificate(nested)


async def test_when_the_hook_is_not_called_no_certificate_is_accepted(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncssh's own reading would accept this one: what then lacks is our answer to whose it is."""

    async def reading(self: object, username: str, cert: Any) -> asyncssh.SSHKey:
        return cert.key  # type: ignore[no-any-return]

    monkeypatch.setattr(connection.ClientConnection, "_validate_openssh_certificate", reading)
    assert not await office.enters(await office.certificate())


def test_the_private_hook_is_where_it_was() -> None:
    """asyncssh is pinned below 2.25 for this. When it fails, read ssh/certificates.py before anything else."""
    server = asyncssh.SSHServerConnection
    assert asyncssh.__version__.startswith("2.24.")
    assert list(inspect.signature(server._validate_openssh_certificate).parameters) == ["self", "username", "cert"]
    assert list(inspect.signature(server._validate_x509_certificate_chain).parameters) == ["self", "username", "cert"]
    assert inspect.iscoroutinefunction(server._validate_openssh_certificate)
    body = inspect.getsource(server._validate_client_certificate)
    assert "decode_ssh_certificate(key_data)" in body and "self._validate_openssh_certificate(" in body
    public = inspect.getsource(server.validate_public_key)
    assert public.index("_validate_client_certificate") < public.index("key.verify(String(self._session_id) + msg, signature)")
    assert list(inspect.signature(asyncssh.public_key.SSHOpenSSHCertificate.validate).parameters) == [
        "self", "cert_type", "principal",
    ]  # fmt: skip


# -- the code, to a stock client that has nothing ------------------------------------------------------------------------------


def bare_argv(office: Office, *words: str) -> list[str]:
    return [
        "ssh", "-F", "none", "-o", "IdentityAgent=none", "-o", "PubkeyAuthentication=no", "-o", "PasswordAuthentication=no",
        "-o", f"UserKnownHostsFile={office.bench.directory / 'proxy_known_hosts'}", "-p", str(office.bench.listener.port),
        "web-1@127.0.0.1", *words,
    ]  # fmt: skip


async def bare(office: Office, *words: str) -> asyncio.subprocess.Process:
    """A stock ssh with no key, agent or configuration."""
    return await asyncio.create_subprocess_exec(
        *bare_argv(office, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def test_stock_ssh_shows_the_code_and_waits(office: Office) -> None:
    office.idp.device["interval"] = 0.05
    ssh = await bare(office, "echo", "in")
    await until(lambda: office.idp.times("/token") > 1)  # it waits, and asks
    assert office.who() == []
    office.idp.grant(office.idp.id_token(sub="00u9", preferred_username="erin"))
    async with asyncio.timeout(30):
        out, said = await ssh.communicate()
    assert b"open https://idp.example/go?c=ABCD-EFGH" in said and b"confirm the code ABCD-EFGH" in said
    assert (ssh.returncode, out) == (0, b"in\n"), said
    assert office.who() == ["erin"]


async def test_a_login_by_stock_ssh_ends_with_the_connection_and_takes_no_request_with_it(office: Office) -> None:
    """Nobody has its token. Left in the register, a few of them would end the person's own logins, which are the older ones."""
    told: list[Ended] = []
    office.logins.subscribe(told.append)
    office.idp.device["interval"] = 0.05
    office.idp.grant(office.idp.id_token(sub="00u9", preferred_username="erin"))
    ssh = await bare(office, "cat")
    await until(lambda: office.who() == ["erin"])
    (mine,) = office.bench.memory.gate.sessions()
    assert office.logins.holds(mine.principal.credential.ident)
    ssh.kill()
    await ssh.communicate()
    await until(lambda: not office.logins.holds(mine.principal.credential.ident))
    assert [(one.identities, one.credentials) for one in told] == [(frozenset(), frozenset({mine.principal.credential.ident}))]
    assert office.logins.holds(office.login.id)


@pytest.mark.parametrize("why", ["refused", "forged"])
async def test_a_code_that_comes_to_nothing_lets_nobody_in(office: Office, why: str) -> None:
    office.idp.device["interval"] = 0.05
    if why == "refused":
        office.idp.token = {"error": "access_denied"}
    else:
        office.idp.grant(office.idp.id_token(aud="another client"))
    ssh = await bare(office, "echo", "in")
    await until(lambda: office.idp.times("/device") > 1)  # ssh begins again, as it does with every prompt
    ssh.kill()
    await ssh.communicate()
    assert office.who() == []


async def test_a_client_that_leaves_gives_its_code_back(office: Office) -> None:
    office.idp.device["interval"] = 0.05
    ssh = await bare(office, "echo", "in")
    await until(lambda: office.idp.times("/token") > 0)
    ssh.kill()
    await ssh.communicate()
    await until(lambda: not office.bench.signin._flows)


async def test_where_nobody_logs_in_so_the_prompt_asks_for_a_token(bench: SshBench) -> None:
    bench.authenticator.tokens["ilk_good"] = person(BOB)

    class Typist(asyncssh.SSHClient):
        def kbdint_auth_requested(self) -> str:
            return ""

        def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> list[str]:
            assert prompts == [("Token: ", False)]
            return ["ilk_good"]

    async with asyncssh.connect(
        "127.0.0.1", bench.listener.port, username="web-1", client_factory=Typist, config=None, agent_path=None,
        client_keys=None, preferred_auth="keyboard-interactive", known_hosts=str(bench.directory / "proxy_known_hosts"),
    ) as link:  # fmt: skip
        assert (await link.run("echo in")).stdout == "in\n"
