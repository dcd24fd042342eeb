"""Queries and statements that change rows: SELECT, VALUES, INSERT, UPDATE, DELETE, MERGE, WITH.

Knows the nodes of PostgreSQL's query grammar. Each level becomes a `Scope`; common table expressions shadow relations.
"""

from __future__ import annotations

from typing import Any

from postgast import pg_query_pb2 as pb

from interlock.commands.sql import names
from interlock.commands.sql.catalog import Relation
from interlock.commands.sql.consequences import consequences
from interlock.commands.sql.filters import filters, fixed_columns, limits, summarises
from interlock.commands.sql.restriction import Item, Join, restricted
from interlock.commands.sql.scope import Reference, Scope
from interlock.commands.sql.walk import HANDLERS, Walk

_STRENGTHS = {
    pb.LCS_FORKEYSHARE: "for key share",
    pb.LCS_FORSHARE: "for share",
    pb.LCS_FORNOKEYUPDATE: "for no key update",
    pb.LCS_FORUPDATE: "for update",
}
_SAMPLING = (["bernoulli"], ["system"], ["pg_catalog", "bernoulli"], ["pg_catalog", "system"])


_SINGLE = frozenset(("having_clause", "limit_count", "limit_offset"))
_SEVERAL = frozenset(("group_clause", "window_clause", "distinct_clause", "sort_clause"))
_CLAUSES = frozenset(
    """where_clause with_clause larg rarg values_lists from_clause target_list locking_clause into_clause op all limit_option
    group_distinct""".split()
) | (_SINGLE | _SEVERAL)


def select_stmt(walk: Walk, message: pb.SelectStmt) -> None:
    select(walk, message, "from" if walk.scope is not None else "top")


def select(walk: Walk, message: pb.SelectStmt, kind: str, alias: str = "") -> bool:
    """Walk one SELECT, VALUES or set operation as a level of its own; tell whether it is selective."""
    outer_scope, outer_ctes = walk.scope, walk.ctes
    # Asking once which clauses are there is much cheaper than touching each of fifteen empty ones.
    clauses = {field.name: value for field, value in message.ListFields()}
    if not clauses.keys() <= _CLAUSES:
        walk.hide("unknown-node", "select clause")
    where = clauses.get("where_clause")
    scope = Scope(kind, outer_scope, filtered=where is not None and filters(where))
    scope.limited = "limit_count" in clauses and limits(message)
    if kind == "from" and outer_scope is not None:
        outer_scope.inner[alias] = scope
    walk.scope = scope
    if "with_clause" in clauses:
        with_clause(walk, message.with_clause)
    combined = "larg" in clauses
    if combined:
        arms = [select(walk, arm, "arm") for arm in (message.larg, message.rarg)]
        scope.filtered = all(arms)
    else:
        scope.limited = scope.limited or ("from_clause" in clauses and summarises(message))
        values(walk, clauses.get("values_lists", ()))
        walk.nodes(clauses.get("from_clause", ()))
        conditions(scope, message.where_clause)
        if where is not None and [r.relation.qualified for r in scope.references] == ["pg_catalog.pg_settings"]:
            scope.fixed = fixed_columns(where)  # pg_dump sets a setting only where the server has it
        walk.nodes(clauses.get("target_list", ()))
        scope.fixed = {}
        if where is not None:
            walk.node(where)
    for name, value in clauses.items():
        if name in _SINGLE:
            walk.node(value)
        elif name in _SEVERAL:
            walk.nodes(value)
    for lock in clauses.get("locking_clause", ()):
        locking(walk, scope, lock.locking_clause)
    if "into_clause" in clauses:
        into(walk, message.into_clause)
    walk.scope, walk.ctes = outer_scope, outer_ctes
    if combined:
        return scope.filtered or scope.limited
    everything = all(scope.filters(item.alias) for item in scope.items)
    return "values_lists" in clauses or scope.limited or (scope.filtered and everything and bool(scope.items))


