"""JSON bodies read the strict way: UTF-8, every key once, no value that two parsers read differently.

Knows bytes and JSON. Must not know what a body means: that is the model of its route.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Body(BaseModel):
    """What every body has in common: no unknown key, no value of another type, nothing of the input in an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def _moment(text: str) -> str:
    moment(text)
    return text


def moment(text: str) -> datetime:
    """Read an RFC 3339 time. Raise ValueError when it is none, or says no offset."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None or "T" not in text:
        raise ValueError("write a time as in RFC 3339, with its offset: 2026-01-02T03:04:05Z")
    return read.astimezone(UTC)


Moment = Annotated[str, Field(max_length=64), AfterValidator(_moment)]


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            return json.loads(body.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_refused)
        except json.JSONDecodeError:
            raise
        except UnicodeDecodeError as error:
            raise json.JSONDecodeError("the body is not UTF-8", "", error.start) from None
        except RecursionError:
            raise json.JSONDecodeError("the body is nested too deeply", "", 0) from None


class StrictRoute(APIRoute):
    """A route whose body is read by `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        # Which one counts is a matter of taste among parsers; what decides must not be.
        raise json.JSONDecodeError("a key stands twice in one object", "", 0)
    return read


def _refused(constant: str) -> Any:
    raise json.JSONDecodeError(f"{constant} is no JSON", "", 0)
