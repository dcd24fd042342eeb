"""The walk over a parse tree: a white list of nodes, and what has been found so far.

Theory of operation. Every node of a statement is visited, always, since DML hides in WITH, COPY, EXPLAIN ANALYZE,
PREPARE, DECLARE and CREATE TABLE AS. A node either has a handler, or is on the list of nodes that mean nothing but
their children, or is a leaf; any other node makes the statement opaque. Handlers are functions (walk, message) in
tables by node name: expressions, queries, settings, definitions, session.

The protobuf messages of libpg_query are walked directly; what a field holds is looked up once per field.

Knows the shape of trees. Must not know policy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from interlock.commands.bounds import WALKED, TooMany
from interlock.commands.model import Effect, NameAction, Opaque, SqlContext
from interlock.commands.sql.catalog import Catalog, Relation
from interlock.commands.sql.scope import Reference, Scope

Handler = Callable[["Walk", Any], None]

HANDLERS: dict[str, Handler] = {}
"""By the name of the node in the `Node` message; the modules of this package register theirs on import."""

TRANSPARENT = frozenset(
    """a_array_expr a_indices bool_expr boolean_test case_when coalesce_expr column_def ctecycle_clause ctesearch_clause
    grouping_func grouping_set index_elem infer_clause json_agg_constructor json_argument json_array_constructor
    json_behavior json_func_expr json_is_predicate json_key_value json_object_constructor json_output json_parse_expr
    json_returning json_scalar_expr json_serialize_expr json_table_column json_table_path_spec json_value_expr list
    min_max_expr multi_assign_ref named_arg_expr null_test range_table_func_col returning_clause returning_option
    row_expr set_to_default window_def xml_expr xml_serialize""".split()
)
"""Nodes that mean nothing but their children."""

LEAVES = frozenset(
    """a_const a_star alias bit_string boolean float integer json_format merge_support_func param_ref role_spec sqlvalue_function
    string""".split()
)
"""Nodes with nothing below that could run."""

DATA_VERBS = frozenset(("select", "insert", "update", "delete", "merge", "lock", "create", "explain"))

USES_NAMES = "refers to prepared statements or cursors of this session"
"""The note on an analysis that looked into the session's tables of names."""

_CHANGES_NAMES = frozenset(("search_path", "role", "session_authorization", ""))
"""Settings that decide what unqualified names mean (through the path, or through `$user` in it); "" is RESET ALL."""

SECRET_COLUMNS = {
    "pg_authid": ("rolpassword",),
    "pg_shadow": ("passwd",),
    "pg_user_mapping": ("umoptions",),
    "pg_user_mappings": ("umoptions",),
}
"""Secret relations that are harmless without these columns."""

_WRITTEN = re.compile(rb'(?:"(?:[^"]|"")*"|[\w$\x80-\xff]|\.)+')
"""A name as it stands in the source, with its schema or without."""

_KIND_OF_TYPE: dict[str, str] = {field.message_type.name: field.name for field in pb.Node.DESCRIPTOR.fields}
_FIELDS: dict[Any, tuple[bool, str | None] | None] = {}


def _field(field: Any) -> tuple[bool, str | None] | None:
    """Return (repeated, node name or None for a `Node` wrapper) of a message field, None for a scalar."""
    if field.message_type is None:
        found = None
    elif field.message_type.name == "Node":
        found = (field.is_repeated, None)
    else:
        found = (field.is_repeated, _KIND_OF_TYPE.get(field.message_type.name, field.message_type.name))
    _FIELDS[field] = found
    return found


