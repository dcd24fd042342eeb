"""Errors as RFC 9457 problem documents that carry our reason code. Nothing internal leaks through them."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from interlock.errors import SENTENCES, InterlockError, OverloadedError, Reason

log = structlog.get_logger()

STATUS: dict[Reason, int] = {
    Reason.NOT_AUTHENTICATED: 401,
    Reason.TOKEN_REJECTED: 401,
    Reason.TOKEN_EXPIRED: 401,
    Reason.TOKEN_REPLAYED: 401,
    Reason.GROUPS_INCOMPLETE: 401,
    Reason.CREDENTIAL_REVOKED: 401,
    Reason.STEP_UP_REQUIRED: 401,
    Reason.DELIVERY_REJECTED: 401,
    Reason.LOGIN_ENDED: 401,
    Reason.PROVIDER_UNAVAILABLE: 502,
    Reason.MISSING_SCOPE: 403,
    Reason.SELF_APPROVAL: 403,
    Reason.NOT_A_REVIEWER: 403,
    Reason.NOT_A_PERSON: 403,
    Reason.UNMAPPED_ACTOR: 403,
    Reason.UNKNOWN_PRINCIPAL: 403,
    Reason.DISABLED_PRINCIPAL: 403,
    Reason.STEP_UP_TOO_WEAK: 403,
    Reason.PROOF_REJECTED: 403,
    Reason.REVIEWER_TOO_NEW: 403,
    Reason.SIGN_IN_REQUIRED: 403,
    Reason.BREAK_GLASS_REFUSED: 403,
    Reason.REASON_REQUIRED: 422,
    Reason.SCOPE_NOT_OFFERED: 422,
    Reason.NOT_EDITABLE: 409,
    Reason.DENIED_BY_POLICY: 422,  # of a text that a reviewer proposes, as all down to the next 404
    Reason.NO_ACCESS: 422,
    Reason.DECEPTIVE_TEXT: 422,
    Reason.NOT_UTF8: 422,
    Reason.SYNTAX_ERROR: 422,
    Reason.EMPTY_COMMAND: 422,
    Reason.REQUEST_NOT_OFFERED: 422,
    Reason.CANNOT_BE_PINNED: 422,
    Reason.NOT_FOUND: 404,
    Reason.ALREADY_DECIDED: 409,
    Reason.ALREADY_VOTED: 409,
    Reason.DIGEST_MISMATCH: 409,
    Reason.APPROVAL_EXPIRED: 409,
    Reason.APPROVAL_PENDING: 409,
    Reason.APPROVAL_REVOKED: 409,
    Reason.REQUESTER_LOCKED: 429,
    Reason.TOO_MANY_REQUESTS: 429,
    Reason.TOO_LARGE: 413,
    Reason.CONFIG_INVALID: 422,
    Reason.LIMIT_REACHED: 429,
    Reason.ISSUER_UNAVAILABLE: 503,
    Reason.STORE_UNAVAILABLE: 503,
    Reason.EVIDENCE_UNAVAILABLE: 503,
    Reason.SHUTTING_DOWN: 503,
    Reason.OVERLOADED: 503,
}


def document(reason: Reason, detail: str, status: int | None = None) -> JSONResponse:
    code = status if status is not None else STATUS.get(reason, 500)
    body = {"type": "about:blank", "title": SENTENCES[reason], "status": code, "detail": detail, "reason": str(reason)}
    return JSONResponse(body, code, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Map every error of the application to a problem document."""

    @app.exception_handler(InterlockError)
    async def _ours(_: Request, error: InterlockError) -> JSONResponse:
        answer = document(error.code, str(error))
        if isinstance(error, OverloadedError):
            answer.headers["Retry-After"] = str(error.retry_after)  # RFC 9110 §10.2.3
        return answer

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Only places and messages: the input itself may hold a passphrase.
        told = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
        return document(Reason.CONFIG_INVALID, told, 422)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        reason = {404: Reason.NOT_FOUND, 413: Reason.TOO_LARGE}.get(error.status_code, Reason.REQUEST_NOT_OFFERED)
        return document(reason, str(error.detail), error.status_code)

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody is there to read it, and nothing went wrong here

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("web.unexpected", path=request.url.path, error=error.__class__.__name__, exc_info=error)
        return document(Reason.INTERNAL, SENTENCES[Reason.INTERNAL])
