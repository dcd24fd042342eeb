"""One's own passkeys over HTTP: begin, finish, list, remove. For the person itself, with a passphrase given minutes ago.

Knows bodies and answers. The ceremony is `identity.passkeys`', who may hold what is the directory's. An administrator
lists and removes another's under /v1/principals, and can't add one.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from interlock.errors import InterlockError, Reason
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.passkeys import MAX_CREDENTIAL, Registrations
from interlock.identity.principal import Principal
from interlock.web.principals import ANYBODY, Require, shown_passkey

DECIDE = "approvals:decide"


class PasskeyIn(BaseModel):
    """`credential` is the text of `PublicKeyCredential.toJSON()`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    name: Annotated[str, Field(max_length=64)]
    credential: Annotated[str, Field(max_length=MAX_CREDENTIAL)]


def passkeys_router(directory: Directory, registrations: Registrations, require: Require) -> APIRouter:
    routes = APIRouter(prefix="/v1/passkeys", tags=["passkeys"])
    anybody = Annotated[Principal, Depends(require(ANYBODY))]
    fresh = Annotated[Principal, Depends(require(DECIDE))]

    def entry_of(caller: Principal) -> Entry:
        entry = directory.get(caller.identity)
        if entry is None:
            raise InterlockError("only who is in the directory has passkeys", reason=Reason.UNKNOWN_PRINCIPAL)
        return entry

    @routes.get("")
    async def list_passkeys(caller: anybody) -> dict[str, Any]:
        return {"passkeys": [shown_passkey(row) for row in entry_of(caller).passkeys]}

    @routes.post("/options")
    async def begin(caller: fresh) -> dict[str, Any]:
        """Creation options for `navigator.credentials.create`, on the page of public_url."""
        return registrations.begin(entry_of(caller))

    @routes.post("", status_code=201)
    async def finish(body: PasskeyIn, caller: fresh) -> dict[str, Any]:
        entry = entry_of(caller)
        passkey = registrations.finish(entry, body.credential, body.name)
        entry = await directory.add_passkey(entry.handle, passkey, by=caller.identity)
        return {"passkeys": [shown_passkey(row) for row in entry.passkeys]}

    @routes.delete("/{ident}")
    async def remove(ident: str, caller: fresh) -> dict[str, Any]:
        entry = await directory.remove_passkey(entry_of(caller).handle, ident, by=caller.identity)
        return {"passkeys": [shown_passkey(row) for row in entry.passkeys]}

    return routes
