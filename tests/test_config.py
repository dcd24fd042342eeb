"""interlock.yaml: whatever is wrong is an error that says where and what to write, and no secret is ever in it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from interlock.cli.main import build
from interlock.config import Config, Secret, SecretRef, VaultRef, is_loopback, load, parse, split_address
from interlock.errors import ConfigError
from interlock.policy.loader import configured
from interlock.policy.source import LivePolicy

BASE = Path("/etc/interlock")
WEB: dict[str, Any] = {
    "name": "web-1", "protocol": "ssh", "address": "10.0.0.5:22", "account": "deploy", "host_keys": "file:known_hosts",
    "credentials": {"kind": "key", "key": "file:web-1.key"},
}  # fmt: skip
ORDERS: dict[str, Any] = {
    "name": "orders", "protocol": "postgres", "address": "10.0.0.9:5432", "database": "orders", "role": "app_ro",
    "credentials": {"kind": "password", "from": "env:ORDERS_PW"},
}  # fmt: skip
TEAMS: dict[str, Any] = {
    "app_id": "00000000-0000-0000-0000-000000000001", "app_password": "env:TEAMS_PW", "tenants": ["t"], "conversation": "19:x",
    "service_url": "https://smba.trafficmanager.net/emea/",
}  # fmt: skip
GOOD: dict[str, Any] = {
    "version": 1,
    "node": {"data_dir": "data"},
    "listen": {"ssh": "0.0.0.0:2222", "postgres": "127.0.0.1:6432", "http": "[::1]:8443"},
    "targets": [WEB, ORDERS],
    "approvals": {"hold": "60s", "channels": {"teams": TEAMS}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return GOOD with the value at a dotted path replaced, or added."""
    config = copy.deepcopy(GOOD)
    *above, last = path.split(".")
    place: Any = config
    for part in above:
        place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
    place[last] = value
    return config


