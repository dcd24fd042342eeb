"""Expressions: what they call. Functions, operators, casts, attributes, sub-queries.

Knows the nodes of PostgreSQL's expression grammar (gram.y, a_expr). Registers its handlers in the walk's table.
"""

from __future__ import annotations

from postgast import pg_query_pb2 as pb

from interlock.commands.sql import names
from interlock.commands.sql.catalog import Relation
from interlock.commands.sql.queries import select
from interlock.commands.sql.settings import set_config
from interlock.commands.sql.walk import HANDLERS, USES_NAMES, Walk

_BETWEEN = frozenset((pb.AEXPR_BETWEEN, pb.AEXPR_NOT_BETWEEN, pb.AEXPR_BETWEEN_SYM, pb.AEXPR_NOT_BETWEEN_SYM))

_SUBLINKS = {
    pb.EXISTS_SUBLINK: "exists",
    pb.ALL_SUBLINK: "compare",
    pb.ANY_SUBLINK: "compare",
    pb.ROWCOMPARE_SUBLINK: "scalar",
    pb.EXPR_SUBLINK: "scalar",
    pb.MULTIEXPR_SUBLINK: "scalar",
    pb.ARRAY_SUBLINK: "array",
}


def column_ref(walk: Walk, message: pb.ColumnRef) -> None:
    parts = tuple("*" if f.WhichOneof("node") == "a_star" else f.string.sval for f in message.fields)
    scope = walk.scope
    walk.columns_seen.add(parts[-1])
    if scope is not None:
        scope.columns.append(parts)
    if len(parts) > 1 and parts[-1] != "*":
        found = scope.find(parts[-2]) if scope is not None else None
        names.attribute(walk, parts[-1], found.relation if found is not None else None, message.location)


def a_indirection(walk: Walk, message: pb.A_Indirection) -> None:
    walk.node(message.arg)
    for index, step in enumerate(message.indirection):
        if step.WhichOneof("node") == "string":
            names.attribute(walk, step.string.sval, _row_of(walk, message.arg) if index == 0 else None)
        else:
            walk.node(step)


def _row_of(walk: Walk, argument: pb.Node) -> Relation | None:
    """Return the relation whose row `(t)` is, if it surely is one: a column of that name would win."""
    if argument.WhichOneof("node") != "column_ref" or walk.scope is None or len(argument.column_ref.fields) != 1:
        return None
    alias = argument.column_ref.fields[0].string.sval
    found = walk.scope.find(alias)
    only = len(walk.scope.references) == 1 and len(walk.scope.items) == 1
    return found.relation if found is not None and only and alias not in found.relation.columns else None


def a_expr(walk: Walk, message: pb.A_Expr) -> None:
    if message.kind in _BETWEEN:
        names.operator(walk, [">="], message.location)
        names.operator(walk, ["<="], message.location)
    else:
        names.operator(walk, names.strings(message.name), message.location)
    walk.node(message.lexpr)
    walk.node(message.rexpr)


def case_expr(walk: Walk, message: pb.CaseExpr) -> None:
    if message.arg.WhichOneof("node") is not None:
        names.operator(walk, ["="], message.location)
    walk.children(message)


def func_call(walk: Walk, message: pb.FuncCall) -> None:
    parts = names.strings(message.funcname)
    built_in = parts[:-1] in ([], ["pg_catalog"])
    functions = walk.catalog.functions if walk.catalog is not None else None
    if parts in (["set_config"], ["pg_notify"]) and names.uncertain(walk, "", functions, parts[0]):
        walk.hide("tainted-name", parts[0], message.location)
    if parts[-1] == "set_config" and built_in:
        set_config(walk, message)
    elif parts[-1] == "pg_notify" and built_in:
        channel = _constant(message.args[0]) if message.args else None
        walk.emit("notify", channel or "")
        if channel is None:
            walk.hide("dynamic-channel", "pg_notify", message.location)
    else:
        names.function(walk, parts, message.location)
    for field in (message.args, message.agg_order):
        walk.nodes(field)
    walk.node(message.agg_filter)
    if message.HasField("over"):
        walk.children(message.over)


def _constant(node: pb.Node) -> str | None:
    inner = node.type_cast.arg if node.WhichOneof("node") == "type_cast" else node
    if inner.WhichOneof("node") == "a_const" and inner.a_const.HasField("sval"):
        return str(inner.a_const.sval.sval)
    return None


def type_cast(walk: Walk, message: pb.TypeCast) -> None:
    walk.node(message.arg)
    type_name(walk, message.type_name)


def type_name(walk: Walk, message: pb.TypeName) -> None:
    parts = names.strings(message.names)
    if message.pct_type:
        walk.hide("type-of-column", ".".join(parts), message.location)
    elif parts:
        names.type_name(walk, parts, message.location)
    walk.nodes(message.typmods)


def sort_by(walk: Walk, message: pb.SortBy) -> None:
    if message.use_op:
        names.operator(walk, names.strings(message.use_op), message.location)
    walk.node(message.node)


def sub_link(walk: Walk, message: pb.SubLink) -> None:
    kind = _SUBLINKS.get(message.sub_link_type)
    if kind is None or message.subselect.WhichOneof("node") != "select_stmt":
        walk.hide("unknown-node", "sub_link", message.location)
        return
    if kind == "compare" or message.sub_link_type == pb.ROWCOMPARE_SUBLINK:
        names.operator(walk, names.strings(message.oper_name) or ["="], message.location)
    walk.node(message.testexpr)
    if kind == "array":
        walk.collecting()
    select(walk, message.subselect.select_stmt, kind)


def json_collector(walk: Walk, message: pb.JsonArrayAgg | pb.JsonObjectAgg | pb.JsonArrayQueryConstructor) -> None:
    """JSON_ARRAYAGG, JSON_OBJECTAGG and JSON_ARRAY(query) put every row into one value."""
    walk.collecting()
    walk.children(message)


def current_of(walk: Walk, message: pb.CurrentOfExpr) -> None:
    walk.notes[USES_NAMES] = None
    if message.cursor_name not in walk.cursors:
        walk.hide("unknown-cursor", message.cursor_name)


def collate_clause(walk: Walk, message: pb.CollateClause) -> None:
    # A collation compares; it is data of the server's locale library and never code of a user's.
    walk.node(message.arg)


HANDLERS.update(
    {
        "column_ref": column_ref,
        "a_indirection": a_indirection,
        "a_expr": a_expr,
        "case_expr": case_expr,
        "func_call": func_call,
        "type_cast": type_cast,
        "type_name": type_name,
        "sort_by": sort_by,
        "sub_link": sub_link,
        "json_array_agg": json_collector,
        "json_object_agg": json_collector,
        "json_array_query_constructor": json_collector,
        "current_of_expr": current_of,
        "collate_clause": collate_clause,
    }
)
