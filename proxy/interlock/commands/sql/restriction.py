"""Which of several joined relations a query's conditions restrict.

`SELECT u.* FROM users u, config c WHERE c.id = 1` has a WHERE and still reads every user; `DELETE FROM t USING s WHERE
s.id = 1` deletes every row. So with more than one item in FROM a condition counts only for the items whose columns it
names, and reaches others over conditions that name both, as joins do. An unqualified column counts for every item that
may have it. What only the data can tell (a join that matches everything) is not seen.

Knows parse trees and the items of one FROM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from interlock.commands.sql.filters import columns_below, filters


@dataclass(frozen=True, slots=True)
class Item:
    """One item of FROM. `columns` is empty when they are not known; `selective`: it has few rows of its own."""

    alias: str
    columns: frozenset[str] = frozenset()
    selective: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """A join's condition, and the items on its sides when USING or NATURAL link all of them."""

    quals: pb.Node
    inner: bool
    linked: frozenset[str] = frozenset()


def restricted(condition: pb.Node, items: Sequence[Item], joins: Sequence[Join]) -> frozenset[str]:
    """Return the aliases of the items that the conditions restrict."""
    found = {item.alias for item in items if item.selective}
    links: list[frozenset[str]] = [join.linked for join in joins if join.linked]
    conditions = [(part, True) for part in _conjuncts(condition)]
    conditions += [(part, join.inner) for join in joins for part in _conjuncts(join.quals)]
    for part, restricts in conditions:
        if not filters(part):
            continue
        sure, possible = _mentions(part, items)
        everything = sure | possible
        if len(everything) > 1 and (sure or not restricts):
            links.append(everything)
        elif restricts:
            found |= everything
    changed = True
    while changed:
        changed = False
        for link in links:
            if link & found and not link <= found:
                found |= link
                changed = True
    return frozenset(found)


def _conjuncts(node: pb.Node) -> Iterator[pb.Node]:
    pending = [node]
    while pending:
        current = pending.pop()
        kind = current.WhichOneof("node")
        if kind == "bool_expr" and current.bool_expr.boolop == pb.AND_EXPR:
            pending.extend(current.bool_expr.args)
        elif kind is not None:
            yield current


def _mentions(condition: Message, items: Sequence[Item]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the items whose columns are named surely (qualified, or only one can have it) and possibly."""
    aliases = {item.alias for item in items}
    sure: set[str] = set()
    possible: set[str] = set()
    for column in columns_below(condition):
        if isinstance(column, pb.CurrentOfExpr):
            continue
        parts = [field.string.sval for field in column.fields]
        if len(parts) > 1:
            sure |= {parts[-2]} & aliases
        else:
            having = {item.alias for item in items if parts[0] in item.columns or parts[0] == item.alias}
            having = having or {item.alias for item in items if not item.columns}
            (sure if len(having) == 1 else possible).update(having)
    return frozenset(sure), frozenset(possible - sure)
