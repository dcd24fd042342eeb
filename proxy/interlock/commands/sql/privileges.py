"""GRANT, REVOKE, and what is done to roles as a whole: DROP ROLE, DROP OWNED, REASSIGN OWNED."""

from __future__ import annotations

from typing import Any

from postgast import pg_query_pb2 as pb

from interlock.commands.sql import objects
from interlock.commands.sql.details import cascades, what_of
from interlock.commands.sql.walk import HANDLERS, Walk


def grant_stmt(walk: Walk, message: pb.GrantStmt) -> None:
    verb = "grant" if message.is_grant else "revoke"
    privileges = ", ".join(p.access_priv.priv_name for p in message.privileges) or "all"
    grantees = ", ".join(_role(g.role_spec) for g in message.grantees)
    detail = f"{privileges} on {what_of(message.objtype)} {'to' if message.is_grant else 'from'} {grantees}"
    for node in message.objects:
        schema, name = objects.object_name(walk, node, what_of(message.objtype))
        walk.emit(
            verb,
            f"{schema}.{name}" if schema else name,
            schema=schema,
            detail=detail,
            recursive=message.behavior == pb.DROP_CASCADE and not message.is_grant,
        )
    if not message.objects:
        walk.emit(verb, what_of(message.objtype), detail=detail)


def grant_role_stmt(walk: Walk, message: pb.GrantRoleStmt) -> None:
    verb = "grant" if message.is_grant else "revoke"
    grantees = ", ".join(_role(g.role_spec) for g in message.grantee_roles)
    for node in message.granted_roles:
        walk.emit(verb, node.access_priv.priv_name, detail=f"role {'to' if message.is_grant else 'from'} {grantees}")


def _role(message: pb.RoleSpec) -> str:
    return message.rolename or str(pb.RoleSpecType.Name(message.roletype)).removeprefix("ROLESPEC_").lower()


def roles(verb: str) -> Any:
    def handler(walk: Walk, message: Any) -> None:
        for node in message.roles:
            owned = verb != "drop" or not isinstance(message, pb.DropRoleStmt)
            walk.emit(verb, _role(node.role_spec), detail="owned" if owned else "role", recursive=cascades(message))

    return handler


HANDLERS.update(
    {
        "grant_stmt": grant_stmt,
        "grant_role_stmt": grant_role_stmt,
        "drop_role_stmt": roles("drop"),
        "drop_owned_stmt": roles("drop"),
        "reassign_owned_stmt": roles("alter"),
    }
)
