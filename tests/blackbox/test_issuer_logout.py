"""An issuer's own tokens, without any login of ours: what they opened ends when the issuer says that the login is over.

That outlives `kill -9`, as does what was revoked; and so does, for those who still are who they were, what was exchanged.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import asyncssh
import httpx
import pytest
import pytest_asyncio

from blackbox.conftest import World, open_world
from blackbox.test_identity import certificate
from harness.issuer import FakeIssuer, running_issuer
from harness.postgres_server import PostgresServer
from interlock.cli.client import Client
from interlock.control import SOCKET
from interlock.identity.exchange import ACCESS_TOKEN, GRANT, JWT
from interlock.identity.idtoken import LOGOUT
from interlock.identity.scim import PATCH

pytestmark = [pytest.mark.blackbox, pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

SCIM = "the token of the identity provider"

RULES = """\
version: 1
packs: [linux, linux-deny, postgres, postgres-deny]
default: {review: {groups: [sre]}}
access:
  - {who: {groups: [dba]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
"""


class Provider:
    """The company's issuer: tokens for its people, and what it says to us."""

    def __init__(self, world: World, issuer: FakeIssuer) -> None:
        self.world, self.issuer = world, issuer
        self._count = 0
        self.links: list[asyncpg.Connection] = []

    @property
    def url(self) -> str:
        return f"https://{self.world.node.addresses['http']}"

    def http(self, bearer: str = "") -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, verify=False, trust_env=False, timeout=60)

    def _claims(self, **more: Any) -> dict[str, Any]:
        now = int(datetime.now(UTC).timestamp())  # noqa: TID251  the issuer has its own clock
        self._count += 1
        jti = f"{time.monotonic_ns()}-{self._count}"
        return {"iss": self.issuer.issuer, "jti": jti, "iat": now, "exp": now + 600, **more}

    def token(self, sub: str, **more: Any) -> str:
        return self.issuer.token(self._claims(aud="interlock", sub=sub, groups=["dba"], **more))

    async def log_out(self, **named: str) -> httpx.Response:
        claims = self._claims(aud="interlock-cli", events={LOGOUT: {}}, **named)
        said = self.issuer.token(claims, headers={"typ": "logout+jwt"})
        async with self.http() as http:
            return await http.post("/v1/logout/backchannel", data={"logout_token": said})

    async def postgres(self, user: str, password: str) -> tuple[asyncpg.Connection, asyncio.Event]:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        link = await asyncpg.connect(
            host="127.0.0.1", port=self.world.node.port("postgres"), user=user, database="orders", password=password, ssl=trusting
        )
        self.links.append(link)
        ended = asyncio.Event()
        link.add_termination_listener(lambda _: ended.set())
        assert await link.fetchval("SELECT 6 * 7") == 42
        return link, ended

    async def ssh(self, password: str) -> asyncssh.SSHClientConnection:
        link = await asyncssh.connect(
            "127.0.0.1", self.world.node.port("ssh"), username="web-1", password=password, known_hosts=None, client_keys=None,
            config=None,
        )  # fmt: skip
        assert (await link.run("echo in")).stdout == "in\n"
        return link


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> AsyncIterator[Provider]:
    folder = tmp_path_factory.mktemp("issuer")
    pem, key = certificate(folder)
    (folder / "node").mkdir(mode=0o700)
    (folder / "node/scim_token").write_text(SCIM)
    with running_issuer() as issuer, running_issuer() as ci:
        issuers = [
            {"name": "people", "issuer": issuer.issuer, "audience": "interlock", "kind": "human"},
            {"name": "ci", "issuer": ci.issuer, "audience": "interlock", "kind": "agent", "token_type": ["JWT"]},
        ]
        login = {"issuer": "people", "cli": {"client_id": "interlock-cli"}}
        async with open_world(
            folder, server, adjust=lambda _: _write_rules(folder), tls={"certificate": str(pem), "key": str(key)},
            listen={"ssh": "127.0.0.1:0", "postgres": "127.0.0.1:0", "http": "127.0.0.1:0", "postgres_auth": "token"},
            identity={"issuers": issuers, "login": login, "scim": {"token": "file:scim_token", "issuer": "people"}},
        ) as world:  # fmt: skip
            made = Provider(world, issuer)
            made.ci = ci  # type: ignore[attr-defined]
            yield made
            for link in made.links:
                link.terminate()


def _write_rules(folder: Path) -> None:
    (folder / "node/policies/ours.yaml").write_text(RULES)


async def told(world: World, call: Callable[[Client], Any]) -> Any:
    def run() -> Any:
        client = Client(str(world.node.data_dir / SOCKET))
        try:
            return call(client)
        finally:
            client.close()

    return await asyncio.to_thread(run)


async def ended_both(postgres: asyncio.Event, ssh: asyncssh.SSHClientConnection) -> None:
    await asyncio.wait_for(asyncio.gather(postgres.wait(), ssh.wait_closed()), 60)


async def opened(provider: Provider, sub: str, **more: Any) -> tuple[asyncpg.Connection, asyncio.Event, Any, str]:
    token = provider.token(sub, **more)
    link, ended = await provider.postgres(sub, token)
    return link, ended, await provider.ssh(provider.token(sub, **more)), token


async def test_a_logout_at_the_issuer_ends_what_its_own_tokens_opened_and_cancels_what_they_asked(
    provider: Provider, request: pytest.FixtureRequest
) -> None:
    world = provider.world
    link, ended, ssh, token = await opened(provider, "nina", sid="s1")
    other, other_ended, other_ssh, _ = await opened(provider, "nina", sid="s2")
    running = await ssh.create_process("sleep 600")
    held = asyncio.ensure_future(link.execute("DELETE FROM t WHERE id = 1"))
    waiting = await asyncio.to_thread(world.wait_pending)
    begun = time.monotonic()
    answer = await provider.log_out(sub="nina", sid="s1")
    assert answer.status_code == 200, answer.text
    await ended_both(ended, ssh)
    measured = request.node.user_properties
    measured.append(("seconds until both sessions had ended", time.monotonic() - begun))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await held
    await running.wait_closed()
    states = [waiting["state"]]
    while states[-1] == "pending":
        states.append((await told(world, lambda client: client.get(f"/v1/approvals/{waiting['id']}")))["state"])
    measured.append(("seconds until the request was cancelled", time.monotonic() - begun))
    assert states[-1] == "cancelled"
    # The token itself is good for ten more minutes, and worth nothing; another session of the same person goes on.
    async with provider.http(token) as http:
        refused = await http.get("/v1/whoami")
    assert (refused.status_code, refused.json()["reason"]) == (401, "login-ended")
    with pytest.raises(asyncssh.PermissionDenied):
        await provider.ssh(token)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await provider.postgres("nina", token)
    assert await other.fetchval("SELECT 1") == 1
    assert (await provider.log_out(sub="nina")).status_code == 200
    await ended_both(other_ended, other_ssh)


async def test_who_is_deactivated_by_scim_loses_what_the_issuer_s_tokens_opened(provider: Provider) -> None:
    """Also what was opened before there was an entry: the token then stood for just its subject."""
    _, ended, ssh, token = await opened(provider, "omar")
    async with provider.http(SCIM) as scim:
        made = await scim.post("/scim/v2/Users", json={"userName": "omar@acme.example", "externalId": "omar"})
        assert made.status_code == 201, made.text
        body = {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "active", "value": False}]}
        assert (await scim.patch(f"/scim/v2/Users/{made.json()['id']}", json=body)).status_code == 200
    await ended_both(ended, ssh)
    async with provider.http(token) as http:
        assert (await http.get("/v1/whoami")).json()["reason"] == "disabled-principal"


