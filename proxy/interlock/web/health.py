"""Liveness, readiness, and what a signed-in principal may open."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Response

from interlock.config import Config
from interlock.gate import Gate
from interlock.policy.model import Target
from interlock.web.access import Caller, Doorkeeper, Scope


def health_router(gate: Gate, config: Config, door: Doorkeeper) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, Any]:
        """The process answers. Says which policy is in force and whether any rule only observes."""
        policy = gate.policies.current
        return {"status": "ok", "policy": policy.digest, "observed": list(policy.observed)}

    @routes.get("/readyz", tags=["health"])
    async def readyz(response: Response) -> dict[str, str]:
        """Ready to take connections; 503 while draining."""
        if gate.draining:
            response.status_code = 503
            return {"status": "draining"}
        return {"status": "ready"}

    @routes.get("/v1/targets", tags=["targets"])
    async def targets(caller: Caller = Depends(door.require(Scope.APPROVALS_OWN))) -> dict[str, Any]:
        """What the caller may open; the local operator sees everything."""
        everything = Scope.ADMIN in caller.scopes
        policy = gate.policies.current
        rows = []
        for target in config.targets:
            facts = Target(target.name, target.protocol, target.labels, target.account, target.role, target.database)
            if everything or policy.may_open(caller.principal, facts).granted:
                rows.append(
                    {
                        "name": target.name, "protocol": target.protocol, "labels": target.labels,
                        "account": target.account, "role": target.role, "database": target.database,
                    }
                )  # fmt: skip
        return {"targets": rows}

    return routes
