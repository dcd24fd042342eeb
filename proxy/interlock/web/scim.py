"""SCIM 2.0 for an identity provider that keeps users and groups here (RFC 7644). One bearer token, its own, opens it.

Knows paths, bodies and answers. What a user or group is worth is `identity.provisioning`'s.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from interlock.clock import rfc3339
from interlock.config import Secret
from interlock.errors import AuthenticationError, InterlockError, NotFoundError, Reason
from interlock.identity import scim
from interlock.identity.authenticate import Authenticator
from interlock.identity.entries import Entry
from interlock.identity.provisioning import Provisioning
from interlock.identity.scim import ScimError
from interlock.identity.tokens import fingerprint
from interlock.store.principals import ScimUserRow
from interlock.store.scim import ScimGroupRow
from interlock.web.access import source_of
from interlock.web.bodies import StrictRequest
from interlock.web.problems import STATUS

MEDIA = "application/scim+json"
USERS, GROUPS = "/scim/v2/Users", "/scim/v2/Groups"

_USER_FILTERS = {"username": "user_name", "externalid": "external_id", "id": "id"}
_GROUP_FILTERS = {"displayname": "display", "externalid": "external_id", "id": "id"}


class ScimRoute:
    """Runs one request: who asks, what it says, and RFC 7644's own form for whatever fails."""

    def __init__(self, authenticator: Authenticator, token: Secret) -> None:
        self._authenticator = authenticator
        self._token = fingerprint(token.reveal())

    async def __call__(self, request: Request, work: Callable[[Any], Any], *, body: bool = False, status: int = 200) -> Response:
        try:
            self._check(request)
            given = await _body(request) if body else None
            return _answer(await work(given), status)
        except ScimError as error:
            return _failed(error.status, error.kind, error)
        except InterlockError as error:
            return _failed(STATUS.get(error.code, 500), "", error)

    def _check(self, request: Request) -> None:
        source = source_of(request)
        self._authenticator.check_source(source, "scim")
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(fingerprint(secret), self._token):
            self._authenticator.refused("scim", Reason.NOT_AUTHENTICATED, source=source)
            raise AuthenticationError("send the SCIM token of the configuration as `Authorization: Bearer …`")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of resource, as the routes that all kinds have ask for it (RFC 7644 §3.2)."""

    path: str
    filters: Mapping[str, str]
    """Attributes that a filter may name, and the column of each."""
    rows: Callable[[], Iterable[tuple[ScimUserRow | ScimGroupRow, Callable[[], dict[str, Any]]]]]
    """All of them, each with what shows it."""
    shown: Callable[[str], dict[str, Any]]
    create: Callable[[Any], Awaitable[str]]
    replace: Callable[[str, Any], Awaitable[None]]
    patch: Callable[[str, Any], Awaitable[None]]
    delete: Callable[[str], Awaitable[None]]

    def page(self, request: Request) -> dict[str, Any]:
        found = list(self.rows())
        if asked := request.query_params.get("filter", ""):
            field, value = scim.equality(asked, self.filters)
            found = [(row, show) for row, show in found if _same(field, getattr(row, field), value)]
        start, count = scim.page(request.query_params.get("startIndex", ""), request.query_params.get("count", ""))
        shown = [show() for _, show in found[start - 1 : start - 1 + count]]
        return {
            "schemas": [scim.LIST], "totalResults": len(found), "startIndex": start, "itemsPerPage": len(shown),
            "Resources": shown,
        }  # fmt: skip


def scim_router(provisioning: Provisioning, run: ScimRoute, base: str) -> APIRouter:
    """`base` is the address that users see, for the locations of resources."""
    routes = APIRouter(tags=["scim"])
    for resource in (_users(provisioning, base), _groups(provisioning, base)):
        _serve(routes, run, resource)

    @routes.get("/scim/v2/ServiceProviderConfig")
    async def capabilities(request: Request) -> Response:
        async def work(_: Any) -> dict[str, Any]:
            return _capabilities()

        return await run(request, work)

    return routes


def _serve(routes: APIRouter, run: ScimRoute, resource: Resource) -> None:
    one = resource.path + "/{ident}"

    @routes.get(resource.path)
    async def page(request: Request) -> Response:
        async def work(_: Any) -> dict[str, Any]:
            return resource.page(request)

        return await run(request, work)

    @routes.post(resource.path)
    async def create(request: Request) -> Response:
        async def work(body: Any) -> dict[str, Any]:
            return resource.shown(await resource.create(body))

        return await run(request, work, body=True, status=201)

    @routes.get(one)
    async def get(request: Request, ident: str) -> Response:
        async def work(_: Any) -> dict[str, Any]:
            return resource.shown(ident)

        return await run(request, work)

    @routes.put(one)
    async def replace(request: Request, ident: str) -> Response:
        async def work(body: Any) -> dict[str, Any]:
            await resource.replace(ident, body)
            return resource.shown(ident)

        return await run(request, work, body=True)

    @routes.patch(one)
    async def patch(request: Request, ident: str) -> Response:
        async def work(body: Any) -> dict[str, Any]:
            await resource.patch(ident, body)
            return resource.shown(ident)

        return await run(request, work, body=True)

    @routes.delete(one)
    async def delete(request: Request, ident: str) -> Response:
        async def work(_: Any) -> None:
            await resource.delete(ident)

        return await run(request, work, status=204)


def _users(provisioning: Provisioning, base: str) -> Resource:
    def shown(ident: str) -> dict[str, Any]:
        return _user(*provisioning.user(ident), base)

    async def create(body: Any) -> str:
        return await provisioning.create(scim.user(body))

    async def replace(ident: str, body: Any) -> None:
        await provisioning.update(ident, lambda before: scim.user(body, before))

    async def patch(ident: str, body: Any) -> None:
        await provisioning.update(ident, lambda before: scim.patched_user(before, body))

    return Resource(
        USERS, _USER_FILTERS,
        lambda: [(e.scim, partial(_user, e, e.scim, base)) for e in provisioning.users() if e.scim is not None],
        shown, create, replace, patch, provisioning.delete,
    )  # fmt: skip


def _groups(provisioning: Provisioning, base: str) -> Resource:
    def show(row: ScimGroupRow) -> dict[str, Any]:
        return _group(row, provisioning.members(row.id), base)

    def shown(ident: str) -> dict[str, Any]:
        return show(provisioning.group(ident))

    async def create(body: Any) -> str:
        return await provisioning.create_group(scim.group(body))

    async def replace(ident: str, body: Any) -> None:
        await provisioning.update_group(ident, lambda _: scim.group(body))

    async def patch(ident: str, body: Any) -> None:
        await provisioning.update_group(ident, lambda before: scim.patched_group(before, body))

    return Resource(
        GROUPS, _GROUP_FILTERS, lambda: [(row, partial(show, row)) for row in provisioning.groups()],
        shown, create, replace, patch, provisioning.delete_group,
    )  # fmt: skip


async def _body(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (MEDIA, "application/json"):
        raise ScimError(415, "", f"send {MEDIA}")
    try:
        return await StrictRequest(request.scope, request.receive).json()
    except json.JSONDecodeError:
        raise ScimError(400, "invalidSyntax", "the body is no JSON that can be read in one way") from None


def _answer(made: Any, status: int) -> Response:
    return Response(status_code=204) if made is None else JSONResponse(made, status, media_type=MEDIA)


def _failed(status: int, kind: str, error: InterlockError) -> Response:
    if isinstance(error, NotFoundError):
        status = 404
    body = {"schemas": [scim.ERROR], "status": str(status), "detail": str(error), **({"scimType": kind} if kind else {})}
    return JSONResponse(body, status, media_type=MEDIA)


def _same(field: str, held: str, asked: str) -> bool:
    """RFC 7643 §4.1.1: userName ignores case; identifiers do not."""
    return held.lower() == asked.lower() if field == "user_name" else held == asked


def _user(entry: Entry, row: ScimUserRow, base: str) -> dict[str, Any]:
    return {
        "schemas": [scim.USER],
        "id": row.id,
        "externalId": row.external_id,
        "userName": row.user_name,
        "displayName": row.display,
        "active": row.active,
        "groups": [{"value": one.group, "display": one.name} for one in entry.scim_groups],
        "meta": _meta("User", f"{base}{USERS}/{row.id}", row),
    }


def _group(row: ScimGroupRow, members: Sequence[Entry], base: str) -> dict[str, Any]:
    return {
        "schemas": [scim.GROUP],
        "id": row.id,
        "externalId": row.external_id,
        "displayName": row.display,
        "members": [{"value": e.scim.id, "display": e.scim.user_name} for e in members if e.scim is not None],
        "meta": _meta("Group", f"{base}{GROUPS}/{row.id}", row),
    }


def _meta(kind: str, location: str, row: ScimUserRow | ScimGroupRow) -> dict[str, Any]:
    return {
        "resourceType": kind, "created": rfc3339(row.created), "lastModified": rfc3339(row.changed), "location": location,
    }  # fmt: skip


def _capabilities() -> dict[str, Any]:
    """RFC 7643 §5."""
    no = {"supported": False}
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {**no, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": scim.MAX_PAGE},
        "changePassword": no,
        "sort": no,
        "etag": no,
        "authenticationSchemes": [
            {"type": "oauthbearertoken", "name": "Bearer token", "description": "The token that identity.scim.token refers to."}
        ],
    }