def refused(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        parse(data, base=BASE)
    return str(error.value)


def test_a_good_one() -> None:
    config = parse(GOOD, base=BASE)
    assert (config.approvals.hold, config.approvals.expires) == (60, 900)
    assert config.path(config.node.data_dir) == BASE / "data" and config.path(Path("/x")) == Path("/x")
    orders = config.target("orders")
    assert (
        orders is not None
        and orders.tls == "verify-full"
        and orders.credentials.source == SecretRef(kind="env", where="ORDERS_PW")
    )
    assert config.target("nothing") is None


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("aprovals", "approvals"),
        ("node.datadir", "data_dir"),
        ("listen.postgress", "postgres"),
        ("targets.0.host_key", "host_keys"),
        ("targets.1.credentials.frm", "from"),
        ("approvals.holds", "hold"),
        ("approvals.channels.team", "teams"),
        ("approvals.channels.teams.tenant", "tenants"),
    ],
)
def test_an_unknown_key_names_the_nearest(path: str, nearest: str) -> None:
    said = refused(changed(path, "x"))
    assert f"{path}: unknown key {path.rpartition('.')[2]!r}; did you mean {nearest!r}?" in said


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("version", 2, "version: "),
        ("listen.ssh", "2222", "write an address as host:port or [v6]:port"),
        ("listen.ssh", "host:70000", "write an address as host:port"),
        ("listen.ssh", "::1:22", "write an address as host:port or [v6]:port"),
        ("listen.postgres", "0.0.0.0:6432", "listen.postgres without tls: may bind loopback only"),
        ("listen.http", "0.0.0.0:8443", "listen.http without tls: may bind loopback only"),
        ("listen.http", "proxy.example.com:8443", "listen.http without tls: may bind loopback only"),
        ("listen.postgres_auth", "trust", "listen.postgres_auth: "),
        ("listen.postgres_auth", "token", "sends the token in clear, so it needs tls:"),
        ("approvals.hold", "1 minute", "write a duration as a number and ms, s, m, h or d"),
        ("approvals.hold", True, "write a duration"),
        ("approvals.hold", "-5s", "write a duration"),
        ("approvals.hold", 1.5, "write a duration"),
        ("evidence.sync", "never", "evidence.sync: "),
        ("targets.0.name", "Web 1", "targets.0.name: "),
        ("targets.0.name", "../web", "targets.0.name: "),
        ("targets.0.name", "orders", "two targets have the same name"),
        ("targets.0.protocol", "telnet", "targets.0.protocol: "),
        ("targets.0.account", "", "an ssh target needs account:"),
        ("targets.0.host_keys", None, "nothing is trusted on first use"),
        ("targets.0.credentials", {"kind": "ssh-ca"}, "credentials.kind ssh-ca needs targets_ca"),
        ("targets.0.credentials.pin", "sometimes", "credentials.pin: "),
        ("targets.1.role", "", "a postgres target needs database: and role:"),
        ("targets.1.database", "", "a postgres target needs database: and role:"),
        ("targets.1.tls", "disable", "tls: disable is for a target on loopback only"),
        ("targets.0.unsafe_client_settings", True, "belongs to a postgres target"),
        ("targets.1.unsafe_client_settings", True, "for tests against a server on loopback only"),
        ("targets.1.tls", "prefer", "targets.1.tls: "),
        ("targets.0.shell", "zsh", "targets.0.shell: "),
        ("approvals.channels.teams.app_id", "", "approvals.channels.teams.app_id: "),
        ("approvals.channels.teams.tenants", [], "approvals.channels.teams.tenants: "),
        ("approvals.channels.teams.transport", "graph", "approvals.channels.teams.transport: "),
        ("targets.1.credentials.from", "vault:secret/data/pw#password", "a vault: reference needs vault: {address"),
        ("targets.1.credentials.from", "vault:secret/data/pw", "needs from: vault:PATH#FIELD"),
        ("targets.1.credentials.from", "vault:secret/../sys#x", "refer to a secret in Vault as"),
        ("targets.1.credentials.from", "hunter2", "refer to a secret as env:NAME or file:PATH"),
        ("approvals.channels.teams.app_password", "vault:secret/data/teams#pw", "is for the credentials of postgres targets"),
        ("targets.1.credentials", {"kind": "password"}, "kind: password needs from:"),
        ("targets.1.credentials", {"kind": "ssh-ca"}, "is for ssh targets"),
        ("targets.1.credentials", {"kind": "certificate"}, "needs certificate: PATH and key: file:PATH"),
        ("targets.1.credentials", {"kind": "password", "from": "env:A", "certificate": "c.pem"}, "needs its key: file:PATH"),
        ("targets.1.credentials", {"kind": "vault-database", "from": "env:A"}, "needs from: vault:database/creds/ROLE"),
        ("targets.1.credentials", {"kind": "rds-iam"}, "needs region:"),
        ("targets.1.credentials", {"kind": "password", "from": "env:A", "region": "x"}, "are for kind: rds-iam"),
        ("targets.1.credentials", {"kind": "rds-iam", "region": "x", "md5": True}, "md5: is for kinds with a password"),
        ("listen.postgres_auth", ["scram", "token"], "one listener can't ask for both"),
        ("listen.postgres_auth", [], "choose scram, token, oauth or cert"),
        ("listen.postgres_auth", "oauth", "sends the token in clear, so it needs tls:"),
        ("listen.postgres_auth", "cert", "reads certificates of TLS, so it needs tls:"),
    ],
)  # fmt: skip
def test_a_value_that_is_wrong_says_where_and_what_to_write(path: str, value: Any, says: str) -> None:
    assert says in refused(changed(path, value))


@pytest.mark.parametrize(
    ("credentials", "tls", "says"),
    [
        ({"kind": "rds-iam", "region": "eu-central-1"}, "require", "rds-iam needs tls: verify-full"),
        ({"kind": "password", "from": "env:A", "md5": True}, "require", "needs tls: verify-full"),
        ({"kind": "certificate", "certificate": "c.pem", "key": "file:c.key"}, "require", "needs tls: verify-full"),
    ],
)
def test_what_proves_nothing_about_the_server_goes_to_a_verified_one_only(
    credentials: dict[str, Any], tls: str, says: str
) -> None:
    data = changed("targets.1.credentials", credentials)
    data["targets"][1]["tls"] = tls
    assert says in refused(data)
    data["targets"][1]["tls"] = "verify-full"
    assert parse(data, base=BASE).targets[1].credentials.kind == credentials["kind"]