def conditions(scope: Scope, condition: pb.Node) -> None:
    """With several items in FROM, find out which of them the conditions restrict."""
    if len(scope.items) > 1:
        scope.restricted = restricted(condition, scope.items, scope.joins)


def values(walk: Walk, rows: Any) -> None:
    """Walk the rows of VALUES; constants, of which bulk inserts are made, are stepped over."""
    for row in rows:
        for cell in row.list.items:
            if not cell.HasField("a_const"):
                walk.node(cell)


def with_clause(walk: Walk, message: pb.WithClause) -> None:
    """Walk common table expressions; each hides a relation of its name from where PostgreSQL says it does."""
    owner = walk.scope
    visible = walk.ctes = dict(walk.ctes)
    if message.recursive:
        visible.update((cte.common_table_expr.ctename, False) for cte in message.ctes)
    for wrapper in message.ctes:
        cte = wrapper.common_table_expr
        for clause in (cte.search_clause, cte.cycle_clause):
            walk.children(clause)
        selective = False
        with walk.within("with"):
            if cte.ctequery.WhichOneof("node") == "select_stmt":
                walk.scope = owner
                selective = select(walk, cte.ctequery.select_stmt, "cte")
            else:
                walk.scope = None  # a statement that changes rows is no part of the query's rows
                walk.node(cte.ctequery)
        walk.scope, walk.ctes = owner, visible
        visible[cte.ctename] = selective


def locking(walk: Walk, scope: Scope, message: pb.LockingClause) -> None:
    only = {relation.range_var.relname for relation in message.locked_rels}
    none = True
    for level, reference in scope.locked(only):
        none = False
        found = reference.relation
        walk.emit(
            "lock",
            found.qualified,
            schema=found.schema,
            relation_kind=found.kind,
            filtered=level.filters(reference.alias),
            limited=scope.limited or level.limited,
            detail=_STRENGTHS.get(message.strength, "for update"),
        )
    if none:
        walk.emit("lock", detail=_STRENGTHS.get(message.strength, "for update"))


def into(walk: Walk, message: pb.IntoClause) -> None:
    """SELECT INTO and the target of CREATE TABLE AS."""
    temporary = message.rel.relpersistence == "t" or message.rel.schemaname.startswith("pg_temp")
    schema = "pg_temp" if temporary else message.rel.schemaname or names.creation_schema(walk)
    if not message.rel.schemaname and not temporary and walk.tainted:
        walk.hide("tainted-name", message.rel.relname, message.rel.location)
    walk.emit("create", f"{schema}.{message.rel.relname}", schema=schema, detail="temporary table" if temporary else "table")
    if temporary or "pg_temp" in walk.path[:1]:
        walk.name("temp-ddl", message.rel.relname)


# -- FROM --------------------------------------------------------------------------------------------------------------


def range_var(walk: Walk, message: pb.RangeVar) -> None:
    """A relation that is read, or a common table expression."""
    scope = walk.scope
    if scope is None:
        scope = walk.scope = Scope("top")
    alias = _alias(message)
    if message.HasField("alias") and message.alias.colnames:
        walk.columns_seen.add("*")  # columns under other names: any of them
    if not message.schemaname and message.relname in walk.ctes:
        scope.items.append(Item(alias, selective=walk.ctes[message.relname]))
        return
    found = names.relation(walk, message.schemaname, message.relname, message.location)
    scope.items.append(Item(alias, found.columns))
    walk.read(scope, Reference(found, alias))
    names.reads(walk, found, message.location)


def join_expr(walk: Walk, message: pb.JoinExpr) -> None:
    linking = message.is_natural or bool(message.using_clause)
    if linking:
        names.operator(walk, ["="])
    scope = walk.scope
    before = len(scope.items) if scope is not None else 0
    walk.node(message.larg)
    walk.node(message.rarg)
    if scope is not None:
        sides = frozenset(item.alias for item in scope.items[before:]) if linking else frozenset()
        scope.joins.append(Join(message.quals, message.jointype == pb.JOIN_INNER, sides))
    walk.node(message.quals)


