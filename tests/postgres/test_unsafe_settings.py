"""A target with `unsafe_client_settings`: it behaves as its server does, and nothing passes there that a shipped pack decides."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from harness.gate import Proxy, configuration, running_proxy
from harness.postgres_server import PostgresServer
from interlock.commands.model import Kind, SqlContext
from interlock.commands.sql.analysis import analyze_sql, context_key
from interlock.config import Config
from interlock.policy import packs
from interlock.policy.source import LivePolicy

PERMISSIVE = Path(__file__).parents[1] / "compat" / "permissive.yaml"
FREE = SqlContext(unpinned=True)

SCRIPT = r"""
SET client_encoding = 'LATIN1'; SET standard_conforming_strings = off; SELECT 'a\'b'; SET search_path = nowhere;
RESET ALL; SHOW search_path; SHOW application_name; SELEC 1; SELECT 1 1; DISCARD ALL; SHOW client_encoding;
PREPARE p AS SELECT 7; EXECUTE p; SET SESSION AUTHORIZATION app; SELECT current_user; SET ROLE pg_read_all_data; SELECT 1
"""


def test_every_text_is_opaque_also_what_does_not_parse() -> None:
    for text in (b"SELECT 1", b"SELEC 1", b"", b"SELECT '\xff'", b"SELECT 1; SELECT 2"):
        found = analyze_sql(text, FREE, Kind.PARSE)
        assert found.unreadable is None
        assert found.sent is None
        assert "settings-not-pinned" in {part.reason for part in found.opaque}


def test_names_and_effects_are_still_read() -> None:
    found = analyze_sql(b"PREPARE p AS DELETE FROM t", FREE, Kind.QUERY)
    assert [action.name for action in found.names] == ["p"]
    assert "drop" in {effect.verb for effect in analyze_sql(b"DROP DATABASE d", FREE, Kind.QUERY).effects}


def test_an_analysis_is_not_shared_with_pinned_targets() -> None:
    assert context_key(FREE) != context_key(SqlContext())


@pytest.fixture(scope="module")
def free(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("free")
    pinned = configuration(server, folder)
    target = pinned.targets[0].model_copy(update={"unsafe_client_settings": True, "labels": {"env": "compat"}})
    return pinned.model_copy(update={"targets": [target]})


@pytest.fixture(scope="module")
def permissive(free: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running_proxy(free, tmp_path_factory.mktemp("permissive"), LivePolicy([PERMISSIVE])) as running:
        yield running


@pytest.mark.interop
def test_psql_sees_what_it_sees_of_the_server(permissive: Proxy, server: PostgresServer) -> None:
    def said(dsn: str) -> str:
        done = subprocess.run(
            ["psql", "-Xe", "-v", "VERBOSITY=verbose", "-d", f"{dsn} application_name=one"], input=SCRIPT,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    direct = said(server.dsn())
    assert 'syntax error at or near "SELEC"' in direct
    assert said(permissive.dsn()) == direct


@pytest.mark.interop
def test_every_session_says_so_in_its_first_event(permissive: Proxy) -> None:
    with psycopg.connect(permissive.dsn()):
        pass
    opened = permissive.of("session.open")
    assert opened
    assert all(event["unsafe_client_settings"] is True for event in opened)


@pytest.mark.interop
def test_under_the_shipped_packs_nothing_passes_without_a_person(free: Config, tmp_path: Path) -> None:
    access = tmp_path / "access.yaml"
    access.write_text(
        "version: 1\ndefault: {review: {groups: [sre], hold: 1s}}\n"
        "access: [{who: {groups: [agents]}, targets: {env: compat}, roles: ['*']}]\n"
    )
    policy = LivePolicy([access, packs.shipped()])
    with running_proxy(free, tmp_path, policy) as proxy, psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute("SELECT 1")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP DATABASE app")


@pytest.mark.interop
def test_pg_dump_is_the_same_byte_for_byte(permissive: Proxy, server: PostgresServer) -> None:
    def dumped(dsn: str) -> bytes:
        dump = [str(server.binaries / "pg_dump"), "--inserts", "-d", dsn]
        done = subprocess.run(dump, capture_output=True, timeout=60, check=True)
        return b"\n".join(line for line in done.stdout.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict")))

    server.run("INSERT INTO t SELECT i, 'x' FROM generate_series(900, 950) i ON CONFLICT DO NOTHING")
    assert b"INSERT INTO public.t" in dumped(server.dsn())
    assert dumped(permissive.dsn()) == dumped(server.dsn())
