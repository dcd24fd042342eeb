"""One level of a query while it is walked: the relations it reads, how it filters them, and whose part it is.

Mutable on purpose: a level is filled by the walk and turned into effects once its statement is complete, because
whether rows are bounded depends on the levels around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from interlock.commands.sql.catalog import Relation
from interlock.commands.sql.restriction import Item, Join

BOUNDED_KINDS = frozenset(("exists", "compare", "scalar"))
"""Sub-queries of which at most one value comes back, whatever they read."""
INHERITING_KINDS = frozenset(("from", "cte", "arm"))
"""Sub-queries whose rows come back only through the query around them."""


@dataclass(slots=True)
class Reference:
    """A relation in FROM, under the name by which columns refer to it."""

    relation: Relation
    alias: str


@dataclass(slots=True)
class Scope:
    """A SELECT, or the body of an UPDATE, DELETE or MERGE.

    `kind`: top, from, cte, arm (of a set operation), exists, compare, scalar, array, source (of INSERT), dml.
    """

    kind: str
    parent: Scope | None = None
    filtered: bool = True
    limited: bool = False
    collects: bool = False
    references: list[Reference] = field(default_factory=list)
    target: Reference | None = None  # what the statement changes; read as well, but no effect of its own
    items: list[Item] = field(default_factory=list)  # all of FROM: relations, sub-queries, functions
    joins: list[Join] = field(default_factory=list)
    inner: dict[str, Scope] = field(default_factory=dict)  # sub-queries in FROM, by alias: FOR UPDATE reaches into them
    restricted: frozenset[str] | None = None  # aliases that the conditions restrict; None: `filtered` says it for all
    columns: list[tuple[str, ...]] = field(default_factory=list)
    fixed: dict[str, str] = field(default_factory=dict)  # columns that the WHERE fixes to a constant, in the target list

    def bounded(self, collecting: bool) -> bool:
        """Tell whether few rows come back; `collecting`: somewhere in the statement rows are put into one value."""
        if self.collects:
            return False
        if self.limited or self.kind in BOUNDED_KINDS:
            return True
        if self.kind in INHERITING_KINDS and self.parent is not None and not collecting:
            return self.parent.bounded(collecting)
        return False

    def filters(self, alias: str) -> bool:
        """Tell whether conditions leave rows of this item out."""
        return self.filtered if self.restricted is None else alias in self.restricted

    def locked(self, only: set[str]) -> Iterator[tuple[Scope, Reference]]:
        """Yield what FOR UPDATE (OF `only`, if any) locks, and the level that filters it: sub-queries in FROM belong to it."""
        for reference in self.references:
            if not only or reference.alias in only:
                yield self, reference
        for alias, scope in self.inner.items():
            if not only or alias in only:
                yield from scope.locked(set())

    def find(self, alias: str) -> Reference | None:
        """Return what `alias` names here or further out."""
        scope: Scope | None = self
        while scope is not None:
            for reference in scope.references:
                if reference.alias == alias:
                    return reference
            target = scope.target
            if target is not None and target.alias == alias:
                return target
            scope = scope.parent
        return None

    def columns_of(self, reference: Reference) -> tuple[str, ...]:
        """Return the columns that are surely read from one relation, sorted; `*` is all of them."""
        only = len(self.references) == 1 and len(self.items) == 1
        found = {
            names[-1]
            for names in self.columns
            if (len(names) == 1 and (only or names[0] == "*")) or (len(names) > 1 and names[-2] == reference.alias)
        }
        return tuple(sorted(found))
