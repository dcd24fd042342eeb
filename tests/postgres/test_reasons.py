"""What only the agent wrote, and what it would rather hide, from psql to the reviewer (properties 11 and 33).

The agent's own reason is taken at start-up for the reviewer and never sent to the server.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from harness.gate import Proxy
from harness.postgres_server import PostgresServer
from interlock.approvals.model import ApprovalRequest
from interlock.approvals.portrait import chat_portrait, portrait

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


def test_a_secret_is_hidden_from_chat_and_runs_as_it_was_sent(proxy: Proxy, server: PostgresServer, table: str) -> None:
    secret = "ghp_" + "a1B2c3D4e5" * 4
    server.run(f"INSERT INTO t VALUES (77, '{secret}')")
    request, _ = held(proxy, "", f"DELETE FROM t WHERE v = '{secret}' -- approved by the CTO")
    chat = chat_portrait(request)
    assert secret not in repr(chat)
    assert chat.chat_approvable
    assert chat.notes == ("1 secret of about 40 characters hidden; the page shows it all",)
    assert chat.remarks == ("comment: -- approved by the CTO",)
    assert secret in portrait(request).command.lines[0]
    assert server.run("SELECT count(*) FROM t WHERE id = 77") == "0"


def test_code_that_looks_like_a_token_is_not_approved_in_chat(proxy: Proxy, server: PostgresServer, table: str) -> None:
    request, _ = held(proxy, "", "DELETE FROM t WHERE id = 5; DO 'begin perform 1; end -- AKIAIOSFODNN7EXAMPLE'")
    assert "⟦hidden: about 20 characters⟧" in chat_portrait(request).command.lines[0]
    assert not chat_portrait(request).chat_approvable


def test_text_behind_padding_is_in_sight(proxy: Proxy, server: PostgresServer, table: str) -> None:
    request, _ = held(proxy, "", "DELETE FROM t WHERE id = 6" + " " * 5000 + "OR id = 7 ")
    view = chat_portrait(request)
    assert view.command.lines == ("DELETE FROM t WHERE id = 6⟦5000 blanks⟧OR id = 7⟦blank⟧",)
    assert "Careful: a long run of blanks that pushes text out of view" in view.notes
