"""Looking into text that the catalog holds: definitions of views, expressions of row policies and domain checks.

pg_depend names the user functions that such text calls, but never the built-in ones (they are pinned), so the text
itself is parsed and walked as a query of its own, with an empty search_path, as the catalog was read.

Results are remembered in the catalog's memo: a snapshot never changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from postgast import PgQueryError, parse

from interlock.commands.model import Effect, SqlContext
from interlock.commands.sql.bounds import AUTOMATIC_BYTES, MEASURED_FROM, NESTING, nesting
from interlock.commands.sql.catalog import Relation
from interlock.commands.sql.walk import Walk


@dataclass(frozen=True, slots=True)
class Inside:
    """What a view does: whether it only reads and calls nothing but harmless functions, what it reads beyond plain tables,
    views and harmless system relations, and the relations at the bottom of it, which a change through the view would change."""

    harmless: bool
    beyond: tuple[Relation, ...] = ()
    bases: tuple[Relation, ...] = ()


def view(walk: Walk, relation: Relation) -> Inside | None:
    """Return what is behind a view; None when its definition can't be read (or refers to itself)."""
    assert walk.catalog is not None
    key = (relation.schema, relation.name)
    if key in walk.catalog.memo:
        found = walk.catalog.memo[key]
        return found if isinstance(found, Inside) else None
    walk.catalog.memo[key] = None  # a view that reaches itself is not readable
    inside = _walked(walk, relation.definition) if relation.definition else None
    judged = None
    if inside is not None:
        harmless = not inside.opaque and all(_only_reads(effect) for effect in inside.effects)
        beyond = tuple(
            Relation(e.schema, e.object.removeprefix(f"{e.schema}."), e.relation_kind, secret="secret" in e.detail)
            for e in inside.effects
            if e.verb == "select" and (e.relation_kind == "foreign" or "secret" in e.detail)
        )
        judged = Inside(harmless, tuple(dict.fromkeys(beyond)), tuple(dict.fromkeys(_bases(walk, inside))))
    walk.catalog.memo[key] = judged
    return judged


def _bases(walk: Walk, inside: Walk) -> Iterator[Relation]:
    assert walk.catalog is not None
    for effect in inside.effects:
        found = walk.catalog.relations.get((effect.schema, effect.object.removeprefix(f"{effect.schema}.")))
        if found is not None and found.kind == "view":
            below = view(walk, found)
            yield from below.bases if below is not None else ()
        elif found is not None:
            yield found


def expression_is_harmless(walk: Walk, expression: str) -> bool:
    """Tell whether an expression of the catalog calls harmless functions only and reads what may be read."""
    if walk.catalog is None:
        return False
    key = ("", expression)
    if key not in walk.catalog.memo:
        walk.catalog.memo[key] = False  # while it is being looked at
        inside = _walked(walk, f"SELECT {expression}")
        walk.catalog.memo[key] = inside is not None and not inside.opaque and all(map(_only_reads, inside.effects))
    return bool(walk.catalog.memo[key])


def _only_reads(effect: Effect) -> bool:
    return effect.verb == "select"


def _walked(walk: Walk, text: str) -> Walk | None:
    source = text.encode()
    if len(source) > AUTOMATIC_BYTES or (len(source) > MEASURED_FROM and nesting(text) > NESTING):
        return None
    try:
        tree = parse(text)
    except (PgQueryError, DecodeError):
        return None
    if len(tree.stmts) != 1:
        return None
    inner = Walk(SqlContext(catalog=walk.catalog, search_path=()), source)
    inner.borrowed = True
    inner.run(tree.stmts[0].stmt, source)
    return inner
