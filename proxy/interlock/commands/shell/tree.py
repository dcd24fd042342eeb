"""Reads the JSON tree of `shfmt --tojson` into `syntax`, with a white list of nodes, fields and word parts.

Closed by construction: a node, field or operator that is not listed becomes `Strange` (never static), and the
statements found inside it are still reported. Knows shfmt's tree (mvdan.cc/sh/v3/syntax); knows no programs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from interlock.commands.shell import quoting
from interlock.commands.shell.syntax import (
    Assignment,
    Binary,
    Case,
    For,
    Group,
    If,
    Loop,
    Node,
    Redirection,
    Script,
    Simple,
    Statement,
    Strange,
    Timed,
    Word,
)

MAX_NESTING = 40
Tree = Mapping[str, Any]  # JSON of a foreign program: every access below is checked

_PLACES: Final = frozenset(
    (
        "Type", "Pos", "End", "Position", "Semicolon", "OpPos", "ValuePos", "ValueEnd", "Left", "Right", "Lparen", "Rparen",
        "Lbrace", "Rbrace", "ThenPos", "FiPos", "WhilePos", "DoPos", "DonePos", "ForPos", "InPos", "Case", "In", "Esac",
        "Time", "Comments", "Last", "CondLast", "ThenLast", "DoLast", "Dollar", "IfPos", "Kind",
    )
)  # fmt: skip
_STRANGE: Final = {
    "FuncDecl": "function-definition",
    "CoprocClause": "coprocess",
    "DeclClause": "declaration",
    "LetClause": "arithmetic",
    "ArithmCmd": "arithmetic",
    "TestClause": "double-bracket",
    "TestDecl": "unknown-construct",
}
_DYNAMIC: Final = {
    "ParamExp": "parameter",
    "CmdSubst": "command-substitution",
    "ArithmExp": "arithmetic",
    "ProcSubst": "process-substitution",
    "ExtGlob": "glob",
    "BraceExp": "brace-expansion",
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


_ECHOED: Final = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
"""No option, no backslash, nothing that expands: `echo` prints it and a newline, which the substitution drops."""

_EXPANDED_TWICE = re.compile(r"[A-Za-z_./@%+,:=][A-Za-z0-9_./@%+,:=-]*(?<!-)")
"""What `>&WORD` may name. bash expands the word, drops its quotes, and expands what is left once more: `>&'$(touch x)'`
runs touch (5.2). A word that ends in `-` is a descriptor to move. `&>WORD` is expanded once."""


class NestingError(Exception):
    """The text is nested deeper than MAX_NESTING."""


class GrammarError(Exception):
    """The tree holds what two grammars read differently: the text is refused. `offset` in bytes."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def read(tree: Tree, source: bytes) -> Script:
    """Read a whole file node. Raise NestingError or GrammarError; anything unlisted is Strange."""
    if b"#" in source:
        _comments(tree, source)
    reader = _Reader(source)
    return Script(reader.statements(tree.get("Stmts")), reader.dialect, reader.timed)


def _comments(tree: Tree, source: bytes) -> None:
    """Refuse what shfmt takes for a comment and bash for the rest of a word: in a `case` or a subshell, `'x'#c && rm y`.

    A comment begins where a token may (bash manual 3.1.3); both texts have it on one line, so the readings would agree.
    """
    stack: list[Any] = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
            if isinstance(place := item.get("Hash"), dict):
                offset = int(place.get("Offset", 0))
                before = source[max(0, offset - 2) : offset]
                if before and (before[-1:] not in _BEFORE_COMMENTS or (before[:1] == b"\\" and before[-1:] != b"\n")):
                    raise GrammarError("a `#` inside a word, which not every shell reads as part of it", offset)


_BEFORE_COMMENTS: Final = (b" ", b"\t", b"\n", b";", b"&", b"|", b"(", b")", b"<", b">")


