"""`explain` as people and scripts use it: interface.md, "explain"."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from interlock.cli.explain import explain
from interlock.cli.explanation import plain
from interlock.commands.model import Analysis, Command, Effect, Kind, Opaque, Wire
from interlock.policy.question import classified

app = Typer()
app.command()(explain)


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INTERLOCK_CONFIG", raising=False)
    monkeypatch.delenv("INTERLOCK_SERVER", raising=False)
    monkeypatch.setattr("interlock.cli.explain.DEFAULT_CONFIG", tmp_path / "nope.yaml")


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def answer(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--output", "json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_the_example_of_the_contract() -> None:
    found = answer("--target", "web-1", "--shell", "sudo rm -rf /var/lib/pg")
    assert found["v"] == 1
    assert (found["protocol"], found["target"]) == ("ssh", "web-1")
    assert len(found["text_sha256"]) == 64
    assert [(e["verb"], e["object"]) for e in found["effects"]] == [("privilege", "root"), ("delete", "/var/lib/pg")]
    assert found["effects"][1]["argv"] == ["rm", "-rf", "/var/lib/pg"]
    assert found["effects"][1]["recursive"] is True
    assert found["effects"][1]["via"] == ["sudo"]
    assert found["opaque"] == []
    assert found["sent"] == "'sudo' 'rm' '-rf' '/var/lib/pg'"
    assert (found["decision"], found["rule"]) == ("review", "linux/recursive-delete")
    assert found["policy"].startswith("sha256:")
    assert {k: found["review"][k] for k in ("groups", "quorum", "expires", "step_up")} == {
        "groups": ["reviewers"], "quorum": 1, "expires": 900, "step_up": "none",
    }  # fmt: skip


def test_opaque_parts_have_byte_offsets() -> None:
    text = "cat ü $(evil)"
    found = answer("--shell", text)
    part = next(o for o in found["opaque"] if o["reason"] == "command-substitution")
    assert text.encode()[part["start"] : part["end"]] == b"$(evil)"
    assert found["decision"] == "review"
    assert found["sent"] is None


def test_sql_without_a_catalog_says_what_it_assumed() -> None:
    found = answer("--sql", "SELECT id FROM orders WHERE id = 7")
    assert found["decision"] == "allow"
    assert found["assumed"] == ["public.orders"]
    assert (found["protocol"], found["review"]) == ("postgres", None)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--shell", "ls \u202egnp"), "deceptive-text"),
        (("--sql", "SELEC 1"), "syntax-error"),
        (("--shell", "x" * 200_000), "too-large"),
    ],
)
def test_text_the_front_end_refuses_is_denied_with_its_reason(arguments: tuple[str, str], code: str) -> None:
    found = answer(*arguments)
    assert (found["decision"], found["rule"], found["reason_code"]) == ("deny", "interlock/unreadable", code)
    assert found["reason"]


def test_exit_status_is_0_whatever_the_decision() -> None:
    for shell in ("uptime", "rm -rf /srv/x", "rm -rf /"):
        assert run("--shell", shell).exit_code == 0


def test_lines_answer_one_line_each_with_the_same_id() -> None:
    asked = [
        {"id": "a", "protocol": "ssh", "text": "uptime", "category": "extra keys are fine"},
        {"id": 2, "protocol": "postgres", "text": "DROP DATABASE app"},
        {"id": None, "protocol": "shell", "text": "echo \udcff"},
        {"id": [1, {"x": "y"}], "protocol": "sql", "text": "SELECT 1\x00; DROP TABLE t"},
    ]
    result = run("--file", "-", stdin="\n".join(json.dumps(a) for a in asked) + "\n\n")
    assert result.exit_code == 0
    given = [json.loads(line) for line in result.stdout.splitlines()]
    assert [g["id"] for g in given] == [a["id"] for a in asked]
    assert [g["decision"] for g in given] == ["allow", "deny", "deny", "deny"]
    assert [g["rule"] for g in given][1] == "postgres-deny/drop-database"


def test_a_broken_line_is_answered_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    lines = ["nonsense", "[]", '{"id": 1}', '{"id": 2, "text": "x"}', '{"id": 3, "text": "x", "protocol": "ftp"}']
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join([*lines, '{"id": 4, "text": "uptime", "protocol": "ssh"}']))
    result = run("--file", str(path))
    assert result.exit_code == 1
    given = [json.loads(line) for line in result.stdout.splitlines()]
    assert [g["id"] for g in given] == [None, None, 1, 2, 3, 4]
    assert ["error" in g for g in given] == [True] * 5 + [False]


def test_usage_errors_exit_2_and_say_what_to_give() -> None:
    for arguments in ((), ("--shell", "x", "--sql", "y"), ("--shell", "x", "--as", "robot:x"), ("--file", "/nope")):
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "interlock: " in result.stderr


def test_a_handle_needs_the_daemon() -> None:
    result = run("--shell", "x", "--as", "bob", "--server", "http://127.0.0.1:1")
    assert result.exit_code == 7
    assert "no daemon answers" in result.stderr


def test_human_output_explains_itself() -> None:
    said = run("--shell", "sudo rm -rf /srv/x").stdout
    for words in ("REVIEW", "until a person approves", "linux/recursive-delete", "no answer within 15 min means no", "delete"):
        assert words in said
    assert "deletes /srv/x and everything below it, by force, as root" in said.partition("  does ")[2]
    assert "it depends on a variable: $x" in run("--shell", "cat $x").stdout
    assert "ALLOW" in run("--shell", "uptime").stdout
    assert "nobody can approve it" in run("--shell", "rm -rf /").stdout
    assert "no rule decides this" in run("--shell", "new-thing").stdout


def test_operations_in_a_transfer_are_explained_as_the_record_shows_them() -> None:
    said = run("--operation", f"git-push /srv/app.git update=refs/heads/main:{'a' * 40}..{'b' * 40}").stdout
    assert "git/receive-lose" in said
    assert "moves, perhaps away from commits that nothing else holds, the ref refs/heads/main" in said
    assert "ALLOW" in run("--operation", "sftp get /srv/app/config").stdout
    assert "DENY" in run("--operation", "sftp get").stdout
    answer = run("--file", "-", stdin='{"id": 1, "protocol": "operation", "text": "scp put /srv/x mode=0644"}\n')
    assert json.loads(answer.stdout)["rule"] == "linux/write"


def test_human_output_never_prints_what_drives_a_terminal() -> None:
    hostile = "echo '\x1b[2J\u202egnp.exe\u200b'"
    said = run("--shell", hostile).stdout
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\u200b" not in said
    assert plain("a\x1b\u202e\nü") == "a\\x1b\\u202e⏎ \\xfc"


CONFIG = """\
version: 1
node: {name: t, data_dir: data}
targets:
  - {name: dev-1, protocol: ssh, address: "10.0.0.5:22", account: deploy, labels: {env: dev}, host_keys: known_hosts, shell: bash}
  - {name: orders, protocol: postgres, address: "127.0.0.1:5432", database: orders, role: app, labels: {env: test}, tls: disable}
