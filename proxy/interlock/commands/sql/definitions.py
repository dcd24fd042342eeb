"""Statements that change the schema and the server: CREATE, ALTER, DROP and their kin.

One table says for each node which verb it is, what kind of object it names and where the name stands. The kind of
object is the effect's `detail`, so that policy can tell `create` of an extension from `create` of a table. Queries and
expressions inside (a view's query, defaults, index expressions) are walked too, by way of `definition`.

Knows the nodes of utility statements. A statement that is not in a table of this package is opaque.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from interlock.commands.sql import details, names, objects
from interlock.commands.sql.details import cascades, what_of
from interlock.commands.sql.queries import into
from interlock.commands.sql.settings import constant, resets
from interlock.commands.sql.walk import HANDLERS, Walk

DEFINITIONS: dict[str, tuple[str, str, str]] = {
    # node: (verb, what, field that names it)
    "create_stmt": ("create", "table", "relation"),
    "create_foreign_table_stmt": ("create", "foreign table", "base_stmt"),
    "view_stmt": ("create", "view", "view"),
    "index_stmt": ("create", "index", "idxname"),
    "create_schema_stmt": ("create", "schema", "schemaname"),
    "create_seq_stmt": ("create", "sequence", "sequence"),
    "create_domain_stmt": ("create", "domain", "domainname"),
    "create_enum_stmt": ("create", "type", "type_name"),
    "create_range_stmt": ("create", "type", "type_name"),
    "composite_type_stmt": ("create", "type", "typevar"),
    "define_stmt": ("create", "", "defnames"),
    "create_stats_stmt": ("create", "statistics", "defnames"),
    "create_policy_stmt": ("create", "policy", "table"),
    "create_trig_stmt": ("create", "trigger", "relation"),
    "rule_stmt": ("create", "rule", "relation"),
    "create_extension_stmt": ("create", "extension", "extname"),
    "create_plang_stmt": ("create", "language", "plname"),
    "create_fdw_stmt": ("create", "foreign data wrapper", "fdwname"),
    "create_foreign_server_stmt": ("create", "server", "servername"),
    "create_user_mapping_stmt": ("create", "user mapping", "servername"),
    "import_foreign_schema_stmt": ("create", "foreign schema", "server_name"),
    "create_event_trig_stmt": ("create", "event trigger", "trigname"),
    "create_am_stmt": ("create", "access method", "amname"),
    "create_table_space_stmt": ("create", "tablespace", "tablespacename"),
    "createdb_stmt": ("create", "database", "dbname"),
    "create_role_stmt": ("create", "role", "role"),
    "create_cast_stmt": ("create", "cast", ""),
    "create_transform_stmt": ("create", "transform", "lang"),
    "create_conversion_stmt": ("create", "conversion", "conversion_name"),
    "create_op_class_stmt": ("create", "operator class", "opclassname"),
    "create_op_family_stmt": ("create", "operator family", "opfamilyname"),
    "create_publication_stmt": ("create", "publication", "pubname"),
    "create_subscription_stmt": ("create", "subscription", "subname"),
    "alter_table_stmt": ("alter", "", "relation"),
    "alter_domain_stmt": ("alter", "domain", "type_name"),
    "alter_enum_stmt": ("alter", "type", "type_name"),
    "alter_type_stmt": ("alter", "type", "type_name"),
    "alter_collation_stmt": ("alter", "collation", "collname"),
    "alter_seq_stmt": ("alter", "sequence", "sequence"),
    "alter_stats_stmt": ("alter", "statistics", "defnames"),
    "alter_policy_stmt": ("alter", "policy", "table"),
    "alter_function_stmt": ("alter", "function", "func"),
    "alter_operator_stmt": ("alter", "operator", "opername"),
    "alter_op_family_stmt": ("alter", "operator family", "opfamilyname"),
    "alter_extension_stmt": ("alter", "extension", "extname"),
    "alter_extension_contents_stmt": ("alter", "extension", "extname"),
    "alter_fdw_stmt": ("alter", "foreign data wrapper", "fdwname"),
    "alter_foreign_server_stmt": ("alter", "server", "servername"),
    "alter_user_mapping_stmt": ("alter", "user mapping", "servername"),
    "alter_event_trig_stmt": ("alter", "event trigger", "trigname"),
    "alter_table_space_options_stmt": ("alter", "tablespace", "tablespacename"),
    "alter_table_move_all_stmt": ("alter", "tablespace", "orig_tablespacename"),
    "alter_database_stmt": ("alter", "database", "dbname"),
    "alter_database_set_stmt": ("alter", "database", "dbname"),
    "alter_database_refresh_coll_stmt": ("alter", "database", "dbname"),
    "alter_role_stmt": ("alter", "role", "role"),
    "alter_role_set_stmt": ("alter", "role", "role"),
    "alter_publication_stmt": ("alter", "publication", "pubname"),
    "alter_subscription_stmt": ("alter", "subscription", "subname"),
    "alter_tsdictionary_stmt": ("alter", "text search dictionary", "dictname"),
    "alter_tsconfiguration_stmt": ("alter", "text search configuration", "cfgname"),
    "alter_default_privileges_stmt": ("grant", "default privileges", ""),
    "rename_stmt": ("alter", "", "object"),
    "alter_object_schema_stmt": ("alter", "", "object"),
    "alter_object_depends_stmt": ("alter", "", "object"),
    "alter_owner_stmt": ("alter", "", "object"),
    "comment_stmt": ("alter", "comment", "object"),
    "sec_label_stmt": ("alter", "security label", "object"),
    "refresh_mat_view_stmt": ("alter", "matview", "relation"),
    "cluster_stmt": ("vacuum", "cluster", "relation"),
    "reindex_stmt": ("vacuum", "reindex", "relation"),
    "dropdb_stmt": ("drop", "database", "dbname"),
    "drop_table_space_stmt": ("drop", "tablespace", "tablespacename"),
    "drop_user_mapping_stmt": ("drop", "user mapping", "servername"),
    "drop_subscription_stmt": ("drop", "subscription", "subname"),
}

EMBEDDED = frozenset(
    """select_stmt insert_stmt update_stmt delete_stmt merge_stmt func_call a_expr type_cast sub_link execute_stmt a_indirection
    notify_stmt""".split()
)
"""What is walked inside of a definition; everything else there is searched for these."""

_ON_EXISTING = frozenset(("create_policy_stmt", "create_trig_stmt", "rule_stmt"))
"""Nodes of `create` that name a relation which is there already."""

_KINDS = {"SelectStmt": "select_stmt", "FuncCall": "func_call", "TypeCast": "type_cast"}


def define(kind: str) -> Any:
    """Return the handler of one row of DEFINITIONS."""
    verb, what, field = DEFINITIONS[kind]

    def handler(walk: Walk, message: Any) -> None:
        named = what or details.what(kind, message)
        schema, name = _named(
            walk, message, field, objects.NEW if verb == "create" and kind not in _ON_EXISTING else _sort(message, named)
        )
        walk.emit(
            verb,
            f"{schema}.{name}" if schema else name,
            schema=schema,
            detail=details.detail(walk, kind, message, named),
            recursive=cascades(message),
        )
        _temporary(walk, message, field)
        _on_relation(walk, kind, message)
        embedded(walk, message)

    return handler


def _sort(message: Any, what: str) -> str:
    """Return the kind of the object that is named: for COMMENT and SECURITY LABEL it stands in the statement."""
    return what_of(message.objtype) if what in ("comment", "security label") else what


def _named(walk: Walk, message: Any, field: str, what: str) -> tuple[str, str]:
    """Return schema (empty for objects that have none) and name."""
    if isinstance(message, pb.CreateCastStmt):
        return "", objects.cast(message.sourcetype, message.targettype)
    if not field:
        return "", what
    value = getattr(message, field)
    if field == "object" and message.DESCRIPTOR.fields_by_name.get("relation") is not None and message.HasField("relation"):
        value = message.relation
    if isinstance(value, pb.CreateStmt):
        value = value.relation
    match value:
        case str():
            if field != "idxname":
                return "", value
            # An index stands in the schema of its relation; one without a name is told by its relation's.
            schema, relation = objects.place(walk, message.relation)
            return schema, value or relation
        case pb.RangeVar() if not value.relname:
            return "", getattr(message, "name", "") or "*"  # REINDEX DATABASE, CLUSTER
        case pb.RangeVar():
            return objects.place(walk, value, what)
        case pb.RoleSpec():
            return "", value.rolename or pb.RoleSpecType.Name(value.roletype).removeprefix("ROLESPEC_").lower()
        case pb.ObjectWithArgs():
            return objects.qualified(walk, names.strings(value.objname), what)
        case pb.Node():
            return objects.object_name(walk, value, what)
    return objects.qualified(walk, names.strings(value), what)


def embedded(walk: Walk, message: Message) -> None:
    """Walk the queries and expressions inside of a definition."""
    pending: list[Message] = [message]
    with walk.within("definition"):
        while pending:
            for field, value in pending.pop().ListFields():
                if field.message_type is None:
                    continue
                for item in (value,) if isinstance(value, Message) else value:
                    inner = item
                    kind = _KINDS.get(type(item).__name__)
                    if isinstance(item, pb.Node):
                        kind = item.WhichOneof("node")
                        inner = getattr(item, kind) if kind else item
                    if kind in EMBEDDED:
                        walk.visit(str(kind), inner)
                    else:
                        pending.append(inner)


def _temporary(walk: Walk, message: Any, field: str) -> None:
    value = getattr(message, field) if field else None
    if isinstance(value, pb.RangeVar) and (value.relpersistence == "t" or value.schemaname.startswith("pg_temp")):
        walk.name("temp-ddl", value.relname)
    elif walk.path[:1] == ("pg_temp",) or any(part.startswith("pg_temp") for part in _schema_words(value)):
        walk.name("temp-ddl")


def _schema_words(value: Any) -> list[str]:
    if isinstance(value, pb.ObjectWithArgs):
        return names.strings(value.objname)[:-1]
    if isinstance(value, (str, Message)) or value is None:
        return []
    return names.strings(value)[:-1]


def _on_relation(walk: Walk, kind: str, message: Any) -> None:
    match kind:
        case "alter_extension_stmt" | "create_extension_stmt" | "import_foreign_schema_stmt" | "create_transform_stmt":
            walk.hide("runs-scripts", kind.removesuffix("_stmt").replace("_", " "))
        case "rule_stmt":
            walk.hide("rule-body", message.rulename)
        case "refresh_mat_view_stmt":
            walk.hide("stored-query", message.relation.relname)
        case "create_schema_stmt":
            with walk.creating_in(message.schemaname or message.authrole.rolename):
                walk.nodes(message.schema_elts)
        case "create_subscription_stmt" | "alter_subscription_stmt":
            walk.emit("replication", message.subname, detail="subscription")
        case "index_stmt" | "cluster_stmt" | "reindex_stmt":
            # Functions of existing expression indexes run again; the relation tells which.
            found = (
                names.relation(walk, message.relation.schemaname, message.relation.relname) if message.relation.relname else None
            )
            if found is not None:
                for call in found.write_calls:
                    walk.hide("relation-calls-function", call)


# -- those that fit no row ---------------------------------------------------------------------------------------------


def alter_system(walk: Walk, message: pb.AlterSystemStmt) -> None:
    value = ", ".join(constant(argument) or "" for argument in message.setstmt.args)
    walk.emit("alter", message.setstmt.name or "*", detail=f"system {value}".strip())


def create_function(walk: Walk, message: pb.CreateFunctionStmt) -> None:
    """A body is text that is not opened here: whoever creates a function creates what it may do."""
    parts = names.strings(message.funcname)
    schema, name = (parts[-2], parts[-1]) if len(parts) > 1 else (names.creation_schema(walk), parts[-1])
    language, definer = "sql", False
    for wrapper in message.options:
        option = wrapper.def_elem
        if option.defname == "language":
            language = constant(option.arg) or ""
        elif option.defname == "security":
            definer = constant(option.arg) in ("on", "1")
    what = "procedure" if message.is_procedure else "function"
    walk.emit(
        "create",
        f"{schema}.{name}",
        schema=schema,
        detail=f"{what} language {language.lower()}" + (" security definer" if definer else ""),
        force=message.replace,
    )
    walk.hide("function-body", name)
    if schema.startswith("pg_temp"):
        walk.name("temp-ddl", name)


def create_table_as(walk: Walk, message: pb.CreateTableAsStmt) -> None:
    if message.objtype == pb.OBJECT_MATVIEW:
        schema, name = objects.place(walk, message.into.rel, objects.NEW)
        walk.emit("create", f"{schema}.{name}", schema=schema, detail="matview")
    else:
        into(walk, message.into)  # the target is that of SELECT INTO
    with walk.within("create table as"):
        walk.node(message.query)


def constraints_set(walk: Walk, message: pb.ConstraintsSetStmt) -> None:
    walk.emit("set", "constraints", detail="deferred" if message.deferred else "immediate")


def discard(walk: Walk, message: pb.DiscardStmt) -> None:
    target = pb.DiscardMode.Name(message.target).removeprefix("DISCARD_").lower()
    if target == "all":
        resets(walk, "")
    else:
        walk.emit("reset", target, detail="discard")
    walk.name("discard", target)


HANDLERS.update({kind: define(kind) for kind in DEFINITIONS})
HANDLERS.update(
    {
        "alter_system_stmt": alter_system,
        "create_function_stmt": create_function,
        "create_table_as_stmt": create_table_as,
        "constraints_set_stmt": constraints_set,
        "discard_stmt": discard,
    }
)
