"""`interlock doctor --teams` against the fake connector: once with everything there, then with each step broken by itself.

The last test is the whole of it: a daemon as a process behind TLS, and the command line beside it.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from typer.testing import CliRunner

from harness import bot_connector
from harness.bot_connector import ALICE_OID, APP_ID, APP_PASSWORD, BOB_OID, CONVERSATION, TENANT, BotConnector
from harness.node import Node
from harness.trust import TRUST
from harness.webserver import serving
from interlock.cli.checkup import Finding, Status, TeamsCheckup
from interlock.cli.main import build
from interlock.clock import SystemClock
from interlock.config import Config
from interlock.errors import InterlockError, Reason
from interlock.web import problems

STEPS = (
    "configuration", "transport", "secret", "address", "endpoint", "keys", "service url", "token", "conversation", "reviewers",
    "clock",
)  # fmt: skip
POLICY = "version: 1\npacks: [linux]\ndefault: {review: {groups: [sre]}}\n"


def person(handle: str, oid: str | None, **changes: Any) -> dict[str, Any]:
    teams = [f"{TENANT}/{oid}"] if oid else []
    return {"handle": handle, "kind": "human", "disabled": False, "groups": ["sre", "dba"], "teams": teams, **changes}


class Shifted(SystemClock):
    """A clock that is wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._by = datetime.timedelta(seconds=seconds)

    def now(self) -> datetime.datetime:
        return super().now() + self._by


@dataclass
class Setup:
    """Everything a check-up meets; a test bends one thing and asks again."""

    directory: Path
    service: BotConnector
    trust: ssl.SSLContext
    teams: dict[str, Any]
    config: dict[str, Any]
    people: list[Mapping[str, Any]] = field(default_factory=list)
    clock: SystemClock = field(default_factory=SystemClock)
    daemon_down: bool = False

    async def findings(self) -> dict[str, Finding]:
        file = self.directory / "interlock.yaml"
        file.write_text(json.dumps({**self.config, "approvals": {"channels": {"teams": self.teams}}}))

        def everybody(_: Config) -> list[Mapping[str, Any]]:
            if self.daemon_down:
                raise InterlockError("no daemon answers", reason=Reason.TARGET_UNREACHABLE)
            return self.people

        async with (
            httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http,
            httpx.AsyncClient(trust_env=False, verify=self.trust, timeout=60) as outside,
        ):
            checkup = TeamsCheckup(file, http=http, outside=outside, clock=self.clock, people=everybody)
            return {finding.step: finding for finding in await checkup.run()}

    async def only(self, broken: str) -> Finding:
        """Run it; `broken` must be the only step that failed. Return what it found."""
        found = await self.findings()
        assert tuple(found) == STEPS  # nothing stops at a failure
        assert {step for step, finding in found.items() if finding.status is Status.FAILED} == {broken}, found
        assert found[broken].fix and APP_PASSWORD not in repr(found)
        return found[broken]


def certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1 and its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "interlock test")])
    now = SystemClock().now()
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = directory / "tls.crt", directory / "tls.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def gate() -> FastAPI:
    """What stands at public_url: our router's refusal, as `problems` writes it."""
    app = FastAPI()

    @app.post("/api/messages")
    async def messages() -> JSONResponse:
        return problems.document(Reason.DELIVERY_REJECTED, "the delivery was refused: it carries no bearer token")

    return app


@pytest.fixture
async def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    monkeypatch.setenv("TEAMS_PASSWORD", APP_PASSWORD)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(bot_connector.running())
        cert, key = certificate(tmp_path)
        url = await stack.enter_async_context(secured(gate(), cert, key))
        (tmp_path / "policy.yaml").write_text(POLICY)
        yield Setup(
            tmp_path, service, ssl.create_default_context(cafile=cert),
            {
                "app_id": APP_ID, "app_password": "env:TEAMS_PASSWORD", "tenants": [TENANT], "conversation": CONVERSATION,
                "service_url": service.url, "keys_url": f"{service.url}/keys", "token_url": f"{service.url}/token",
            },
            {"version": 1, "node": {"data_dir": str(tmp_path / "data")}, "public_url": url, "policies": ["policy.yaml"]},
            [person("alice", ALICE_OID), person("bob", BOB_OID)],
        )  # fmt: skip


