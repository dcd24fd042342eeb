"""POST /v1/token: RFC 8693 over HTTP, and POST /v1/logout: back-channel logout of an identity provider.

Knows forms and the answers of RFC 6749 §5. What a token is worth is `identity.exchange`'s.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from interlock.errors import InterlockError, Reason
from interlock.identity.exchange import PARAMETERS, Exchange, ExchangeError, Granted
from interlock.web.access import source_of
from interlock.web.problems import STATUS

MAX_FORM = 256 * 1024
FORM = "application/x-www-form-urlencoded"


def token_router(exchange: Exchange) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["identity"])

    @routes.post("/token", openapi_extra=_form(PARAMETERS))
    async def token(request: Request) -> JSONResponse:
        """Exchange a workload's token, alone or for a person, for a credential of fifteen minutes (RFC 8693)."""
        try:
            return JSONResponse(_granted(await exchange.exchange(await form(request), source=source_of(request))))
        except ExchangeError as error:
            return refused(error)
        except InterlockError as error:
            return refused(ExchangeError("temporarily_unavailable", str(error), error.code))

    return routes


async def form(request: Request) -> dict[str, str]:
    """Read a form in which each name stands once (RFC 6749 §3.2). Raise ExchangeError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise ExchangeError("invalid_request", f"send a form ({FORM})", Reason.REQUEST_NOT_OFFERED)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise ExchangeError("invalid_request", f"the form is larger than {MAX_FORM} bytes", Reason.TOO_LARGE)
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=32
        )
    except ValueError:
        raise ExchangeError("invalid_request", "the form can't be read", Reason.REQUEST_NOT_OFFERED) from None
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ExchangeError("invalid_request", "a parameter stands twice", Reason.REQUEST_NOT_OFFERED)
    return {name: value for name, value in read.items() if value}  # RFC 6749 §3.1: without a value is as if left out


def refused(error: ExchangeError) -> JSONResponse:
    """RFC 6749 §5.2, with our reason code beside theirs."""
    status = STATUS.get(error.code, 400)
    body = {"error": error.error, "error_description": str(error), "reason": str(error.code)}
    # Nobody authenticates as a client here, so what is wrong with a token is a bad request, and not a 401.
    return JSONResponse(body, status if status in (413, 429, 503) else 400)


def _granted(granted: Granted) -> dict[str, Any]:
    principal = granted.principal
    return {
        "access_token": granted.secret.reveal(),
        "issued_token_type": granted.issued_type,
        "token_type": granted.token_type,
        "expires_in": max(0, int((granted.expires - granted.issued).total_seconds())),
        "id": granted.ident,
        "handle": principal.handle,
        "acting_for": list(principal.acting_for_handles),
        "owner": principal.owner_handle or None,
    }


def _form(names: frozenset[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in sorted(names)}}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}
