"""Code blocks in PL/pgSQL: the statements and expressions inside of DO, each read as the SQL that it is.

The parser of the language tells them as text in a tree, which is a white list here, fields included: whatever is not on
it leaves the block opaque. So do dynamic EXECUTE, transaction control, cursors and every statement that is neither a
query nor a change of rows; what could be read of such a block is told all the same, for rules that deny. Every branch
and every handler counts.

Three things the tree does not tell. The type of a variable (assigning to a domain runs its checks): it is read from the
text, where a second reading with one token a line says that the declaration stands. Whether a name is a column or a
variable, which is the same for every row: references to variables become parameters, as the server makes them, and a
name that could be both is opaque. And what a loop adds up to: nothing inside counts as limited.

Knows PL/pgSQL as libpg_query prints it. Must not know policy. Design: docs/sql.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from google.protobuf.message import DecodeError, Message
from postgast import PgQueryError, parse, scan
from postgast import pg_query_pb2 as pb

from interlock.commands.model import Effect, SqlContext, Unreadable
from interlock.commands.sql import names
from interlock.commands.sql.bounds import GRAMMAR_NUMERALS_SINCE, NESTING, nesting
from interlock.commands.sql.characters import readable
from interlock.commands.sql.plpgsql import (
    DEEPEST_BODY,
    NUMBERS,
    OTHERS,
    STATEMENTS,
    Field,
    NotOpenedError,
    Tree,
    depth_of,
    tree_of,
    words_of,
)
from interlock.commands.sql.walk import Walk

_ROWS = frozenset(("select_stmt", "insert_stmt", "update_stmt", "delete_stmt", "merge_stmt"))
_PLAIN_NUMERAL = re.compile(r"[0-9.]+([eE][-+]?[0-9]+)?")
_OPENS, _CLOSES = frozenset("(["), frozenset(")]")
_ENDS_TYPE = frozenset((":=", "=", "default", "not", "collate", ";"))
_GIVEN = frozenset(("sqlstate", "sqlerrm"))


def open_block(walk: Walk, body: str) -> None:
    """Add what the block does, and what of it can't be known. The effect `do` itself is the caller's."""
    block = _Block(walk, body)
    try:
        block.read()
    except NotOpenedError as error:
        walk.hide("code-block", str(error))
    except (ValueError, KeyError):
        walk.hide("code-block", "a tree of another shape")
    inner = block.inner
    if inner.tainted != walk.tainted or inner.names:
        walk.hide("code-block", "what names mean changes inside")  # a loop may come back to what was read before
    for hidden in inner.opaque:
        walk.hide(hidden.reason, hidden.text)
    walk.assumed.update(inner.assumed)
    walk.notes.update(inner.notes)
    told = (e for e in inner.effects if e.verb != "select" or e.object or e.functions)  # what only computes is in every line
    walk.adopt(dict.fromkeys(replace(effect, limited=effect.limited and not effect.relation_kind) for effect in told))


class _Block:
    def __init__(self, walk: Walk, body: str) -> None:
        self._walk = walk
        self._body = body
        context = SqlContext(
            catalog=walk.catalog,
            search_path=walk.path,
            tainted=walk.tainted,
            temporary=walk.temporary,
            assume_tables=walk.context.assume_tables,
        )
        self.inner = Walk(context, b"")
        self.inner.borrowed = True
        self.inner.code_ran = walk.code_ran
        self.inner.via = (*walk.via, "do")
        self._variables: set[str] = set()
        self._labels = {"inline_code_block"}

    def read(self) -> None:
        if isinstance(readable(self._body.encode()), Unreadable):
            raise NotOpenedError("characters that deceive")
        written = (self._body, self._body.replace("'", "''"))
        if not any(form.encode() in self._walk.statement for form in written):
            raise NotOpenedError("a body that is written with escapes")
        words = words_of(self._body)
        self._numerals()
        if not words or words[0].startswith("#"):
            raise NotOpenedError("a pragma")
        if "alias" in (word.lower().strip('"') for word in words):
            raise NotOpenedError("ALIAS")
        self._labels.update(_name(after) for word, after in pairwise(words) if word == "<<")
        if depth_of(words) > DEEPEST_BODY:
            raise NotOpenedError("nested too deep")
        tree, spread = tree_of(self._body), tree_of("\n".join(words))
        if [_unplaced(datum) for datum in tree["datums"]] != [_unplaced(datum) for datum in spread["datums"]]:
            raise NotOpenedError("variables")
        self._variables.update(_refname(datum) for datum in tree["datums"])
        lines = [line for word in words for line in (word, *("" for _ in range(word.count("\n"))))]
        for index, datum in enumerate(spread["datums"]):
            try:
                self._variable(index, datum, lines)
            except NotOpenedError as error:
                self.inner.hide("code-block", str(error))  # the rest is told all the same
        self._nodes([tree["action"]])

    def _numerals(self) -> None:
        """Numbers that servers before 16 read otherwise; the body is a literal to whoever looks for them outside."""
        version = self.inner.catalog.server_version if self.inner.catalog is not None else 0
        if version < GRAMMAR_NUMERALS_SINCE:
            for word in words_of(self._body, NUMBERS):
                if _PLAIN_NUMERAL.fullmatch(word) is None:
                    self.inner.hide("numeral-of-newer-grammar", word)

    # -- variables ----------------------------------------------------------------------------------------------------

    def _variable(self, index: int, datum: Tree, words: list[str]) -> None:
        """Look at the type of a variable where it is declared, and at what it begins with."""
        ((kind, facts),) = datum.items()
        if kind in ("PLpgSQL_row", "PLpgSQL_recfield"):
            return  # several variables, or a field of one, that are here themselves
        name, line = facts.get("refname", ""), facts.get("lineno", 0)
        if kind not in ("PLpgSQL_var", "PLpgSQL_rec") or "cursor_explicit_expr" in facts:
            raise NotOpenedError(f"the variable {name}")
        if kind == "PLpgSQL_var" and "default_val" not in facts and _made_by_the_language(index, name, facts, words):
            return
        if not 0 < line < len(words) or _name(words[line - 1]) != name:
            raise NotOpenedError(f"the type of {name}")
        rest = words[line:]
        if rest[0].lower() == "constant":
            rest = rest[1:]
        end = next((place for place, word in enumerate(rest) if word.lower() in _ENDS_TYPE), 0)
        declared = rest[:end]
        if kind == "PLpgSQL_rec":
            if [word.lower() for word in rest[:2]] != ["record", ";"]:
                raise NotOpenedError(f"the type of {name}")
            return
        if not declared or "%" in declared:  # the type of a column or a variable; `NULL::t % type` would be an operator
            raise NotOpenedError(f"the type of {name}")
        self._sql(f"SELECT NULL::{' '.join(declared)}")
        begins = any(word.lower() in (":=", "=", "default") for word in rest[end : rest.index(";")])
        if begins != ("default_val" in facts):
            raise NotOpenedError(f"the variable {name}")
        if begins:
            self._sql(f"SELECT {_text(facts['default_val'])}")

    # -- statements ---------------------------------------------------------------------------------------------------

    def _nodes(self, nodes: list[Tree]) -> None:
        for node in nodes:
            ((kind, fields),) = node.items()
            if kind == "PLpgSQL_expr":
                self._sql(f"SELECT {_text(node)}")
                continue
            known = STATEMENTS.get(kind)
            if known is None:
                self._unknown(kind, fields)
                continue
            for field, value in fields.items():
                match known.get(field):
                    case None:
                        self.inner.hide("code-block", f"{kind}.{field}")
                    case Field.EXPRESSION:
                        self._sql(f"SELECT {_text(value)}")
                    case Field.QUERY:
                        self._sql(_text(value))
                    case Field.ASSIGNMENT:
                        self._assignment(_text(value))
                    case Field.NODES:
                        self._nodes(value)
                    case Field.NODE:
                        self._nodes([value])

    def _unknown(self, kind: str, fields: Tree) -> None:
        word = OTHERS.get(kind, kind)
        self.inner.hide("dynamic-statement" if word == "EXECUTE" else "code-block", f"{word} in line {fields.get('lineno', 0)}")
        self._nodes(fields.get("params", []))
        self._nodes(fields.get("body", []))

    def _assignment(self, text: str) -> None:
        """`target := value`: subscripts of the target are expressions as well."""
        depth = 0
        raw = text.encode()
        for token in scan(text).tokens:
            word = raw[token.start : token.end].decode()
            depth += (word in _OPENS) - (word in _CLOSES)
            if depth == 0 and word in (":=", "="):
                self._sql(f"SELECT {raw[: token.start].decode()}")
                self._sql(f"SELECT {raw[token.end :].decode()}")
                return
        raise NotOpenedError("an assignment")

    def _sql(self, text: str) -> None:
        """Walk one statement."""
        if nesting(text) > NESTING:
            raise NotOpenedError("nested too deep")
        try:
            tree = parse(text)
        except (PgQueryError, DecodeError, RecursionError) as error:
            raise NotOpenedError(f"what the grammar does not know: {text[:80]}") from error
        if len(tree.stmts) != 1:
            raise NotOpenedError("several statements in one")
        statement = tree.stmts[0].stmt
        kind = statement.WhichOneof("node") or ""
        if kind not in _ROWS:
            self.inner.hide("code-block", kind.removesuffix("_stmt").replace("_", " "))
        aliases = set(_aliases(statement))
        if aliases & self._labels:
            self.inner.hide("ambiguous-name", ", ".join(sorted(aliases & self._labels)))
        replaced = list(_replaced(statement, self._variables, aliases))
        self.inner.columns_seen.update(parts[-1] for parts in replaced)
        before = len(self.inner.effects)
        self.inner.run(statement, text.encode())
        added = self.inner.effects[before:]
        for parts in replaced:
            if parts[0] in aliases or (len(parts) == 1 and parts[0] in self._columns(added)):
                self.inner.hide("ambiguous-name", ".".join(parts))
            if len(parts) > 1 and parts[-1] != "*":
                names.attribute(self.inner, parts[-1], None, -1)
        self.inner.complete()

    def _columns(self, effects: list[Effect]) -> set[str]:
        relations = self.inner.catalog.relations if self.inner.catalog is not None else {}
        found = (relations.get((effect.schema, effect.object.removeprefix(f"{effect.schema}."))) for effect in effects)
        return {column for relation in found if relation is not None for column in relation.columns}


def _name(word: str) -> str:
    return word[1:-1].replace('""', '"') if word.startswith('"') else word.lower()


def _text(expression: Tree) -> str:
    facts = expression.get("PLpgSQL_expr", {})
    if set(facts) - {"query", "parseMode"} or "query" not in facts:
        raise NotOpenedError("an expression")
    return str(facts["query"])


def _unplaced(datum: Tree) -> Tree:
    """A variable without its line and the blanks of its expressions."""
    ((kind, facts),) = datum.items()
    return {kind: {key: value for key, value in facts.items() if key in ("refname", "datatype", "isconst", "notnull", "dno")}}


def _refname(datum: Tree) -> str:
    ((_, facts),) = datum.items()
    return str(facts.get("refname", ""))


def _made_by_the_language(index: int, name: str, facts: Tree, words: list[str]) -> bool:
    """Tell whether nobody declared this variable: it has a type of the language's own choice, which is built in."""
    line: int = facts.get("lineno", 0)
    if index == 0 and name == "found" and "lineno" not in facts:
        return True
    if not 0 < line < len(words):
        return False
    here, after = words[line - 1].lower(), words[line].lower()
    if name in _GIVEN:
        return here == "exception"
    return (name.startswith("__Case__Variable_") and here == "case") or (_name(words[line - 1]) == name and after == "in")


def _aliases(message: Message) -> Iterator[str]:
    """Yield every name that something in FROM may go by."""
    for field, value in message.ListFields():
        if field.name in ("relname", "aliasname", "ctename"):
            yield value
        elif field.message_type is not None:
            for item in value if field.is_repeated else (value,):
                yield from _aliases(item)


def _replaced(message: Message, variables: set[str], aliases: set[str]) -> Iterator[tuple[str, ...]]:
    """Turn references to variables into parameters, which is what the server makes of them, and yield their names."""
    if isinstance(message, pb.Node) and message.WhichOneof("node") == "column_ref":
        parts = tuple(f.string.sval if f.HasField("string") else "*" for f in message.column_ref.fields)
        if parts[0] in variables or (parts[0] not in aliases and not variables.isdisjoint(parts)):
            message.param_ref.number = 1
            yield parts
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else (value,):
                yield from _replaced(item, variables, aliases)
