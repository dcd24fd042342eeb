"""A pipeline acts for a person on real servers: exchange, SSH and Postgres, a held request; and everything ends at once when the
identity provider deactivates the person, or an operator revokes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import asyncssh
import httpx
import pytest
import pytest_asyncio

from blackbox.conftest import World, open_world
from harness.issuer import FakeIssuer
from harness.postgres_server import PostgresServer
from harness.trust import TRUST
from interlock.cli.client import Client
from interlock.control import SOCKET
from interlock.identity.exchange import ACCESS_TOKEN, GRANT, JWT, PASSWORD
from interlock.identity.scim import PATCH

pytestmark = [pytest.mark.blackbox, pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

SCIM = "the token of the identity provider"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ci() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    tmp_path_factory: pytest.TempPathFactory, server: PostgresServer, issuer: FakeIssuer, ci: FakeIssuer
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("delegation")
    (folder / "node").mkdir(mode=0o700)
    (folder / "node/scim_token").write_text(SCIM)
    identity = {
        "issuers": [
            {"name": "people", "issuer": issuer.issuer, "audience": "interlock"},
            {
                "name": "ci", "issuer": ci.issuer, "audience": "interlock", "kind": "agent", "platform": "github-actions",
                "workloads": [{"principal": "claude", "claims": {"repository": "acme/app"}}],
            },
        ],
        "scim": {"token": "file:scim_token", "issuer": "people"},
    }  # fmt: skip
    async with open_world(folder, server, identity=identity) as opened:
        yield opened


@contextmanager
def operator(world: World) -> Iterator[Client]:
    client = Client(str(world.node.data_dir / SOCKET))
    try:
        yield client
    finally:
        client.close()


class Pipeline:
    """What the pipeline and the identity provider do over HTTP."""

    def __init__(self, world: World, people: FakeIssuer, ci: FakeIssuer) -> None:
        self.world, self.people, self.ci = world, people, ci
        self.made = 0
        url = f"http://{world.node.addresses['http']}"
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, verify=TRUST)
        self.scim = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=60, headers={"Authorization": f"Bearer {SCIM}"}, verify=TRUST
        )

    def token(self, issuer: FakeIssuer, sub: str, **more: Any) -> str:
        now = int(datetime.now(UTC).timestamp())  # noqa: TID251  issuers have clocks of their own
        self.made += 1
        claims = {"iss": issuer.issuer, "aud": "interlock", "sub": sub, "jti": f"j{self.made}", "iat": now, "exp": now + 300}
        return issuer.token({**claims, **more}, headers={"typ": "JWT"})

    async def exchanged(self, sub: str, wanted: str) -> str:
        form = {
            "grant_type": GRANT, "requested_token_type": wanted,
            "subject_token": self.token(self.people, sub), "subject_token_type": ACCESS_TOKEN,
            "actor_token": self.token(self.ci, "repo:acme/app:ref:x", repository="acme/app"), "actor_token_type": JWT,
        }  # fmt: skip
        answer = await self.http.post("/v1/token", data=form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def hired(self, sub: str) -> str:
        """The provider makes a user with what it takes to open the targets; return their SCIM id."""
        user = await self.scim.post("/scim/v2/Users", json={"userName": f"{sub}@acme.example", "externalId": sub})
        assert user.status_code == 201, user.text
        ident = str(user.json()["id"])
        found = (await self.scim.get("/scim/v2/Groups", params={"filter": 'displayName eq "agents"'})).json()["Resources"]
        if found:
            body = {"schemas": [PATCH], "Operations": [{"op": "add", "path": "members", "value": [{"value": ident}]}]}
            answer = await self.scim.patch(f"/scim/v2/Groups/{found[0]['id']}", json=body)
        else:
            answer = await self.scim.post("/scim/v2/Groups", json={"displayName": "agents", "members": [{"value": ident}]})
        assert answer.status_code < 300, answer.text
        return ident

    async def postgres(self, password: str) -> tuple[asyncpg.Connection, asyncio.Event]:
        port, ended = self.world.node.port("postgres"), asyncio.Event()
        link = await asyncpg.connect(host="127.0.0.1", port=port, user="claude", database="orders", password=password, ssl=False)
        link.add_termination_listener(lambda _: ended.set())
        assert await link.fetchval("SELECT 6 * 7") == 42
        return link, ended

    async def ssh(self, secret: str) -> asyncssh.SSHClientConnection:
        link = await asyncssh.connect(
            "127.0.0.1", self.world.node.port("ssh"), username="web-1", password=secret, known_hosts=None, client_keys=None,
            config=None,
        )  # fmt: skip
        done = await link.run("echo from the pipeline")
        assert done.stdout == "from the pipeline\n", done.stderr
        return link


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pipeline(world: World, issuer: FakeIssuer, ci: FakeIssuer) -> AsyncIterator[Pipeline]:
    made = Pipeline(world, issuer, ci)
    yield made
    await made.http.aclose()
    await made.scim.aclose()


async def both(pipeline: Pipeline, sub: str) -> tuple[asyncpg.Connection, asyncio.Event, asyncssh.SSHClientConnection]:
    link, ended = await pipeline.postgres(await pipeline.exchanged(sub, PASSWORD))
    return link, ended, await pipeline.ssh(await pipeline.exchanged(sub, ACCESS_TOKEN))


async def test_deactivating_the_person_ends_the_pipeline_s_sessions_and_requests(world: World, pipeline: Pipeline) -> None:
    ident = await pipeline.hired("yves")
    link, ended, ssh = await both(pipeline, "yves")
    with operator(world) as client:
        rows = client.get("/v1/sessions/live")["sessions"]
        assert [(r["principal"], r["acting_for"], r["owner"]) for r in rows] == [("claude", ["yves"], "alice")] * 2
    held = asyncio.ensure_future(link.execute("DELETE FROM t WHERE id = 1"))
    waiting = await asyncio.to_thread(world.wait_pending)
    assert (waiting["principal"], waiting["acting_for"], waiting["owner"]) == ("claude", ["yves"], "alice")
    secret = await pipeline.exchanged("yves", ACCESS_TOKEN)
    body = {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "active", "value": False}]}
    assert (await pipeline.scim.patch(f"/scim/v2/Users/{ident}", json=body)).status_code == 200
    await asyncio.wait_for(ended.wait(), 30)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await held
    refused = await ssh.run("echo again") if not ssh.is_closed() else None
    assert refused is None or refused.exit_status == 126
    ssh.abort()
    answer = await pipeline.http.get("/v1/whoami", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 401
    with operator(world) as client:
        states = (client.get(f"/v1/approvals/{waiting['id']}")["state"] for _ in range(2000))
        assert next(state for state in states if state != "pending") == "cancelled"


async def test_a_group_that_is_taken_away_ends_the_sessions_that_rest_on_it(world: World, pipeline: Pipeline) -> None:
    """Attack: keep the session that the group opened. A key never expires, so neither would the group."""
    gail = await pipeline.hired("gail")
    await pipeline.hired("hugo")
    link, ended, ssh = await both(pipeline, "gail")
    own = await pipeline.ssh(pipeline.token(pipeline.people, "gail"))
    other, _ = await pipeline.postgres(await pipeline.exchanged("hugo", PASSWORD))
    group = (await pipeline.scim.get("/scim/v2/Groups", params={"filter": 'displayName eq "agents"'})).json()["Resources"][0]
    body = {"schemas": [PATCH], "Operations": [{"op": "remove", "path": f'members[value eq "{gail}"]'}]}
    assert (await pipeline.scim.patch(f"/scim/v2/Groups/{group['id']}", json=body)).status_code < 300
    await asyncio.wait_for(asyncio.gather(ended.wait(), ssh.wait_closed(), own.wait_closed()), 30)
    assert await other.fetchval("SELECT 1") == 1
    await other.close()
    await link.close()


async def test_each_revocation_ends_live_sessions_of_both_protocols(world: World, pipeline: Pipeline) -> None:
    await pipeline.hired("zoe")
    with operator(world) as client:
        subject = next(p["identity"] for p in client.get("/v1/principals")["principals"] if p["handle"] == "zoe")
        for kind, value in (("subject", subject), ("agent", "claude"), ("everything", "")):
            _, ended, ssh = await both(pipeline, "zoe")
            made = client.post("/v1/revocations", {"kind": kind, "value": value, "reason": "test"})
            await asyncio.wait_for(asyncio.gather(ended.wait(), ssh.wait_closed()), 30)
            client.delete(f"/v1/revocations/{made['id']}")
        link, ended, ssh = await both(pipeline, "zoe")
        made = client.post("/v1/revocations", {"kind": "target", "value": "orders"})
        await asyncio.wait_for(ended.wait(), 30)
        assert not ssh.is_closed()
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await pipeline.postgres(await pipeline.exchanged("zoe", PASSWORD))
        client.delete(f"/v1/revocations/{made['id']}")
        link, ended = await pipeline.postgres(await pipeline.exchanged("zoe", PASSWORD))
        made = client.post("/v1/revocations", {"kind": "target", "value": "web-1"})
        await asyncio.wait_for(ssh.wait_closed(), 30)
        assert await link.fetchval("SELECT 1") == 1
        client.delete(f"/v1/revocations/{made['id']}")
        await link.close()


async def test_one_credential_is_revoked_and_the_other_goes_on(world: World, pipeline: Pipeline) -> None:
    await pipeline.hired("dana")
    link, ended = await pipeline.postgres(await pipeline.exchanged("dana", PASSWORD))
    other, _ = await pipeline.postgres(await pipeline.exchanged("dana", PASSWORD))
    sessions = sorted((world.node.data_dir / "sessions").iterdir())
    idents = []
    for folder in sessions:
        opened = json.loads((folder / "events.jsonl").read_text().splitlines()[0])
        if opened["credential"]["kind"] == "exchanged" and opened["protocol"] == "postgres":
            idents.append(opened["credential"]["ident"])
    with operator(world) as client:
        client.post("/v1/revocations", {"kind": "credential", "value": idents[-2]})
    await asyncio.wait_for(ended.wait(), 30)
    assert await other.fetchval("SELECT 1") == 1
    await other.close()
    await link.close()


async def test_what_was_exchanged_for_a_revoked_token_ends_with_it(world: World, pipeline: Pipeline) -> None:
    await pipeline.hired("finn")
    secret = await pipeline.exchanged("finn", PASSWORD)
    leaked = f"j{pipeline.made}"
    link, ended = await pipeline.postgres(secret)
    with operator(world) as client:
        client.post("/v1/revocations", {"kind": "credential", "value": leaked})
    await asyncio.wait_for(ended.wait(), 30)
    await link.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await pipeline.postgres(secret)