class _Reader:
    def __init__(self, source: bytes) -> None:
        self.source = source
        self.dialect = False
        self.timed = False
        self._depth = 0

    # -- statements -----------------------------------------------------------------------------------------------

    def statements(self, nodes: Any) -> tuple[Statement, ...]:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise NestingError
        found = tuple(self.statement(n) for n in nodes or ())
        self._depth -= 1
        return found

    def statement(self, node: Tree) -> Statement:
        start, end = self._span(node)
        known = {"Cmd", "Redirs", "Negated", "Background"}
        command: Node
        if self._unlisted(node, known):
            command = self._strange(node, "coprocess" if node.get("Coprocess") else "unknown-construct")
        elif (inner := node.get("Cmd")) is None:
            command = Simple()
        else:
            command = self._command(inner)
        redirections = tuple(r for n in node.get("Redirs") or () for r in self._redirection(n))
        return Statement(command, redirections, bool(node.get("Negated")), bool(node.get("Background")), start, end)

    def _command(self, node: Tree) -> Node:
        kind = node.get("Type")
        if kind in _STRANGE:
            self.dialect = self.dialect or kind != "FuncDecl"
            return self._strange(node, _STRANGE[kind])
        match kind:
            case "CallExpr" if not self._unlisted(node, {"Assigns", "Args"}):
                words = tuple(self.word(n) for n in node.get("Args") or ())
                return Simple(tuple(self._assignment(n) for n in node.get("Assigns") or ()), words)
            case "BinaryCmd" if not self._unlisted(node, {"Op", "X", "Y"}):
                return self._binary(node)
            case "Block" | "Subshell" if not self._unlisted(node, {"Stmts"}):
                return Group(self.statements(node.get("Stmts")), kind == "Subshell")
            case "IfClause" if not self._unlisted(node, {"Cond", "Then", "Else"}):
                return self._if(node)
            case "WhileClause" if not self._unlisted(node, {"Until", "Cond", "Do"}):
                return Loop(bool(node.get("Until")), self.statements(node.get("Cond")), self.statements(node.get("Do")))
            case "ForClause" if not self._unlisted(node, {"Loop", "Do"}):
                return self._for(node)
            case "CaseClause" if not self._unlisted(node, {"Word", "Items"}):
                return self._case(node)
            case "TimeClause" if not self._unlisted(node, {"PosixFormat", "Stmt"}):
                return self._timed(node)
            case _:
                return self._strange(node, "unknown-construct")

    def _binary(self, node: Tree) -> Node:
        op = node.get("Op")
        left, right = self.statement(node["X"]), self.statement(node["Y"])
        if op in ("|", "|&") and isinstance(right.command, Timed):
            # Behind a pipe `time` is no keyword for bash, but a program (5.2, parse.y time_command_acceptable).
            return self._strange(node, "unknown-construct")
        if op == "|&":
            self.dialect = True
            return Binary("|", _with_errors(left), right)
        if op not in ("&&", "||", "|"):
            return self._strange(node, "unknown-construct")
        return Binary(op, left, right)

    def _if(self, node: Tree) -> Node:
        branches: list[tuple[tuple[Statement, ...], tuple[Statement, ...]]] = []
        current: Tree | None = node
        otherwise: tuple[Statement, ...] = ()
        while current is not None:
            if self._unlisted(current, {"Cond", "Then", "Else"}):
                return self._strange(node, "unknown-construct")
            if current.get("Cond"):
                branches.append((self.statements(current["Cond"]), self.statements(current.get("Then"))))
            else:
                otherwise = self.statements(current.get("Then"))
            current = current.get("Else")
        # bash prints `elif` as an `if` inside `else`: both are written as the one that they mean.
        while len(otherwise) == 1 and isinstance(nested := otherwise[0].command, If):
            if otherwise[0].redirections or otherwise[0].negated or otherwise[0].background:
                break
            branches.extend(nested.branches)
            otherwise = nested.otherwise
        return If(tuple(branches), otherwise)

    def _for(self, node: Tree) -> Node:
        loop = node.get("Loop") or {}
        if loop.get("Type") != "WordIter" or self._unlisted(loop, {"Name", "Items"}) or not loop.get("Items"):
            self.dialect = True
            return self._strange(node, "loop")
        name = str((loop.get("Name") or {}).get("Value", ""))
        items = tuple(self.word(n) for n in loop["Items"])
        return For(name, items, self.statements(node.get("Do")))

    def _case(self, node: Tree) -> Node:
        items: list[tuple[tuple[Word | None, ...], tuple[Statement, ...]]] = []
        for item in node.get("Items") or ():
            if self._unlisted(item, {"Op", "Patterns", "Stmts"}) or item.get("Op") != ";;":
                return self._strange(node, "unknown-construct")
            patterns = tuple(None if self._text(p) == "*" else self.word(p) for p in item.get("Patterns") or ())
            items.append((patterns, self.statements(item.get("Stmts"))))
        return Case(self.word(node["Word"]), tuple(items))

    def _timed(self, node: Tree) -> Node:
        self.dialect = self.timed = True
        if node.get("Stmt") is None:
            return self._strange(node, "unknown-construct")
        body = self.statement(node["Stmt"])
        first = body.command.words[0] if isinstance(body.command, Simple) and body.command.words else None
        if first is not None and first.shown.startswith("-"):
            raise GrammarError("`time` with options other than -p is read differently by shells", first.start)
        return Timed(bool(node.get("PosixFormat")), body)

    def _strange(self, node: Tree, reason: str) -> Strange:
        return Strange(reason, self._inside(node), self._text(node))

    def _inside(self, node: Any) -> tuple[Statement, ...]:
        """Find the outermost statements anywhere below a construct that is not understood."""
        found: list[Statement] = []
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise NestingError
        stack = list(reversed(list(node.values()))) if isinstance(node, dict) else []
        while stack:
            item = stack.pop()
            if isinstance(item, list):
                stack.extend(reversed(item))
            elif isinstance(item, dict):
                if "Cmd" in item or ("Redirs" in item and "Type" not in item):
                    found.append(self.statement(item))
                else:
                    stack.extend(reversed(list(item.values())))
        self._depth -= 1
        return tuple(found)

    # -- redirections and assignments -----------------------------------------------------------------------------

    def _redirection(self, node: Tree) -> tuple[Redirection, ...]:
        op = str(node.get("Op"))
        word = self.word(node["Word"]) if node.get("Word") else None
        named = (node.get("N") or {}).get("Value")
        fd = int(named) if isinstance(named, str) and len(named) == 1 and named in "0123456789" else None
        if self._unlisted(node, {"Op", "N", "Word", "Hdoc"}) or word is None or (named is not None and fd is None):
            return (Redirection(op, fd, word, reason="redirection"),)
        if fd == (0 if op.startswith("<") else 1):
            fd = None  # bash writes `>&2` as `1>&2` and `1>x` as `>x`: one reading for both
        match op:
            case "<<" | "<<-":
                return (self._here_document(node, op, fd),)
            case "<<<":
                self.dialect = True
                if word.home:  # a path in a text is of no use, and not followed
                    return (Redirection("<<", fd, word, None, "tilde"),)
                body = None if word.static is None else word.static + "\n"
                return (Redirection("<<", fd, word if body is None else None, body, "" if body is not None else word.reason),)
            case "&>" | "&>>":
                self.dialect = True
                return self._both(">" if op == "&>" else ">>", word)
            case ">&" if word.static is None or not re.fullmatch(r"[0-9]|-", word.static):
                self.dialect = True
                if (
                    fd is not None
                    or "\\" in word.source
                    or (word.static is not None and not _EXPANDED_TWICE.fullmatch(word.static))
                ):
                    return (Redirection(op, fd, word, reason="redirection"),)
                return self._both(">", word)
            case "<&" if word.static is None or not re.fullmatch(r"[0-9]|-", word.static):
                return (Redirection(op, fd, word, reason="redirection"),)
            case "<" | ">" | ">>" | ">|" | "<>" | "<&" | ">&":
                return (Redirection(op, fd, word, reason=word.reason and f"redirection-{word.reason}"),)
            case _:
                return (Redirection(op, fd, word, reason="redirection"),)

    def _both(self, op: str, word: Word) -> tuple[Redirection, ...]:
        return (
            Redirection(op, None, word, reason=word.reason and f"redirection-{word.reason}"),
            Redirection(">&", 2, Word("1")),
        )

    def _here_document(self, node: Tree, op: str, fd: int | None) -> Redirection:
        parts = node["Word"].get("Parts") or []
        literal = all(p.get("Type") in ("Lit", "SglQuoted") and not p.get("Dollar") for p in parts) or (
            len(parts) == 1 and parts[0].get("Type") == "DblQuoted" and not parts[0].get("Dollar")
        )
        delimiter = self.word(node["Word"])
        if not literal or delimiter.static is None or delimiter.home or "\n" in delimiter.static:
            return Redirection("<<", fd, delimiter, reason="here-document")
        quoted = any(p.get("Type") != "Lit" for p in parts) or "\\" in self._text(node["Word"])
        body = node.get("Hdoc") or {}
        lines: list[str] = []
        for part in body.get("Parts") or ():
            if part.get("Type") != "Lit":
                inside = self._inside(body)
                return Redirection("<<", fd, Word(None, "here-document", inside, source=self._text(body)), reason="here-document")
            raw = str(part.get("Value", ""))
            lines.append(raw if quoted else quoting.double_quoted(raw, "$`\\"))
        text = "".join(lines)
        if op == "<<-":
            text = re.sub(r"(?m)^\t+", "", text)
        if text and not text.endswith("\n"):
            return Redirection("<<", fd, delimiter, reason="here-document")
        return Redirection("<<", fd, None, text)

    def _assignment(self, node: Tree) -> Assignment:
        name = str((node.get("Name") or {}).get("Value", ""))
        plain = not self._unlisted(node, {"Name", "Value"}) and bool(_NAME.match(name))
        start, end = self._span(node)
        value = self.word(node["Value"], assignment=True) if node.get("Value") else Word("", start=start, end=end)
        if not plain:
            value = Word(None, "assignment", self._inside(node), source=self._text(node), start=start, end=end)
        return Assignment(name, value, plain)

    # -- words ----------------------------------------------------------------------------------------------------

    def word(self, node: Tree, *, assignment: bool = False) -> Word:
        start, end = self._span(node)
        value: list[str] = []
        bare: list[str] = []
        reason = ""
        inside: list[Statement] = []
        for part in node.get("Parts") or ():
            static, mask, why = self._part(part)
            if static is None:
                reason = reason or why
                inside.extend(self._inside(part))
                continue
            value.append(static)
            bare.append(mask)
        if self._unlisted(node, {"Parts"}):
            reason = "unknown-construct"
        reason = reason or quoting.expansion("".join(bare), assignment=assignment)
        home = reason == "tilde" and not assignment and self._home(node["Parts"]) and quoting.home("".join(bare))
        if home:
            reason = ""
        static_value = None if reason else "".join(value)
        if static_value is not None and "\x00" in static_value:
            static_value, reason = None, "unknown-construct"
        return Word(static_value, reason, tuple(inside), home, self._text(node), start, end)

    @staticmethod
    def _home(parts: Any) -> bool:
        """Tell whether the tilde and what ends it stand bare in the source: `~''` and `~\\/x` are names."""
        raw = str(parts[0].get("Value", "")) if parts[0].get("Type") == "Lit" else ""
        return raw.startswith("~/") or (raw == "~" and len(parts) == 1)

    def _part(self, part: Tree) -> tuple[str | None, str, str]:
        """Return (value, bare characters, "") of a static part, or (None, "", reason)."""
        kind = part.get("Type")
        match kind:
            case "Lit" if not self._unlisted(part, {"Value"}):
                value, bare = quoting.unquoted(str(part.get("Value", "")))
                if re.search(r"\$[A-Za-z0-9_({\[@*#?!$'\"-]|`", bare):
                    return None, "", "parameter"
                if re.search(r"!(?![ =(]|\Z)", bare):
                    return None, "", "history-expansion"
                return value, bare, ""
            case "SglQuoted" if not self._unlisted(part, {"Value"}):
                raw = str(part.get("Value", ""))
                if not part.get("Dollar"):
                    return raw, quoting.QUOTED * len(raw), ""
                self.dialect = True
                decoded = quoting.ansi_c(raw)
                if decoded is None:
                    return None, "", "ansi-c-quoting"
                return decoded, quoting.QUOTED * len(decoded), ""
            case "DblQuoted" if part.get("Dollar"):
                return None, "", "locale-quoting"
            case "DblQuoted" if not self._unlisted(part, {"Parts"}):
                out: list[str] = []
                for inner in part.get("Parts") or ():
                    if (echoed := self._echoed(inner)) is not None:
                        out.append(echoed)
                        continue
                    if inner.get("Type") != "Lit" or self._unlisted(inner, {"Value"}):
                        return None, "", _DYNAMIC.get(str(inner.get("Type")), "unknown-construct")
                    out.append(quoting.double_quoted(str(inner.get("Value", ""))))
                text = "".join(out)
                return text, quoting.QUOTED * len(text), ""
            case _:
                return None, "", _DYNAMIC.get(str(kind), "unknown-construct")

    def _echoed(self, part: Tree) -> str | None:
        """Return what `"$(echo WORD)"` is where every shell says the same: the word. So Ansible writes its paths."""
        if part.get("Type") != "CmdSubst" or self._unlisted(part, {"Stmts", "Backquotes"}) or "\\" in self._text(part):
            return None
        statements = list(part.get("Stmts") or ())
        if len(statements) != 1 or self._unlisted(statements[0], {"Cmd"}):
            return None
        call = statements[0].get("Cmd") or {}
        if call.get("Type") != "CallExpr" or self._unlisted(call, {"Args"}):
            return None
        words = [self._literal(word) for word in call.get("Args") or ()]
        return words[1] if len(words) == 2 and words[0] == "echo" and words[1] and _ECHOED.fullmatch(words[1]) else None

    def _literal(self, word: Tree) -> str | None:
        parts = list(word.get("Parts") or ())
        plain = len(parts) == 1 and parts[0].get("Type") == "Lit" and not self._unlisted(parts[0], {"Value"})
        return str(parts[0].get("Value", "")) if plain and not self._unlisted(word, {"Parts"}) else None

    # -- places ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _unlisted(node: Tree, known: set[str]) -> bool:
        return any(value and key not in known and key not in _PLACES for key, value in node.items())

    @staticmethod
    def _span(node: Tree) -> tuple[int, int]:
        return int((node.get("Pos") or {}).get("Offset", 0)), int((node.get("End") or {}).get("Offset", 0))

    def _text(self, node: Tree) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode("utf-8", "replace")


def _with_errors(statement: Statement) -> Statement:
    """Give the last command of a pipeline `2>&1`: what `|&` means (bash manual 3.2.3)."""
    command = statement.command
    if isinstance(command, Binary) and command.op == "|" and not statement.redirections:
        command = Binary("|", command.left, _with_errors(command.right))
        return Statement(command, (), statement.negated, statement.background, statement.start, statement.end)
    redirections = (*statement.redirections, Redirection(">&", 2, Word("1")))
    return Statement(command, redirections, statement.negated, statement.background, statement.start, statement.end)
