"""`policy check` and `policy test`: exit codes, places, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from interlock.cli.policy import app

GOOD = """\
version: 1
pack: site
rules:
  - id: night
    title: Nobody at night
    when: time.hour < 6
    decide: deny
    cases:
      - {shell: uptime, at: "2026-01-05T02:13:00Z", expect: deny}
      - {shell: uptime, at: "2026-01-05T12:00:00Z", expect: none}
access: [{who: {groups: [x]}, targets: "*", accounts: ["*"]}]
cases:
  - {sql: "SELECT 1", at: "2026-01-05T02:13:00Z", expect: deny, rule: site/night}
"""


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERLOCK_CONFIG", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return str(path)


def as_json(result: Result) -> dict[str, Any]:
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_check_passes_and_names_the_digest(tmp_path: Path) -> None:
    result = run("check", written(tmp_path, GOOD), "--strict")
    assert result.exit_code == 0
    assert "1 rules in 1 packs (site), 1 access rules, 3 cases, 0 warnings" in result.stdout
    assert "sha256:" in result.stdout
    found = as_json(run("check", written(tmp_path, GOOD), "--output", "json"))
    assert (found["ok"], found["errors"], found["warnings"]) == (True, [], [])
    assert found["rules"] == [{"rule": "site/night", "decide": "deny", "title": "Nobody at night", "mode": "enforce"}]


def test_check_of_a_typo_shows_the_place_whole(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("time.hour <", "time.huor <"))
    result = run("check", path)
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith(
        f"{path}:6:15: rule 'night': undefined field 'huor' not found in struct 'Time'; did you mean 'hour'"
    )
    assert lines[1].endswith("when: time.huor < 6")
    assert lines[1][lines[2].index("^") :] == ".huor < 6"
    found = as_json(run("check", path, "--output", "json"))
    assert found["ok"] is False
    assert {k: found["errors"][0][k] for k in ("file", "line", "column")} == {"file": path, "line": 6, "column": 15}


def test_warnings_fail_only_when_strict(tmp_path: Path) -> None:
    path = written(tmp_path, "version: 1\npack: p\nrules: [{id: a, title: A, decide: allow}]\n")
    assert run("check", path).exit_code == 0
    assert "allows everything" in run("check", path).stderr
    assert run("check", path, "--strict").exit_code == 1


def test_test_runs_the_cases_and_says_what_failed(tmp_path: Path) -> None:
    assert run("test", written(tmp_path, GOOD)).exit_code == 0
    path = written(tmp_path, GOOD.replace("hour < 6", "hour < 2"))
    result = run("test", path)
    assert result.exit_code == 1
    assert "1 cases passed, 2 failed" in result.stdout
    assert f"{path}:9: 'uptime': expected deny, got none" in result.stderr
    found = as_json(run("test", path, "--output", "json"))
    assert (found["ok"], found["passed"], found["failed"]) == (False, 1, 2)
    assert [case["passed"] for case in found["cases"]] == [False, False, True]


def test_a_policy_without_cases_does_not_pass(tmp_path: Path) -> None:
    result = run("test", written(tmp_path, "version: 1\n"))
    assert result.exit_code == 1
    assert "no cases" in result.stderr


def test_the_wrong_rule_carrying_the_right_verdict_fails(tmp_path: Path) -> None:
    text = GOOD.replace("rule: site/night", "rule: default")
    assert run("test", written(tmp_path, text)).exit_code == 1


def test_a_policy_that_does_not_load_can_not_be_tested(tmp_path: Path) -> None:
    result = run("test", written(tmp_path, "version: 1\nrulez: []\n"))
    assert result.exit_code == 1
    assert "unknown key 'rulez'" in result.stderr


def test_without_arguments_the_shipped_packs_are_meant() -> None:
    found = as_json(run("check", "--output", "json"))
    loaded = {rule["rule"].partition("/")[0] for rule in found["rules"]}
    assert loaded == {"cloud-cli", "git", "kubernetes-cli", "linux", "linux-deny", "postgres", "postgres-deny"}


def test_with_a_configuration_its_policies_are_meant(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    config = tmp_path / "interlock.yaml"
    config.write_text("version: 1\nnode: {name: t, data_dir: data}\npolicies: [site.yaml]\n")
    found = as_json(run("check", "--config", str(config), "--output", "json"))
    assert [rule["rule"] for rule in found["rules"]] == ["site/night"]


def test_coverage_names_what_no_case_exercises(tmp_path: Path) -> None:
    result = run("coverage", written(tmp_path, GOOD))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "1 of 1 rules are exercised; 6 mistakes tried, 0 unnoticed"
    lazy = GOOD.replace('      - {shell: uptime, at: "2026-01-05T12:00:00Z", expect: none}\n', "")
    result = run("coverage", written(tmp_path, lazy))
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "site.yaml:4: site/night lacks a near miss (expect: none); a case that fails when it is condition removed" in said
    found = as_json(run("coverage", written(tmp_path, lazy), "--output", "json"))
    assert (found["ok"], found["mutations"]) == (False, {"tried": 6, "unnoticed": 1})
    assert found["rules"][0]["unnoticed"] == ["condition removed"]


def test_coverage_without_mutations_only_counts_cases(tmp_path: Path) -> None:
    found = as_json(run("coverage", written(tmp_path, GOOD), "--no-mutate", "--output", "json"))
    assert (found["ok"], found["mutations"]["tried"]) == (True, 0)
    assert {k: found["rules"][0][k] for k in ("hits", "misses", "elsewhere")} == {"hits": 2, "misses": 1, "elsewhere": 1}
    lines = [line for line in GOOD.splitlines(keepends=True) if "shell:" not in line and "    cases:" not in line]
    none = "".join(lines).replace(", rule: site/night", "")
    found = as_json(run("coverage", written(tmp_path, none), "--no-mutate", "--output", "json"))
    assert found["rules"][0]["lacks"] == "a case that hits (expect: deny); a near miss (expect: none)"


def test_a_mistake_in_a_part_of_a_rule_fails_only_when_strict(tmp_path: Path) -> None:
    loose = GOOD.replace("    when:", "    match: {target: {env: prod}}\n    when:")
    path = written(tmp_path, loose)
    result = run("coverage", path)
    assert result.exit_code == 0
    assert "site/night lacks a case that fails when it is match.target removed" in " ".join(result.stderr.split())
    assert run("coverage", path, "--strict").exit_code == 1


def test_the_packs_that_ship_are_exercised_whole() -> None:
    result = run("coverage", "--no-mutate")
    assert result.exit_code == 0, result.stderr


def test_the_schema_is_printed_for_editors() -> None:
    found = as_json(run("schema"))
    assert found["title"] == "Interlock policy file"
    assert "rules" in found["properties"]


def test_check_against_a_configuration_names_what_no_target_meets(tmp_path: Path) -> None:
    written(tmp_path, GOOD.replace("when: time.hour < 6", "match: {target: {env: prodd}}\n    when: time.hour < 6"))
    config = tmp_path / "interlock.yaml"
    target = (
        "{name: web-1, protocol: ssh, address: '127.0.0.1:22', account: a, labels: {env: prod}, "
        "credentials: {kind: key, key: 'file:k'}, host_keys: 'file:h'}"
    )
    config.write_text(f"version: 1\nnode: {{name: t, data_dir: data}}\npolicies: [site.yaml]\ntargets: [{target}]\n")
    assert "site/night can never match: no configured target is one of its match.target" in run("check", "-c", str(config)).stderr
    assert run("check", "-c", str(config), "--strict").exit_code == 1
