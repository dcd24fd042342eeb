"""/metrics for Prometheus, on a listener of its own: counts and states, never a name, a command or an id."""

from __future__ import annotations

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, generate_latest

from interlock import __version__
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import State
from interlock.gate import Gate


def metrics_app(gate: Gate, inbox: Inbox) -> FastAPI:
    """Return the application. Values are read when they are asked for."""
    registry = CollectorRegistry()
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
