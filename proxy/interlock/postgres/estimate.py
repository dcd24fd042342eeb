"""Asks the target how many rows a statement would change, before a person is asked about it.

On a connection of its own, as the session's role: BEGIN READ ONLY, EXPLAIN without ANALYZE, ROLLBACK, within two seconds. The
question goes through the gate like any command of the client, so policy may refuse it, and decision and forward are in the
transcript before its bytes are sent. What the planner says becomes a fact for the reviewer and nothing else: no decision
depends on it, and whatever fails here is told as no estimate.

Knows: the wire, the gate's Release. What may be asked, and what the answer means: `plan`. Must not know: policy, the desk.
"""

from __future__ import annotations

import asyncio

import structlog

from interlock import gate
from interlock.commands.model import Analysis, BindValue, Command
from interlock.errors import InterlockError
from interlock.evidence.events import EventDraft, Json
from interlock.ports import Caller
from interlock.postgres import plan
from interlock.postgres.reading import Value, answer, fetch
from interlock.postgres.settings import pinned
from interlock.postgres.upstream import Connector, ServerRefusedError, Upstream
from interlock.postgres.wire import requests

log = structlog.get_logger()

LIMIT = 2.0
"""Seconds for all of it, with connecting."""
AT_ONCE = 4
"""Connections for estimates that one target has at a time. Beyond that there is no estimate: nobody waits for one."""
_NAME_OID = 19


class Estimator:
    """One a target. `estimate` is asked once for each command that waits for a person."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._open = 0

    async def estimate(self, session: gate.Session, caller: Caller, command: Command, analysis: Analysis) -> str | None:
        """Return a sentence with the planner's estimate, or None. Never raises but CancelledError."""
        asked = plan.question(command, analysis)
        if asked is None or self._open >= AT_ONCE:
            return None
        self._open += 1
        try:
            async with asyncio.timeout(LIMIT):
                return await self._estimate(session, caller, command, asked)
        except (OSError, InterlockError, ValueError) as error:  # TimeoutError is an OSError
            log.info("no estimate", session=session.id, why=error.__class__.__name__)
        except Exception as error:
            # A defect of ours costs the reviewer a number, never the request.
            log.error("estimate failed", session=session.id, error=error.__class__.__name__)
        finally:
            self._open -= 1
        return None

    async def _estimate(self, session: gate.Session, caller: Caller, command: Command, asked: plan.Question) -> str | None:
        upstream = await self._connector.connect(self._parameters(session))
        try:
            await fetch(upstream, "BEGIN READ ONLY")
            # Asked only now: what is released here is sent at once, or not at all.
            release = session.submit(Command(
                command.wire, command.kind, asked.text, binds=command.binds, settings=command.settings, context=command.context
            ), caller)  # fmt: skip
            if not isinstance(release, gate.Release):
                return None  # policy wants it looked at, or it would take time: it is dropped, and nothing of it is on record
            ref = release.decision
            if release.payload != asked.text or {effect.verb for effect in release.analysis.effects} != {"explain"}:
                session.record(_result(ref, {"skipped": True}))
                return None
            try:
                rows = await _ask(upstream, release.payload, command.binds)
            except BaseException as error:
                code = error.sqlstate if isinstance(error, ServerRefusedError) else "unknown"
                session.record(_result(ref, {"sqlstate": code}))
                raise
            estimated = plan.estimated(str(rows[0][0])) if len(rows) == 1 and len(rows[0]) == 1 else None
            session.record(_result(ref, {"tag": "EXPLAIN", "rows": None, "estimated": estimated}))
            if estimated is None:
                return None
            of = await _ask(upstream, plan.ROWS_IN.encode(), (_name(asked.schema), _name(asked.table)))
            await fetch(upstream, "ROLLBACK")
            upstream.dialogue.write(requests.TERMINATE)
            known = of[0][0] if of else None
            return plan.words(asked, estimated, known if isinstance(known, int) else None)
        finally:
            upstream.dialogue.close()

    def _parameters(self, session: gate.Session) -> dict[str, str]:
        """The session's own role and what is pinned for it. The server gives up by itself, also when we are gone."""
        return {
            "user": session.target.role,
            "database": session.target.database,
            "application_name": "interlock:estimate",
            "default_transaction_read_only": "on",
            "statement_timeout": f"{int(LIMIT * 1000)}ms",
            "lock_timeout": f"{int(LIMIT * 500)}ms",
            **dict(pinned(self._connector.target)),
        }


async def _ask(upstream: Upstream, text: bytes, binds: tuple[BindValue, ...]) -> list[tuple[Value, ...]]:
    """Run one statement with its values through the extended protocol, where a text can't hold a second statement."""
    values = requests.Bind("", "", tuple(b.format for b in binds), tuple(b.raw for b in binds), ())
    upstream.dialogue.write(
        b"".join(
            (
                requests.encode_parse(requests.Parse("", text, tuple(b.type_oid for b in binds))),
                requests.encode_bind(values),
                requests.encode_describe_portal(""),
                requests.encode_execute(""),
                requests.SYNC,
            )
        )
    )
    return await answer(upstream)


def _name(name: str) -> BindValue:
    return BindValue(name.encode(), 0, _NAME_OID)


def _result(ref: int, fields: dict[str, Json]) -> EventDraft:
    return EventDraft("pg.result", {"ref": ref, **fields})
