"""What a change of rows changes besides: the relation at the bottom of a view, and the rows that foreign keys hang on it.

`DELETE FROM customers WHERE id = 7` deletes orders where their foreign key says ON DELETE CASCADE, and does not name them.

Knows the catalog's relations. A cascade is as filtered as the change that starts it: which rows refer is in the data.
"""

from __future__ import annotations

from typing import Any

from interlock.commands.sql import opened
from interlock.commands.sql.catalog import Relation
from interlock.commands.sql.walk import Walk

_CASCADES = {("delete", "c"): "delete", ("update", "c"): "update"} | {
    (verb, action): "update" for verb in ("delete", "update") for action in ("n", "d")
}
"""What a foreign key does to the rows that refer, by what happens to the row referred to and its ON DELETE or ON UPDATE."""


def consequences(walk: Walk, verb: str, found: Relation, *, filtered: bool, columns: tuple[str, ...]) -> None:
    """Add what follows from a change of `found`. `columns` are those that an UPDATE sets; empty is any of them."""
    if walk.explaining or walk.catalog is None:
        return  # planned, nothing of it happens
    _cascade(walk, verb, found, filtered, columns, set())
    # A trigger of a view acts in the stead of what PostgreSQL would do (INSTEAD OF).
    inside = opened.view(walk, found) if found.kind == "view" and not found.triggers else None
    for base in inside.bases if inside is not None else ():
        with walk.within("view"):
            _changed(walk, verb, base, filtered=filtered)
            _cascade(walk, verb, base, filtered, (), set())


def truncates(walk: Walk, found: Relation) -> None:
    """Add what TRUNCATE … CASCADE empties besides: every relation that refers, whatever its foreign key says."""
    pending, seen = [found], {found.qualified}
    while pending and walk.catalog is not None:
        for key in pending.pop().referenced_by:
            child = walk.catalog.relations.get((key.schema, key.name))
            if child is not None and child.qualified not in seen:
                seen.add(child.qualified)
                pending.append(child)
                with walk.within("foreign key"):
                    _changed(walk, "truncate", child, filtered=False, limited=False, recursive=True)


def _cascade(
    walk: Walk, verb: str, found: Relation, filtered: bool, columns: tuple[str, ...], seen: set[tuple[str, str]]
) -> None:
    assert walk.catalog is not None
    for key in found.referenced_by:
        # A trigger may set columns that the statement does not.
        if verb == "update" and columns and not found.triggers and key.columns.isdisjoint(columns):
            continue
        done = _CASCADES.get((verb, key.on_delete if verb == "delete" else key.on_update))
        child = walk.catalog.relations.get((key.schema, key.name))
        if done is None or child is None or (done, child.qualified) in seen:
            continue
        seen.add((done, child.qualified))
        with walk.within("foreign key"):
            _changed(walk, done, child, filtered=filtered)
            _cascade(walk, done, child, filtered, (), seen)


def _changed(walk: Walk, verb: str, found: Relation, **facts: Any) -> None:
    detail = "triggers" if found.triggers else ("calls functions" if found.write_calls else "")
    walk.emit(
        verb, found.qualified, schema=found.schema, relation_kind=found.kind, functions=found.write_calls, detail=detail, **facts
    )
