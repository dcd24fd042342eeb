"""Whether what a server did is among what was predicted of a text: effects observed ⊆ effects predicted.

Lenient only where an effect says less by design: what stands below a view or a partitioned table, what a foreign key looks up,
and what a function of a user does inside once the effect names the function (`CODE`, which is how world.sql defines them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fuzz.sql_world import Observed, Structure
from interlock.commands.model import Analysis, Effect

CODE: Mapping[str, tuple[str, ...]] = {
    "public.writes": ("public.trail",),
    "public.liar": ("public.writes", "public.trail"),
    "public.looks": ("public.diary",),
    "public.extra": ("public.writes", "public.trail"),
    "public.chore": ("public.writes", "public.trail"),
    "public.tg": ("public.trail",),
    "shadow.lower": ("public.writes", "public.trail"),
    "shadow.equal": ("public.writes", "public.trail"),
    "shadow.to_json": ("public.writes", "public.trail"),
}
"""Functions of the world, and what they call and touch."""

SCHEMA = frozenset(("create", "alter", "drop", "grant", "revoke"))
_INSERTS = frozenset(("insert", "copy_in", "merge", "create", "alter"))
_ROW_EXCLUSIVE = frozenset(("insert", "update", "delete", "merge", "copy_in", "explain", "lock"))
_STRONG = frozenset(("create", "alter", "drop", "truncate", "lock", "vacuum", "grant", "revoke"))
_VERBS = {
    "CREATE": ("create",),
    "SELECT": ("create",),
    "ALTER": ("alter", "create", "drop"),
    "COMMENT": ("alter",),
    "GRANT": ("grant",),
    "REVOKE": ("revoke",),
    "SECURITY": ("alter",),
    "REFRESH": ("alter",),
    "IMPORT": ("create",),
}
"""By the first word of a command tag."""
_FULL = {"public.mix": "mx", "public.diary": "dy"}
_EVERY_ROW = 36
EVERY_ROW = "every row"
"""How a violation begins that may be in the data alone, so that it must come again with other values."""


def violations(predicted: Analysis, observed: Observed, structure: Structure) -> Iterator[str]:
    """Yield a sentence for each thing that happened and was not predicted."""
    claim = Claim(predicted, structure)
    yield from claim.every_row(observed)
    for name, counts in observed.tables.items():
        yield from claim.rows(name, counts)
    for name, mode in observed.locks:
        yield from claim.lock(name, mode)
    for function in observed.functions:
        if function not in claim.functions:
            yield f"the function {function} ran"
    for name in observed.denied:
        if not any(name in (known, known.rpartition(".")[2]) for known in claim.named):
            yield f"{name} was touched: {observed.failed}"
    for setting in observed.settings:
        if not claim.sets(setting):
            yield f"the setting {setting} changed"
    for sequence in observed.sequences:
        if not claim.advances(sequence):
            yield f"the sequence {sequence} moved"
    if observed.advisory and not any(e.verb == "lock" and "advisory" in e.object for e in predicted.effects):
        yield "an advisory lock was taken"
    for name in observed.prepared:
        if not any(e.verb == "prepare" and e.object == name for e in predicted.effects):
            yield f"the statement {name} was prepared"
    for name in observed.cursors:
        if not any(e.verb == "cursor" and e.object == name for e in predicted.effects):
            yield f"the cursor {name} was opened"
    if observed.catalog_rows and not claim.changes_catalog:
        yield f"{observed.catalog_rows} rows of the system catalogs were written"
    for entry in observed.ddl:
        yield from claim.definition(entry)


class Claim:
    """What an analysis says, in the terms of what can be observed."""

    def __init__(self, predicted: Analysis, structure: Structure) -> None:
        self.predicted = predicted
        self._structure = structure
        self._on: dict[str, list[Effect]] = {}
        for effect in predicted.effects:
            for name in self._reached(effect):
                self._on.setdefault(name, []).append(effect)
        self.named = {e.object for e in predicted.effects} | {f for e in predicted.effects for f in e.functions}
        called = {name for name in self.named if name in CODE or name == "public.clean"}
        self.functions = called | {inner for name in called for inner in CODE.get(name, ())}
        self._verbs = {e.verb for e in predicted.effects}
        self._owned_by_role = any(e.detail == "owned" for e in predicted.effects)
        self.changes_catalog = bool(self._verbs & (SCHEMA | {"truncate", "vacuum", "copy_in"}))

    def _reached(self, effect: Effect) -> set[str]:
        """The relation of an effect, what is behind the view, and its partitions and children."""
        found = {effect.object} | self._structure.views.get(effect.object, frozenset())
        if effect.verb in SCHEMA:
            found |= _told(effect)
        return found | {child for child, parents in self._structure.parents.items() if parents & found}

    def _verbs_on(self, name: str) -> set[str]:
        return {effect.verb for effect in self._on.get(name, ())}

    def _referenced(self, name: str) -> bool:
        """A foreign key looks into this relation because a row on its other side changes."""
        changed = {"insert", "update", "delete", "merge", "copy_in", "truncate", *SCHEMA}
        return any(
            (name == referenced and changed & self._verbs_on(referencing))
            or (name == referencing and changed & self._verbs_on(referenced))
            for referencing, referenced in self._structure.references
        )

    def rows(self, name: str, counts: tuple[int, int, int, int]) -> Iterator[str]:
        scans, inserted, updated, deleted = counts
        verbs = self._verbs_on(name)
        by_code = name in self.functions
        if scans and not verbs - {"explain"} and not by_code and not self._referenced(name):
            yield f"{name} was read"
        moved = bool({"update", "merge"} & verbs) and name in self._structure.parents  # to another partition
        if inserted and not verbs & _INSERTS and not by_code and not moved:
            yield f"{inserted} rows were inserted into {name}"
        if updated and not verbs & {"update", "alter"}:
            yield f"{updated} rows of {name} were updated"
        if deleted and not verbs & {"delete"} and not moved:
            yield f"{deleted} rows of {name} were deleted"

    def lock(self, name: str, mode: str) -> Iterator[str]:
        verbs = self._verbs_on(name)
        if name in self.functions or self._owned_by_role or (name.startswith("pg_temp") and self._verbs & {"create"}):
            return
        match mode:
            case "AccessShareLock":
                fine = bool(verbs) or self._referenced(name) or self._owned(name) or self._rooted(name)
            case "RowShareLock":
                fine = bool(verbs & (_ROW_EXCLUSIVE | _STRONG)) or self._referenced(name)
            case "RowExclusiveLock":
                fine = bool(verbs & (_ROW_EXCLUSIVE | _STRONG)) or self.advances(name)
            case _:
                fine = bool(verbs & _STRONG) or self._owned(name) or (self._referenced(name) and bool(self._verbs & SCHEMA))
        if not fine:
            yield f"{name} was locked ({mode})"

    def _owned(self, name: str) -> bool:
        """A parent or child of what is defined, or what goes with what is dropped."""
        parents = self._structure.parents.get(name, frozenset())
        family = parents | {child for child, of in self._structure.parents.items() if name in of or parents & of}
        cascading = any(e.recursive and e.verb in SCHEMA for e in self.predicted.effects)
        return cascading or any(self._verbs_on(member) & SCHEMA for member in family)

    def _rooted(self, name: str) -> bool:
        """A row that changes in a partition is checked against the bounds that its parents give."""
        return any(self._verbs_on(child) for child, parents in self._structure.parents.items() if name in parents)

    def sets(self, setting: str) -> bool:
        return any(
            e.verb in ("set", "reset") and (e.object == setting or (e.object == "*" and (e.verb == "reset" or e.detail)))
            for e in self.predicted.effects
        ) or (setting in ("role", "is_superuser") and any(e.object == "session_authorization" for e in self.predicted.effects))

    def advances(self, sequence: str) -> bool:
        owner = self._structure.sequences.get(sequence, "")
        calls = any(
            e.verb == "function" and e.object in ("pg_catalog.nextval", "pg_catalog.setval") for e in self.predicted.effects
        )
        return (
            calls
            or bool(self._verbs_on(sequence) & SCHEMA)
            or bool(self._verbs_on(owner) & ({"insert", "update", "copy_in", "truncate", "merge"} | SCHEMA))
        )

    def definition(self, entry: Mapping[str, Any]) -> Iterator[str]:
        tag, identity = str(entry["tag"]), str(entry["identity"] or "")
        if self._owned_by_role:
            return
        objects = {verb: [e for e in self.predicted.effects if e.verb == verb] for verb in SCHEMA}
        if tag == "DROP":
            named = any(_names(e, identity) for verb in ("drop", "alter", "revoke") for e in objects[verb])
            replaced = any(e.verb in ("create", "alter") for e in self.predicted.effects)
            recursive = any(e.recursive for verb in ("drop", "alter", "revoke") for e in objects[verb])
            if entry["original"] and not named and not replaced and not recursive:
                yield f"{entry['type']} {identity} was dropped"
            part = any(_names(e, identity) for e in objects["drop"])  # a default of a table that goes
            if not entry["original"] and entry["depends"] and not recursive and not part and entry["type"] != "rule":
                yield f"{entry['type']} {identity} was dropped by CASCADE"
            return
        verbs = _VERBS[tag.split(maxsplit=1)[0]]
        verbs = ("grant", "revoke") if tag == "ALTER DEFAULT PRIVILEGES" else verbs
        if not any(_names(e, identity) or not identity for verb in verbs for e in objects[verb]):
            yield f"{tag} of {identity}"

    def every_row(self, observed: Observed) -> Iterator[str]:
        """Say so if every row of a table came back or changed, and the effects claim that a filter or a limit leaves some out."""
        code = any(e.verb == "function" and e.schema == "shadow" for e in self.predicted.effects)  # an `=` that is always true
        if code or any("secret" in e.detail for e in self.predicted.effects):  # samples of data in pg_stats
            return
        for name, prefix in _FULL.items():
            told = self._on.get(name, [])
            if sum(row.startswith(prefix) for row in observed.rows) == _EVERY_ROW and not any(
                not effect.filtered and not (effect.limited and effect.verb == "select") for effect in told
            ):
                yield f"{EVERY_ROW} of {name} came back, through what counts as a filter or a limit"
            _, _, updated, deleted = observed.tables.get(name, (0, 0, 0, 0))
            for verb, count in (("update", updated), ("delete", deleted)):
                changing = [effect for effect in told if effect.verb == verb]
                if count == _EVERY_ROW and self.predicted.statements == 1 and len(changing) == 1 and changing[0].filtered:
                    yield f"{EVERY_ROW} of {name} was changed ({verb}), through a condition that counts as a filter"


def _told(effect: Effect) -> set[str]:
    """The other names in the words of a definition: parents, what is referred to, and what the object is called from then on."""
    schema = effect.object.rpartition(".")[0]
    found = {word.rstrip(",") for word in effect.detail.split() if "." in word}
    if effect.object.count(".") > 1:  # a trigger, policy, rule or column: its relation
        found.add(effect.object.rpartition(".")[0])
    for words in (" renamed to ", " moved to "):
        _, there, name = effect.detail.partition(words)
        if there:
            found.add(
                f"{name}.{effect.object.rpartition('.')[2]}" if words == " moved to " else f"{schema}.{name}" if schema else name
            )
    return found


def _names(effect: Effect, identity: str) -> bool:
    """`public.t` names `public.t`, `x on public.t`, `public.t_id_seq` and `public.f(integer)`."""
    bare = identity.replace('"', "")
    relation, _, part = effect.object.rpartition(".")
    if effect.detail.split()[0] in ("trigger", "policy", "rule") and effect.verb == "drop":
        return bare == f"{part} on {relation}"
    if effect.detail == "cast":
        return all(side.rpartition(".")[2] in bare for side in effect.object.split(" as "))
    return any(name in bare for name in {effect.object} | _told(effect) if name) or effect.object in ("*", "current_user")
