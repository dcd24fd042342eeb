"""Logging in from a command line: the flows, the certificate, the end, and where everything is.

The four routes that begin and redeem a login ask nobody who they are; what they give, they give to whoever confirmed at the
identity provider. A flow's secret and a login's token are in bodies alone, never in an address that logs keep.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import Field

from interlock.clock import rfc3339
from interlock.errors import InterlockError, Reason
from interlock.identity.issuance import Issuance, Order
from interlock.identity.logins import Logins, Opened
from interlock.identity.principal import CredentialKind
from interlock.identity.signin import Pending, SignIn
from interlock.identity.ssh_ca import Signed
from interlock.web.access import Caller, Doorkeeper, Scope, source_of
from interlock.web.bodies import Body, StrictRoute
from interlock.web.whereabouts import Whereabouts

Text = Annotated[str, Field(max_length=2048)]
Key = Annotated[str, Field(max_length=8192)]


class FlowIn(Body):
    """With a `public_key` the login's certificate comes along with it: one request and one write to the disk less."""

    flow: Annotated[str, Field(max_length=128)]
    public_key: Key | None = None


class BrowserIn(Body):
    port: Annotated[int, Field(ge=1024, le=65535)]
    challenge: Annotated[str, Field(max_length=128)]


class AnswerIn(Body):
    flow: Annotated[str, Field(max_length=128)]
    state: Annotated[str, Field(max_length=256)]
    code: Text
    verifier: Annotated[str, Field(max_length=128)]
    iss: Text | None = None
    public_key: Key | None = None


class KeyIn(Body):
    public_key: Key


class RotateIn(Body):
    at_once: bool = False


class RevokeIn(Body):
    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


def login_router(signin: SignIn | None, logins: Logins, issuance: Issuance, where: Whereabouts, door: Doorkeeper) -> APIRouter:
    """`signin` is there when identity.login is configured."""
    routes = APIRouter(prefix="/v1", tags=["login"], route_class=StrictRoute)
    _serve_ways_in(routes, signin, issuance)
    _serve_ends(routes, signin, logins, door)
    _serve_certificates(routes, logins, issuance, door)

    @routes.get("/connect")
    async def connect(request: Request, caller: Caller = Depends(door.require(Scope.APPROVALS_OWN))) -> dict[str, Any]:
        """Where the listeners are, and the host keys by which SSH knows this proxy."""
        return where.described(request.url.hostname or "")

    return routes


def _serve_ways_in(routes: APIRouter, signin: SignIn | None, issuance: Issuance) -> None:
    @routes.get("/login")
    async def ways() -> dict[str, Any]:
        """Which ways of logging in are offered, and that a certificate comes along for a `public_key`."""
        return {
            "device": signin is not None and signin.offers_device,
            "browser": signin is not None and signin.offers_browser,
            "certificate": signin is not None,
        }

    @routes.post("/login/device", status_code=201)
    async def begin_device(request: Request) -> dict[str, Any]:
        """Begin with a code that is confirmed elsewhere (RFC 8628)."""
        flow = await _offered(signin).begin_device(source_of(request))
        return {
            "flow": flow.flow, "user_code": flow.user_code, "verification_uri": flow.address,
            "verification_uri_complete": flow.complete, "interval": flow.interval, "expires_in": flow.lifetime,
        }  # fmt: skip

    @routes.post("/login/device/poll")
    async def poll(body: FlowIn) -> dict[str, Any]:
        """Ask whether it was confirmed: `pending` with the seconds to wait, or the login."""
        order = issuance.order(body.public_key) if body.public_key is not None else None
        answer = await _offered(signin).poll(body.flow, derive=order)
        if isinstance(answer, Pending):
            return {"state": "pending", "interval": answer.interval}
        return _opened(answer, order)

    @routes.post("/login/browser", status_code=201)
    async def begin_browser(request: Request, body: BrowserIn) -> dict[str, Any]:
        """Begin for a browser on the same machine (RFC 8252): the client listens on that port of 127.0.0.1."""
        redirect = f"http://127.0.0.1:{body.port}/callback"
        flow = await _offered(signin).begin_browser(redirect, body.challenge, source_of(request))
        return {"flow": flow.flow, "state": flow.state, "address": flow.address}

    @routes.post("/login/browser/finish")
    async def finish(body: AnswerIn) -> dict[str, Any]:
        """Redeem what the browser brought back, with the verifier that never left the client."""
        order = issuance.order(body.public_key) if body.public_key is not None else None
        opened = await _offered(signin).finish(
            body.flow, state=body.state, code=body.code, verifier=body.verifier, issuer=body.iss, method="browser", derive=order
        )
        return _opened(opened, order)


