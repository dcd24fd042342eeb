"""The agent's own reason on Postgres: taken at start-up for the reviewer, never sent to the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from harness.gate import Proxy
from harness.postgres_server import PostgresServer
from interlock.approvals.model import ApprovalRequest
from interlock.approvals.portrait import portrait

pytestmark = pytest.mark.interop


def held(proxy: Proxy, options: str, sql: str = "DELETE FROM t WHERE id = 1") -> tuple[ApprovalRequest, list[Any]]:
    """Let `sql` wait, look at it, approve it; return the request and what the server says of the setting afterwards."""
    with psycopg.connect(proxy.dsn(), options=options, autocommit=True) as opened, ThreadPoolExecutor(1) as pool:
        running = pool.submit(opened.execute, sql)  # type: ignore[arg-type]
        request = proxy.pending()
        proxy.approve(request)
        running.result(15)
        return request, opened.execute("SELECT current_setting('interlock.reason', true)").fetchall()


def test_the_reason_reaches_the_reviewer_and_not_the_server(proxy: Proxy, server: PostgresServer, table: str) -> None:
    request, known = held(proxy, r"-c interlock.reason=duplicate\ of\ order\ 7")
    assert request.draft.said == "duplicate of order 7"
    assert portrait(request).said == "duplicate of order 7"
    assert known == [(None,)]
    assert "duplicate of order" not in server.log
    (asked,) = [event for event in proxy.of("approval.request") if event["request"] == request.id]
    assert asked["disclosed"]["said"] == "duplicate of order 7"


def test_a_reason_is_data_whatever_is_in_it(proxy: Proxy, table: str) -> None:
    request, _ = held(proxy, "-c interlock.reason=a\u202eb\\\nc" + "x" * 3000, "DELETE FROM t WHERE id = 2")
    assert request.draft.said.startswith("a b cx")
    assert len(request.draft.said) == 500


def test_the_reason_is_in_the_digest_and_not_in_the_match(proxy: Proxy, table: str) -> None:
    one, _ = held(proxy, "-c interlock.reason=one", "DELETE FROM t WHERE id = 3")
    other, _ = held(proxy, "-c interlock.reason=other", "DELETE FROM t WHERE id = 3")
    assert one.match == other.match
    assert one.digest != other.digest