def test_methods_of_postgres_need_what_they_stand_on() -> None:
    data = changed("tls", {"certificate": "c.pem", "key": "k.pem"})
    data["listen"]["postgres_auth"] = ["cert", "scram"]
    assert "needs tls.client_ca" in refused(data)
    data["tls"]["client_ca"] = "ca.pem"
    assert parse(data, base=BASE).listen.postgres_methods == {"cert", "scram"}
    data["listen"]["postgres_auth"] = ["scram", "oauth"]
    assert "needs listen.postgres_oauth.issuer" in refused(data)
    issuer = {"issuer": "https://a.example", "audience": "interlock"}
    data["identity"] = {"issuers": [{"name": "a", **issuer}]}
    config = parse(data, base=BASE)
    assert config.oauth_issuer is not None and config.oauth_issuer.name == "a"
    data["identity"]["issuers"].append({"name": "b", **issuer, "issuer": "https://b.example"})
    assert "needs listen.postgres_oauth.issuer" in refused(data)
    data["listen"]["postgres_oauth"] = {"issuer": "b"}
    config = parse(data, base=BASE)
    assert config.oauth_issuer is not None and config.oauth_issuer.name == "b"


def test_a_vault_needs_https_and_a_token_that_is_elsewhere() -> None:
    data = changed("targets.1.credentials.from", "vault:secret/data/orders#password")
    data["vault"] = {"address": "http://vault.example:8200", "token": "file:vault.token"}
    assert "vault: address: must be https" in refused(data)
    data["vault"] = {"address": "https://vault.example:8200", "token": "hvs.secret"}
    said = refused(data)
    assert "vault.token: refer to a secret" in said and "hvs.secret" not in said
    data["vault"]["token"] = "file:vault.token"
    source = parse(data, base=BASE).targets[1].credentials.source
    assert source == VaultRef(path="secret/data/orders", field="password")


@pytest.mark.parametrize("key", ["token_url", "keys_url", "service_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://login.evil.example/token", "ftp://127.0.0.1/token", "//login.example/token", "https:///token", "nonsense",
        "https://me:secret@login.example/token", "https://@login.example/token", "http://127.0.0.1@evil.example/", "https://[x",
        "http://localhost.evil.example/",
    ],
)  # fmt: skip
def test_what_goes_to_teams_goes_there_over_https(key: str, url: str) -> None:
    """The client secret is posted to token_url, and keys_url says whom we believe."""
    assert "approvals.channels.teams" in refused(changed(f"approvals.channels.teams.{key}", url))


@pytest.mark.parametrize("key", ["token_url", "keys_url", "service_url"])
@pytest.mark.parametrize(
    "url", ["https://login.example/token", "http://127.0.0.1:8080/token", "http://[::1]/", "http://localhost/"]
)
def test_teams_over_https_or_on_loopback_is_taken(key: str, url: str) -> None:
    parse(changed(f"approvals.channels.teams.{key}", url), base=BASE)


def test_all_problems_are_named_at_once() -> None:
    data = changed("approvals.hold", "soon")
    data["listen"]["ssh"] = "x"
    said = refused(data)
    assert "approvals.hold: " in said and "listen.ssh: " in said


@pytest.mark.parametrize(
    "path", ["targets.1.credentials.from", "targets.0.credentials.key", "approvals.channels.teams.app_password"]
)
def test_a_secret_written_into_the_file_is_refused_and_not_repeated(path: str) -> None:
    said = refused(changed(path, "hunter2-hunter2"))
    assert "never write it here" in said and "hunter2" not in said


def test_a_secret_never_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_PW", "hunter2")
    (tmp_path / "pw").write_text("hunter2\n")
    for reference in ("env:ORDERS_PW", "file:pw"):
        secret = SecretRef.model_validate(reference).resolve(tmp_path)
        assert secret.reveal() == "hunter2"
        assert "hunter2" not in f"{secret} {secret!r} {[secret]} {secret!s:>30}"
        assert secret != Secret("hunter2"), "comparing tells nothing"
    config = parse(GOOD, base=tmp_path)
    assert "hunter2" not in repr(config) + config.model_dump_json()


