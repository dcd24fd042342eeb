"""Sessions: the live ones with a button that ends one, and what was recorded, event by event.

Reading files happens in a thread. A recording is offered as a file for asciinema: the page itself plays nothing, because
what was recorded was made by whoever is distrusted.
"""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from interlock.evidence.archive import Archive
from interlock.gate import Gate
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import HEADERS, Pages, missing, said

RECORDED = 50
EVENTS = 200
MAX_CAST = 32 << 20


def add(routes: APIRouter, pages: Pages, guard: Guard, *, archive: Archive, gate: Gate) -> None:
    auditor = Depends(guard.reads(Scope.SESSIONS_READ))

    @routes.get("/console/sessions")
    async def sessions(
        request: Request, start: Annotated[int, Query(ge=0, le=10_000_000)] = 0, person: Person = auditor
    ) -> Response:
        recorded = await asyncio.to_thread(archive.list)
        live = gate.sessions()
        return pages.page(
            "sessions.html",
            request,
            live=live,
            recorded=recorded[start : start + RECORDED],
            start=start,
            older=start + RECORDED if len(recorded) > start + RECORDED else 0,
        )

    @routes.post("/console/sessions/{session_id}/kill")
    async def kill(
        session_id: str,
        reason: Annotated[str, Form(max_length=2000)] = "",
        person: Person = Depends(guard.posts(Scope.ADMIN)),
    ) -> Response:
        if not gate.kill(session_id, person.principal, said(reason, 300)):
            raise missing("live session of this id; it may have ended by itself")
        return pages.back("/console/sessions")

    @routes.get("/console/sessions/{session_id}")
    async def session(
        request: Request,
        session_id: str,
        start: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        person: Person = auditor,
    ) -> Response:
        summary, events = await asyncio.to_thread(_read, archive, session_id, start)
        return pages.page(
            "session.html",
            request,
            summary=summary,
            events=events[:EVENTS],
            start=start,
            older=start + EVENTS if len(events) > EVENTS else 0,
        )

    @routes.get("/console/sessions/{session_id}/recording")
    async def recording(session_id: str, person: Person = auditor) -> Response:
        cast = await asyncio.to_thread(_cast, archive, session_id)
        name = f"attachment; filename={session_id}.cast"
        return Response(cast, media_type="application/octet-stream", headers={**HEADERS, "Content-Disposition": name})


def _read(archive: Archive, session_id: str, start: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    summary = archive.show(session_id)
    events = [
        {
            "seq": recorded.event.get("seq"),
            "ts": str(recorded.event.get("ts", ""))[11:23],
            "type": str(recorded.event.get("type", "")),
            "plain": _flat({k: v for k, v in recorded.event.items() if k not in ("seq", "ts", "type", "prev", "mono_us", "v")}),
            "disclosed": _flat(dict(recorded.disclosed)),
        }
        for recorded in islice(archive.bundle(session_id).events(), start, start + EVENTS + 1)
    ]
    return summary, events


def _flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Return names and values as text: what an agent wrote stays data, printable and on one line."""
    return [
        (said(name, 80), said(value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str)))
        for name, value in values.items()
        if value not in (None, "", [], {})
    ]


def _cast(archive: Archive, session_id: str) -> bytes:
    out = bytearray()
    for line in archive.bundle(session_id).cast():
        if len(out) + len(line) > MAX_CAST:
            break
        out += line
    return bytes(out)
