"""Texts that differ in plain values alone, and so do the same: what one of them was found to do holds for all.

`SELECT … WHERE id = 1` and `… WHERE id = 2` are alike; PostgreSQL's grammar reads them alike, and nothing in the analysis looks
at the value. That must be proven for every value that is left out of the comparison, because elsewhere values decide
everything: `LIMIT 1` is not `LIMIT 1000000`, `1 = 1` is not `1 = 2`, `a = 1 OR NOT a = 1` is not `a = 1 OR NOT a = 2`, and the
arguments of functions, SET and casts are their meaning.

Theory of operation. A text is cut at its literals (literals.py). The rest of the text, byte by byte, is the family. A literal is
*idle* when the tree of a member says that it is a constant, whole, in one of few places:

* the right side of `column = 1` (or another comparison), of `column IN (1, 2)`, of `column BETWEEN 1 AND 2`, where the whole
  WHERE is such conditions and AND;
* a cell of VALUES under INSERT;
* what UPDATE sets a column to, alone or as `column + 1`.

Why that is exact: PostgreSQL's lexer comes to the first idle literal by bytes that are the same, reads one token of the same kind
that ends where the literal does, and goes on with bytes that are the same; so all tokens are the same but for these values, and
of the value of an integer or string in these places neither grammar nor walk makes anything. Every other literal, whether a
constant elsewhere or digits in a name or comment, is compared as it stands. A family is admitted the second time it
comes, and only after members with other values were analysed too and found to be the same.

Knows the lexer, trees, and which places the walk is blind to. Must not know policy, or where a text came from.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

from google.protobuf.message import DecodeError
from postgast import PgQueryError, parse
from postgast import pg_query_pb2 as pb

from interlock.commands.model import Analysis
from interlock.commands.sql.bounds import MEASURED_FROM
from interlock.commands.sql.literals import LITERAL, cut

FAMILIES = 1024
"""Families that are kept."""
VARIANTS = 32
"""Members of a family that differ in literals which are not idle, as many as are kept."""
LITERALS = 64
"""More make no family: such a text is a bulk, and its analysis is not what it costs."""

_COMPARISONS = frozenset(("=", "<>", "<", ">", "<=", ">="))
_RANGES = frozenset((pb.AEXPR_BETWEEN, pb.AEXPR_NOT_BETWEEN))
_CHANGING = frozenset(("select", "insert", "update", "delete"))
_KINDS = frozenset(("table", "view", "matview"))
_PROBES = ((b"0", b"''"), (b"1", b"'%'"), (b"999999999", b"'it is another value, and a longer one'"))
"""What the idle literals of a family are replaced by when it is admitted: (integer, string)."""


class Alike:
    """What all members of a family do, as far as they are equal in what is not idle. `analysis` is one member's."""

    __slots__ = ("analysis",)

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis

    def of(self, text: bytes) -> Analysis:
        """Return the analysis of a member."""
        return replace(self.analysis, sent=text.decode("ascii"))


