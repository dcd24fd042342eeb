"""What a name means: relations, functions, operators and types against the search_path and the catalog.

PostgreSQL looks first into pg_catalog (unless the path places it elsewhere), and for functions and operators it takes
the best match over all schemas of the path: a user's `lower(integer)` in public can win over the built-in one
(CVE-2018-1058). So an unqualified name is built in only if no user object of that name stands in the path.

A name that is not known is opaque. A known function that is not on the allow-list is an effect `function`, so that a
rule can name it; what it does inside is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interlock.commands.sql import opened
from interlock.commands.sql.builtins import (
    INFORMATION_SCHEMA_FUNCTIONS,
    INFORMATION_SCHEMA_TYPES,
    NOTORIOUS_FUNCTIONS,
    OPERATORS,
    OTHER_FUNCTIONS,
    SAFE_FUNCTIONS,
    TYPES,
)
from interlock.commands.sql.catalog import Function, Operator, Relation, UserType, system_relation
from interlock.commands.sql.filters import COLLECTORS
from interlock.commands.sql.walk import Walk

ADVISORY_LOCKS = frozenset(
    f"pg_{attempt}advisory_{scope}lock{share}" for attempt in ("", "try_") for scope in ("", "xact_") for share in ("", "_shared")
)


def strings(nodes: Any) -> list[str]:
    """Return the words of a list of String nodes; other nodes are left out."""
    return [node.string.sval for node in nodes if node.WhichOneof("node") == "string"]


def effective_path(walk: Walk) -> tuple[str, ...]:
    """Return the schemas an unqualified name is looked up in, in order; pg_temp is not part of it."""
    path = walk.path if "pg_catalog" in walk.path else ("pg_catalog", *walk.path)
    return tuple(schema for schema in path if schema != "pg_temp")


def creation_schema(walk: Walk) -> str:
    """Return the schema that unqualified new objects go to."""
    if walk.creating:
        return walk.creating
    return next((schema for schema in walk.path if schema not in ("pg_catalog", "$user")), "public")


# -- relations ---------------------------------------------------------------------------------------------------------


def relation(walk: Walk, schema: str, name: str, location: int = -1) -> Relation:
    """Return what the name stands for; what can't be known is hidden and taken for a plain table."""
    if schema:
        found = system_relation(schema, name)
        if found is None and walk.catalog is not None:
            found = walk.catalog.relations.get((schema, name))
    elif walk.tainted:
        if not _surely_system(walk, name):
            walk.hide("tainted-name", name, location)
        return system_relation("pg_catalog", name) or Relation(creation_schema(walk), name, "")
    else:
        found = _search(walk, name, location)
    if found is not None:
        return found
    home = schema or creation_schema(walk)
    if walk.catalog is None and walk.context.assume_tables and not home.startswith("pg_"):
        walk.assumed[f"{home}.{name}"] = None
        return Relation(home, name, "table")
    walk.hide("unknown-relation" if walk.catalog is not None or walk.context.assume_tables else "no-catalog", name, location)
    return Relation(home, name, "")


def _surely_system(walk: Walk, name: str) -> bool:
    """Tell whether an unqualified name is a system relation under every search_path: no schema has another of it."""
    if walk.temporary or walk.code_ran or walk.catalog is None or system_relation("pg_catalog", name) is None:
        return False
    return not any(key[1] == name for key in walk.catalog.relations)


def _search(walk: Walk, name: str, location: int) -> Relation | None:
    for schema in effective_path(walk):
        if schema == "$user":
            others = walk.catalog.relations if walk.catalog is not None else ()
            if any(key[1] == name and key[0] not in walk.path for key in others):
                walk.hide("ambiguous-name", name, location)
            continue
        found = system_relation(schema, name)
        if found is None and walk.catalog is not None:
            found = walk.catalog.relations.get((schema, name))
        if found is not None:
            return found
    return None