def test_a_reference_that_leads_nowhere_is_named_without_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORDERS_PW", raising=False)
    with pytest.raises(ConfigError, match="ORDERS_PW is not set"):
        SecretRef.model_validate("env:ORDERS_PW").resolve(tmp_path)
    with pytest.raises(ConfigError, match=r"nothing can't be read: No such file or directory"):
        SecretRef.model_validate("file:nothing").resolve(tmp_path)
    (tmp_path / "noise").write_bytes(b"hunter2\xff")
    with pytest.raises(ConfigError) as error:
        SecretRef.model_validate("file:noise").resolve(tmp_path)
    assert "hunter2" not in str(error.value) and error.value.__cause__ is None


def test_an_empty_list_of_what_is_for_later_asks_for_nothing() -> None:
    parse(changed("listen", {"ssh": "127.0.0.1:2222", "proxy_protocol_from": []}), base=BASE)
    assert "can't enforce it" in refused(changed("listen", {"ssh": "127.0.0.1:2222", "proxy_protocol_from": ["10.0.0.1"]}))


def test_variables_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_ACCOUNT", "deploy-2")
    web = parse(changed("targets.0.account", "${TEST_ACCOUNT}"), base=BASE).target("web-1")
    assert web is not None and web.account == "deploy-2"
    monkeypatch.delenv("TEST_ACCOUNT")
    assert "${TEST_ACCOUNT} is not set" in refused(changed("targets.0.account", "${TEST_ACCOUNT}"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version: 1\nnode: {data_dir: x}\nlisten: [", "is not YAML"),
        (b"- version: 1\n", "must be a mapping that begins with `version: 1`"),
        (b"", "must be a mapping"),
        (b"version: 1\n", "node: Field required"),
        (b"\xff\xfe", "can't be read"),
        (b"version: 1\nnode: !!python/object/apply:os.system [true]\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "interlock.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert says in str(error.value) and str(file) in str(error.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Name another file with --config"):
        load(tmp_path / "interlock.yaml")


def test_paths_start_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "interlock.yaml"
    file.write_text("version: 1\nnode: {data_dir: ./data}\n")
    config = load(file)
    assert config.path(config.node.data_dir) == tmp_path / "data"


def test_nothing_is_changed_after_loading() -> None:
    config = parse(GOOD, base=BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.approvals.hold = 1
    assert isinstance(config, Config)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:22", ("127.0.0.1", 22)), ("[::1]:0", ("::1", 0)), ("host.example:65535", ("host.example", 65535))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
        ("10.0.0.1", False), ("localhost.example.com", False), ("127.0.0.1.example.com", False), ("", False),
    ],
)  # fmt: skip
def test_what_loopback_is(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_review_terms_are_the_same_wherever_a_configuration_is_read(tmp_path: Path) -> None:
    """The daemon, `check` and `explain` name one policy digest, and `explain` shows the expiry that will hold."""
    file = tmp_path / "interlock.yaml"
    file.write_text("version: 1\nnode: {data_dir: data}\napprovals: {hold: 5s, expires: 2m}\n")
    files, terms = configured(load(file))
    daemon = LivePolicy(files, terms=terms).current
    assert (daemon.default.hold, daemon.default.expires) == (5, 120)
    checked = CliRunner().invoke(build(["check"]), ["check", "--config", str(file)])
    asked = ["explain", "--config", str(file), "--shell", "rm -rf /srv/x", "--output", "json"]
    explained = json.loads(CliRunner().invoke(build(asked), asked).stdout)
    assert checked.exit_code == 0 and daemon.digest in checked.output
    assert (explained["policy"], explained["review"]["expires"]) == (daemon.digest, 120)


def test_settings_that_a_client_chooses_are_for_one_machine_only() -> None:
    local = {**ORDERS, "address": "127.0.0.1:5432", "unsafe_client_settings": True}
    config = changed("targets", [local])
    parse(config, base=BASE)
    config["listen"]["postgres"] = "10.0.0.1:6432"
    config["tls"] = {"certificate": "c", "key": "k"}
    with pytest.raises(ConfigError, match=r"listen\.postgres must be on loopback"):
        parse(config, base=BASE)