async def test_who_is_unlinked_or_disabled_loses_what_the_issuer_s_tokens_opened(provider: Provider) -> None:
    world = provider.world
    subject = {"issuer": provider.issuer.issuer, "subject": "pia"}
    await told(world, lambda client: client.post("/v1/principals", {"handle": "pia", "kind": "human", "groups": ["dba"]}))
    await told(world, lambda client: client.post("/v1/principals/pia/links", subject))
    _, ended, ssh, _ = await opened(provider, "pia")
    run = world.node.run
    await asyncio.to_thread(run, "principals", "unlink", "pia", "--issuer", subject["issuer"], "--subject", "pia")
    await ended_both(ended, ssh)
    await asyncio.to_thread(run, "principals", "link", "pia", "--issuer", subject["issuer"], "--subject", "pia")
    _, ended, ssh, _ = await opened(provider, "pia")
    await asyncio.to_thread(run, "principals", "set", "pia", "--disable")
    await ended_both(ended, ssh)


async def test_a_killed_daemon_still_knows_who_logged_out_what_is_revoked_and_what_was_exchanged(
    provider: Provider,
) -> None:
    world = provider.world
    await told(world, lambda client: client.post("/v1/principals/claude/links", _workload(provider)))
    gone, stays = provider.token("rosa"), provider.token("sam")
    assert (await provider.log_out(sub="rosa")).status_code == 200
    exchanged = {name: await _exchanged(provider, provider.token(name)) for name in ("sam", "tess")}
    assert (await provider.log_out(sub="tess")).status_code == 200  # and with her the token that was exchanged for hers
    run = world.node.run
    await asyncio.to_thread(
        world.node.run, "principals", "add", "robot", "--kind", "agent", "--owner", "alice", "--group", "agents"
    )
    robot = (await asyncio.to_thread(world.node.json, "principals", "token", "issue", "robot"))["token"]
    one, two = [await asyncio.to_thread(world.node.json, "principals", "token", "issue", "claude") for _ in range(2)]
    await asyncio.to_thread(run, "revoke", "agent", "robot")
    await asyncio.to_thread(run, "revoke", "credential", one["id"])
    await asyncio.to_thread(run, "revoke", "subject", f"{provider.issuer.issuer}:uma")
    await asyncio.to_thread(run, "revoke", "target", "orders")

    await asyncio.to_thread(world.node.kill)
    await asyncio.to_thread(world.node.start)

    async def reason(secret: str) -> str:
        async with provider.http(secret) as http:
            answer = await http.get("/v1/whoami")
        return str(answer.json()["reason"]) if answer.status_code != 200 else str(answer.json()["handle"])

    assert await reason(gone) == "login-ended"
    assert (await reason(stays)).startswith("jwt-")
    assert await reason(exchanged["sam"]) == "claude"
    assert await reason(exchanged["tess"]) in ("login-ended", "token-rejected")
    assert await reason(robot) == "credential-revoked"
    assert await reason(one["token"]) == "credential-revoked"
    assert await reason(two["token"]) == "claude"
    assert await reason(provider.token("uma")) == "credential-revoked"
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await provider.postgres("claude", two["token"])
    link = await provider.ssh(two["token"])
    link.close()
    standing = await asyncio.to_thread(world.node.json, "revoke", "list")
    assert sorted(row["kind"] for row in standing["revocations"]) == ["agent", "credential", "subject", "target"]
    for row in standing["revocations"]:
        await asyncio.to_thread(run, "revoke", "lift", row["id"])
    assert await reason(robot) == "robot"


def _workload(provider: Provider) -> dict[str, str]:
    return {"issuer": provider.ci.issuer, "subject": "repo:acme/app"}  # type: ignore[attr-defined]


async def _exchanged(provider: Provider, person: str) -> str:
    ci: FakeIssuer = provider.ci  # type: ignore[attr-defined]
    claims = {**provider._claims(aud="interlock", sub="repo:acme/app"), "iss": ci.issuer}
    form = {
        "grant_type": GRANT, "subject_token": person, "subject_token_type": ACCESS_TOKEN,
        "actor_token": ci.token(claims, headers={"typ": "JWT"}), "actor_token_type": JWT,
    }  # fmt: skip
    async with provider.http() as http:
        answer = await http.post("/v1/token", data=form)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])
