"""Whether a condition is false for no row, whatever its parts are: `a OR NOT a`, `c IS NULL OR c IS NOT NULL`, in any disguise.

By a truth table. Atoms are the parts that AND, OR, NOT, IS NULL and IS TRUE combine; equal trees are one atom, and each may be
true, false or NULL. A condition that is NULL where its columns are, and else true, leaves out nothing that its text shows.
Assignments that can't happen are tried as well, so what is said to hold always does; what holds for a reason inside of its atoms
(`c > 1 OR c < 2`) is not found out.

Knows the three-valued logic of SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

ATOMS = 5
"""More are not tried: 3^5 lines of a table are quick, and a person who writes more means a filter or has long been noticed."""
PARTS = 64

Value = bool | None
Formula = Callable[[tuple[Value, ...]], Value]

_TESTS: dict[int, Callable[[Value], bool]] = {
    pb.IS_TRUE: lambda value: value is True,
    pb.IS_NOT_TRUE: lambda value: value is not True,
    pb.IS_FALSE: lambda value: value is False,
    pb.IS_NOT_FALSE: lambda value: value is not False,
    pb.IS_UNKNOWN: lambda value: value is None,
    pb.IS_NOT_UNKNOWN: lambda value: value is not None,
}


class _TooManyError(Exception):
    """More atoms or parts than are worth a table."""


def always(condition: pb.Node, constant: Callable[[pb.Node], Value]) -> bool:
    """Tell whether the condition is false for no row. `constant` says what a part is that does not depend on the row."""
    if condition.WhichOneof("node") != "bool_expr":
        return False
    table = _Table(constant)
    try:
        formula = table.formula(condition)
    except _TooManyError:
        return False
    return table.combined and all(formula(line) is not False for line in product((True, False, None), repeat=len(table.atoms)))


class _Table:
    def __init__(self, constant: Callable[[pb.Node], Value]) -> None:
        self.atoms: list[pb.Node] = []
        self.combined = False  # an OR or a NOT: AND of atoms is false as soon as one is
        self._constant = constant
        self._parts = 0

    def formula(self, node: pb.Node) -> Formula:
        """Return what the node is under an assignment of the atoms."""
        self._parts += 1
        if self._parts > PARTS:
            raise _TooManyError
        match node.WhichOneof("node"):
            case "bool_expr":
                parts = [self.formula(argument) for argument in node.bool_expr.args]
                self.combined = self.combined or node.bool_expr.boolop != pb.AND_EXPR
                return _COMBINED[node.bool_expr.boolop](parts)
            case "boolean_test":
                inner, test = self.formula(node.boolean_test.arg), _TESTS[node.boolean_test.booltesttype]
                return lambda line: test(inner(line))
            case "null_test":
                inner, null = self.formula(node.null_test.arg), node.null_test.nulltesttype == pb.IS_NULL
                return lambda line: (inner(line) is None) is null
        known = self._constant(node)
        if known is not None:
            return lambda _: known
        index = next((at for at, atom in enumerate(self.atoms) if same(atom, node)), None)
        if index is None:
            index = len(self.atoms)
            self.atoms.append(node)
        if len(self.atoms) > ATOMS:
            raise _TooManyError
        return lambda line: line[index]


def _and(parts: list[Formula]) -> Formula:
    def value(line: tuple[Value, ...]) -> Value:
        found = {part(line) for part in parts}
        return False if False in found else (None if None in found else True)

    return value


def _or(parts: list[Formula]) -> Formula:
    def value(line: tuple[Value, ...]) -> Value:
        found = {part(line) for part in parts}
        return True if True in found else (None if None in found else False)

    return value


def _not(parts: list[Formula]) -> Formula:
    def value(line: tuple[Value, ...]) -> Value:
        inner = parts[0](line)
        return None if inner is None else not inner

    return value


_COMBINED: dict[int, Callable[[list[Formula]], Formula]] = {pb.AND_EXPR: _and, pb.OR_EXPR: _or, pb.NOT_EXPR: _not}


def same(left: Message, right: Message) -> bool:
    """Compare two trees without their places in the text."""
    if type(left) is not type(right):
        return False
    fields = [[(f, v) for f, v in m.ListFields() if f.name not in _PLACES] for m in (left, right)]
    if len(fields[0]) != len(fields[1]):
        return False
    for (field, value), (other_field, other) in zip(*fields, strict=True):
        if field.number != other_field.number:
            return False
        if field.message_type is None:
            if value != other:
                return False
        elif isinstance(value, Message):
            if not same(value, other):
                return False
        elif len(value) != len(other) or not all(same(a, b) for a, b in zip(value, other, strict=True)):
            return False
    return True


_PLACES = frozenset(("location", "rexpr_list_start", "rexpr_list_end", "list_start", "list_end", "name_location"))
