"""The policy in force, from outside: what it only observes is said everywhere, and a bad file changes nothing."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.node import Node
from interlock.cli.client import Client

pytestmark = pytest.mark.blackbox

POLICY = """\
version: 1
packs: [linux, linux-deny]
pack: site
rules:
  - {id: trial, title: Nobody reads logs, match: {protocol: ssh, verbs: [read]}, decide: deny, mode: observe}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "node").mkdir(mode=0o700)
    (tmp_path / "node" / "site.yaml").write_text(POLICY)
    made = Node(tmp_path / "node", {"policies": ["site.yaml"], "targets": []})
    try:
        yield made.start()
    finally:
        made.stop()


def health(node: Node) -> dict[str, Any]:
    client = Client(str(node.data_dir / "interlock.sock"))
    try:
        return dict(client.get("/healthz"))
    finally:
        client.close()


def test_what_is_only_observed_is_said_at_start_in_health_and_by_explain(node: Node) -> None:
    assert any("observe mode: site/trial is recorded and does not count" in line for line in node.said)
    assert json.loads(node.wait_said("interlock.ready"))["observed"] == ["site/trial"]
    assert health(node)["observed"] == ["site/trial"]
    said = node.run("explain", "--config", str(node.config_file), "--shell", "uptime").stdout
    assert "ALLOW" in said and "site/trial would have denied it" in said


def test_a_bad_policy_changes_nothing_and_a_good_one_is_swapped_whole(node: Node) -> None:
    before = health(node)
    policy = node.directory / "site.yaml"
    policy.write_text(POLICY.replace("mode: observe", "when: command.txt == 'x'"))
    node.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    refused = json.loads(node.wait_said("policy.reload_refused"))
    assert "site.yaml:5:" in refused["error"] and "did you mean 'text'" in refused["error"]
    assert health(node) == before

    policy.unlink()
    node.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    node.wait_said("policy.reload_refused", times=2)
    assert health(node) == before

    policy.write_text(POLICY.replace(", mode: observe", ""))
    node.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    loaded = json.loads(node.wait_said("policy.reloaded"))
    after = health(node)
    assert after["policy"] == loaded["policy"] != before["policy"]
    assert after["observed"] == []
