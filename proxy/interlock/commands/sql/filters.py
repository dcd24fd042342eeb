"""Whether a WHERE leaves rows out, whether a LIMIT bounds them, and whether a query only summarises.

A condition counts as a filter unless it is true for every row as far as its text shows: no condition, constants and
anything that names no column of the row (`1=1`, `now() > 'epoch'`, `$1 = $1`, EXISTS of other rows), a column compared with
itself, LIKE '%', AND / OR / NOT of those, or whatever its parts are (`a OR NOT a`, see `tautology`). What is true only because
of the data (`id > 0`) can't be seen here and counts as a filter.

Knows parse trees only.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from interlock.commands.sql.tautology import always, same

ROWS_BOUND = 10_000
"""A LIMIT above this is no limit: it bounds nothing that matters."""

SUMMARIES = frozenset(
    """count sum avg min max bool_and bool_or every bit_and bit_or bit_xor stddev stddev_pop stddev_samp variance var_pop
    var_samp corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy
    regr_syy percentile_cont percentile_disc mode""".split()
)
"""Aggregates whose value says little about any one row."""

COLLECTORS = frozenset(
    """array_agg string_agg json_agg jsonb_agg json_agg_strict jsonb_agg_strict json_object_agg jsonb_object_agg
    json_object_agg_strict jsonb_object_agg_strict json_object_agg_unique jsonb_object_agg_unique
    json_object_agg_unique_strict jsonb_object_agg_unique_strict xmlagg range_agg range_intersect_agg""".split()
)
"""Aggregates that put every row into one value: a LIMIT around them bounds nothing."""

_REFLEXIVE = frozenset(("=", ">=", "<=", "~~", "~~*", "IS NOT DISTINCT FROM"))
_ORDER = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


class Truth(Enum):
    """What the text of a condition says of the rows that pass it."""

    ALL = "every row"
    NONE = "no row"
    EITHER = "every row or none, and the text does not say which"  # `$1`, `now() > 'epoch'`, EXISTS of rows of its own
    ROW = "it depends on the row"


_NOT = {Truth.ALL: Truth.NONE, Truth.NONE: Truth.ALL}


def filters(condition: pb.Node) -> bool:
    """Tell whether the condition leaves some row out as far as its text shows. An empty node is no condition."""
    return _truth(condition) in (Truth.ROW, Truth.NONE) and not always(condition, _constant)


def _constant(node: pb.Node) -> bool | None:
    """Return what a part is for every row, None when that depends on the row; what may be either is taken for true."""
    truth = _truth(node)
    return None if truth is Truth.ROW else truth is not Truth.NONE


def _truth(node: pb.Node) -> Truth:
    match node.WhichOneof("node"):
        case None:
            return Truth.ALL
        case "bool_expr":
            return _truth_of_boolean(node.bool_expr)
        case "a_const":
            never = node.a_const.isnull or (node.a_const.HasField("boolval") and not node.a_const.boolval.boolval)
            return Truth.NONE if never else Truth.ALL
        case "a_expr" if _compares_column(node.a_expr):
            return Truth.ROW
        case "a_expr" if (known := _truth_of_comparison(node.a_expr)) is not None:
            return Truth.ALL if known else Truth.NONE
        case "type_cast" | "collate_clause" if not _names_column(node):
            return _truth(getattr(node, str(node.WhichOneof("node"))).arg)
        case "current_of_expr":
            return Truth.ROW
    return Truth.ROW if _names_column(node) else Truth.EITHER


def _truth_of_boolean(expression: pb.BoolExpr) -> Truth:
    parts = {_truth(argument) for argument in expression.args}
    match expression.boolop:
        case pb.NOT_EXPR:
            (only,) = parts
            return _NOT.get(only, only)
        case pb.AND_EXPR:
            strongest = (Truth.NONE, Truth.ROW, Truth.EITHER, Truth.ALL)
        case _:
            strongest = (Truth.ALL, Truth.EITHER, Truth.ROW, Truth.NONE)
    return next(truth for truth in strongest if truth in parts)


_PLAIN = frozenset(("a_const", "param_ref"))


def _compares_column(expression: pb.A_Expr) -> bool:
    """Tell whether this is `column <op> value`, by far the most common condition."""
    return (
        expression.kind == pb.AEXPR_OP
        and expression.lexpr.WhichOneof("node") == "column_ref"
        and expression.rexpr.WhichOneof("node") in _PLAIN
        and expression.name[-1].string.sval not in ("~~", "~~*")
    )


def _truth_of_comparison(expression: pb.A_Expr) -> bool | None:
    name = expression.name[-1].string.sval if expression.name else ""
    left, right = expression.lexpr, expression.rexpr
    if name in _ORDER and expression.kind == pb.AEXPR_OP:
        constants = _number(left), _number(right)
        if constants[0] is not None and constants[1] is not None:
            return bool(_ORDER[name](*constants))
    if expression.kind in (pb.AEXPR_OP, pb.AEXPR_LIKE, pb.AEXPR_ILIKE, pb.AEXPR_NOT_DISTINCT, pb.AEXPR_OP_ANY):
        if (name in _REFLEXIVE or expression.kind == pb.AEXPR_NOT_DISTINCT) and same(left, right):
            return True
        if name in ("~~", "~~*") and _text(right) is not None and not str(_text(right)).strip("%"):
            return _text(right) != "" or None
    items = list(right.list.items) if right.WhichOneof("node") == "list" else []
    if expression.kind == pb.AEXPR_IN and name == "=":
        return True if any(same(left, item) for item in items) else None
    if expression.kind in (pb.AEXPR_BETWEEN, pb.AEXPR_BETWEEN_SYM):
        return True if items and all(same(left, item) for item in items) else None
    return None


def _number(node: pb.Node) -> int | None:
    if node.WhichOneof("node") == "a_const" and node.a_const.HasField("ival"):
        return int(node.a_const.ival.ival)
    return None


def _text(node: pb.Node) -> str | None:
    if node.WhichOneof("node") == "a_const" and node.a_const.HasField("sval"):
        return str(node.a_const.sval.sval)
    return None


_NO_COLUMN_BELOW = frozenset(("a_const", "param_ref", "string", "type_name", "sqlvalue_function", None))


def columns_below(message: Message) -> Iterator[pb.ColumnRef | pb.CurrentOfExpr]:
    """Yield every column named in a tree, in no order, but for those that a sub-query has of its own.

    What a sub-query finds out from its own FROM is the same for every row around it: `EXISTS (SELECT 1 FROM s WHERE s.id = 1)`
    leaves out all of them or none.
    """
    pending: list[Message] = [message]
    while pending:
        current = pending.pop()
        if isinstance(current, pb.Node):
            kind = current.WhichOneof("node")
            if kind in _NO_COLUMN_BELOW:
                continue
            if kind in ("column_ref", "current_of_expr"):
                yield getattr(current, kind)
                continue
            if kind == "sub_link":
                pending.append(current.sub_link.testexpr)
                yield from _outer_columns(
                    current.sub_link.subselect, rows_only=current.sub_link.sub_link_type == pb.EXISTS_SUBLINK
                )
                continue
            if kind == "a_expr":
                pending.append(current.a_expr.lexpr)
                pending.append(current.a_expr.rexpr)
                continue
            current = getattr(current, str(kind))
        for field, value in current.ListFields():
            if field.message_type is None:
                continue
            if isinstance(value, Message):
                pending.append(value)
            else:
                pending.extend(value)


_VALUES = frozenset(("target_list", "sort_clause", "distinct_clause"))


def _outer_columns(subselect: pb.Node, *, rows_only: bool) -> Iterator[pb.ColumnRef | pb.CurrentOfExpr]:
    """Yield the columns by which a sub-query hangs on the row around it.

    `rows_only`: for EXISTS it does not matter what the rows hold. An unqualified name is taken for the sub-query's own if that
    has a FROM: rather too few filters than too many.
    """
    bound = set(_items_below(subselect))
    parts_of = [subselect.select_stmt]
    if rows_only:
        parts_of = [
            part
            for field, value in subselect.select_stmt.ListFields()
            if field.name not in _VALUES and field.message_type is not None
            for part in ((value,) if isinstance(value, Message) else value)
        ]
    for column in (column for part in parts_of for column in columns_below(part)):
        if isinstance(column, pb.CurrentOfExpr):
            continue
        parts = [field.string.sval for field in column.fields]
        if (len(parts) > 1 and parts[-2] not in bound) or (len(parts) == 1 and not bound):
            yield column


_ITEMS = frozenset(("range_subselect", "range_function", "range_table_func", "json_table"))


def _items_below(message: Message) -> Iterator[str]:
    """Yield the names under which the FROMs below know their items."""
    pending: list[Message] = [message]
    while pending:
        current = pending.pop()
        if isinstance(current, pb.Node):
            kind = current.WhichOneof("node")
            if kind is None:
                continue
            current = getattr(current, kind)
            if kind == "range_var":
                yield current.alias.aliasname or current.relname
            elif kind in _ITEMS:
                yield current.alias.aliasname
        for field, value in current.ListFields():
            if field.message_type is not None:
                pending.extend((value,) if isinstance(value, Message) else value)


def _names_column(message: Message) -> bool:
    return next(columns_below(message), None) is not None


def fixed_columns(condition: pb.Node) -> dict[str, str]:
    """Return the unqualified columns that `column = 'constant'` fixes for every row that passes the condition."""
    pending, found = [condition], {}
    while pending:
        node = pending.pop()
        if node.WhichOneof("node") == "bool_expr" and node.bool_expr.boolop == pb.AND_EXPR:
            pending.extend(node.bool_expr.args)
        elif node.WhichOneof("node") == "a_expr" and node.a_expr.kind == pb.AEXPR_OP:
            expression = node.a_expr
            value = _text(expression.rexpr)
            left = expression.lexpr
            if (
                value is not None
                and [part.string.sval for part in expression.name] == ["="]
                and left.WhichOneof("node") == "column_ref"
                and len(left.column_ref.fields) == 1
                and left.column_ref.fields[0].WhichOneof("node") == "string"
            ):
                found[str(left.column_ref.fields[0].string.sval)] = value
    return found


def limits(statement: pb.SelectStmt) -> bool:
    """Tell whether LIMIT or FETCH FIRST bounds the rows with a small constant."""
    if statement.limit_option == pb.LIMIT_OPTION_WITH_TIES:
        return False
    rows = _number(statement.limit_count)
    return rows is not None and 0 <= rows <= ROWS_BOUND


def summarises(statement: pb.SelectStmt) -> bool:
    """Tell whether the query answers with one row of summaries: aggregates only, and no GROUP BY."""
    targets = statement.target_list
    if not targets or targets[0].res_target.val.WhichOneof("node") == "column_ref":
        return False
    if statement.group_clause or statement.distinct_clause or statement.op != pb.SETOP_NONE:
        return False
    found = [_summary(target.res_target.val) for target in statement.target_list]
    return all(part is not False for part in found) and True in found


def _summary(node: pb.Node) -> bool | None:
    """True: a summary. None: a constant. False: says something about single rows, or not known."""
    match node.WhichOneof("node"):
        case "func_call":
            call = node.func_call
            name = call.funcname[-1].string.sval
            if call.HasField("over"):
                return False
            if name in SUMMARIES:
                return True
            return _summary_of(list(call.args))
        case "a_const" | "param_ref" | "sqlvalue_function":
            return None
        case "type_cast":
            return _summary(node.type_cast.arg)
        case "coalesce_expr":
            return _summary_of(list(node.coalesce_expr.args))
        case "a_expr":
            return _summary_of([side for side in (node.a_expr.lexpr, node.a_expr.rexpr) if side.WhichOneof("node")])
    return False


def _summary_of(parts: list[pb.Node]) -> bool | None:
    found = [_summary(part) for part in parts]
    if False in found:
        return False
    return True if True in found else None