def range_subselect(walk: Walk, message: pb.RangeSubselect) -> None:
    scope = walk.scope
    selective = False
    if message.subquery.WhichOneof("node") == "select_stmt":
        selective = select(walk, message.subquery.select_stmt, "from", message.alias.aliasname)
    else:
        walk.node(message.subquery)
    if scope is not None:
        scope.items.append(Item(message.alias.aliasname, selective=selective))


def other_item(walk: Walk, message: Any) -> None:
    """Functions, XMLTABLE and JSON_TABLE in FROM."""
    if walk.scope is not None:
        walk.scope.items.append(Item(message.alias.aliasname, selective=_unnests(message)))
    walk.children(message)


def _unnests(message: Any) -> bool:
    """`unnest($1)` and the like: as many rows as the client sent values."""
    if not isinstance(message, pb.RangeFunction):
        return False
    calls = [function.list.items[0] for function in message.functions]
    return all(c.WhichOneof("node") == "func_call" and names.strings(c.func_call.funcname)[-1] == "unnest" for c in calls)


def range_table_sample(walk: Walk, message: pb.RangeTableSample) -> None:
    method = names.strings(message.method)
    if method not in _SAMPLING:
        walk.hide("unknown-sampling-method", ".".join(method), message.location)
    walk.node(message.relation)
    walk.nodes(message.args)
    walk.node(message.repeatable)


# -- statements that change rows ---------------------------------------------------------------------------------------


def target(walk: Walk, verb: str, message: pb.RangeVar, *, filtered: bool = True, columns: tuple[str, ...] = ()) -> Relation:
    """Add the effect on the relation that is changed, and what changing it would run."""
    found = names.relation(walk, message.schemaname, message.relname, message.location)
    detail = "triggers" if found.triggers else ("calls functions" if found.write_calls else "")
    walk.emit(
        verb,
        found.qualified,
        schema=found.schema,
        relation_kind=found.kind,
        filtered=filtered,
        columns=columns,
        functions=found.write_calls,
        detail=detail,
    )
    if found.rules:
        walk.hide("rule-on-relation", found.qualified, message.location)
    if found.kind == "system" and found.name == "pg_settings":
        walk.emit("set", "*", detail="through pg_settings")
        walk.name("temp-ddl")  # it may have set the search_path: unqualified names mean less from here on
    names.reads(walk, found, message.location)
    consequences(walk, verb, found, filtered=filtered, columns=columns)
    return found


def _target_columns(wrappers: Any) -> tuple[str, ...]:
    return tuple(sorted({wrapper.res_target.name for wrapper in wrappers}))


def insert_stmt(walk: Walk, message: pb.InsertStmt) -> None:
    outer_scope, outer_ctes = walk.scope, walk.ctes
    walk.scope = None
    found = target(walk, "insert", message.relation, columns=_target_columns(message.cols))
    if message.HasField("with_clause"):
        with_clause(walk, message.with_clause)
    walk.nodes(message.cols)
    source = message.select_stmt
    if source.WhichOneof("node") == "select_stmt":
        select(walk, source.select_stmt, "source")
    else:
        walk.node(source)
    walk.scope = Scope("dml", target=Reference(found, _alias(message.relation)))
    if message.HasField("on_conflict_clause"):
        conflict = message.on_conflict_clause
        if conflict.action == pb.ONCONFLICT_UPDATE:
            walk.emit(
                "update",
                found.qualified,
                schema=found.schema,
                relation_kind=found.kind,
                columns=_target_columns(conflict.target_list),
                detail="on conflict",
            )
            consequences(walk, "update", found, filtered=True, columns=_target_columns(conflict.target_list))
        walk.children(conflict)
    if message.HasField("returning_clause"):
        walk.children(message.returning_clause)
    walk.scope, walk.ctes = outer_scope, outer_ctes


