"""What a change of the schema does to everybody else meanwhile: locks, rewrites, scans. Facts for a reviewer, never a gate.

Each sentence ends with the page of PostgreSQL's documentation that says so. Told is what the statement alone decides; whether
the table has ten rows or a billion, and who waits, is not known here. Where a server may do less (a change of type that is
binary coercible rewrites nothing), the sentence says "may". tests/commands/sql/test_server.py asks a server for each of them.

Knows parse trees of utility statements. PostgreSQL documentation: "Explicit Locking", and the page of each command.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postgast import pg_query_pb2 as pb

MOST = 8
"""Sentences about one statement: nobody reads more of them."""
_BLOCKS_ALL = "nobody reads or writes {} until the transaction ends (ACCESS EXCLUSIVE lock)"
_BLOCKS_WRITES = "nobody writes to {} until the transaction ends (SHARE ROW EXCLUSIVE lock)"

_GENTLE = frozenset(
    (
        pb.AT_SetStatistics, pb.AT_SetOptions, pb.AT_ResetOptions, pb.AT_SetRelOptions, pb.AT_ResetRelOptions, pb.AT_ClusterOn,
        pb.AT_DropCluster, pb.AT_ValidateConstraint, pb.AT_AttachPartition,
    )
)  # fmt: skip
"""Actions of ALTER TABLE that let others read and write (SHARE UPDATE EXCLUSIVE)."""
_TRIGGERS = frozenset(
    (
        pb.AT_EnableTrig, pb.AT_EnableAlwaysTrig, pb.AT_EnableReplicaTrig, pb.AT_DisableTrig, pb.AT_EnableTrigAll,
        pb.AT_DisableTrigAll, pb.AT_EnableTrigUser, pb.AT_DisableTrigUser,
    )
)  # fmt: skip
_BUILDS = {pb.CONSTR_PRIMARY: "PRIMARY KEY", pb.CONSTR_UNIQUE: "UNIQUE", pb.CONSTR_EXCLUSION: "EXCLUDE"}
_CHECKS = {pb.CONSTR_CHECK: "CHECK", pb.CONSTR_FOREIGN: "FOREIGN KEY"}


def advice(statement: pb.Node) -> tuple[str, ...]:
    """Return what a reviewer of this statement should know of its side effects, in sentences."""
    kind = statement.WhichOneof("node")
    teller = _TELLERS.get(str(kind))
    told = tuple(dict.fromkeys(teller(getattr(statement, str(kind))))) if teller is not None else ()
    return told if len(told) <= MOST else (*told[:MOST], f"{len(told) - MOST} more such remarks are left out")


def _table(message: pb.RangeVar) -> str:
    return ".".join(part for part in (message.schemaname, message.relname) if part)


def _alter_table(message: pb.AlterTableStmt) -> Iterator[str]:
    if message.objtype not in (pb.OBJECT_TABLE, pb.OBJECT_MATVIEW):
        return
    table = _table(message.relation)
    page = "PostgreSQL documentation, ALTER TABLE"
    commands = [wrapper.alter_table_cmd for wrapper in message.cmds]
    if all(command.subtype in _TRIGGERS or _adds_foreign_key(command) for command in commands):
        yield f"{_BLOCKS_WRITES.format(table)}: {page}"
    elif not all(command.subtype in _GENTLE for command in commands):
        yield f"{_BLOCKS_ALL.format(table)}: {page}"
    for command in commands:
        for told in _action(command, table):
            yield f"{told}: {page}"


def _adds_foreign_key(command: pb.AlterTableCmd) -> bool:
    return bool(command.subtype == pb.AT_AddConstraint and _definition(command).constraint.contype == pb.CONSTR_FOREIGN)


def _definition(command: pb.AlterTableCmd) -> pb.Node:
    definition: pb.Node = getattr(command, "def")  # a word of Python
    return definition


def _action(command: pb.AlterTableCmd, table: str) -> Iterator[str]:
    definition = _definition(command)
    match command.subtype:
        case pb.AT_AlterColumnType:
            yield f"a change of a column's type may write all of {table} anew, with its indexes"
        case pb.AT_SetLogged | pb.AT_SetUnLogged | pb.AT_SetAccessMethod:
            yield f"all of {table} is written anew"
        case pb.AT_AddColumn:
            for constraint in definition.column_def.constraints:
                match constraint.constraint.contype:
                    case pb.CONSTR_GENERATED | pb.CONSTR_IDENTITY:
                        yield f"a column that is computed for each row writes all of {table} anew"
                    case pb.CONSTR_DEFAULT if not _constant(constraint.constraint.raw_expr):
                        yield f"a default that is volatile writes all of {table} anew; a stable one does not"
        case pb.AT_SetNotNull:
            yield f"every row of {table} may be read, to see whether the column has NULLs"
        case pb.AT_AddConstraint:
            constraint = definition.constraint
            if constraint.contype in _CHECKS and not constraint.skip_validation:
                kind = _CHECKS[constraint.contype]
                yield f"every row of {table} is read, to check the new {kind}; NOT VALID would put that off"
            if constraint.contype == pb.CONSTR_FOREIGN:
                yield _BLOCKS_WRITES.format(_table(constraint.pktable))
            if constraint.contype in _BUILDS and not constraint.indexname:
                kind = _BUILDS[constraint.contype]
                yield f"an index for the new {kind} is built meanwhile; USING INDEX would take one that is there"


def _constant(node: pb.Node) -> bool:
    if node.WhichOneof("node") == "type_cast":
        return _constant(node.type_cast.arg)
    return node.WhichOneof("node") in (None, "a_const")


def _index(message: pb.IndexStmt) -> Iterator[str]:
    table = _table(message.relation)
    if message.concurrent:
        yield (
            f"if this fails, an invalid index is left on {table} that somebody must drop: "
            "PostgreSQL documentation, CREATE INDEX, Building Indexes Concurrently"
        )
    else:
        yield (
            f"nobody writes to {table} until the index is built (SHARE lock; CREATE INDEX CONCURRENTLY would let them): "
            "PostgreSQL documentation, CREATE INDEX"
        )


def _drop(message: pb.DropStmt) -> Iterator[str]:
    if message.remove_type == pb.OBJECT_INDEX and not message.concurrent:
        yield (
            "nobody reads or writes the index's table until the transaction ends (ACCESS EXCLUSIVE lock; DROP INDEX CONCURRENTLY "
            "would let them): PostgreSQL documentation, DROP INDEX"
        )


def _truncate(message: pb.TruncateStmt) -> Iterator[str]:
    for wrapper in message.relations:
        yield f"{_BLOCKS_ALL.format(_table(wrapper.range_var))}: PostgreSQL documentation, TRUNCATE"


def _cluster(message: pb.ClusterStmt) -> Iterator[str]:
    if message.relation.relname:
        table = _table(message.relation)
        yield f"{_BLOCKS_ALL.format(table)}, and all of it is written anew: PostgreSQL documentation, CLUSTER"


def _reindex(message: pb.ReindexStmt) -> Iterator[str]:
    if any(wrapper.def_elem.defname == "concurrently" for wrapper in message.params):
        return
    if message.kind == pb.REINDEX_OBJECT_TABLE:
        table = _table(message.relation)
        yield (
            f"nobody writes to {table}, nor reads it by an index that is being rebuilt (REINDEX CONCURRENTLY would let them): "
            "PostgreSQL documentation, REINDEX"
        )


def _vacuum(message: pb.VacuumStmt) -> Iterator[str]:
    if any(wrapper.def_elem.defname == "full" for wrapper in message.options):
        for wrapper in message.rels:
            table = _table(wrapper.vacuum_relation.relation)
            yield f"{_BLOCKS_ALL.format(table)}, and all of it is written anew: PostgreSQL documentation, VACUUM (FULL)"


def _refresh(message: pb.RefreshMatViewStmt) -> Iterator[str]:
    if not message.concurrent:
        yield (
            f"nobody reads {_table(message.relation)} until it is computed (ACCESS EXCLUSIVE lock; CONCURRENTLY would let them): "
            "PostgreSQL documentation, REFRESH MATERIALIZED VIEW"
        )


def _trigger(message: pb.CreateTrigStmt) -> Iterator[str]:
    yield f"{_BLOCKS_WRITES.format(_table(message.relation))}: PostgreSQL documentation, Explicit Locking"


_TELLERS: dict[str, Any] = {
    "alter_table_stmt": _alter_table,
    "index_stmt": _index,
    "drop_stmt": _drop,
    "truncate_stmt": _truncate,
    "cluster_stmt": _cluster,
    "reindex_stmt": _reindex,
    "vacuum_stmt": _vacuum,
    "refresh_mat_view_stmt": _refresh,
    "create_trig_stmt": _trigger,
}