policies: [policy.yaml]
"""
POLICY = """\
version: 1
packs: [postgres, linux]
access: [{who: {groups: [agents]}, targets: {env: dev}, accounts: [deploy]}]
default: {review: {groups: [dba], expires: 5m}}
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    path = tmp_path / "interlock.yaml"
    path.write_text(CONFIG)
    return path


def test_with_a_configuration_targets_and_policies_are_its_own(configuration: Path) -> None:
    at = ("--config", str(configuration))
    found = answer(*at, "--target", "orders", "--sql", "INSERT INTO t (a) VALUES (1)")
    assert (found["decision"], found["rule"]) == ("allow", "postgres/development-writes")
    found = answer(*at, "--target", "orders", "--sql", "DROP TABLE t")
    assert (found["review"]["groups"], found["review"]["expires"]) == (["dba"], 300)


def test_with_a_configuration_access_is_reported_beside_the_decision(configuration: Path) -> None:
    at = ("--config", str(configuration), "--target", "dev-1", "--shell", "uptime")
    assert answer(*at)["access"] == {"granted": False, "rule": "access/none"}
    assert answer(*at, "--as", "agent/ci:agents,x")["access"] == {"granted": True, "rule": "policy.yaml:access[0]"}
    assert "would not get this far" in run(*at).stdout
    assert "access" not in answer("--shell", "uptime")


def test_a13_an_allow_rule_with_exists_lets_no_companion_pass(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("""\
version: 1
pack: mine
rules:
  - {id: reads, title: Reading, when: 'effects.exists(e, e.verb == "read")', decide: allow}
""")
    assert answer("--policy", str(path), "--shell", "cat x")["decision"] == "allow"
    assert answer("--policy", str(path), "--shell", "cat x; new-thing")["decision"] == "review"
    assert answer("--policy", str(path), "--shell", "cat x; rm y")["decision"] == "review"
    assert answer("--policy", str(path), "--sql", "SELECT 1")["decision"] == "review"


def test_unknown_and_mismatched_targets(configuration: Path) -> None:
    result = run("--config", str(configuration), "--target", "nope", "--shell", "x")
    assert (result.exit_code, "there is: dev-1, orders" in result.stderr) == (1, True)
    result = run("--config", str(configuration), "--target", "orders", "--shell", "x")
    assert (result.exit_code, "give --sql" in result.stderr) == (2, True)


def test_a_broken_policy_is_an_error_with_its_place(configuration: Path) -> None:
    (configuration.parent / "policy.yaml").write_text("version: 1\nrulez: []\n")
    result = run("--config", str(configuration), "--shell", "x")
    assert result.exit_code == 1
    assert "policy.yaml:2:1: unknown key 'rulez'" in result.stderr.replace("\n", "")


class BusyMachine:
    """A classifier whose children run out of time as often as it is told."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.asked = 0

    def classify_now(self, command: Command) -> Analysis | None:
        return None

    async def classify(self, command: Command) -> Analysis:
        self.asked += 1
        self.left -= 1
        return Analysis(opaque=(Opaque("parser-limit"),)) if self.left >= 0 else Analysis((Effect("read", "system"),), sent="x")


async def test_a_busy_machine_is_no_answer_about_a_short_text() -> None:
    command = Command(Wire.SSH, Kind.EXEC, b"uptime")
    assert (await classified(BusyMachine(3), command)).static
    never = BusyMachine(1000)
    assert not (await classified(never, command)).static
    assert never.asked == 5
    long = BusyMachine(1)
    assert not (await classified(long, replace(command, text=b"x" * 5000))).static
    assert long.asked == 1
