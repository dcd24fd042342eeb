"""Sessions over HTTP: those that are live, and the transcripts of all. Reading them needs a scope of its own."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Response

from interlock.clock import rfc3339
from interlock.errors import NotFoundError
from interlock.evidence.archive import Archive
from interlock.gate import Gate, Session
from interlock.web.access import Caller, Doorkeeper, Scope
from interlock.web.approvals import WhyIn
from interlock.web.bodies import StrictRoute


def sessions_router(archive: Archive, gate: Gate, door: Doorkeeper) -> APIRouter:
    """Transcripts: list, show, and the bundle an auditor takes away; live sessions, and the end of one."""
    routes = APIRouter(prefix="/v1", tags=["sessions"], route_class=StrictRoute)
    auditor = Depends(door.require(Scope.SESSIONS_READ))
    admin = Depends(door.require(Scope.ADMIN))

    @routes.get("/sessions")
    def list_sessions(caller: Caller = auditor) -> dict[str, Any]:
        return {"sessions": archive.list()}

    @routes.get("/sessions/live")
    async def live_sessions(caller: Caller = auditor) -> dict[str, Any]:
        """What is open on this node right now."""
        return {"sessions": [_live(session) for session in gate.sessions()]}

    @routes.post("/sessions/{session_id}/kill")
    async def kill(session_id: str, body: WhyIn, caller: Caller = admin) -> dict[str, Any]:
        """End a live session: nothing more is released in it, and its connection is closed."""
        if not gate.kill(session_id, caller.principal, body.reason):
            raise NotFoundError("there is no live session of this id; it may have ended by itself")
        return {"id": session_id, "killed": True}

    @routes.get("/sessions/{session_id}")
    def show_session(session_id: str, caller: Caller = auditor) -> dict[str, Any]:
        return archive.show(session_id)

    @routes.get("/sessions/{session_id}/events")
    def session_events(session_id: str, caller: Caller = auditor) -> dict[str, Any]:
        return {"events": archive.events(session_id)}

    @routes.get("/sessions/{session_id}/bundle")
    def bundle(session_id: str, caller: Caller = auditor) -> Response:
        packed = io.BytesIO()
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(fileobj=packed, mode="w:gz") as tar:
            out = Path(scratch) / "bundle"
            archive.export(session_id, out)
            tar.add(out, arcname=session_id)
        return Response(packed.getvalue(), media_type="application/gzip")

    return routes


def _live(session: Session) -> dict[str, Any]:
    principal, target = session.principal, session.target
    return {
        "id": session.id,
        "principal": principal.handle,
        "kind": str(principal.kind),
        "owner": principal.owner_handle or (str(principal.owner) if principal.owner else None),
        "acting_for": list(principal.acting_for_handles) or [str(i) for i in principal.acting_for],
        "target": target.name,
        "account": target.account or target.role,
        "database": target.database,
        "client": session.facts.client,
        "opened": rfc3339(session.opened),
    }
