"""Who one is, and the step-up: five minutes of `approvals:decide` for a person who gives the passphrase now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from interlock.errors import InterlockError, Reason
from interlock.identity.authenticate import Authenticator
from interlock.identity.principal import Kind
from interlock.identity.stepup import LIFETIME_S, DecisionSessions
from interlock.web.access import Caller, Doorkeeper, Scope, source_of
from interlock.web.bodies import Body, StrictRoute


class StepUpIn(Body):
    handle: Annotated[str, Field(max_length=64)]
    passphrase: Annotated[str, Field(max_length=1024)]


def stepup_router(authenticator: Authenticator, sessions: DecisionSessions) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["step-up"], route_class=StrictRoute)

    @routes.post("/step-up")
    async def step_up(request: Request, body: StepUpIn) -> dict[str, Any]:
        """Open a decision session."""
        principal = await authenticator.passphrase(body.handle, body.passphrase, source=source_of(request))
        if principal.kind is not Kind.HUMAN:
            raise InterlockError(reason=Reason.NOT_A_PERSON)
        return {"token": sessions.open(principal), "expires_in": LIFETIME_S, "handle": principal.handle}

    return routes


def person_router(door: Doorkeeper) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["identity"])

    @routes.get("/whoami")
    async def whoami(caller: Caller = Depends(door.require(Scope.APPROVALS_OWN))) -> dict[str, Any]:
        principal = caller.principal
        return {
            "handle": principal.handle,
            "identity": str(principal.identity),
            "kind": str(principal.kind),
            "groups": sorted(principal.groups),
            "owner": principal.owner_handle or None,
            "acting_for": list(principal.acting_for_handles),
            "scopes": sorted(caller.scopes),
        }

    return routes
