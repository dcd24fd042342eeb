"""A snapshot of what names mean on one target: relations, functions, operators, types, casts.

A parse tree holds names, not meanings: whether `orders` is a table or a view that calls a function, whether `=` is
the built-in operator or somebody's, is in the server's catalog only. A loader runs CATALOG_QUERIES and gives the rows
to `Catalog.from_rows`; the analysis asks the result and treats what is not in it as opaque.

How to load: one connection of its own, one transaction `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`, the queries
in the order of the mapping. The first one empties the search_path of that transaction, so that view definitions come
back with every user name qualified; `from_rows` refuses rows that were read otherwise.

Knows the shape of pg_catalog (PostgreSQL 12 to 18). Must not know connections, and never text of clients.
PostgreSQL documentation, chapter "System Catalogs"; user objects are those with an oid from 16384 (FirstNormalObjectId).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from interlock.commands.sql.builtins import INFORMATION_SCHEMA_RELATIONS, SECRET_RELATIONS, SYSTEM_RELATIONS
from interlock.commands.sql.catalog_queries import CATALOG_QUERIES
from interlock.errors import InterlockError, Reason

TRUSTED_EXTENSIONS = frozenset(
    (
        "btree_gin", "btree_gist", "citext", "cube", "earthdistance", "fuzzystrmatch", "hstore", "intarray", "isn",
        "ltree", "pg_trgm", "pgcrypto", "seg", "unaccent", "uuid-ossp", "vector",
    )
)  # fmt: skip
"""Extensions whose immutable and stable functions compute from their arguments only. tablefunc, dblink, xml2, postgis and
the rest run SQL text or reach outside, and stay off the list."""

KINDS = MappingProxyType(
    {"r": "table", "p": "table", "v": "view", "m": "matview", "f": "foreign", "S": "sequence", "c": "composite"}
)


__all__ = [
    "CATALOG_QUERIES",
    "Catalog",
    "CatalogError",
    "ForeignKey",
    "Function",
    "Operator",
    "Relation",
    "UserType",
    "system_relation",
]


class CatalogError(InterlockError):
    """The rows can't be a catalog: they were read with another search_path, or have another shape."""

    reason = Reason.TARGET_UNREACHABLE


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key, from the side of what it refers to: which relation refers, and what a change does to its rows.

    Actions are those of pg_constraint: a no action, r restrict, c cascade, n set null, d set default.
    `columns` are what it refers to.
    """

    schema: str
    name: str
    on_delete: str
    on_update: str
    columns: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view, materialised view, foreign table or sequence, with what touching it would run.

    `read_calls` are functions of users that every access runs, `write_calls` those that INSERT, UPDATE or DELETE run
    (both as schema.name, without those of trusted extensions). `definition` is a view's
    query, `policies` are the expressions of its row security.
    """

    schema: str
    name: str
    kind: str  # table | view | matview | foreign | sequence | composite | system
    columns: frozenset[str] = frozenset()
    rules: bool = False
    triggers: bool = False
    row_security: bool = False
    foreign_children: bool = False
    secret: bool = False
    read_calls: tuple[str, ...] = ()
    write_calls: tuple[str, ...] = ()
    definition: str = ""
    policies: tuple[str, ...] = ()
    referenced_by: tuple[ForeignKey, ...] = ()
    in_order: tuple[str, ...] = ()  # the columns, as an INSERT that names none takes its values

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Function:
    """One overload of a user's function."""

    schema: str
    name: str
    kind: str  # f function, p procedure, a aggregate, w window
    volatility: str  # i | s | v
    security_definer: bool
    language: str
    extension: str
    arguments: int

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def trusted(self) -> bool:
        """It comes with an extension on the list, in C, and promises to change nothing."""
        return (
            self.extension in TRUSTED_EXTENSIONS
            and self.volatility in ("i", "s")
            and self.language in ("c", "internal", "sql")
            and not self.security_definer
        )

    @property
    def facts(self) -> str:
        """Words for a reviewer: volatility, language, whose rights."""
        words = {"i": "immutable", "s": "stable", "v": "volatile"}[self.volatility]
        return f"{words} {self.language}" + (" security definer" if self.security_definer else "")


@dataclass(frozen=True, slots=True)
class Operator:
    """A user's operator; `trusted` when its function is."""

    schema: str
    name: str
    function: str
    trusted: bool


