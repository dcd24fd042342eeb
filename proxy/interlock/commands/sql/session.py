"""Statements about the session: transactions, prepared statements, cursors, EXPLAIN, COPY, LISTEN, LOCK, DO, CALL, ….

Names that stand for other text (EXECUTE, FETCH) are resolved through the session's tables and walked; an unknown name
is opaque.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from postgast import PgQueryError, parse
from postgast import pg_query_pb2 as pb

from interlock.commands.sql import names
from interlock.commands.sql.bodies import open_block
from interlock.commands.sql.bounds import AUTOMATIC_BYTES, MEASURED_FROM, NESTING, nesting
from interlock.commands.sql.catalog import Function
from interlock.commands.sql.settings import constant, options
from interlock.commands.sql.walk import HANDLERS, USES_NAMES, Walk

RESOLVED_DEEPLY = 8
"""Prepared statements that execute prepared statements: more than this is opaque."""

_TRANSACTIONS: dict[int, tuple[str, str]] = {
    # kind: (words, name action)
    pb.TRANS_STMT_BEGIN: ("begin", "begin"),
    pb.TRANS_STMT_START: ("begin", "begin"),
    pb.TRANS_STMT_COMMIT: ("commit", "commit"),
    pb.TRANS_STMT_ROLLBACK: ("rollback", "rollback"),
    pb.TRANS_STMT_SAVEPOINT: ("savepoint", "savepoint"),
    pb.TRANS_STMT_RELEASE: ("release", "savepoint"),
    pb.TRANS_STMT_ROLLBACK_TO: ("rollback to", "rollback"),
    pb.TRANS_STMT_PREPARE: ("prepare transaction", "commit"),
    pb.TRANS_STMT_COMMIT_PREPARED: ("commit prepared", ""),
    pb.TRANS_STMT_ROLLBACK_PREPARED: ("rollback prepared", ""),
}


def transaction(walk: Walk, message: pb.TransactionStmt) -> None:
    words, action = _TRANSACTIONS.get(message.kind, ("", ""))
    if not words:
        walk.hide("unknown-node", "transaction_stmt")
        return
    walk.emit("transaction", message.savepoint_name or message.gid, detail=words)
    if action:
        walk.name(action, message.savepoint_name, "release" if words == "release" else "")
    options(walk, message.options)


# -- text under a name -------------------------------------------------------------------------------------------------


def prepare(walk: Walk, message: pb.PrepareStmt) -> None:
    walk.emit("prepare", message.name)
    for argument in message.argtypes:
        walk.node(argument)
    with walk.within("prepare"):
        walk.node(message.query)
    text = walk.text_of()
    walk.name("prepare", message.name, text)
    if not walk.explaining:
        walk.prepared[message.name] = text


def execute(walk: Walk, message: pb.ExecuteStmt) -> None:
    walk.emit("execute", message.name)
    walk.nodes(message.params)
    with walk.within("execute"):
        resolve(walk, "unknown-prepared-statement", message.name, walk.prepared.get(message.name))


def resolve(walk: Walk, unknown: str, name: str, text: str | None) -> None:
    """Walk the text behind a name as part of this statement."""
    walk.notes[USES_NAMES] = None
    if text is None:
        walk.hide(unknown, name)
        return
    if name in walk.resolving or len(walk.resolving) >= RESOLVED_DEEPLY:
        walk.hide("refers-to-itself", name)
        return
    if len(text) > AUTOMATIC_BYTES or (len(text) > MEASURED_FROM and nesting(text) > NESTING):
        walk.hide("too-long-to-classify", name)
        return
    try:
        tree = parse(text)
    except (PgQueryError, DecodeError, ValueError):
        walk.hide("unreadable-text", name)
        return
    borrowed, resolving, scope, ctes = walk.borrowed, walk.resolving, walk.scope, walk.ctes
    walk.borrowed, walk.resolving = True, (*resolving, name)
    for raw in tree.stmts:
        walk.scope, walk.ctes = None, {}
        match raw.stmt.WhichOneof("node"):
            case "prepare_stmt":
                walk.node(raw.stmt.prepare_stmt.query)
            case "declare_cursor_stmt":
                walk.node(raw.stmt.declare_cursor_stmt.query)
            case _:
                walk.node(raw.stmt)
    walk.borrowed, walk.resolving, walk.scope, walk.ctes = borrowed, resolving, scope, ctes


def deallocate(walk: Walk, message: pb.DeallocateStmt) -> None:
    walk.emit("prepare", message.name or "*", detail="deallocate")
    walk.name("deallocate", message.name)
    if message.name:
        walk.prepared.pop(message.name, None)
    else:
        walk.prepared.clear()


def declare(walk: Walk, message: pb.DeclareCursorStmt) -> None:
    walk.emit("cursor", message.portalname, detail="declare")
    with walk.within("declare"):
        walk.node(message.query)
    text = walk.text_of()
    walk.name("declare", message.portalname, text)
    if not walk.explaining:
        walk.cursors[message.portalname] = text


def fetch(walk: Walk, message: pb.FetchStmt) -> None:
    walk.emit("fetch", message.portalname, detail="move" if message.ismove else "")
    with walk.within("fetch"):
        resolve(walk, "unknown-cursor", message.portalname, walk.cursors.get(message.portalname))


def close(walk: Walk, message: pb.ClosePortalStmt) -> None:
    walk.emit("cursor", message.portalname or "*", detail="close")
    walk.name("close", message.portalname)
    if message.portalname:
        walk.cursors.pop(message.portalname, None)
    else:
        walk.cursors.clear()


# -- EXPLAIN and COPY --------------------------------------------------------------------------------------------------


def explain(walk: Walk, message: pb.ExplainStmt) -> None:
    """EXPLAIN ANALYZE runs the statement. Without it the statement is planned, and planning runs functions."""
    analyze = False
    for wrapper in message.options:
        option = wrapper.def_elem
        if option.defname == "analyze":
            value = constant(option.arg)
            analyze = analyze or value is None or value.lower() not in ("off", "false", "0")
    walk.emit("explain", detail="analyze" if analyze else "")
    outer, walk.explaining = walk.explaining, walk.explaining or not analyze
    with walk.within("explain"):
        walk.node(message.query)
    walk.explaining = outer


_FORMATS = frozenset(("text", "csv", "binary"))


def copy(walk: Walk, message: pb.CopyStmt) -> None:
    verb = "copy_in" if message.is_from else "copy_out"
    if message.is_program:
        walk.emit("copy_program", message.filename, detail=verb)
    elif message.filename:
        walk.emit("copy_file", message.filename, detail=verb)
    for wrapper in message.options:
        option = wrapper.def_elem
        if option.defname == "format" and (constant(option.arg) or "").lower() not in _FORMATS:
            walk.hide("copy-format", constant(option.arg) or "")
    if message.HasField("relation"):
        relation = message.relation
        found = names.relation(walk, relation.schemaname, relation.relname, relation.location)
        walk.emit(
            verb,
            found.qualified,
            schema=found.schema,
            relation_kind=found.kind,
            columns=tuple(names.strings(message.attlist)),
            filtered=message.is_from,
            limited=message.is_from,
            functions=found.write_calls if message.is_from else (),
            detail="secret" if found.secret else ("triggers" if message.is_from and found.triggers else ""),
        )
        names.reads(walk, found, relation.location)
        walk.node(message.where_clause)
    if message.query.WhichOneof("node") is not None:
        walk.emit(verb, detail="query")  # its facts are those of the query, once that is complete
        with walk.within("copy"):
            walk.node(message.query)


# -- the rest ----------------------------------------------------------------------------------------------------------


def listen(walk: Walk, message: pb.ListenStmt) -> None:
    walk.emit("listen", message.conditionname)


def unlisten(walk: Walk, message: pb.UnlistenStmt) -> None:
    walk.emit("listen", message.conditionname or "*", detail="unlisten")


def notify(walk: Walk, message: pb.NotifyStmt) -> None:
    walk.emit("notify", message.conditionname)


_MODES = {
    1: "access share", 2: "row share", 3: "row exclusive", 4: "share update exclusive", 5: "share",
    6: "share row exclusive", 7: "exclusive", 8: "access exclusive",
}  # fmt: skip


def lock(walk: Walk, message: pb.LockStmt) -> None:
    for wrapper in message.relations:
        relation = wrapper.range_var
        found = names.relation(walk, relation.schemaname, relation.relname, relation.location)
        walk.emit("lock", found.qualified, schema=found.schema, relation_kind=found.kind, detail=_MODES.get(message.mode, ""))


def vacuum(walk: Walk, message: pb.VacuumStmt) -> None:
    what = "vacuum" if message.is_vacuumcmd else "analyze"
    for wrapper in message.rels:
        relation = wrapper.vacuum_relation.relation
        found = names.relation(walk, relation.schemaname, relation.relname, relation.location)
        walk.emit("vacuum", found.qualified, schema=found.schema, relation_kind=found.kind, detail=what)
        for call in found.write_calls:  # ANALYZE evaluates expressions of indexes
            walk.hide("relation-calls-function", call)
    if not message.rels:
        walk.emit("vacuum", "*", detail=what)
        walk.hide("every-relation", what)


def checkpoint(walk: Walk, _: pb.CheckPointStmt) -> None:
    walk.emit("vacuum", "*", detail="checkpoint")


def load(walk: Walk, message: pb.LoadStmt) -> None:
    walk.emit("do", message.filename, detail="load")
    walk.hide("library", message.filename)


def do(walk: Walk, message: pb.DoStmt) -> None:
    """A code block is text in another language; PL/pgSQL is opened."""
    language, bodies = "plpgsql", []
    for wrapper in message.args:
        option = wrapper.def_elem
        if option.defname == "language":
            language = constant(option.arg) or ""
        elif option.defname == "as":
            bodies.append(constant(option.arg))
    walk.emit("do", detail=f"language {language.lower()}")
    if language == "plpgsql" and len(bodies) == 1 and bodies[0] is not None and not walk.explaining:
        open_block(walk, bodies[0])
    else:
        walk.hide("code-block", language.lower())
    walk.name("temp-ddl")  # it may have made temporary objects or set the search_path


def call(walk: Walk, message: pb.CallStmt) -> None:
    parts = names.strings(message.funccall.funcname)
    found = ".".join(parts)
    overloads: tuple[Function, ...] = ()
    if walk.catalog is not None and not (walk.tainted and len(parts) == 1):
        wanted = (parts[-2],) if len(parts) > 1 else names.effective_path(walk)
        overloads = tuple(f for f in walk.catalog.functions.get(parts[-1], ()) if f.schema in wanted)
    if overloads:
        found = overloads[0].qualified
    else:
        walk.hide("unknown-function", found, message.funccall.location)
    schema, _, _ = found.rpartition(".")
    walk.emit("call", found, schema=schema, detail=overloads[0].facts if overloads else "")
    walk.nodes(message.funccall.args)
    walk.name("temp-ddl")  # it may have made temporary objects or set the search_path


_HANDLERS: dict[str, Any] = {
    "transaction_stmt": transaction,
    "prepare_stmt": prepare,
    "execute_stmt": execute,
    "deallocate_stmt": deallocate,
    "declare_cursor_stmt": declare,
    "fetch_stmt": fetch,
    "close_portal_stmt": close,
    "explain_stmt": explain,
    "copy_stmt": copy,
    "listen_stmt": listen,
    "unlisten_stmt": unlisten,
    "notify_stmt": notify,
    "lock_stmt": lock,
    "vacuum_stmt": vacuum,
    "check_point_stmt": checkpoint,
    "load_stmt": load,
    "do_stmt": do,
    "call_stmt": call,
}
HANDLERS.update(_HANDLERS)
