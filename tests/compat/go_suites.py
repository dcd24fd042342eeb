"""The test suites of Go's drivers, which come with their modules: pgx, with its pool and its database/sql, and lib/pq."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from compat.results import Outcomes
from compat.sources import call
from compat.ways import Way, run

PGX = "github.com/jackc/pgx/v5"
PQ = "github.com/lib/pq"
_SCRATCH = re.compile(r"/[^' ]*/Test\w+?[0-9]{6,}/")
"""A folder of a test's own, which some name in their subtests."""
VERSIONS = {PGX: "v5.12.0", PQ: "v1.12.3"}


def pgx_version(scratch: Path) -> str:
    _module(PGX, scratch)
    return VERSIONS[PGX]


def pq_version(scratch: Path) -> str:
    _module(PQ, scratch)
    return VERSIONS[PQ]


def pgx(way: Way, scratch: Path) -> Outcomes:
    suite = _module(PGX, scratch)
    way.create_database("pgx_test")
    text = (suite / "testsetup/postgresql_setup.sql").read_text()
    run("psql", "-X", "-q", "-d", way.server.dsn("postgres", "pgx_test"), env=dict(os.environ), stdin=text)
    env = {**_plain_env(way, scratch), "PGX_TEST_DATABASE": way.dsn("pgx_test"), "PGX_TEST_TCP_CONN_STRING": way.dsn("pgx_test")}
    return _go_test(way, suite, env, scratch)


def pq(way: Way, scratch: Path) -> Outcomes:
    way.create_database("pqgo")
    env = {**way.env("pqgo"), **go_env(scratch), "PGSSLMODE": "disable"}
    suite = _module(PQ, scratch)
    _wait_for_events(suite / "notify_test.go")
    return _go_test(way, suite, env, scratch)


def _wait_for_events(tests: Path) -> None:
    """Give events that come from a server more than 100 ms: a busy machine needs them, and a panic ends all tests behind it."""
    tests.write_text(tests.read_text().replace("time.After(100 * time.Millisecond)", "time.After(10 * time.Second)"))


def _module(module: str, scratch: Path) -> Path:
    """Return a copy of a module that may be written to: Go keeps its own read-only."""
    folder = scratch / "suites" / module.replace("/", "_")
    if not folder.is_dir():
        answer = call("go", "mod", "download", "-json", f"{module}@{VERSIONS[module]}", env=go_env(scratch), cwd=scratch)
        shutil.copytree(json.loads(answer)["Dir"], folder)
        call("chmod", "-R", "u+w", folder)
    return folder


def go_env(scratch: Path) -> dict[str, str]:
    return {**os.environ, "GOPATH": str(scratch / "go"), "GOCACHE": str(scratch / "gocache"), "GOFLAGS": "-mod=mod"}


def _plain_env(way: Way, scratch: Path) -> dict[str, str]:
    return {key: value for key, value in go_env(scratch).items() if not key.startswith("PG")}


def _go_test(way: Way, suite: Path, env: dict[str, str], scratch: Path) -> Outcomes:
    """Run every package of a module, one at a time: they share tables."""
    copy = way.folder(scratch) / suite.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(suite, copy)
    said = run("go", "test", "-json", "-p", "1", "-count=1", "-timeout", "600s", "./...", env=env, cwd=copy, timeout=3000)
    (copy / "said").write_text(said)
    found: dict[str, str] = {}
    for line in said.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        if event.get("Test") and event["Action"] in ("pass", "fail", "skip"):
            word = {"pass": "passed", "fail": "failed", "skip": "skipped"}[event["Action"]]
            test = _SCRATCH.sub("/scratch/", event["Test"])
            found[f"{event['Package'].removeprefix('github.com/')}::{test}"] = word
    return found