@dataclass(frozen=True, slots=True)
class UserType:
    """A user's type. `harmless` when reading a value of it runs nothing of a user's but the `checks` of a domain."""

    schema: str
    name: str
    kind: str
    harmless: bool
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """An immutable snapshot. Two snapshots with the same content have the same `version` (SHA-256, hex).

    `memo` remembers what the analysis found out about views; it is derived from the content and never part of it.
    """

    relations: Mapping[tuple[str, str], Relation]
    functions: Mapping[str, tuple[Function, ...]]
    operators: Mapping[str, tuple[Operator, ...]]
    types: Mapping[str, tuple[UserType, ...]]
    casts: tuple[tuple[str, str, str, str], ...]  # source, target, context, function (qualified; not of trusted extensions)
    server_version: int
    superuser: bool
    version: str
    indexes: Mapping[tuple[str, str], str] = field(default_factory=dict)  # index → its relation, qualified
    memo: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_rows(cls, rows: Mapping[str, Sequence[Sequence[object]]]) -> Catalog:
        """Build a snapshot from the answers to CATALOG_QUERIES (name of the query → its rows).

        Raises CatalogError when rows are missing, have another shape, or were read with a search_path.
        """
        try:
            return _build(rows)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CatalogError(f"The catalog rows have an unexpected shape ({type(error).__name__}).") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a child process without the memo: read-only mappings can't be pickled."""
        plain = (dict(self.relations), dict(self.functions), dict(self.operators), dict(self.types))
        return _restored, (*plain, dict(self.indexes), self.casts, self.server_version, self.superuser, self.version)


def _restored(
    relations: dict[tuple[str, str], Relation],
    functions: dict[str, tuple[Function, ...]],
    operators: dict[str, tuple[Operator, ...]],
    types: dict[str, tuple[UserType, ...]],
    indexes: dict[tuple[str, str], str],
    casts: tuple[tuple[str, str, str, str], ...],
    server_version: int,
    superuser: bool,
    version: str,
) -> Catalog:
    plain = (MappingProxyType(relations), MappingProxyType(functions), MappingProxyType(operators), MappingProxyType(types))
    return Catalog(*plain, casts, server_version, superuser, version, MappingProxyType(indexes))


def system_relation(schema: str, name: str) -> Relation | None:
    """Return the relation of pg_catalog or information_schema that every server has under this name."""
    if schema == "pg_catalog" and name in SYSTEM_RELATIONS:
        return Relation("pg_catalog", name, "system", rules=name == "pg_settings", secret=name in SECRET_RELATIONS)
    if schema == "information_schema" and name in INFORMATION_SCHEMA_RELATIONS:
        return Relation("information_schema", name, "system", secret=name in ("user_mapping_options", "_pg_user_mappings"))
    return None


