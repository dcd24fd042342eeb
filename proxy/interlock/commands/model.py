"""The words in which commands are described: what is asked (`Command`) and what it would do (`Analysis`).

Knows nothing of who asks, where it runs, or what policy says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from interlock.errors import Reason

SHELL_VERBS = frozenset(
    (
        "execute", "read", "write", "delete", "network", "privilege", "interpret", "service", "package",
        "container", "cluster", "cloud", "identity", "secret", "schedule", "kernel", "process", "history",
    )
)  # fmt: skip
SQL_VERBS = frozenset(
    (
        "select", "insert", "update", "delete", "merge", "truncate", "copy_in", "copy_out", "copy_program",
        "copy_file", "create", "alter", "drop", "grant", "revoke", "call", "do", "set", "reset", "lock",
        "listen", "notify", "vacuum", "explain", "transaction", "cursor", "prepare", "execute", "fetch",
        "replication", "function", "nothing",
    )
)  # fmt: skip


class Wire(StrEnum):
    """The protocol a command came over."""

    SSH = "ssh"
    POSTGRES = "postgres"


class Kind(StrEnum):
    """What the client asked for; the value is the type of the event that records it."""

    EXEC = "command"
    FILE = "sftp"
    PUSH = "git.push"
    QUERY = "pg.query"
    PARSE = "pg.parse"
    BIND = "pg.bind"


class Stdin(StrEnum):
    """What a command does with its standard input."""

    NONE = "none"  # the protocol has none (SQL)
    IGNORED = "ignored"  # reviewed: the target gets EOF
    PROTOCOL = "protocol"  # of a program that copies: never read ahead, looked at on its way (ssh/transfers)
    DATA = "data"  # reviewed: read to EOF, hashed, shown
    CODE = "code"  # always read to EOF and analysed as text of its interpreter


@dataclass(frozen=True, slots=True)
class HeldInput:
    """Standard input read to EOF before a decision: at most 256 KiB."""

    data: bytes

    @property
    def sha256(self) -> str:
        return sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class BindValue:
    """One parameter of a Bind: the raw bytes as sent (None is NULL), its format (0 text, 1 binary), type OID or 0."""

    raw: bytes | None
    format: int = 0
    type_oid: int = 0
    shown: str | None = None  # decoded for people; None when it could not be decoded


@dataclass(frozen=True, slots=True)
class ShellContext:
    """Facts that change how shell text is read. `shell` is the enrolled login shell, `unknown` if never enrolled."""

    shell: str = "unknown"
    utf8_locale: bool = True


@dataclass(frozen=True, slots=True)
class SqlContext:
    """Facts that change how SQL text is read.

    `catalog` is a `commands.sql.catalog.Catalog` or None (then unknown relations are assumed and listed).
    `prepared` maps statement names to their SQL, `cursors` cursor names to theirs. `tainted` means that unqualified
    names can't be trusted any more (temporary objects or a changed search_path); `temporary` False then says that only
    the search_path has changed and no temporary object can exist. `unpinned` means that the client may choose how the
    server reads text: then every text is opaque, also one that does not parse here.
    """

    catalog: Any = None
    search_path: tuple[str, ...] = ("public", "pg_temp")
    prepared: Mapping[str, str] = field(default_factory=dict)
    cursors: Mapping[str, str] = field(default_factory=dict)
    tainted: bool = False
    temporary: bool = True
    unpinned: bool = False
    assume_tables: bool = False  # where there is no session: `explain` without a target, and SQL inside of shell text


@dataclass(frozen=True, slots=True)
class Command:
    """What is asked, in the exact bytes of the client. Everything here is part of `match` (approvals)."""

    wire: Wire
    kind: Kind
    text: bytes
    stdin: HeldInput | None = None
    binds: tuple[BindValue, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    pty: bool = False
    settings: tuple[tuple[str, str], ...] = ()
    context: ShellContext | SqlContext = field(default_factory=ShellContext)

    def with_stdin(self, stdin: HeldInput) -> Command:
        return replace(self, stdin=stdin)


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing a command would do. `verb` is one of SHELL_VERBS or SQL_VERBS; `object` a path, host, relation, ….

    `filtered` and `limited` speak of SQL rows; for every other effect they are True (nothing unfiltered happens).
    """

    verb: str
    object: str = ""
    program: str = ""
    argv: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    origin: str = "direct"
    recursive: bool = False
    force: bool = False
    host: str = ""
    schema: str = ""
    relation_kind: str = ""  # table | view | matview | foreign | system | "" when not a relation or not known
    filtered: bool = True
    limited: bool = True
    functions: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the effect as interface.md shows it: verb and object always, the rest where it says something."""
        shown: dict[str, Any] = {"verb": self.verb, "object": self.object}
        for name in ("program", "argv", "host", "schema", "relation_kind", "functions", "columns", "detail"):
            value = getattr(self, name)
            if value:
                shown[name] = list(value) if isinstance(value, tuple) else value
        for name in ("recursive", "force"):
            if getattr(self, name):
                shown[name] = True
        for name in ("filtered", "limited"):
            if not getattr(self, name):
                shown[name] = False
        if self.origin != "direct":
            shown["origin"] = self.origin
        shown["via"] = list(self.via)
        return shown


@dataclass(frozen=True, slots=True)
class Opaque:
    """A part of the text whose effects can't be known. `start` and `end` are byte offsets into the command's text."""

    reason: str
    text: str = ""
    start: int = 0
    end: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "text": self.text, "start": self.start, "end": self.end}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Text that is refused before policy is asked: a reviewer would be deceived, or it does not parse."""

    reason: Reason
    message: str
    position: int | None = None  # byte offset, where there is one


@dataclass(frozen=True, slots=True)
class NameAction:
    """What a SQL statement does to the session's tables of names, in the order of the statements.

    kind: prepare | deallocate | declare | close | discard | begin | commit | rollback | savepoint | set | reset |
    temp-ddl. For `prepare` and `declare`, `text` is the SQL behind the name. For `set`, `name` is the setting and
    `text` its value. An empty name with deallocate, close or reset means all of them.
    """

    kind: str
    name: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a command would do. An empty list of effects never means that it is fine."""

    effects: tuple[Effect, ...] = ()
    opaque: tuple[Opaque, ...] = ()
    unreadable: Unreadable | None = None
    sent: str | None = None  # what an automatic allow sends; None: only the exact bytes, and only after a human
    stdin: Stdin = Stdin.IGNORED
    statements: int = 1
    names: tuple[NameAction, ...] = ()
    assumed: tuple[str, ...] = ()
    parser: str = ""
    notes: tuple[str, ...] = ()  # facts for the reviewer, never a gate
    secrets: tuple[int, ...] = ()  # numbers of the parameters whose values are secret by the column that they go to
    concealed: tuple[tuple[int, int], ...] = ()  # byte ranges of the text that are secret in the same way

    @property
    def static(self) -> bool:
        """Everything was resolved: nothing is opaque and the text was readable."""
        return not self.opaque and self.unreadable is None
