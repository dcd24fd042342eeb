"""The words of a definition's `detail`: the kind of its object, what is done to it, and which other relations hang on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from postgast import pg_query_pb2 as pb

from interlock.commands.sql import names, objects
from interlock.commands.sql.walk import Walk

_CAPITAL = re.compile(r"([A-Z])")


def what_of(kind: int) -> str:
    """Return the words for an ObjectType: `OBJECT_FOREIGN_SERVER` is `foreign server`."""
    word = str(pb.ObjectType.Name(kind)).removeprefix("OBJECT_").lower().replace("_", " ")
    return {"foreign server": "server", "fdw": "foreign data wrapper", "tabconstraint": "constraint"}.get(word, word)


def what(kind: str, message: Any) -> str:
    match kind:
        case "define_stmt":
            return what_of(message.kind)
        case "alter_table_stmt":
            return what_of(message.objtype)
        case "rename_stmt":
            return what_of(message.rename_type)
    return what_of(message.object_type)


def cascades(message: Any) -> bool:
    """Tell whether CASCADE is said: what depends on the object, or on a part of it, goes too."""
    parts = [message, *(command.alter_table_cmd for command in getattr(message, "cmds", ()))]
    return any(getattr(part, "behavior", None) == pb.DROP_CASCADE for part in parts)


def detail(walk: Walk, kind: str, message: Any, named: str) -> str:
    words = _words(walk, kind, message, named)
    others = sorted({".".join(filter(None, objects.place(walk, relation))) for relation in _involved(kind, message)})
    return f"{words} with {', '.join(others)}" if others else words


def _involved(kind: str, message: Any) -> Iterator[pb.RangeVar]:
    """Yield the other relations that a definition changes or hangs on: parents, what foreign keys refer to, what is published."""
    match kind:
        case "create_stmt" | "create_foreign_table_stmt":
            table = message if kind == "create_stmt" else message.base_stmt
            yield from (parent.range_var for parent in table.inh_relations)
            for element in table.table_elts:
                yield from _referred(element)
        case "alter_table_stmt":
            for wrapper in message.cmds:
                definition = getattr(wrapper.alter_table_cmd, "def")
                match definition.WhichOneof("node"):
                    case "range_var":
                        yield definition.range_var
                    case "partition_cmd":
                        yield definition.partition_cmd.name
                    case "constraint" | "column_def":
                        yield from _referred(definition)
        case "create_stats_stmt":
            yield from (relation.range_var for relation in message.relations if relation.WhichOneof("node") == "range_var")
        case "create_publication_stmt" | "alter_publication_stmt":
            yield from (
                spec.publication_obj_spec.pubtable.relation
                for spec in message.pubobjects
                if spec.publication_obj_spec.HasField("pubtable")
            )


def _referred(element: pb.Node) -> Iterator[pb.RangeVar]:
    match element.WhichOneof("node"):
        case "constraint" if element.constraint.pktable.relname:
            yield element.constraint.pktable
        case "column_def":
            for constraint in element.column_def.constraints:
                yield from _referred(constraint)
        case "table_like_clause":
            yield element.table_like_clause.relation


def _words(walk: Walk, kind: str, message: Any, what: str) -> str:
    match kind:
        case "alter_role_stmt" | "create_role_stmt":
            options = sorted(o.def_elem.defname for o in message.options if o.def_elem.defname != "password")
            return " ".join((what, *options))
        case "alter_table_stmt":
            actions = sorted({_action(command.alter_table_cmd.subtype) for command in message.cmds})
            return " ".join((what, *actions))
        case "index_stmt":
            return f"index on {'.'.join(objects.place(walk, message.relation))}" + (" concurrently" if message.concurrent else "")
        case "create_trig_stmt":
            return f"trigger {message.trigname} calling {'.'.join(names.strings(message.funcname))}"
        case "rename_stmt":
            return f"{what} renamed to {message.newname}"
        case "alter_object_schema_stmt":
            return f"{what} moved to {message.newschema}"
    return what


def _action(subtype: int) -> str:
    """`AT_DropColumn` is `drop column`."""
    return _CAPITAL.sub(r" \1", str(pb.AlterTableType.Name(subtype)).removeprefix("AT_")).strip().lower()