class Walk:
    """Everything known while one text is walked. One instance a text; handlers change it."""

    def __init__(self, context: SqlContext, source: bytes) -> None:
        self.context = context
        self.catalog: Catalog | None = context.catalog
        self.path: tuple[str, ...] = context.search_path
        self.tainted = context.tainted
        self.temporary = context.tainted and context.temporary  # temporary objects may exist
        self.prepared: dict[str, str] = dict(context.prepared) if context.prepared else {}
        self.cursors: dict[str, str] = dict(context.cursors) if context.cursors else {}
        self.source = source
        self.effects: list[Effect] = []
        self.opaque: list[Opaque] = []
        self.names: list[NameAction] = []
        self.assumed: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.via: tuple[str, ...] = ()
        self.scope: Scope | None = None
        self.ctes: dict[str, bool] = {}  # visible WITH names, and whether each is selective
        self.explaining = False
        self.resolving: tuple[str, ...] = ()  # prepared statements and views being opened
        self.borrowed = False  # inside text that is not the command's own: offsets mean nothing
        self.statement = b""
        self.columns_seen: set[str] = set()  # last names of every column of the statement
        self._entries: list[Effect | tuple[Scope, Reference, tuple[str, ...], bool]] = []
        self._functions: dict[str, None] = {}
        self._collecting = False
        self._taints = False
        self._ran_code = False
        self._made_temporary = False
        self.creating = ""  # the schema whose CREATE SCHEMA this is part of
        self.code_ran = False  # an earlier statement of this text ran code that may have made anything

    # -- visiting -------------------------------------------------------------------------------------------------

    def node(self, wrapper: pb.Node) -> None:
        """Visit what a `Node` holds; an empty one is nothing."""
        kind = wrapper.WhichOneof("node")
        if kind is not None:
            self.visit(kind, getattr(wrapper, kind))

    def nodes(self, wrappers: Any) -> None:
        for wrapper in wrappers:
            self.node(wrapper)

    def visit(self, kind: str, message: Message) -> None:
        """Visit a message under its node name."""
        handler = HANDLERS.get(kind)
        if handler is not None:
            handler(self, message)
        elif kind in TRANSPARENT:
            self.children(message)
        elif kind not in LEAVES:
            self.hide("unknown-node", kind, getattr(message, "location", -1))

    def children(self, message: Message) -> None:
        """Visit every message below, whatever its field."""
        for field, value in message.ListFields():
            known = _FIELDS[field] if field in _FIELDS else _field(field)
            if known is None:
                continue
            repeated, kind = known
            if kind is None:
                if repeated:
                    for item in value:
                        self.node(item)
                else:
                    self.node(value)
            elif repeated:
                for item in value:
                    self.visit(kind, item)
            else:
                self.visit(kind, value)

    # -- finding --------------------------------------------------------------------------------------------------

    def emit(self, verb: str, name: str = "", **facts: Any) -> None:
        """Add an effect. Under EXPLAIN without ANALYZE, what would touch rows is only planned."""
        if self.explaining and verb in DATA_VERBS:
            verb = "explain"
            facts = {k: v for k, v in facts.items() if k in ("schema", "relation_kind")}
        self._entries.append(Effect(verb, name, via=self.via, **facts))

    def adopt(self, effects: Iterable[Effect]) -> None:
        """Add effects that another walk has completed."""
        self._entries.extend(effects)

    def read(self, scope: Scope, reference: Reference) -> None:
        """Add a select on a relation; its facts are complete once the statement is."""
        scope.references.append(reference)
        self._entries.append((scope, reference, self.via, self.explaining))

    def place(self) -> int:
        """Return the place of the next effect, for `at`."""
        return len(self._entries)

    @contextmanager
    def at(self, place: int) -> Iterator[None]:
        """Effects found inside are put at an earlier place: what a statement does comes before what it reads."""
        later = self._entries[place:]
        del self._entries[place:]
        try:
            yield
        finally:
            self._entries.extend(later)

    def function(self, name: str) -> None:
        """Note that a harmless function is called."""
        self._functions[name] = None

    def collecting(self) -> None:
        """Note that rows are put into one value here."""
        self._collecting = True
        if self.scope is not None:
            self.scope.collects = True

    def hide(self, reason: str, text: str = "", location: int = -1) -> None:
        """Note that something can't be known. `location` is a byte offset into the command, -1 if not known."""
        start, end = (0, 0)
        if location >= 0 and not self.borrowed:
            start, end = location, self._end(location, text.encode())
        found = Opaque(reason, text, start, end)
        if not any(o.reason == reason and o.text == text for o in self.opaque):
            self.opaque.append(found)

    def _end(self, start: int, shown: bytes) -> int:
        """Return where the part of the source ends that is told as `shown`: often it is written otherwise, without its schema."""
        if self.source[start : start + len(shown)].lower() == shown.lower():
            return start + len(shown)
        written = _WRITTEN.match(self.source, start)
        return written.end() if written is not None else min(start + 1, len(self.source))

    def name(self, kind: str, name: str = "", text: str = "") -> None:
        """Note what the statement does to the session's names, and let later statements of this text see it."""
        if self.explaining:
            return
        self.names.append(NameAction(kind, name, text))
        if kind == "temp-ddl" or (kind in ("set", "reset") and name in _CHANGES_NAMES):
            self._taints = True
            self._made_temporary = self._made_temporary or kind == "temp-ddl"
            self._ran_code = self._ran_code or (kind == "temp-ddl" and not name)

    @contextmanager
    def within(self, *via: str) -> Iterator[None]:
        """Everything found inside came by way of `via`."""
        outer = self.via
        self.via = (*outer, *via)
        try:
            yield
        finally:
            self.via = outer

    @contextmanager
    def creating_in(self, schema: str) -> Iterator[None]:
        """What is created inside without a schema goes to this one."""
        outer, self.creating = self.creating, schema
        try:
            yield
        finally:
            self.creating = outer

    def text_of(self) -> str:
        """Return the text of the statement that is walked."""
        return self.statement.decode()

    # -- statements -----------------------------------------------------------------------------------------------

    def run(self, statement: pb.Node, text: bytes) -> None:
        """Walk one statement and complete its effects."""
        self.statement = text
        before = len(self.opaque)
        self.scope, self.ctes = None, {}
        self.node(statement)
        if not self._entries:
            # A bare SELECT of values. Anything else that yields nothing was not understood.
            kind = statement.WhichOneof("node")
            if kind == "select_stmt":
                self.emit("select")
            elif len(self.opaque) == before:
                self.hide("not-understood", str(kind))
        self.complete()
        # A statement's own names are resolved before it runs; those of the next one after.
        self.tainted = self.tainted or self._taints
        self.temporary = self.temporary or self._made_temporary
        self.code_ran = self.code_ran or self._ran_code

    def complete(self) -> None:
        """Turn what the statement read into effects, now that every level around it is known."""
        functions = tuple(self._functions)
        first = len(self.effects)
        if first > WALKED:
            raise TooMany
        for entry in self._entries:
            if isinstance(entry, Effect):
                gives = entry.verb in ("select", "insert", "update", "delete", "merge", "explain") and not entry.functions
                self.effects.append(replace(entry, functions=functions) if gives and functions else entry)
                continue
            scope, reference, via, explained = entry
            relation = reference.relation
            self.effects.append(
                Effect(
                    "explain" if explained else "select",
                    relation.qualified,
                    via=via,
                    schema=relation.schema,
                    relation_kind=_shown_kind(relation),
                    filtered=explained or scope.filters(reference.alias),
                    limited=explained or scope.bounded(self._collecting),
                    functions=functions,
                    columns=scope.columns_of(reference),
                    detail=_facts(relation, self._secret(reference)),
                )
            )
        for index in range(first, len(self.effects)):
            effect = self.effects[index]
            if effect.verb in ("copy_in", "copy_out") and effect.detail == "query":
                inner = [e for e in self.effects[index + 1 :] if e.verb == "select" and "copy" in e.via]
                self.effects[index] = replace(
                    effect, filtered=all(e.filtered for e in inner), limited=all(e.limited for e in inner)
                )
        self._entries, self._functions, self._collecting = [], {}, False
        self.columns_seen = set()

    def _secret(self, reference: Reference) -> bool:
        """Tell whether a secret of the relation is read: the whole of it, or one of the columns that hold it."""
        if not reference.relation.secret:
            return False
        columns = SECRET_COLUMNS.get(reference.relation.name)
        return columns is None or not self.columns_seen.isdisjoint((*columns, "*", reference.alias))


def _shown_kind(relation: Relation) -> str:
    return "table" if relation.kind in ("sequence", "composite") else relation.kind


def _facts(relation: Relation, secret: bool) -> str:
    facts = [
        word
        for word, holds in (
            ("secret", secret),
            ("sequence", relation.kind == "sequence"),
            ("row security", relation.row_security),
            ("foreign partitions", relation.foreign_children),
        )
        if holds
    ]
    return ", ".join(facts)