def update_stmt(walk: Walk, message: pb.UpdateStmt) -> None:
    _change(walk, "update", message, message.from_clause, _target_columns(message.target_list))


def delete_stmt(walk: Walk, message: pb.DeleteStmt) -> None:
    _change(walk, "delete", message, message.using_clause, ())


def _change(walk: Walk, verb: str, message: Any, sources: Any, columns: tuple[str, ...]) -> None:
    outer_scope, outer_ctes = walk.scope, walk.ctes
    walk.scope = scope = Scope("dml", None, filtered=filters(message.where_clause))
    alias = _alias(message.relation)
    place = walk.place()
    if message.HasField("with_clause"):
        with_clause(walk, message.with_clause)
        walk.scope = scope
    found = names.relation(walk, message.relation.schemaname, message.relation.relname, message.relation.location)
    scope.target = Reference(found, alias)
    walk.nodes(sources)
    scope.items.append(Item(alias, found.columns))
    conditions(scope, message.where_clause)
    with walk.at(place):
        target(walk, verb, message.relation, filtered=scope.filters(alias), columns=columns)
    if verb == "update":
        walk.nodes(message.target_list)
    walk.node(message.where_clause)
    if message.HasField("returning_clause"):
        walk.children(message.returning_clause)
    walk.scope, walk.ctes = outer_scope, outer_ctes


def _alias(message: pb.RangeVar) -> str:
    return str(message.alias.aliasname if message.HasField("alias") else message.relname)


_MERGE_ACTIONS = {pb.CMD_UPDATE: "update", pb.CMD_INSERT: "insert", pb.CMD_DELETE: "delete"}


def merge_stmt(walk: Walk, message: pb.MergeStmt) -> None:
    outer_scope, outer_ctes = walk.scope, walk.ctes
    filtered = filters(message.join_condition)
    walk.scope = scope = Scope("dml", None, filtered=filtered)
    found = target(walk, "merge", message.relation, filtered=filtered)
    scope.target = Reference(found, _alias(message.relation))
    if message.HasField("with_clause"):
        with_clause(walk, message.with_clause)
        walk.scope = scope
    walk.node(message.source_relation)
    walk.node(message.join_condition)
    for wrapper in message.merge_when_clauses:
        clause = wrapper.merge_when_clause
        action = _MERGE_ACTIONS.get(clause.command_type)
        if action is not None:
            # Rows of the target that the source does not match are all of the rest.
            matched = clause.match_kind == pb.MERGE_WHEN_MATCHED or action == "insert"
            narrowed = filtered and (matched or filters(clause.condition))
            columns = _target_columns(clause.target_list)
            with walk.within("merge"):
                walk.emit(
                    action, found.qualified, schema=found.schema, relation_kind=found.kind, filtered=narrowed, columns=columns
                )
                consequences(walk, action, found, filtered=narrowed, columns=columns)
        walk.node(clause.condition)
        walk.nodes(clause.target_list)
        walk.nodes(clause.values)
    if message.HasField("returning_clause"):
        walk.children(message.returning_clause)
    walk.scope, walk.ctes = outer_scope, outer_ctes


def res_target(walk: Walk, message: pb.ResTarget) -> None:
    walk.node(message.val)
    walk.nodes(message.indirection)


HANDLERS.update(
    {
        "res_target": res_target,
        "select_stmt": select_stmt,
        "range_var": range_var,
        "join_expr": join_expr,
        "range_subselect": range_subselect,
        "range_function": other_item,
        "range_table_func": other_item,
        "json_table": other_item,
        "range_table_sample": range_table_sample,
        "insert_stmt": insert_stmt,
        "update_stmt": update_stmt,
        "delete_stmt": delete_stmt,
        "merge_stmt": merge_stmt,
    }
)
