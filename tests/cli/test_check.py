"""`interlock check`: what `serve` would refuse, it refuses as well, without starting anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from typer.testing import CliRunner, Result

from interlock.cli.main import build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "web-1.key").write_bytes(key.export_private_key())
    (tmp_path / "known_hosts").write_text(f"10.0.0.5 {key.export_public_key().decode()}")
    return tmp_path


def check(folder: Path, *words: str, **changes: Any) -> Result:
    target = {
        "name": "web-1", "protocol": "ssh", "address": "10.0.0.5:22", "account": "deploy",
        "credentials": {"kind": "key", "key": "file:web-1.key"}, "host_keys": "known_hosts", **changes,
    }  # fmt: skip
    file = folder / "interlock.yaml"
    file.write_text(json.dumps({"version": 1, "node": {"data_dir": "data"}, "targets": [target]}))  # JSON is YAML
    return CliRunner().invoke(build(["check"]), ["check", "--config", str(file), *words])


def test_as_text_and_as_json(folder: Path) -> None:
    assert check(folder).exit_code == 0
    told = json.loads(check(folder, "--output", "json").stdout)
    assert (told["v"], told["ok"], told["targets"]) == (1, True, 1) and told["policy"].startswith("sha256:")
    assert any("access" in warning for warning in told["warnings"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host_keys": "nothing"}, "nothing of web-1 can't be read: No such file or directory"),
        ({"credentials": {"kind": "key", "key": "file:nothing"}}, "nothing can't be read: No such file or directory"),
        ({"credentials": {"kind": "key", "key": "file:known_hosts"}}, "is not a private key"),
        ({"credentials": {"kind": "ssh-ca"}}, "targets_ca"),
    ],
)
def test_what_a_target_rests_on_is_read(folder: Path, changes: dict[str, Any], says: str) -> None:
    result = check(folder, **changes)
    assert result.exit_code != 0 and says in result.output
