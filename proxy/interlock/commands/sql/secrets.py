"""Which parameters of a statement carry a secret, by the column that they go to or are compared with.

A value of a Bind has no `password = '…'` around it by which a detector of text could know it: `INSERT INTO users VALUES ($1, $2)`
says nothing, its columns do. What is found here is hidden in chat and marked in the record, and decides nothing else, so it
is generous: a parameter inside of an expression for such a column counts.

Knows the shape of trees, and the columns of tables where there is a catalog. Must not know values, policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from interlock.commands.sql.catalog import Catalog

_WORDS = frozenset(
    """password passwords passwd pwd passphrase passcode secret secrets token tokens credential credentials apikey ssn pin cvv cvc
    otp totp pan iban jwt cookie""".split()
)
_PAIRS = frozenset(
    (a, b)
    for a, b in (
        pair.split()
        for pair in (
            "api key", "access key", "private key", "signing key", "encryption key", "social security", "card number",
            "account number", "recovery code", "recovery codes", "backup code", "backup codes", "pass word", "pass phrase",
        )
    )
)  # fmt: skip
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def is_secret(name: str) -> bool:
    """Whether a column or argument of this name holds secrets: `api_key`, `userPassword`, `SSN`."""
    parts = [part.lower() for part in _PART.findall(name)]
    return not _WORDS.isdisjoint(parts) or any(pair in _PAIRS for pair in pairwise(parts))


def secret_parameters(statement: pb.Node, catalog: Catalog | None, path: Sequence[str]) -> frozenset[int]:
    """Return the numbers of the parameters that carry a secret."""
    found: set[int] = set()
    for message in _messages(statement):
        match message:
            case pb.ResTarget() if is_secret(message.name):
                found |= _assigned(message.val)
            case pb.NamedArgExpr() if is_secret(message.name):
                found |= _parameters(message)
            case pb.A_Expr() if any(is_secret(name) for name in _columns(message)):
                found |= _parameters(message)
            case pb.InsertStmt():
                columns = [node.res_target.name for node in message.cols] or _of_table(message.relation, catalog, path)
                found |= _given(columns, message.select_stmt.select_stmt)
            case pb.MergeWhenClause():
                found |= _paired([node.res_target.name for node in message.target_list], message.values)
    return frozenset(found)


def _given(columns: Sequence[str], select: pb.SelectStmt) -> set[int]:
    """The rows that an INSERT takes, one place for each column."""
    found = _paired(columns, [node.res_target.val for node in select.target_list])
    for row in select.values_lists:
        found |= _paired(columns, row.list.items)
    for side in ("larg", "rarg"):
        if select.HasField(side):
            found |= _given(columns, getattr(select, side))
    return found


def _assigned(value: pb.Node) -> set[int]:
    """What `column = value` takes; of `(a, b) = (x, y)` the one at the column's own place."""
    part = value.multi_assign_ref
    row = part.source.row_expr.args
    return _parameters(row[part.colno - 1] if 0 < part.colno <= len(row) else value)


def _paired(columns: Sequence[str], values: Iterable[pb.Node]) -> set[int]:
    found: set[int] = set()
    for column, value in zip(columns, values, strict=False):
        if is_secret(column):
            found |= _parameters(value)
    return found


def _of_table(relation: pb.RangeVar, catalog: Catalog | None, path: Sequence[str]) -> Sequence[str]:
    """The columns of a table that an INSERT does not name, in their order."""
    if catalog is None:
        return ()
    for schema in (relation.schemaname,) if relation.schemaname else path:
        known = catalog.relations.get((schema, relation.relname))
        if known is not None:
            return known.in_order
    return ()


def _parameters(tree: Message) -> set[int]:
    return {message.number for message in _messages(tree) if isinstance(message, pb.ParamRef)}


def _columns(expression: pb.A_Expr) -> Iterator[str]:
    """The columns that one comparison names, with those inside of calls: `password = crypt($1, password)`."""
    for message in _messages(expression):
        if isinstance(message, pb.ColumnRef) and message.fields:
            yield message.fields[-1].string.sval


def _messages(tree: Message) -> Iterator[Message]:
    """Every message of a tree; the parser's own bound on depth bounds this."""
    pending: list[Message] = [tree]
    while pending:
        message = pending.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += value if field.is_repeated else (value,)
