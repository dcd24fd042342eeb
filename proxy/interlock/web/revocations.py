"""Revocations over HTTP. Revoking takes authority away, so a login token is enough; lifting gives some back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from interlock.approvals.wording import one_line
from interlock.clock import rfc3339
from interlock.identity.principal import Principal
from interlock.identity.revocation import Revocation, Revocations, Revoked
from interlock.web.access import Caller, Doorkeeper, Scope
from interlock.web.bodies import Body, StrictRoute


class RevocationIn(Body):
    kind: Literal["credential", "subject", "agent", "target", "everything"]
    value: Annotated[str, Field(max_length=512)] = ""
    reason: Annotated[str, Field(max_length=500)] = ""


def revocations_router(revocations: Revocations, door: Doorkeeper) -> APIRouter:
    routes = APIRouter(prefix="/v1/revocations", tags=["revocations"], route_class=StrictRoute)
    admin, giver = door.require(Scope.ADMIN), door.require_given(Scope.ADMIN)

    @routes.get("")
    async def standing(caller: Caller = Depends(admin)) -> dict[str, Any]:
        return {"revocations": [shown(one) for one in revocations.standing()]}

    @routes.post("", status_code=201)
    async def revoke(body: RevocationIn, caller: Caller = Depends(admin)) -> dict[str, Any]:
        """Revoke now, until it is lifted: live sessions end before this is answered."""
        kind, why = Revoked(body.kind), one_line(body.reason)
        return shown(await revocations.revoke(kind, body.value, by=caller.principal.identity, why=why))

    @routes.delete("/{ident}", status_code=204)
    async def lift(ident: str, caller: Principal = Depends(giver)) -> None:
        await revocations.lift(ident, by=caller.identity)

    return routes


def shown(one: Revocation) -> dict[str, Any]:
    return {
        "id": one.id, "kind": str(one.kind), "value": one.value, "at": rfc3339(one.at), "by": one.by, "reason": one.why,
    }  # fmt: skip
