"""Which parameters and literals of a statement carry a secret, by the column, option or setting that they go to.

A value of a Bind has no `password = '…'` around it by which a detector of text could know it: `INSERT INTO users VALUES ($1, $2)`
says nothing, its columns do. A literal in the text is no different. What is found here is hidden in chat and marked in the
record, and decides nothing else, so it is generous: everything inside of an expression for such a column counts, and where
it can't be told which value goes there (rows of another query, a table that nobody knows), all that might do.

Knows the shape of trees, and the columns of tables where there is a catalog. Must not know values of parameters, policy, or how
literals are written (concealed.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from google.protobuf.message import DecodeError, Message
from postgast import PgQueryError, parse
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
_HINT = re.compile(
    rb"(?i)\$|\\|u&|merge|execute|crypt|hmac|" + b"|".join(sorted(w.encode() for w in _WORDS | {second for _, second in _PAIRS}))
)
"""What a text with a secret has: one of the words, or a spelling that could be one. Else it is an INSERT without columns."""
_INSERT = re.compile(rb"(?i)insert")

_ACCESSORS = frozenset(("->", "->>", "#>", "#>>"))
_KEYED = {
    "crypt": (0,), "hmac": (1,), "encrypt": (1,), "decrypt": (1,), "encrypt_iv": (1,), "decrypt_iv": (1,),
    "pgp_sym_encrypt": (1,), "pgp_sym_encrypt_bytea": (1,), "pgp_sym_decrypt": (1,), "pgp_sym_decrypt_bytea": (1,),
    "pgp_pub_decrypt": (1, 2), "pgp_pub_decrypt_bytea": (1, 2),
}  # fmt: skip
"""Functions of pgcrypto and the arguments that are passwords or keys, from zero."""
_NAME = re.compile(r"[\w{}.,$/-]{1,64}\Z")
_WORD = re.compile(r"[^\W\d]\w*")
_ASSIGNED = re.compile(r"(?i)(?:pass\w*|pwd|secret\w*|token|api[_-]?key|credentials?)['\"]?\s*[=:]")
_CODE = re.compile(r"(?i)\b(?:insert|update|merge|values|alter|create|select|execute|set|perform)\b")
_QUOTES = re.compile(r"['\"$\\]")


def is_secret(name: str) -> bool:
    """Whether a column or argument of this name holds secrets: `api_key`, `userPassword`, `SSN`."""
    parts = [part.lower() for part in _PART.findall(name)]
    return not _WORDS.isdisjoint(parts) or any(pair in _PAIRS for pair in pairwise(parts))


def hints(text: bytes) -> bool:
    """Whether a text may hold a secret at all: most don't, and need no second look at their tree."""
    return _HINT.search(text) is not None or _INSERT.search(text) is not None


