"""PL/pgSQL as libpg_query prints it: the statements that are understood, what their fields hold, and the words of a body.

The table is a white list: a statement or a field that is not in it is not understood.

Knows the language's grammar. Must not know what SQL inside of it does (`bodies` does).
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from postgast import PgQueryError, parse_plpgsql, scan
from postgast.pg_query_pb2 import Token

LARGEST_BODY = 16 * 1024
DEEPEST_BODY = 32
"""Blocks, loops, IF and CASE inside of each other."""

Tree = dict[str, Any]


class Field(Enum):
    """What a field of a statement holds."""

    FACT = "nothing that runs"
    EXPRESSION = "what SELECT could compute"
    QUERY = "a statement of SQL"
    ASSIGNMENT = "target := expression"
    NODES = "statements, or parts of one"
    NODE = "one of those"


_FACT, _EXPRESSION, _QUERY = Field.FACT, Field.EXPRESSION, Field.QUERY
_ASSIGNMENT, _NODES, _NODE = Field.ASSIGNMENT, Field.NODES, Field.NODE
_LINE = {"lineno": _FACT}
_LOOP = _LINE | {"label": _FACT, "body": _NODES}
_INTO = {"into": _FACT, "strict": _FACT, "target": _FACT}

STATEMENTS: dict[str, dict[str, Field]] = {
    "PLpgSQL_stmt_block": _LOOP | {"exceptions": _NODE},
    "PLpgSQL_exception_block": {"exc_list": _NODES},
    "PLpgSQL_exception": _LINE | {"conditions": _FACT, "action": _NODES},
    "PLpgSQL_stmt_assign": _LINE | {"varno": _FACT, "expr": _ASSIGNMENT},
    "PLpgSQL_stmt_if": _LINE | {"cond": _EXPRESSION, "then_body": _NODES, "elsif_list": _NODES, "else_body": _NODES},
    "PLpgSQL_if_elsif": _LINE | {"cond": _EXPRESSION, "stmts": _NODES},
    "PLpgSQL_stmt_case": _LINE
    | {"t_expr": _EXPRESSION, "t_varno": _FACT, "case_when_list": _NODES, "have_else": _FACT, "else_stmts": _NODES},
    "PLpgSQL_case_when": _LINE | {"expr": _EXPRESSION, "stmts": _NODES},
    "PLpgSQL_stmt_loop": _LOOP,
    "PLpgSQL_stmt_while": _LOOP | {"cond": _EXPRESSION},
    "PLpgSQL_stmt_fori": _LOOP
    | {"var": _FACT, "lower": _EXPRESSION, "upper": _EXPRESSION, "step": _EXPRESSION, "reverse": _FACT},
    "PLpgSQL_stmt_fors": _LOOP | {"var": _FACT, "query": _QUERY},
    "PLpgSQL_stmt_foreach_a": _LOOP | {"varno": _FACT, "slice": _FACT, "expr": _EXPRESSION},
    "PLpgSQL_stmt_exit": _LINE | {"is_exit": _FACT, "label": _FACT, "cond": _EXPRESSION},
    "PLpgSQL_stmt_return": _LINE,
    "PLpgSQL_stmt_raise": _LINE | {"elog_level": _FACT, "condname": _FACT, "message": _FACT, "params": _NODES, "options": _NODES},
    "PLpgSQL_raise_option": _LINE | {"opt_type": _FACT, "expr": _EXPRESSION},
    "PLpgSQL_stmt_assert": _LINE | {"cond": _EXPRESSION, "message": _EXPRESSION},
    "PLpgSQL_stmt_execsql": _LINE | _INTO | {"sqlstmt": _QUERY},
    "PLpgSQL_stmt_perform": _LINE | {"expr": _QUERY},
    "PLpgSQL_stmt_getdiag": _LINE | {"is_stacked": _FACT, "diag_items": _FACT},
}
"""Statements that are understood, and what each of their fields holds."""

OTHERS = {
    "PLpgSQL_stmt_dynexecute": "EXECUTE",
    "PLpgSQL_stmt_dynfors": "EXECUTE",
    "PLpgSQL_stmt_commit": "COMMIT",
    "PLpgSQL_stmt_rollback": "ROLLBACK",
    "PLpgSQL_stmt_call": "CALL",
    "PLpgSQL_stmt_open": "OPEN",
    "PLpgSQL_stmt_forc": "FOR",
    "PLpgSQL_stmt_fetch": "FETCH",
    "PLpgSQL_stmt_close": "CLOSE",
}
"""Statements that leave the block opaque, by the word that shows where."""

_COMMENTS: frozenset[int] = frozenset((Token.SQL_COMMENT, Token.C_COMMENT))
NUMBERS = frozenset((Token.ICONST, Token.FCONST))
_DEEPER = frozenset(("begin", "loop", "if", "case"))


class NotOpenedError(Exception):
    """The block can't be read. The words say what of it."""


def tree_of(body: str) -> Tree:
    mark = "body"
    while f"${mark}" in body:
        mark += "_"
    try:
        functions = parse_plpgsql(f"DO ${mark}${body}${mark}$")
    except (PgQueryError, ValueError, RecursionError) as error:
        raise NotOpenedError("what the grammar of PL/pgSQL does not know") from error
    if len(functions) != 1 or set(functions[0]) != {"PLpgSQL_function"}:
        raise NotOpenedError("several blocks")
    function = functions[0]["PLpgSQL_function"]
    if set(function) - {"datums", "action", "new_varno", "old_varno"} or "action" not in function:
        raise NotOpenedError("the block")
    return dict(function)


def words_of(body: str, only: frozenset[int] = frozenset()) -> list[str]:
    raw = body.encode()
    if len(raw) > LARGEST_BODY:
        raise NotOpenedError("too long")
    try:
        tokens = scan(body).tokens
    except PgQueryError as error:
        raise NotOpenedError("what does not lex") from error
    return [
        raw[token.start : token.end].decode()
        for token in tokens
        if (token.token in only if only else token.token not in _COMMENTS)
    ]


def depth_of(words: list[str]) -> int:
    deepest = depth = 0
    before = ""
    for word in map(str.lower, words):
        if word in _DEEPER and before != "end":
            depth += 1
        elif word == "end":
            depth -= 1
        deepest, before = max(deepest, depth), word
    return deepest
