"""A daemon that can't be what its configuration says does not start: one clear sentence, an exit status, no traceback."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.node import INTERLOCK, Node
from interlock.control import SOCKET

pytestmark = pytest.mark.blackbox

ANYWHERE = "127.0.0.1:0"


def write(path: Path, **changes: Any) -> Path:
    config = {"version": 1, "node": {"data_dir": "data"}, "listen": {"http": ANYWHERE}, **changes}
    file = path / "interlock.yaml"
    file.write_text(json.dumps(config))
    return file


def interlock(verb: str, config: Path) -> subprocess.CompletedProcess[str]:
    argv = [*INTERLOCK, verb, "--config", str(config)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


def sentence(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the only thing that was said to the person; log lines are for machines."""
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert said and said[0].startswith("interlock: "), done.stderr
    return "\n".join(said)


@pytest.fixture
def busy() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("listener", ["ssh", "postgres", "http"])
def test_an_address_in_use(tmp_path: Path, busy: str, listener: str) -> None:
    said = sentence(interlock("serve", write(tmp_path, listen={listener: busy})), 2)
    assert (
        said == f"interlock: listen.{listener}: {busy} can't be bound: it is in use; stop the other process or name another port"
    )


def test_a_host_that_is_not_this_machine(tmp_path: Path) -> None:
    said = sentence(interlock("serve", write(tmp_path, listen={"ssh": "192.0.2.1:2222"})), 2)
    assert said == "interlock: listen.ssh: 192.0.2.1:2222 can't be bound: Cannot assign requested address"


def test_a_data_dir_that_others_can_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o750)
    said = sentence(interlock("serve", write(tmp_path)), 2)
    assert "can be read by others; run: chmod 700" in said
    assert list((tmp_path / "data").iterdir()) == []


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder that can't be written to: for root, who ignores modes, as a file system of its own."""
    folder.mkdir(mode=0o700)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,mode=0700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("NOT TESTED: root can't mount a read-only folder here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_data_dir(tmp_path: Path) -> None:
    with read_only(tmp_path / "data"):
        said = sentence(interlock("serve", write(tmp_path)), 2)
    assert "is read-only; transcripts must be written before anything is released" in said


def test_a_second_daemon_on_the_same_data_dir(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", {"listen": {"http": ANYWHERE}})
    node.start()
    try:
        said = sentence(interlock("serve", node.config_file), 1)
        assert "another process has" in said and "SQLite serves one process" in said
        assert node.json("ls")["targets"] == []  # the first one is unharmed, its socket too
        assert (node.data_dir / SOCKET).is_socket()
    finally:
        assert node.stop() == 0


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    config = write(tmp_path, aprovals={"hold": "60s"})
    for verb in ("serve", "check"):
        assert "aprovals: unknown key 'aprovals'; did you mean 'approvals'?" in sentence(interlock(verb, config), 2)


def test_a_policy_with_a_typo_shows_the_place(tmp_path: Path) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text(
        "version: 1\npack: site\nrules:\n  - id: night\n    title: Nothing at night\n"
        '    when: effects.exists(e, e.vreb == "delete")\n    decide: deny\n    message: never\n'
    )
    config = write(tmp_path, policies=["site.yaml"])
    for verb in ("serve", "check"):
        said = sentence(interlock(verb, config), 1)
        first, *_ = said.splitlines()
        assert first.startswith(f"interlock: {policy}:6:") and "did you mean 'verb'?" in first
        row = next(line for line in said.splitlines() if line.lstrip().startswith("6 |"))
        caret = said.splitlines()[said.splitlines().index(row) + 1]
        assert row[caret.index("^") :].startswith((".vreb", "vreb"))


@dataclass(frozen=True)
class Unusable:
    """A configuration that reads well and can't be used."""

    says: str
    status: int = 2
    changes: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], Any] = lambda _: None
    hidden: str = "hunter2"


UNUSABLE = {
    "a store of another kind": Unusable(
        "store.url: mysql is not offered; use sqlite or postgresql", changes={"store": {"url": "mysql://u:hunter2@h/db"}}
    ),
    "a store that is down": Unusable(
        "the store failed", status=1, changes={"store": {"url": "postgresql://u:hunter2@127.0.0.1:1/db"}}
    ),
    "an authority that is no key": Unusable(
        "evidence.ca.key: ", changes={"evidence": {"ca": {"key": "file:ca"}}}, prepare=lambda p: (p / "ca").write_text("hunter2")
    ),
    "certificates that are missing": Unusable(
        "tls: certificate and key can't be loaded", changes={"tls": {"certificate": "c.pem", "key": "k.pem"}}
    ),
    "a policy that is missing": Unusable("can't be read: No such file or directory", status=1, changes={"policies": ["none"]}),
    "a data_dir that is a file": Unusable(
        "node.data_dir", prepare=lambda p: (p / "data").write_text("hunter2")
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_reads_well_and_can_not_be_used(tmp_path: Path, what: str) -> None:
    case = UNUSABLE[what]
    case.prepare(tmp_path)
    done = interlock("serve", write(tmp_path, **case.changes))
    assert case.says in sentence(done, case.status)
    assert case.hidden not in done.stderr