@dataclass(slots=True)
class Secrets:
    """What of one statement is secret. Places are byte offsets into the text."""

    parameters: set[int] = field(default_factory=set)
    literals: set[int] = field(default_factory=set)  # where one begins
    options: set[int] = field(default_factory=set)  # where something begins whose next string is one
    spelled: set[int] = field(default_factory=set)  # where a literal begins that is one unless it is written plainly
    everything: bool = False  # it can't be told which: every literal


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of a statement mean. `columns` of a table are not to be trusted while `tainted`."""

    catalog: Catalog | None
    path: Sequence[str]
    prepared: Mapping[str, str]
    tainted: bool = False

    def columns(self, relation: pb.RangeVar) -> Sequence[str] | None:
        """The columns of a table that an INSERT does not name, in their order; None when nobody knows them."""
        if self.catalog is None or (self.tainted and not relation.schemaname):
            return None
        for schema in (relation.schemaname,) if relation.schemaname else self.path:
            known = self.catalog.relations.get((schema, relation.relname))
            if known is not None:
                return known.in_order or None
        return None


def secrets_of(text: bytes, statement: Message, names: Names) -> Secrets:
    """Return what of a statement is secret. `text` is what it is from: the columns that are not in there are in no tree."""
    finding = _Finding(names)
    if _HINT.search(text) is None and _has_no_secret_column(statement, names):
        return finding.found
    for message in _messages(statement):
        finding.look(message)
    return finding.found


class _Finding:
    """Looks at each message of a tree by itself; what it gives to `_take` is secret as a whole."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.found = Secrets()

    def look(self, message: Message) -> None:
        match message:
            case pb.A_Const() if message.HasField("sval"):
                self._by_content(message)
            case pb.ResTarget() if is_secret(message.name):
                self._take(_assigned(message))
            case pb.NamedArgExpr() if is_secret(message.name):
                self._take(message)
            case pb.A_Expr() if not _is_accessor(message) and any(is_secret(name) for name in _compared(message)):
                self._take(message)
            case pb.FuncCall():
                self._call(message)
            case pb.InsertStmt():
                self._insert(message)
            case pb.UpdateStmt():
                self._from_elsewhere(message.target_list, (*message.from_clause, message.with_clause))
            case pb.MergeStmt():
                self._merge(message)
            case pb.RangeSubselect():
                self._rows([node.string.sval for node in message.alias.colnames], message.subquery.select_stmt)
            case pb.CommonTableExpr():
                self._rows([node.string.sval for node in message.aliascolnames], message.ctequery.select_stmt)
            case pb.CreateTableAsStmt():
                self._rows([node.string.sval for node in message.into.col_names], message.query.select_stmt)
            case pb.ViewStmt():
                self._rows([node.string.sval for node in message.aliases], message.query.select_stmt)
            case pb.ColumnDef() if is_secret(message.colname):
                self._take(message.raw_default)
                for node in message.constraints:
                    if node.constraint.contype == pb.CONSTR_DEFAULT:
                        self._take(node.constraint.raw_expr)
            case pb.AlterTableCmd() if message.subtype == pb.AT_ColumnDefault and is_secret(message.name):
                self._take(getattr(message, "def"))
            case pb.VariableSetStmt() if "." in message.name and is_secret(message.name):
                self._take(message)  # one of somebody's own: the server's, such as password_encryption, hold none
            case pb.DefElem():
                self._option(message)
            case pb.CreateSubscriptionStmt() | pb.AlterSubscriptionStmt() if "pass" in message.conninfo.lower():
                self.found.everything = True
            case pb.ExecuteStmt():
                self._execute(message)
            case _:
                pass

    def _take(self, tree: Message) -> None:
        literals: set[int] = set()
        keys: set[int] = set()
        for message in _messages(tree):
            if isinstance(message, pb.ParamRef):
                self.found.parameters.add(message.number)
            elif isinstance(message, pb.A_Const) and not message.isnull and not message.HasField("boolval"):
                literals.add(message.location)
            elif isinstance(message, pb.A_Expr) and _is_accessor(message) and message.rexpr.WhichOneof("node") == "a_const":
                keys.add(message.rexpr.a_const.location)  # data ->> 'password': the name of it, which a reviewer must see
        self.found.literals |= literals - keys

    def _by_content(self, constant: pb.A_Const) -> None:
        """A literal that holds another language: a connection string, JSON, a statement for somebody else to run."""
        text = constant.sval.sval
        if _ASSIGNED.search(text):
            (self.found.literals if _QUOTES.search(text) else self.found.spelled).add(constant.location)
        elif _is_code(text):
            self.found.literals.add(constant.location)

    def _call(self, call: pb.FuncCall) -> None:
        name = call.funcname[-1].string.sval if call.funcname else ""
        for place in _KEYED.get(name, ()):
            if place < len(call.args):
                self._take(call.args[place])
        keys = [arg for arg in call.args if arg.WhichOneof("node") == "a_const" and _names_a_secret(arg.a_const.sval.sval)]
        if keys:  # set_config('app.secret', …), jsonb_set(…, '{password}', …), jsonb_build_object('token', …)
            for arg in call.args:
                if arg not in keys:
                    self._take(arg)

    def _insert(self, insert: pb.InsertStmt) -> None:
        select = insert.select_stmt.select_stmt
        columns = [node.res_target.name for node in insert.cols] or self._names.columns(insert.relation)
        if columns is None:
            self._take(insert.select_stmt)
        else:
            self._rows(columns, select, beside=insert.with_clause)

    def _rows(self, columns: Sequence[str], select: pb.SelectStmt, beside: Message | None = None) -> None:
        """What fills these columns, one place for each. A secret that comes out of another query may be any literal of that."""
        if not any(is_secret(column) for column in columns):
            return
        for row in select.values_lists:
            self._pairs(columns, row.list.items)
        targets = [node.res_target.val for node in select.target_list]
        self._pairs(columns, targets)
        stars = any(_is_star(target) for target in targets)
        into = [target for column, target in zip(columns, targets, strict=False) if is_secret(column)]
        if stars or any(_reads_a_column(target) for target in into):
            for source in (*select.from_clause, select.with_clause, *((beside,) if beside is not None else ())):
                self._take(source)
        for side in ("larg", "rarg"):
            if select.HasField(side):
                self._rows(columns, getattr(select, side), beside)

    def _pairs(self, columns: Sequence[str], values: Iterable[pb.Node]) -> None:
        for column, value in zip(columns, values, strict=False):
            if is_secret(column):
                self._take(value)

    def _from_elsewhere(self, targets: Iterable[pb.Node], sources: Iterable[Message]) -> None:
        if any(is_secret(t.res_target.name) and _reads_a_column(t.res_target.val) for t in targets):
            for source in sources:
                self._take(source)

    def _merge(self, merge: pb.MergeStmt) -> None:
        for node in merge.merge_when_clauses:
            clause = node.merge_when_clause
            columns = [target.res_target.name for target in clause.target_list]
            if clause.command_type == pb.CMD_INSERT and not columns:
                known = self._names.columns(merge.relation)
                columns = list(known) if known is not None else ["secret"] * len(clause.values)
            self._pairs(columns, clause.values)
            into = [value for column, value in zip(columns, clause.values, strict=False) if is_secret(column)]
            if any(map(_reads_a_column, into)):
                self._take(merge.source_relation)
                self._take(merge.with_clause)
            self._from_elsewhere(clause.target_list, (merge.source_relation, merge.with_clause))

    def _option(self, option: pb.DefElem) -> None:
        """PASSWORD '…' of a role, OPTIONS (password '…') of a user mapping, AS '…' of a function or block."""
        texts = [message.sval for message in _messages(option.arg) if isinstance(message, pb.String)]
        if not texts:
            return
        if is_secret(option.defname) or any(_ASSIGNED.search(text) and _QUOTES.search(text) for text in texts):
            self.found.options.add(option.location)
        elif option.defname == "as" and any(_QUOTES.search(text) and _speaks_of_a_secret(text) for text in texts):
            self.found.everything = True

    def _execute(self, execute: pb.ExecuteStmt) -> None:
        """The arguments go where the parameters of the prepared text go."""
        text = self._names.prepared.get(execute.name)
        secret: set[int] | None = None
        if text is not None:
            try:
                inner = Names(self._names.catalog, self._names.path, {}, self._names.tainted)
                secret = set().union(*(secrets_of(text.encode(), raw.stmt, inner).parameters for raw in parse(text).stmts))
            except (PgQueryError, DecodeError, RecursionError, ValueError):
                secret = None
        for number, argument in enumerate(execute.params, 1):
            if secret is None or number in secret:
                self._take(argument)