def _serve_ends(routes: APIRouter, signin: SignIn | None, logins: Logins, door: Doorkeeper) -> None:
    @routes.post("/logout/backchannel")
    async def logout_at_provider(logout_token: Annotated[str, Form(max_length=32 * 1024)]) -> Response:
        """The identity provider ends a login (Back-Channel Logout 1.0 §2.5). Answered when it has taken effect."""
        await _offered(signin).log_out(logout_token)
        return Response(status_code=200, headers={"Cache-Control": "no-store"})

    @routes.post("/logout")
    async def logout(caller: Caller = Depends(door.require(Scope.APPROVALS_OWN))) -> dict[str, Any]:
        """End the login whose token is shown, and everything that came from it."""
        if caller.principal.credential.kind is not CredentialKind.LOGIN:
            raise InterlockError(
                "this is not a login; tokens are revoked with `interlock principals token revoke`",
                reason=Reason.REQUEST_NOT_OFFERED,
            )
        return {"ended": await logins.end([caller.principal.credential.ident], "logout")}


def _serve_certificates(routes: APIRouter, logins: Logins, issuance: Issuance, door: Doorkeeper) -> None:
    anybody = door.require(Scope.APPROVALS_OWN)
    admin = door.require(Scope.ADMIN)
    given = door.require_given(Scope.ADMIN)

    @routes.post("/certificate", status_code=201)
    async def certificate(body: KeyIn, caller: Caller = Depends(anybody)) -> dict[str, Any]:
        """Certify the caller's public key for SSH. The private one is the client's own and is never sent."""
        return _certificate(await issuance.issue(caller.principal, body.public_key))

    @routes.get("/ca")
    async def show_ca(caller: Caller = Depends(anybody)) -> dict[str, Any]:
        """The login authority's public keys."""
        return issuance.described()

    @routes.post("/ca/rotate")
    async def rotate(body: RotateIn, caller: Any = Depends(given)) -> dict[str, Any]:
        """Sign with a new key from now on."""
        return await issuance.rotate(by=caller.identity, at_once=body.at_once)

    @routes.post("/certificate/revoke")
    async def revoke(body: RevokeIn, caller: Caller = Depends(admin)) -> dict[str, Any]:
        """End one certificate and the sessions that it opened."""
        await logins.derived.end_certificate(body.serial)
        return {"revoked": body.serial}


def _offered(signin: SignIn | None) -> SignIn:
    if signin is None:
        raise InterlockError(
            "people do not log in at an identity provider here: the configuration has no identity.login",
            reason=Reason.REQUEST_NOT_OFFERED,
        )
    return signin


def _opened(opened: Opened, order: Order | None) -> dict[str, Any]:
    principal = opened.principal
    assert principal.credential.expires is not None
    answer: dict[str, Any] = {
        "state": "done", "token": opened.secret.reveal(), "handle": principal.handle, "identity": str(principal.identity),
        "expires": rfc3339(principal.credential.expires),
    }  # fmt: skip
    if order is not None and order.signed is not None:
        answer["certificate"] = _certificate(order.signed)
    return answer


def _certificate(signed: Signed) -> dict[str, Any]:
    return {"certificate": signed.line, "serial": signed.serial, "key_id": signed.key_id, "expires": rfc3339(signed.expires)}
