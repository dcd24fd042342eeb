"""Where an object stands that a definition names: schema and name, for what exists and for what is made.

Tables, functions, types, operators and indexes share no namespace: DROP TYPE looks for a type only, in every schema of the path.
What the catalog does not hold (collations, text search, statistics, …) can't be placed when several schemas may have it.

Knows the catalog and the search_path.
"""

from __future__ import annotations

from postgast import pg_query_pb2 as pb

from interlock.commands.sql import names
from interlock.commands.sql.catalog import Catalog
from interlock.commands.sql.walk import Walk

NEW = "new"
"""Instead of a kind: what is created stands in the first schema of the path, whatever others there are of its name."""
_RELATIONS = frozenset("table view matview sequence index column cluster reindex policy trigger rule constraint".split()) | {
    "foreign table"
}
_FUNCTIONS = frozenset(("function", "procedure", "routine", "aggregate"))
_TYPES = frozenset(("type", "domain"))
_PARTS = frozenset(("column", "constraint", "rule", "trigger", "policy"))
"""Objects that are named after the relation they belong to."""


def place(walk: Walk, message: pb.RangeVar, what: str = "table") -> tuple[str, str]:
    """Return schema and name of a relation; an existing one is found in the path."""
    if message.relpersistence == "t" or message.schemaname.startswith("pg_temp"):
        return "pg_temp", message.relname
    return qualified(walk, [part for part in (message.schemaname, message.relname) if part], what)


def qualified(walk: Walk, parts: list[str], what: str = "table") -> tuple[str, str]:
    """Return schema and name of an object; without a schema, where the path finds one of that name and kind."""
    if len(parts) > 1:
        return parts[-2], parts[-1]
    name = parts[0] if parts else ""
    if walk.tainted:
        walk.hide("tainted-name", name)
    home = names.creation_schema(walk)
    if what == NEW or walk.catalog is None:
        return home, name
    having = _schemas(walk.catalog, what, name)
    for schema in names.effective_path(walk):
        if having is not None and schema in having:
            return schema, name
    if having is None and len([schema for schema in names.effective_path(walk) if schema != "pg_catalog"]) > 1:
        walk.hide("ambiguous-name", name)  # the catalog does not hold this kind of object: it may be in any of them
    return home, name


def _schemas(catalog: Catalog, what: str, name: str) -> set[str] | None:
    """Return the schemas that have an object of this kind and name, None when the catalog does not know such objects."""
    if what in _RELATIONS:
        return {key[0] for key in (*catalog.relations, *catalog.indexes) if key[1] == name}
    if what in _FUNCTIONS:
        return {found.schema for found in catalog.functions.get(name, ())}
    if what in _TYPES:
        return {found.schema for found in catalog.types.get(name, ())} | {key[0] for key in catalog.relations if key[1] == name}
    if what == "operator":
        return {found.schema for found in catalog.operators.get(name, ())}
    return None


def cast(source: pb.TypeName, target: pb.TypeName) -> str:
    """Return the name of a cast, which has none of its own: `public.pair as text`."""
    return " as ".join(".".join(names.strings(side.names)) for side in (source, target))


def object_name(walk: Walk, node: pb.Node, what: str = "table") -> tuple[str, str]:
    """Return schema and name of the object of DROP, COMMENT and their kin: names there are lists, not relations."""
    match node.WhichOneof("node"):
        case "list" if what in _PARTS:
            *relation, part = names.strings(node.list.items)
            schema, table = qualified(walk, relation)
            return schema, f"{table}.{part}"
        case "list" if what == "cast":
            source, target = (item.type_name for item in node.list.items)
            return "", cast(source, target)
        case "list":
            return qualified(walk, names.strings(node.list.items), what)
        case "object_with_args":
            return qualified(walk, names.strings(node.object_with_args.objname), what)
        case "type_name":
            return qualified(walk, names.strings(node.type_name.names), what)
        case "string":
            return "", str(node.string.sval)
        case "range_var":
            return place(walk, node.range_var, what)
    return "", ""