def _has_no_secret_column(statement: Message, names: Names) -> bool:
    """Whether a statement is one INSERT with no other in it, in a text that has no word for a secret."""
    if not isinstance(statement, pb.Node) or statement.WhichOneof("node") != "insert_stmt":
        return False
    insert = statement.insert_stmt
    if insert.HasField("with_clause") or insert.select_stmt.select_stmt.HasField("with_clause"):
        return False
    columns = () if insert.cols else names.columns(insert.relation)
    return columns is not None and not any(map(is_secret, columns))


def _assigned(target: pb.ResTarget) -> Message:
    """What `column = value` takes; of `(a, b) = (x, y)` the one at the column's own place."""
    part = target.val.multi_assign_ref
    row = part.source.row_expr.args
    return row[part.colno - 1] if 0 < part.colno <= len(row) else target.val


def _compared(expression: pb.A_Expr) -> Iterator[str]:
    """The columns that one comparison names, with those inside of calls (`password = crypt($1, password)`), and keys of JSON."""
    for message in _messages(expression):
        if isinstance(message, pb.ColumnRef) and message.fields:
            yield message.fields[-1].string.sval
        elif isinstance(message, pb.A_Expr) and _is_accessor(message):
            yield message.rexpr.a_const.sval.sval


def _is_accessor(expression: pb.A_Expr) -> bool:
    return len(expression.name) == 1 and expression.name[0].string.sval in _ACCESSORS


def _is_star(target: pb.Node) -> bool:
    return any(node.WhichOneof("node") == "a_star" for node in target.column_ref.fields)


def _reads_a_column(tree: Message) -> bool:
    return any(isinstance(message, pb.ColumnRef) for message in _messages(tree))


def _names_a_secret(text: str) -> bool:
    return bool(_NAME.match(text)) and is_secret(text)


def _speaks_of_a_secret(text: str) -> bool:
    return any(is_secret(word) for word in _WORD.findall(text))


def _is_code(text: str) -> bool:
    """A statement inside of a string, that itself holds a string and speaks of a secret."""
    return bool(_QUOTES.search(text)) and bool(_CODE.search(text)) and _speaks_of_a_secret(text)


def _messages(tree: Message) -> Iterator[Message]:
    """Every message of a tree but for what only wraps one; the parser's own bound on depth bounds this."""
    pending: list[Message] = [tree]
    while pending:
        message = pending.pop()
        if isinstance(message, pb.Node):
            kind = message.WhichOneof("node")
            if kind is None:
                continue
            message = getattr(message, kind)
        yield message
        if isinstance(message, pb.A_Const):
            continue
        for descriptor, value in message.ListFields():
            if descriptor.message_type is not None:
                pending += value if descriptor.is_repeated else (value,)
