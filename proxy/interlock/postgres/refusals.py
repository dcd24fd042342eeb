"""A refusal in Postgres's own words: SQLSTATE, message, DETAIL (JSON) and HINT.

Knows: interface.md "What an agent sees", the SQLSTATEs of PostgreSQL manual Appendix A.
Must not know: sockets, policy, the desk.
"""

from __future__ import annotations

import json

from interlock.approvals.wording import Refusal
from interlock.errors import SENTENCES, Reason
from interlock.evidence.events import EventDraft, Json
from interlock.postgres.wire.answers import ErrorFields

SQLSTATES: dict[Reason, str] = {
    Reason.APPROVAL_EXPIRED: "57014",
    Reason.APPROVAL_CANCELLED: "57014",
    Reason.APPROVAL_PENDING: "55P03",
    Reason.APPROVAL_EDITED: "55P03",
    Reason.SYNTAX_ERROR: "42601",
    Reason.NOT_UTF8: "22021",
    Reason.REQUEST_NOT_OFFERED: "0A000",
    Reason.TOO_LARGE: "54000",
    Reason.LIMIT_REACHED: "54000",
    Reason.TRANSACTION_FAILED: "25P02",
    Reason.SHUTTING_DOWN: "57P01",
    Reason.SESSION_KILLED: "57P01",
    Reason.EVIDENCE_UNAVAILABLE: "58030",
    Reason.STORE_UNAVAILABLE: "58030",
    Reason.PROTOCOL_VIOLATION: "08P01",
    Reason.TARGET_UNREACHABLE: "08001",
    Reason.TARGET_IDENTITY: "08001",
    Reason.TARGET_CREDENTIAL: "08004",
    Reason.NOT_AUTHENTICATED: "28P01",
    Reason.TOKEN_REJECTED: "28P01",
    Reason.TOKEN_EXPIRED: "28P01",
    Reason.TOKEN_REPLAYED: "28P01",
    Reason.GROUPS_INCOMPLETE: "28P01",
    Reason.ISSUER_UNAVAILABLE: "28P01",
    Reason.CREDENTIAL_REVOKED: "28000",
    Reason.LOGIN_ENDED: "28000",
    Reason.UNKNOWN_PRINCIPAL: "28P01",
    Reason.DISABLED_PRINCIPAL: "28000",
    Reason.INTERNAL: "XX000",
}
"""Every other reason is 42501, insufficient_privilege."""


def sqlstate(reason: Reason) -> str:
    return SQLSTATES.get(reason, "42501")


def refused(refusal: Refusal) -> ErrorFields:
    """Render a refusal of one command. It never ends the connection."""
    return ErrorFields(
        "ERROR",
        sqlstate(refusal.reason),
        f"interlock: {refusal.message}",
        json.dumps(refusal.detail(), ensure_ascii=False, separators=(",", ":")),
        refusal.hint,
    )


def function_call() -> ErrorFields:
    """Render the answer to a FunctionCall, whatever it calls."""
    message = "functions are not called by message here: call them in SQL, as in SELECT lo_get(16403)"
    return refused(
        Refusal(Reason.REQUEST_NOT_OFFERED, message, "psql's \\lo_import, \\lo_export and libpq's PQfn need this message.")
    )


def not_offered(function: int) -> EventDraft:
    """Say in the record that a client called a function by its OID, and got nothing."""
    fields: dict[str, Json] = {"request": "function-call", "reason": str(Reason.REQUEST_NOT_OFFERED), "function": function}
    return EventDraft("channel.refuse", fields)


def fatal(reason: Reason, message: str = "", *, code: str = "") -> ErrorFields:
    """Render the end of a connection."""
    sentence = SENTENCES[reason]
    detail = json.dumps({"v": 1, "request": None, "reason_code": str(reason)}, separators=(",", ":"))
    return ErrorFields(
        "FATAL", code or sqlstate(reason), f"interlock: {message or sentence}", detail, sentence if message else ""
    )


def no_access(refusal: Refusal) -> ErrorFields:
    """Render a session that was not opened: 28000, as a server does that a pg_hba.conf line rejects."""
    code = "28000" if refusal.reason is Reason.NO_ACCESS else ""
    return fatal(refusal.reason, refusal.message, code=code)


def cancelled_while_held(request: str | None) -> ErrorFields:
    """Render what a CancelRequest makes of a held command."""
    shown = f"; {request} stays open: run the same command again after approval" if request else ""
    detail = json.dumps({"v": 1, "request": request, "reason_code": str(Reason.APPROVAL_PENDING)}, separators=(",", ":"))
    return ErrorFields("ERROR", "57014", f"canceling statement due to user request{shown}", detail)


def as_the_server(code: str, message: str) -> ErrorFields:
    """Render an error that the server itself would give to the same message."""
    return ErrorFields("ERROR", code, message)
