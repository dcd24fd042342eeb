"""DROP and TRUNCATE: what goes, and what goes with it."""

from __future__ import annotations

from postgast import pg_query_pb2 as pb

from interlock.commands.sql import names, objects
from interlock.commands.sql.consequences import truncates
from interlock.commands.sql.details import what_of
from interlock.commands.sql.walk import HANDLERS, Walk

_WITHOUT_SCHEMA = (
    pb.OBJECT_SCHEMA,
    pb.OBJECT_EXTENSION,
    pb.OBJECT_LANGUAGE,
    pb.OBJECT_FDW,
    pb.OBJECT_FOREIGN_SERVER,
    pb.OBJECT_EVENT_TRIGGER,
    pb.OBJECT_PUBLICATION,
    pb.OBJECT_ACCESS_METHOD,
    pb.OBJECT_CAST,
    pb.OBJECT_TRANSFORM,
)


def _on(walk: Walk, what: str, schema: str, name: str) -> str:
    """`index on public.t`, where the catalog knows whose it is."""
    relation = walk.catalog.indexes.get((schema, name)) if walk.catalog is not None and what == "index" else None
    return f"{what} on {relation}" if relation else what


def drop_stmt(walk: Walk, message: pb.DropStmt) -> None:
    what = what_of(message.remove_type)
    for node in message.objects:
        schema, name = objects.object_name(walk, node, what)
        if message.remove_type in _WITHOUT_SCHEMA:
            schema = ""
        walk.emit(
            "drop",
            f"{schema}.{name}" if schema else name,
            schema=schema,
            detail=_on(walk, what, schema, name),
            recursive=message.behavior == pb.DROP_CASCADE,
        )


def truncate_stmt(walk: Walk, message: pb.TruncateStmt) -> None:
    for wrapper in message.relations:
        relation = wrapper.range_var
        found = names.relation(walk, relation.schemaname, relation.relname, relation.location)
        walk.emit(
            "truncate",
            found.qualified,
            schema=found.schema,
            relation_kind=found.kind,
            recursive=message.behavior == pb.DROP_CASCADE,
            filtered=False,
            limited=False,
            functions=found.write_calls if found.triggers else (),
            detail="triggers" if found.triggers else "",
        )
        if message.behavior == pb.DROP_CASCADE:
            truncates(walk, found)


HANDLERS.update({"drop_stmt": drop_stmt, "truncate_stmt": truncate_stmt})
