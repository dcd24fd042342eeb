"""`interlock doctor TARGET`: what it says where each step of a login fails, against real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.authority import Authority
from harness.loopback import free_port
from harness.postgres_server import PostgresServer, running_server
from interlock.cli.main import build
from interlock.cli.targetcheck import STEPS

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


class Setup:
    """A configuration with one target that works, in which each test changes one thing."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        (folder / "pw").write_text(server.password)
        self.file = folder / "interlock.yaml"
        self.secret = server.password
        self.target: dict[str, Any] = {
            "name": "orders", "protocol": "postgres", "address": f"127.0.0.1:{server.port}", "database": "app", "role": "app",
            "tls": "disable", "credentials": {"kind": "password", "from": "file:pw"},
        }  # fmt: skip
        self.more: dict[str, Any] = {}

    def doctor(self, name: str = "orders") -> tuple[int, list[dict[str, str]]]:
        self.file.write_text(
            json.dumps({"version": 1, "node": {"data_dir": "data"}, "targets": [self.target], **self.more})  # JSON is YAML
        )
        result = CliRunner().invoke(build(["doctor"]), ["doctor", name, "--config", str(self.file), "--output", "json"])
        assert self.secret not in result.output
        return result.exit_code, json.loads(result.stdout)["checks"]

    def fails(self, step: str, says: str) -> None:
        status, checks = self.doctor()
        assert [check["check"] for check in checks] == list(STEPS) and status == 1
        at = STEPS.index(step)
        assert [check["status"] for check in checks] == ["ok"] * at + ["failed"] + ["skipped"] * (len(STEPS) - at - 1), checks
        assert says in checks[at]["detail"] and checks[at]["fix"]


@pytest.fixture
def setup(tmp_path: Path, server: PostgresServer) -> Setup:
    return Setup(tmp_path, server)


def test_everything_there(setup: Setup) -> None:
    status, checks = setup.doctor()
    assert status == 0 and {check["status"] for check in checks} == {"ok"}
    assert checks[4]["detail"] == "as app in database app"


def test_a_target_that_nobody_has(setup: Setup) -> None:
    status, checks = setup.doctor("elsewhere")
    assert status == 1 and checks[0]["detail"].endswith("has no target 'elsewhere'; it has orders")
    assert checks[0]["fix"].startswith("Name one of those")


def test_without_a_name_every_target_is_checked(setup: Setup) -> None:
    setup.doctor()
    other = {**setup.target, "name": "spare", "tls": "verify-full"}
    setup.file.write_text(json.dumps({"version": 1, "node": {"data_dir": "data"}, "targets": [setup.target, other]}))
    result = CliRunner().invoke(build(["doctor"]), ["doctor", "--config", str(setup.file), "--output", "json"])
    checks = json.loads(result.stdout)["checks"]
    assert result.exit_code == 1 and [check["target"] for check in checks] == ["orders"] * len(STEPS) + ["spare"] * len(STEPS)
    assert {check["status"] for check in checks if check["target"] == "orders"} == {"ok"}
    shown = CliRunner().invoke(build(["doctor"]), ["doctor", "--config", str(setup.file)])
    assert "orders:" in shown.output and "spare:" in shown.output


@pytest.mark.parametrize(
    ("step", "change", "says"),
    [
        ("configuration", {"tls": "prefer"}, "targets.0.tls"),
        ("configuration", {"tls": "require", "credentials": {"kind": "rds-iam", "region": "x"}}, "needs tls: verify-full"),
        ("address", {"address": f"{'x' * 64}.invalid:5432", "tls": "verify-full"}, ".invalid is not known here"),
        ("tls", {"tls": "verify-full"}, "does not offer TLS: set ssl = on"),
        ("credential", {"credentials": {"kind": "password", "from": "file:none"}}, "can't be read: No such file or directory"),
        ("credential", {"credentials": {"kind": "password", "from": "env:NOT_SET_HERE"}}, "NOT_SET_HERE is not set"),
        ("login", {"credentials": {"kind": "none"}}, "asks for a password and none is configured"),
        ("login", {"role": "nobody"}, "did not accept our credential"),
        ("login", {"database": "nothing"}, 'database "nothing" does not exist'),
    ],
)  # fmt: skip
def test_where_it_fails(setup: Setup, step: str, change: dict[str, Any], says: str) -> None:
    setup.target |= change
    setup.fails(step, says)


def test_nobody_listens_there(setup: Setup) -> None:
    setup.target["address"] = f"127.0.0.1:{free_port()}"
    setup.fails("tls", "does not answer (ConnectionRefusedError)")


def test_a_vault_that_is_down(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hvs.x")
    setup.target["credentials"] = {"kind": "password", "from": "vault:secret/data/orders#password"}
    setup.more = {"vault": {"address": f"http://127.0.0.1:{free_port()}", "token": "file:token"}}
    setup.fails("credential", "vault:secret/data/orders: Vault does not answer (ConnectError)")


def test_a_certificate_that_is_not_there(setup: Setup, tmp_path: Path) -> None:
    pair = Authority(tmp_path).client("app")
    setup.target |= {
        "tls": "verify-full", "credentials": {"kind": "certificate", "certificate": "none.pem", "key": f"file:{pair.key}"}
    }  # fmt: skip
    setup.fails("configuration", "certificate and key of target orders can't be loaded")