def reads(walk: Walk, found: Relation, location: int = -1) -> None:
    """Look behind a relation that is read: views, row policies, casts of its columns."""
    if walk.catalog is None or found.kind in ("system", ""):
        return
    for call in found.read_calls:
        walk.hide("relation-calls-function", call, location)
    for expression in found.policies:
        if not opened.expression_is_harmless(walk, expression):
            walk.hide("row-policy-calls-function", found.qualified, location)
    if found.kind == "view":
        inside = opened.view(walk, found)
        if inside is None or not inside.harmless:
            walk.hide("view-calls-function", found.qualified, location)
        elif inside.beyond:
            # Foreign tables and secrets behind a view are read all the same.
            for reached in inside.beyond:
                walk.emit(
                    "select",
                    reached.qualified,
                    schema=reached.schema,
                    relation_kind=reached.kind,
                    detail="secret" if reached.secret else "behind a view",
                    filtered=False,
                    limited=False,
                )


def uncertain(walk: Walk, schema: str, known: Mapping[str, Sequence[Function | Operator]] | None, name: str) -> bool:
    """Tell whether an unqualified function, operator or type may be another one than the path says.

    In a tainted session the path may be any, and temporary objects may exist. But pg_temp is never searched for
    functions and operators, so where no schema of the catalog has a user's object of this name, it is the built-in one.
    """
    if schema or not walk.tainted:
        return False
    return known is None or walk.code_ran or any(not found.trusted for found in known.get(name, ()))


# -- functions ---------------------------------------------------------------------------------------------------------


def function(walk: Walk, parts: list[str], location: int = -1) -> None:
    """Note one function by name: harmless, an effect, or opaque."""
    name = parts[-1]
    schema = parts[-2] if len(parts) > 1 else ""
    shown = ".".join(parts)
    if uncertain(walk, schema, walk.catalog.functions if walk.catalog is not None else None, name):
        walk.hide("tainted-name", shown, location)
        if name in OTHER_FUNCTIONS:  # most likely still the built-in one, and policy may deny it by name
            _built_in(walk, name, shown, location, known=True, qualified=True)
        return
    users = _users_functions(walk, schema, name)
    for found in users:
        if found.trusted:
            walk.function(found.qualified)
        else:
            walk.emit("function", found.qualified, schema=found.schema, detail=found.facts)
            if found.volatility == "v":
                walk.name("temp-ddl")  # it may have made temporary objects: names mean less from here on
    if schema == "information_schema" and name in INFORMATION_SCHEMA_FUNCTIONS:
        walk.function(shown)
    elif schema in ("", "pg_catalog"):
        _built_in(walk, name, shown, location, known=bool(users), qualified=bool(schema))
    elif not users:
        _unknown(walk, name, shown, location)


def _unknown(walk: Walk, name: str, shown: str, location: int) -> None:
    walk.hide("unknown-function", shown, location)
    if name in NOTORIOUS_FUNCTIONS:
        walk.emit("function", shown, detail="unknown")  # so that a rule can deny it by name


def _users_functions(walk: Walk, schema: str, name: str) -> list[Function]:
    if walk.catalog is None:
        return []
    wanted = (schema,) if schema else effective_path(walk)
    found: dict[tuple[str, str], Function] = {}
    for candidate in walk.catalog.functions.get(name, ()):
        if candidate.schema in wanted or (not schema and "$user" in wanted):
            key = (candidate.schema, candidate.name)
            # The overload with the least trust speaks for the name.
            if key not in found or (candidate.trusted, candidate.volatility != "v") < (
                found[key].trusted,
                found[key].volatility != "v",
            ):
                found[key] = candidate
    return list(found.values())


def _built_in(walk: Walk, name: str, shown: str, location: int, *, known: bool, qualified: bool) -> None:
    if name in SAFE_FUNCTIONS:
        if not qualified and not may_assume(walk):
            walk.hide("no-catalog", shown, location)
        walk.function(name)
        if name in COLLECTORS:
            walk.collecting()
        if name in TYPES:
            _casts(walk, name, location)
    elif name in OTHER_FUNCTIONS:
        walk.emit("lock" if name in ADVISORY_LOCKS else "function", f"pg_catalog.{name}", schema="pg_catalog")
    elif name in TYPES:
        _casts(walk, name, location)
    elif not known:
        _unknown(walk, name, shown, location)