class secured:  # noqa: N801  a context manager, beside `serving`
    """The same as `serving`, over TLS."""

    def __init__(self, app: Any, cert: Path, key: Path) -> None:
        config = uvicorn.Config(
            app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ssl_certfile=cert, ssl_keyfile=str(key)
        )
        self._server = uvicorn.Server(config)

    async def __aenter__(self) -> str:
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110  as in harness.webserver
            await asyncio.sleep(0)
        return f"https://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task


async def test_everything_there(setup: Setup) -> None:
    found = await setup.findings()
    assert [(step, finding.status) for step, finding in found.items()] == [(step, Status.OK) for step in STEPS], found
    assert found["keys"].said == "1 of 1 keys are endorsed for msteams"
    assert APP_PASSWORD not in repr(found)


async def test_without_a_configuration_every_step_is_still_named(setup: Setup) -> None:
    setup.config["nonsense"] = 1
    found = await setup.findings()
    assert tuple(found) == STEPS
    assert found["configuration"].status is Status.FAILED and "nonsense" in found["configuration"].said
    assert {finding.status for step, finding in found.items() if step != "configuration"} == {Status.SKIPPED}


async def test_a_configuration_without_teams(setup: Setup, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(json.dumps(setup.config))
    async with httpx.AsyncClient(timeout=60, verify=TRUST) as http:
        found = await TeamsCheckup(file, http=http, outside=http, clock=setup.clock, people=lambda _: []).run()
    assert found[0].status is Status.FAILED and "approvals.channels.teams" in found[0].said


async def test_ids_that_are_names(setup: Setup) -> None:
    setup.teams["app_id"] = "interlock-bot"
    found = await setup.findings()
    assert found["configuration"].status is Status.FAILED and "Application (client) ID" in found["configuration"].fix
    setup.teams |= {"app_id": APP_ID, "tenants": [TENANT, "contoso.onmicrosoft.com"]}
    found = await setup.findings()
    assert "Directory (tenant) ID" in found["configuration"].fix
    assert found["token"].status is Status.OK  # the other steps were tried all the same


async def test_botbuilder_is_wanted_and_is_there(setup: Setup) -> None:
    setup.teams["transport"] = "botbuilder"
    assert (await setup.findings())["transport"] == Finding("transport", Status.OK, "botbuilder")


async def test_botbuilder_is_wanted_and_missing(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("botbuilder", "botbuilder.core"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    setup.teams["transport"] = "botbuilder"
    assert "interlock[teams-botbuilder]" in (await setup.only("transport")).fix


@pytest.mark.parametrize("value", [None, "", "   "])
async def test_a_secret_that_is_not_there(setup: Setup, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("TEAMS_PASSWORD")
    else:
        monkeypatch.setenv("TEAMS_PASSWORD", value)
    found = await setup.findings()
    assert found["secret"].status is Status.FAILED and "secret" in found["secret"].fix
    assert found["token"].status is found["conversation"].status is Status.SKIPPED
    assert found["reviewers"].status is Status.OK


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1", "https://"])
async def test_an_address_that_is_not_https(setup: Setup, url: str) -> None:
    setup.config["public_url"] = url
    found = await setup.findings()
    assert found["address"].status is Status.FAILED
    assert found["endpoint"].status is not Status.OK


async def test_nobody_answers_at_the_address(setup: Setup) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        setup.config["public_url"] = f"https://127.0.0.1:{free.getsockname()[1]}"
        assert "start the daemon" in (await setup.only("endpoint")).fix


async def test_a_certificate_that_nobody_trusts(setup: Setup) -> None:
    setup.trust = ssl.create_default_context()
    assert "certificate" in (await setup.only("endpoint")).fix


OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "another server": (lambda: JSONResponse({"ok": True}), "answered 200"),
    "a proxy with a login of its own": (lambda: PlainTextResponse("log in", 401), "not by our gate"),
    "another of our refusals": (lambda: problems.document(Reason.NOT_AUTHENTICATED, "who are you"), "not by our gate"),
    "a redirect": (lambda: RedirectResponse("/elsewhere"), "redirects"),
    "no such path": (lambda: PlainTextResponse("?", 404), "is not there"),
    "a broken gateway": (lambda: PlainTextResponse("bad gateway", 502), "answered 502"),
    "more than anybody reads": (lambda: PlainTextResponse("x" * 300_000, 401), "does not answer"),
}


@pytest.mark.parametrize("who", OTHERS)
async def test_somebody_else_answers_at_the_address(setup: Setup, who: str) -> None:
    answer, says = OTHERS[who]
    app = FastAPI()

    @app.post("/api/messages")
    async def messages() -> Any:
        return answer()

    async with secured(app, setup.directory / "tls.crt", setup.directory / "tls.key") as url:
        setup.config["public_url"] = url
        assert says in (await setup.only("endpoint")).said


async def test_keys_that_cannot_be_fetched(setup: Setup) -> None:
    setup.teams["keys_url"] = f"{setup.service.url}/nothing-here"
    assert "answered 404" in (await setup.only("keys")).said


async def test_keys_of_somebody_else(setup: Setup) -> None:
    setup.service.endorsements["k1"] = ["webchat"]
    assert "endorsed" in (await setup.only("keys")).said


async def test_a_key_set_that_is_none(setup: Setup) -> None:
    app = FastAPI()

    @app.get("/keys")
    async def keys() -> dict[str, Any]:
        return {"keys": [{"kid": "k1", "kty": "oct", "k": "AAAA"}]}

    async with serving(app) as url:
        setup.teams["keys_url"] = f"{url}/keys"
        assert "can't be used" in (await setup.only("keys")).said


async def test_a_service_url_that_is_not_allowed_gets_no_token(setup: Setup) -> None:
    setup.teams["service_url"] = "https://evil.example/emea/"
    found = await setup.findings()
    assert found["service url"].status is Status.FAILED and "service_hosts" in found["service url"].said
    assert found["token"].status is found["conversation"].status is Status.SKIPPED


async def test_a_wrong_secret(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAMS_PASSWORD", "expired-last-week")
    found = await setup.findings()
    assert found["token"].status is Status.FAILED and "multi-tenant" in found["token"].fix
    assert found["conversation"] == Finding("conversation", Status.SKIPPED, "needs a token")
    assert "expired-last-week" not in repr(found)


async def test_a_token_service_that_is_down(setup: Setup) -> None:
    setup.teams["token_url"] = "http://127.0.0.1:1/token"
    found = await setup.findings()
    assert found["token"].status is Status.FAILED and "can't be reached" in found["token"].said


@pytest.mark.parametrize(
    ("status", "fix"), [(403, "add the app"), (404, "check its id"), (401, "Azure Bot resource"), (500, "try again")]
)
async def test_a_conversation_that_cannot_be_read(setup: Setup, status: int, fix: str) -> None:
    setup.service.roster_status = status
    assert fix in (await setup.only("conversation")).fix


async def test_the_place_of_escalations_is_read_too(setup: Setup) -> None:
    setup.teams["escalation"] = "19:leads@thread.tacv2"
    assert "19:leads@thread.tacv2" in (await setup.findings())["conversation"].said
    setup.service.not_installed.add("19:leads@thread.tacv2")
    finding = await setup.only("conversation")
    assert "19:leads@thread.tacv2" in finding.said and "add the app" in finding.fix


async def test_a_conversation_that_is_not_named(setup: Setup) -> None:
    setup.teams["conversation"] = ""
    assert "direct: true" in (await setup.only("conversation")).fix
    setup.teams["direct"] = True
    assert (await setup.findings())["conversation"].status is Status.OK


async def test_a_reviewer_without_an_account(setup: Setup) -> None:
    setup.people += [
        person("carol", None), person("dora", None, disabled=True), person("claude", None, kind="agent"),
        person("eve", None, groups=["sales"]),
    ]  # fmt: skip
    finding = await setup.only("reviewers")
    assert finding.said.endswith(": carol") and "principals link carol --teams" in finding.fix


async def test_a_reviewer_of_another_tenant(setup: Setup) -> None:
    setup.people += [person("carol", None, teams=[f"99999999-2222-3333-4444-555555555555/{BOB_OID}"])]
    assert (await setup.only("reviewers")).said.endswith(": carol")


async def test_a_group_that_nobody_is_in(setup: Setup) -> None:
    (setup.directory / "policy.yaml").write_text(POLICY.replace("sre", "sre, seniors"))
    assert (await setup.only("reviewers")).said == "nobody is in: seniors"


async def test_policies_that_do_not_load(setup: Setup) -> None:
    (setup.directory / "policy.yaml").write_text("version: 1\nrulez: []\n")
    assert "policies must load" in (await setup.only("reviewers")).fix


async def test_a_daemon_that_is_down(setup: Setup) -> None:
    setup.daemon_down = True
    assert "daemon must run" in (await setup.only("reviewers")).fix


@pytest.mark.parametrize(("seconds", "side"), [(400, "ahead of"), (-400, "behind")])
async def test_a_clock_that_is_wrong(setup: Setup, seconds: float, side: str) -> None:
    setup.clock = Shifted(seconds)
    assert side in (await setup.only("clock")).said


async def test_a_clock_that_is_slightly_wrong_is_good_enough(setup: Setup) -> None:
    setup.clock = Shifted(280)
    assert (await setup.findings())["clock"].status is Status.OK


# -- the command line ------------------------------------------------------------------------------------------------------


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(["doctor"]), ["doctor", *words])
    return result.exit_code, result.output


def test_a_target_and_teams_are_two_questions() -> None:
    status, said = run("web-1", "--teams")
    assert status == 2 and "`interlock doctor TARGET` or `interlock doctor --teams`" in said


def test_nothing_to_check_is_refused_with_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "interlock.yaml"
    file.write_text("version: 1\nnode: {data_dir: data}\n")
    status, said = run("--config", str(file))
    assert status == 2 and "interlock doctor --teams" in said


def test_a_missing_configuration_is_a_finding_and_not_a_crash(tmp_path: Path) -> None:
    status, said = run("--teams", "--config", str(tmp_path / "none.yaml"), "--output", "json")
    document = json.loads(said)
    assert status == 1 and document["ok"] is False
    assert [check["check"] for check in document["checks"]] == list(STEPS)


@pytest.mark.blackbox
@pytest.mark.parametrize("transport", ["native", "botbuilder"])
async def test_a_daemon_as_it_is_set_up(tmp_path: Path, transport: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cert, key = certificate(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    async with bot_connector.running() as service:
        teams = {
            "app_id": APP_ID, "app_password": "env:TEAMS_PASSWORD", "tenants": [TENANT], "conversation": CONVERSATION,
            "service_url": service.url, "keys_url": f"{service.url}/keys", "token_url": f"{service.url}/token",
            "transport": transport,
        }  # fmt: skip
        node = Node(
            tmp_path / "node",
            {
                "listen": {"http": f"127.0.0.1:{port}"}, "tls": {"certificate": str(cert), "key": str(key)},
                "public_url": f"https://127.0.0.1:{port}", "policies": [str(tmp_path / "policy.yaml")],
                "approvals": {"channels": {"teams": teams}},
            },
            env={"TEAMS_PASSWORD": APP_PASSWORD, "SSL_CERT_FILE": str(cert)},
        )  # fmt: skip
        words = ("doctor", "--teams", "--config", str(node.config_file))

        def whole() -> None:
            down = node.run(*words, status=1)
            assert "endpoint       FAILED" in down.stdout and "reviewers      FAILED" in down.stdout
            assert "2 of 11 steps need you" in down.stderr
            node.start()
            try:
                node.add_people(groups=["sre"])
                unlinked = node.run(*words, status=1).stdout
                assert "alice, bob, carol" in unlinked and "principals link alice --teams" in unlinked
                for number, handle in enumerate(("alice", "bob", "carol")):
                    node.run("principals", "link", handle, "--teams", f"{TENANT}/aaaaaaaa-0000-4000-8000-00000000000{number}")
                document = node.json(*words)
            finally:
                node.stop()
            assert document["ok"] is True and {check["status"] for check in document["checks"]} == {"ok"}

        await asyncio.to_thread(whole)