class _Family:
    __slots__ = ("active", "closed", "known")

    def __init__(self, active: tuple[int, ...] = (), *, closed: bool = False) -> None:
        self.active = active  # the literals that are compared as they stand
        self.closed = closed  # no literal is idle
        self.known: dict[tuple[bytes, ...], Alike] = {}

    def variant(self, literals: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return tuple([literals[index] for index in self.active]) if self.active else ()


_Key = tuple[bytes, int, Hashable]


class Families:
    """Families seen so far. `surroundings` is whatever else an analysis depends on; it is a part of every key."""

    def __init__(self) -> None:
        self._families: OrderedDict[_Key, _Family | None] = OrderedDict()

    def find(self, text: bytes, surroundings: Hashable) -> Alike | None:
        """Return what is known of the text's like."""
        if len(text) > MEASURED_FROM:
            return None
        rest, literals = cut(text)
        family = self._families.get(_key(rest, literals, surroundings))
        return None if family is None else family.known.get(family.variant(literals))

    def learn(self, text: bytes, surroundings: Hashable, analysis: Analysis, analyse: Callable[[bytes], Analysis]) -> None:
        """Note a text that was analysed in full. `analyse` is asked about others of its family, once it comes again."""
        if len(text) > MEASURED_FROM or not _plain(analysis):
            return
        rest, literals = cut(text)
        key = _key(rest, literals, surroundings)
        if not 0 < len(literals) <= LITERALS:
            return
        if key not in self._families:
            self._keep(key, None)
            return
        family = self._families[key]
        if family is not None and (family.closed or len(family.known) >= VARIANTS or family.variant(literals) in family.known):
            return
        active = _active(text)
        if active is None or not all(_same(analyse(probe), analysis) for probe in _probes(text, active)):
            self._keep(key, _Family(closed=True))
            return
        family = family or _Family(active)
        if family.active == active:
            family.known[family.variant(literals)] = Alike(analysis)
            self._keep(key, family)

    def _keep(self, key: _Key, family: _Family | None) -> None:
        self._families[key] = family
        self._families.move_to_end(key)
        if len(self._families) > FAMILIES:
            self._families.popitem(last=False)


def _key(rest: bytes, literals: tuple[bytes, ...], surroundings: Hashable) -> _Key:
    # With their number: a text that holds a mark itself, where another has a literal, has fewer literals than marks.
    return rest, len(literals), surroundings


def _plain(analysis: Analysis) -> bool:
    """Whether it reads and changes rows of tables and does nothing else. Of pg_settings even a WHERE says what is set."""
    return (
        analysis.static
        and analysis.statements == 1
        and not (analysis.names or analysis.notes)
        and all(e.verb in _CHANGING and e.relation_kind in _KINDS for e in analysis.effects)
    )


def _same(probe: Analysis, analysis: Analysis) -> bool:
    return replace(probe, sent=analysis.sent) == analysis


def _probes(text: bytes, active: tuple[int, ...]) -> Iterator[bytes]:
    kept = frozenset(active)
    for integer, string in _PROBES:
        pieces: list[bytes] = []
        last = 0
        for index, found in enumerate(LITERAL.finditer(text)):
            if index not in kept:
                pieces += (text[last : found.start()], string if found[1] else integer)
                last = found.end()
        yield b"".join((*pieces, text[last:]))


def _active(text: bytes) -> tuple[int, ...] | None:
    """Return which literals, by number, are not idle; None when none is idle or the tree can't be had."""
    try:
        tree = parse(text.decode("ascii"))
    except (PgQueryError, DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if len(tree.stmts) != 1:
        return None
    idle = {constant.location: constant for constant in _idle(tree.stmts[0].stmt)}
    found = list(LITERAL.finditer(text))
    active = tuple(index for index, literal in enumerate(found) if not _is(idle, literal, text))
    return active if len(active) < len(found) else None


def _is(idle: dict[int, pb.A_Const], literal: re.Match[bytes], text: bytes) -> bool:
    """Whether a literal is one of these constants, and all of it: the same value at the same place."""
    place, word = literal.start(), literal[0]
    constant = idle.get(place)
    if literal[1]:
        return constant is not None and constant.HasField("sval") and bool(constant.sval.sval == word[1:-1].decode("ascii"))
    if constant is not None:
        return constant.HasField("ival") and bool(constant.ival.ival == int(word))
    # PostgreSQL makes `-1` one constant, which begins at its sign.
    negative = idle.get(place - 1) if text[place - 1 : place] == b"-" else None
    return negative is not None and negative.HasField("ival") and bool(negative.ival.ival == -int(word))


# -- the places -------------------------------------------------------------------------------------------------------


class _OtherwiseError(Exception):
    """A condition of another form: nothing of its WHERE is idle."""


def _idle(statement: pb.Node) -> Iterator[pb.A_Const]:
    """Yield the constants of a statement whose values mean nothing to the walk."""
    match statement.WhichOneof("node"):
        case "select_stmt" if statement.select_stmt.op == pb.SETOP_NONE:
            yield from _of_where(statement.select_stmt.where_clause)
        case "insert_stmt":
            source = statement.insert_stmt.select_stmt
            if source.WhichOneof("node") == "select_stmt":
                for row in source.select_stmt.values_lists:
                    yield from _constants(row.list.items)
        case "update_stmt":
            yield from _of_where(statement.update_stmt.where_clause)
            for target in statement.update_stmt.target_list:
                yield from _of_assignment(target.res_target.val)
        case "delete_stmt":
            yield from _of_where(statement.delete_stmt.where_clause)


def _of_where(condition: pb.Node) -> Sequence[pb.A_Const]:
    try:
        return list(_conjuncts(condition))
    except _OtherwiseError:
        return ()


def _conjuncts(condition: pb.Node) -> Iterator[pb.A_Const]:
    match condition.WhichOneof("node"):
        case None:
            return
        case "bool_expr" if condition.bool_expr.boolop == pb.AND_EXPR:
            for part in condition.bool_expr.args:
                yield from _conjuncts(part)
        case "a_expr":
            yield from _compared(condition.a_expr)
        case _:
            raise _OtherwiseError


def _compared(expression: pb.A_Expr) -> Iterator[pb.A_Const]:
    left, right = expression.lexpr.WhichOneof("node"), expression.rexpr.WhichOneof("node")
    if left != "column_ref" or len(expression.name) != 1:
        raise _OtherwiseError
    if expression.kind == pb.AEXPR_OP and expression.name[0].string.sval in _COMPARISONS:
        if right == "a_const":
            yield expression.rexpr.a_const
        elif right != "param_ref":
            raise _OtherwiseError
    elif right == "list" and (expression.kind == pb.AEXPR_IN or expression.kind in _RANGES):
        items = expression.rexpr.list.items
        if any(item.WhichOneof("node") != "a_const" for item in items):
            raise _OtherwiseError
        yield from _constants(items)
    else:
        raise _OtherwiseError


def _of_assignment(value: pb.Node) -> Iterator[pb.A_Const]:
    if value.WhichOneof("node") == "a_expr":
        expression = value.a_expr
        if expression.kind == pb.AEXPR_OP and expression.lexpr.WhichOneof("node") == "column_ref":
            yield from _constants((expression.rexpr,))
    else:
        yield from _constants((value,))


def _constants(nodes: Sequence[pb.Node]) -> Iterator[pb.A_Const]:
    return (node.a_const for node in nodes if node.WhichOneof("node") == "a_const")
