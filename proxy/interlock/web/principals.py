"""The directory over HTTP: administration, and a person's or agent's own short-lived Postgres password.

Knows bodies and answers. What can be registered, and in which order a change takes effect, is the directory's. A secret
is in exactly one answer: the one to the call that made it.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from interlock.clock import rfc3339
from interlock.errors import ConfigError, InterlockError, NotFoundError, Reason
from interlock.identity import sshkey
from interlock.identity.derived import PASSWORD
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.principal import CredentialKind, Identity, Kind, Principal
from interlock.identity.tokens import Issued
from interlock.store.principals import PasskeyRow, ScramRow, TokenRow

Check = Callable[[Request], Awaitable[Principal]]
"""The dependency of a route: it returns the calling principal, or raises."""

Require = Callable[[str], Check]
"""Makes the check of a route that needs a scope."""

Derive = Callable[..., Awaitable[None]]
"""`Derived.add`: what was issued ends with the credential that asked for it."""

ADMIN = "admin"
ANYBODY = "approvals:own"
"""The scope that every authenticated caller has."""

Name = Annotated[str, Field(max_length=255)]
Line = Annotated[str, Field(max_length=8192)]
Seconds = Annotated[int, Field(gt=0, le=366 * 86_400)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class PrincipalIn(_Body):
    handle: Name
    kind: Literal["human", "agent", "service"] = "human"
    owner: Name | None = None
    groups: Annotated[list[Name], Field(max_length=256)] = []
    ssh_keys: Annotated[list[Line], Field(max_length=32)] = []
    teams: Annotated[list[Name], Field(max_length=8)] = []
    passphrase: Annotated[SecretStr, Field(max_length=1024)] | None = None


class PrincipalChange(_Body):
    """Only what is named changes."""

    groups: Annotated[list[Name], Field(max_length=256)] | None = None
    disabled: bool | None = None
    owner: Name | None = None
    passphrase: Annotated[SecretStr, Field(max_length=1024)] | None = None
    add_ssh_key: Line | None = None
    remove_ssh_key: Name | None = None

    @property
    def gives(self) -> bool:
        """Whether this is more than stopping somebody. Groups are named whole, so they always count as given."""
        return self.disabled is False or any(
            given is not None for given in (self.groups, self.owner, self.passphrase, self.add_ssh_key)
        )


class LinkIn(_Body):
    """Exactly one of: a Teams account, a Slack account, an identity of an issuer, another handle of the same person."""

    teams: Name | None = None
    slack: Name | None = None
    issuer: Name | None = None
    subject: Name | None = None
    account: Name | None = None


class ConfirmationIn(_Body):
    """`changed` is the gain that was looked at, as the entry shows it; a later one is not confirmed by mistake."""

    changed: datetime | None = None


class LifetimeIn(_Body):
    lifetime: Seconds | None = None


def router(directory: Directory, require: Require, given: Require, derive: Derive | None = None) -> APIRouter:
    """Return the routes under /v1/principals, and /v1/password for whoever calls. `derive` notes what a password came from.

    What only takes away needs what `require` asks for; what gives authority needs what `given` asks for besides.
    """
    routes = APIRouter(prefix="/v1", tags=["principals"])
    check_admin, check_giver = require(ADMIN), given(ADMIN)
    _serve_entries(routes, directory, check_admin, check_giver)
    _serve_links(routes, directory, check_admin, check_giver)
    _serve_credentials(routes, directory, check_admin, check_giver)
    _serve_own_password(routes, directory, require(ANYBODY), derive)
    return routes


def _serve_entries(routes: APIRouter, directory: Directory, check_admin: Check, check_giver: Check) -> None:
    admin = Annotated[Principal, Depends(check_admin)]
    giver = Annotated[Principal, Depends(check_giver)]

    @routes.get("/principals")
    async def list_principals(caller: admin) -> dict[str, Any]:
        return {"principals": [shown(entry) for entry in directory.entries()]}

    @routes.post("/principals", status_code=201)
    async def add_principal(body: PrincipalIn, caller: giver) -> dict[str, Any]:
        entry = await directory.add(
            body.handle,
            Kind(body.kind),
            owner=body.owner,
            groups=body.groups,
            ssh_keys=body.ssh_keys,
            teams=[teams_account(account) for account in body.teams],
            passphrase=body.passphrase.get_secret_value() if body.passphrase is not None else None,
            by=caller.identity,
        )
        return shown(entry)

    @routes.get("/principals/{handle}")
    async def get_principal(handle: str, caller: admin) -> dict[str, Any]:
        return shown(_known(directory, handle))

    @routes.patch("/principals/{handle}")
    async def change_principal(handle: str, body: PrincipalChange, caller: admin, request: Request) -> dict[str, Any]:
        """Each named change is one of its own: recorded, and in force, before the next begins. Stopping comes first."""
        by = caller.identity
        if body.gives:
            await check_giver(request)
        if body.disabled is not None:
            await directory.set_disabled(handle, body.disabled, by=by)
        if body.groups is not None:
            await directory.set_groups(handle, body.groups, by=by)
        if body.owner is not None:
            await directory.set_owner(handle, body.owner, by=by)
        if body.remove_ssh_key is not None:
            await directory.remove_ssh_key(handle, body.remove_ssh_key, by=by)
        if body.add_ssh_key is not None:
            await directory.add_ssh_key(handle, body.add_ssh_key, by=by)
        if body.passphrase is not None:
            await directory.set_passphrase(handle, body.passphrase.get_secret_value(), by=by)
        return shown(_known(directory, handle))

    @routes.delete("/principals/{handle}", status_code=204)
    async def remove_principal(handle: str, caller: admin) -> None:
        await directory.remove(handle, by=caller.identity)

    @routes.post("/principals/{handle}/confirm")
    async def confirm(handle: str, caller: giver, body: ConfirmationIn | None = None) -> dict[str, Any]:
        """Another administrator says that what this person gained lately is meant."""
        looked_at = body.changed if body is not None else None
        return shown(await directory.confirm(handle, by=caller.identity, changed=looked_at))


def _serve_links(routes: APIRouter, directory: Directory, check_admin: Check, check_giver: Check) -> None:
    admin = Annotated[Principal, Depends(check_admin)]
    giver = Annotated[Principal, Depends(check_giver)]

    @routes.post("/principals/{handle}/links")
    async def link(handle: str, body: LinkIn, caller: giver) -> dict[str, Any]:
        by = caller.identity
        match body.model_dump(exclude_none=True):
            case {"teams": str(account), **rest} if not rest:
                entry = await directory.link_teams(handle, *teams_account(account), by=by)
            case {"slack": str(account), **rest} if not rest:
                entry = await directory.link_slack(handle, *slack_account(account), by=by)
            case {"issuer": str(issuer), "subject": str(subject), **rest} if not rest:
                entry = await directory.link(handle, Identity(issuer, subject), by=by)
            case {"account": str(account), **rest} if not rest:
                entry = await directory.link(handle, _known(directory, account).identity, by=by)
            case _:
                raise ConfigError("name exactly one of: teams, slack, issuer with subject, account")
        return shown(entry)

    @routes.delete("/principals/{handle}/links")
    async def unlink(
        handle: str, caller: admin, request: Request,
        teams: str = "", slack: str = "", issuer: str = "", subject: str = "", account: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        if slack:
            return shown(await directory.unlink_slack(handle, *slack_account(slack), by=caller.identity))
        if teams:
            return shown(await directory.unlink_teams(handle, *teams_account(teams), by=caller.identity))
        await check_giver(request)  # two accounts that are not one person's any more may approve each other's requests
        other = _known(directory, account).identity if account else Identity(issuer, subject)
        return shown(await directory.unlink(handle, other, by=caller.identity))


def _serve_credentials(routes: APIRouter, directory: Directory, check_admin: Check, check_giver: Check) -> None:
    admin = Annotated[Principal, Depends(check_admin)]
    giver = Annotated[Principal, Depends(check_giver)]

    @routes.delete("/principals/{handle}/passkeys/{ident}")
    async def remove_passkey(handle: str, ident: str, caller: admin) -> dict[str, Any]:
        return shown(await directory.remove_passkey(handle, ident, by=caller.identity))

    @routes.post("/principals/{handle}/tokens", status_code=201)
    async def issue_token(handle: str, caller: giver, body: LifetimeIn | None = None) -> dict[str, Any]:
        issued = await directory.issue_token(handle, _span(body), by=caller.identity)
        return once("token", handle, issued)

    @routes.delete("/principals/{handle}/tokens/{ident}", status_code=204)
    async def revoke_token(handle: str, ident: str, caller: admin) -> None:
        await directory.revoke_token(handle, ident, by=caller.identity)

    @routes.post("/principals/{handle}/passwords", status_code=201)
    async def issue_password(handle: str, caller: giver, body: LifetimeIn | None = None) -> dict[str, Any]:
        issued = await directory.issue_password(handle, _span(body), by=caller.identity)
        return once("password", handle, issued)

    @routes.delete("/principals/{handle}/passwords/{ident}", status_code=204)
    async def revoke_password(handle: str, ident: str, caller: admin) -> None:
        await directory.revoke_password(handle, ident, by=caller.identity)


def _serve_own_password(routes: APIRouter, directory: Directory, check: Check, derive: Derive | None) -> None:
    anybody = Annotated[Principal, Depends(check)]

    @routes.post("/password", status_code=201)
    async def own_password(caller: anybody, body: LifetimeIn | None = None) -> dict[str, Any]:
        """A Postgres password for whoever calls. It never outlives the credential that asked for it."""
        entry = directory.get(caller.identity)
        if entry is None:
            raise InterlockError("only who is in the directory has Postgres passwords", reason=Reason.UNKNOWN_PRINCIPAL)
        if caller.acting_for:
            # The password would name the agent alone: whom it acts for would be gone from every record and exclusion.
            raise InterlockError("an agent that acts for somebody logs in with its token", reason=Reason.MISSING_SCOPE)
        issued = await directory.issue_password(
            entry.handle, _span(body), not_after=caller.credential.expires, by=caller.identity
        )
        if derive is not None and caller.credential.kind is not CredentialKind.PEER:
            try:
                await derive(PASSWORD, issued.id, caller, expires=issued.expires)
            except InterlockError:
                await directory.revoke_password(entry.handle, issued.id, by=caller.identity)
                raise
        return once("password", entry.handle, issued)


def _known(directory: Directory, handle: str) -> Entry:
    entry = directory.by_handle(handle)
    if entry is None:
        raise NotFoundError("nobody is registered under this handle")
    return entry


def _span(body: LifetimeIn | None) -> timedelta | None:
    return timedelta(seconds=body.lifetime) if body is not None and body.lifetime is not None else None


def teams_account(text: str) -> tuple[str, str]:
    """Split TENANT/OID. Raise ConfigError."""
    tenant, sep, oid = text.partition("/")
    if not sep:
        raise ConfigError("write a Teams account as TENANT/OID, both GUIDs")
    return tenant, oid


def slack_account(text: str) -> tuple[str, str]:
    """Split TEAM/USER. Raise ConfigError."""
    team, sep, user = text.partition("/")
    if not sep:
        raise ConfigError("write a Slack account as TEAM/USER, both ids, such as T024BE7LD/U024BE7LH")
    return team, user


def once(name: str, handle: str, issued: Issued) -> dict[str, Any]:
    return {"id": issued.id, "handle": handle, name: issued.secret.reveal(), "expires": rfc3339(issued.expires)}


def shown(entry: Entry) -> dict[str, Any]:
    """Return an entry as the API shows it: idents and fingerprints, never a secret, hash or verifier."""
    return {
        "handle": entry.handle,
        "identity": str(entry.identity),
        "kind": str(entry.kind),
        "owner": entry.owner_handle or None,
        "groups": sorted(entry.groups),
        "disabled": entry.disabled,
        "reviewer": entry.reviewer,
        "linked": sorted(map(str, entry.linked)),
        "teams": sorted("/".join(account) for account in entry.teams),
        "slack": sorted("/".join(account) for account in entry.slack),
        "passkeys": [shown_passkey(row) for row in entry.passkeys],
        "ssh_keys": [{"fingerprint": key.fingerprint, "comment": key.comment} for key in entry.ssh_keys],
        "tokens": [_credential(row) for row in entry.tokens],
        "passwords": [_credential(row) for row in entry.passwords],
        "created": rfc3339(entry.created),
        "changed": rfc3339(entry.changed),
        "changed_by": entry.changed_by.split(),
        "confirmed": entry.confirmed,
    }


def shown_passkey(row: PasskeyRow) -> dict[str, Any]:
    """`fingerprint` is what an auditor lists: of the COSE key, in the form of an SSH key's."""
    return {
        "id": row.id,
        "name": row.name,
        "fingerprint": sshkey.fingerprint(row.public_key),
        "created": rfc3339(row.created),
    }


def _credential(row: TokenRow | ScramRow) -> dict[str, Any]:
    return {"id": row.id, "created": rfc3339(row.created), "expires": rfc3339(row.expires) if row.expires else None}