def _build(rows: Mapping[str, Sequence[Sequence[object]]]) -> Catalog:
    (version_num, schemas, superuser), *_ = rows["server"]
    if _words(schemas):
        raise CatalogError("The catalog was read with a search_path. Run CATALOG_QUERIES in one transaction, in order.")
    functions: dict[str, tuple[Function, ...]] = {}
    for schema, name, kind, volatility, definer, language, extension, arguments in rows["functions"]:
        function = Function(
            str(schema), str(name), str(kind), str(volatility), _flag(definer), str(language), str(extension), int(str(arguments))
        )
        functions[function.name] = (*functions.get(function.name, ()), function)

    def trusted(schema: object, name: object) -> bool:
        if schema == "pg_catalog" and not any(f.schema == "pg_catalog" for f in functions.get(str(name), ())):
            return True  # built in; operators and casts over built-in functions run nothing of a user's
        found = [f for f in functions.get(str(name), ()) if f.schema == schema]
        return bool(found) and all(f.trusted for f in found)

    operators: dict[str, tuple[Operator, ...]] = {}
    for schema, name, function_schema, function_name in rows["operators"]:
        operator = Operator(str(schema), str(name), f"{function_schema}.{function_name}", trusted(function_schema, function_name))
        operators[operator.name] = (*operators.get(operator.name, ()), operator)
    types: dict[str, tuple[UserType, ...]] = {}
    for schema, name, kind, over_user_type, checks, extension in rows["types"]:
        # Composites and ranges are not: their input calls that of their parts, or a function of their own.
        harmless = kind == "e" or (kind == "d" and not _flag(over_user_type)) or extension in TRUSTED_EXTENSIONS
        user_type = UserType(str(schema), str(name), str(kind), harmless, tuple(_words(checks)))
        types[user_type.name] = (*types.get(user_type.name, ()), user_type)
    casts = tuple(
        (str(source), str(target), str(context), f"{function_schema}.{function_name}")
        for source, target, context, function_schema, function_name in rows["casts"]
        if function_name and not trusted(function_schema, function_name)
    )
    calls: dict[tuple[str, str, str], list[str]] = {}
    for schema, name, moment, function_schema, function_name in rows["calls"]:
        if not trusted(function_schema, function_name):
            calls.setdefault((str(schema), str(name), str(moment)), []).append(f"{function_schema}.{function_name}")
    definitions = {(str(schema), str(name)): str(text) for schema, name, text in rows["views"]}
    policies: dict[tuple[str, str], list[str]] = {}
    for schema, name, expression in rows["policies"]:
        policies.setdefault((str(schema), str(name)), []).append(str(expression))
    keys: dict[tuple[str, str], list[ForeignKey]] = {}
    for schema, name, parent_schema, parent, on_delete, on_update, columns in rows["references"]:
        key = ForeignKey(str(schema), str(name), str(on_delete), str(on_update), frozenset(_words(columns)))
        keys.setdefault((str(parent_schema), str(parent)), []).append(key)
    relations: dict[tuple[str, str], Relation] = {}
    for schema, name, kind, security, rules, triggers, columns in rows["relations"]:
        where = (str(schema), str(name))
        relations[where] = Relation(
            *where,
            KINDS[str(kind)],
            columns=frozenset(_words(columns)),
            rules=_flag(rules),
            triggers=_flag(triggers),
            row_security=_flag(security),
            read_calls=tuple(calls.get((*where, "read"), ())),
            write_calls=tuple(calls.get((*where, "write"), ())),
            definition=definitions.get(where, ""),
            policies=tuple(policies.get(where, ())),
            referenced_by=tuple(keys.get(where, ())),
            in_order=tuple(_words(columns)),
        )
    parents = [((str(a), str(b)), (str(c), str(d))) for a, b, c, d in rows["children"]]
    return Catalog(
        relations=MappingProxyType(_with_children(relations, parents)),
        functions=MappingProxyType(functions),
        operators=MappingProxyType(operators),
        types=MappingProxyType(types),
        casts=casts,
        indexes=MappingProxyType({(str(s), str(n)): f"{table_schema}.{table}" for s, n, table_schema, table in rows["indexes"]}),
        server_version=int(str(version_num)),
        superuser=_flag(superuser),
        version=_digest(rows),
    )


def _with_children(
    relations: dict[tuple[str, str], Relation], edges: Sequence[tuple[tuple[str, str], tuple[str, str]]]
) -> dict[tuple[str, str], Relation]:
    """Give each parent what touching its children would run: a query on the parent reads and writes them too."""
    children: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for child, parent in edges:
        children.setdefault(parent, []).append(child)
    merged: dict[tuple[str, str], Relation] = {}
    for key, relation in relations.items():
        pending, seen = list(children.get(key, ())), {key}
        family = [relation]
        while pending:
            child = pending.pop()
            if child in seen or child not in relations:
                continue
            seen.add(child)
            family.append(relations[child])
            pending.extend(children.get(child, ()))
        if len(family) == 1:
            merged[key] = relation
            continue
        merged[key] = replace(  # rules and policies of a child do not apply to a query on its parent
            relation,
            triggers=any(r.triggers for r in family),
            foreign_children=any(r.kind == "foreign" for r in family[1:]),
            read_calls=tuple(dict.fromkeys(c for r in family for c in r.read_calls)),
            write_calls=tuple(dict.fromkeys(c for r in family for c in r.write_calls)),
            referenced_by=tuple(dict.fromkeys(k for r in family for k in r.referenced_by)),
        )
    return merged


def _flag(value: object) -> bool:
    """Read a boolean as drivers give it; a text such as `f` must never count as true because it is not empty."""
    match value:
        case bool():
            return value
        case "t" | "f":
            return value == "t"
    raise TypeError("a boolean")


def _words(value: object) -> list[str]:
    """Read an array as drivers give it: a list, or the text form `{a,b}`; None is empty."""
    if value is None:
        return []
    if isinstance(value, str):
        inner = value.strip("{}")
        return [word.strip('"') for word in inner.split(",")] if inner else []
    if isinstance(value, Sequence):
        return [str(word) for word in value]
    raise TypeError(type(value).__name__)


def _digest(rows: Mapping[str, Sequence[Sequence[object]]]) -> str:
    hashed = sha256()
    for name in CATALOG_QUERIES:
        if name == "pin":
            continue
        hashed.update(f"\x00{name}\n".encode())
        for row in rows[name]:
            hashed.update(repr([list(v) if isinstance(v, (list, tuple)) else v for v in row]).encode() + b"\n")
    return hashed.hexdigest()
