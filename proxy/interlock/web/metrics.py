"""/metrics for Prometheus, on a listener of its own: counts and states, never a name, a command or an id."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from interlock import __version__
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import State
from interlock.gate import Gate

LATE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


def loop_lag(registry: CollectorRegistry) -> Callable[[float], None]:
    """Return what is told how late the event loop was, in seconds."""
    name, told = "interlock_loop_lag_seconds", "By how much the event loop was late: every session waits at least as long."
    return Histogram(name, told, buckets=LATE_S, registry=registry).observe


def metrics_app(gate: Gate, inbox: Inbox, registry: CollectorRegistry) -> FastAPI:
    """Return the application. Values are read when they are asked for; what is counted as it happens is in `registry`."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    Gauge("interlock_build_info", "Version of the daemon.", ["version"], registry=registry).labels(__version__).set(1)
    sessions = Gauge("interlock_sessions", "Open sessions.", registry=registry)
    sessions.set_function(lambda: gate.live)
    draining = Gauge("interlock_draining", "1 while the node takes nothing new.", registry=registry)
    draining.set_function(lambda: float(gate.draining))
    open_requests = Gauge("interlock_requests", "Open approval requests by state.", ["state"], registry=registry)
    app = FastAPI(openapi_url=None)

    @app.get("/metrics")
    async def metrics() -> Response:
        for state in (State.PENDING, State.APPROVED):
            open_requests.labels(str(state)).set(len(await inbox.list(state)))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app
