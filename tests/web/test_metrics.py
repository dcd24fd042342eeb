"""/metrics: what a monitoring system may know, and nothing of who or what."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry

from harness.desk import open_desk
from harness.requests import draft
from harness.trust import TRUST
from harness.webnode import gate_over
from harness.webserver import serving
from interlock.web.metrics import loop_lag, metrics_app


async def test_counts_without_names(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    loop_lag(registry)(0.003)
    async with open_desk(tmp_path) as desk:
        await desk.inbox.submit(draft(principal=desk.agent()))
        async with (
            serving(metrics_app(gate_over(desk), desk.inbox, registry)) as url,
            httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http,
        ):
            text = (await http.get(f"{url}/metrics")).text
            missing = await http.get(f"{url}/v1/approvals")
    assert 'interlock_requests{state="pending"} 1.0' in text and "interlock_sessions 0.0" in text
    assert "claude" not in text and "rm -rf" not in text
    # Cumulative: at most 5 ms late was this one, at most 2.5 none.
    assert 'interlock_loop_lag_seconds_bucket{le="0.005"} 1.0' in text
    assert 'interlock_loop_lag_seconds_bucket{le="0.0025"} 0.0' in text
    assert missing.status_code == 404