def may_assume(walk: Walk) -> bool:
    """Tell whether unqualified names of functions and operators may be taken as built in."""
    return walk.catalog is not None or walk.context.assume_tables or not any(s != "pg_catalog" for s in effective_path(walk))


def attribute(walk: Walk, name: str, owner: Relation | None, location: int = -1) -> None:
    """`x.name` and `(x).name` call the function `name` when x has no such column (functional notation)."""
    if owner is not None and name in owner.columns:
        return
    if name in OTHER_FUNCTIONS:
        walk.emit("function", f"pg_catalog.{name}", schema="pg_catalog", detail="called as an attribute")
    for found in _users_functions(walk, "", name):
        if found.arguments >= 1:
            walk.emit("function", found.qualified, schema=found.schema, detail=f"may be called as an attribute, {found.facts}")
    if walk.catalog is not None and any(not t.harmless or t.checks for t in walk.catalog.types.get(name, ())):
        walk.hide("user-type", name, location)


# -- operators ---------------------------------------------------------------------------------------------------------


def operator(walk: Walk, parts: list[str], location: int = -1) -> None:
    """Note an operator by name: an operator is a function."""
    name = parts[-1]
    schema = parts[-2] if len(parts) > 1 else ""
    if uncertain(walk, schema, walk.catalog.operators if walk.catalog is not None else None, name):
        walk.hide("tainted-name", name, location)
        return
    wanted = (schema,) if schema else effective_path(walk)
    users = [o for o in walk.catalog.operators.get(name, ()) if o.schema in wanted] if walk.catalog is not None else []
    for found in users:
        if not found.trusted:
            function_schema, _, _ = found.function.partition(".")
            walk.emit("function", found.function, schema=function_schema, detail=f"operator {found.schema}.{name}")
    if schema in ("", "pg_catalog") and name in OPERATORS:
        if not schema and not may_assume(walk):
            walk.hide("no-catalog", name, location)
    elif not users:
        walk.hide("unknown-operator", ".".join(parts), location)


# -- types -------------------------------------------------------------------------------------------------------------


def type_name(walk: Walk, parts: list[str], location: int = -1) -> None:
    """Note a type that something is cast to: its input function runs, and so do the checks of a domain."""
    name = parts[-1]
    schema = parts[-2] if len(parts) > 1 else ""
    plain = name.removeprefix("_") if name not in TYPES else name
    if schema in ("", "pg_catalog") and plain in TYPES and (schema or effective_path(walk)[0] == "pg_catalog"):
        _casts(walk, plain, location)
        return
    if schema == "information_schema" and plain in INFORMATION_SCHEMA_TYPES:
        return
    if not schema and walk.tainted:
        walk.hide("tainted-name", name, location)
        return
    found = _user_type(walk, schema, name) or (_user_type(walk, schema, plain) if plain != name else None)
    if found is None:
        walk.hide("unknown-type", ".".join(parts), location)
    elif not found.harmless or not all(opened.expression_is_harmless(walk, check) for check in found.checks):
        walk.hide("user-type", f"{found.schema}.{found.name}", location)
    _casts(walk, plain, location)


def _user_type(walk: Walk, schema: str, name: str) -> UserType | None:
    if walk.catalog is None:
        return None
    for wanted in (schema,) if schema else effective_path(walk):
        for found in walk.catalog.types.get(name, ()):
            if found.schema == wanted:
                return found
    return None


def _casts(walk: Walk, target: str, location: int) -> None:
    if walk.catalog is not None:
        for _, to, _, name in walk.catalog.casts:
            if to == target:
                walk.hide("user-cast", name, location)
