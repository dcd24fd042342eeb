"""SQL text into effects: the entry of this package.

    bytes ─► character gate ─► size and nesting ─► libpg_query (PostgreSQL's own grammar) ─► walk ─► Analysis

Pure and synchronous: the answer depends on the text, the context (catalog, search_path, names) and nothing else. What
can't be resolved is opaque; what does not parse, or would deceive a reviewer, is unreadable.

Knows grammar and names. Must not know who asks, values of parameters, policy. Design: docs/sql.md.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import replace

from google.protobuf.message import DecodeError
from postgast import PgQueryError, parse, scan
from postgast.pg_query_pb2 import Token

from interlock.commands.bounds import TooMany, bounded, refused
from interlock.commands.model import Analysis, Effect, Kind, Opaque, SqlContext, Stdin, Unreadable
from interlock.commands.sql import definitions, expressions, privileges, queries, removals, session, settings
from interlock.commands.sql.advice import advice
from interlock.commands.sql.bounds import (
    AUTOMATIC_BYTES,
    GRAMMAR_NUMERALS_SINCE,
    IN_PROCESS_BYTES,
    LARGEST_BYTES,
    MEASURED_FROM,
    NESTING,
    is_flat_insert,
    nesting,
)
from interlock.commands.sql.characters import readable
from interlock.commands.sql.concealed import concealed
from interlock.commands.sql.secrets import Names, Secrets, hints, secrets_of
from interlock.commands.sql.walk import USES_NAMES, Walk
from interlock.errors import Reason

PARSER = "libpg_query 18"

# Importing them fills the table of handlers.
_HANDLED_BY = (definitions, expressions, privileges, queries, removals, session, settings)
_BLOCK = re.compile(rb"(?i)(?<![a-z0-9_])do(?![a-z0-9_]|\s+(?:update|nothing)\b)")
_NEW_NUMERAL = re.compile(r"[0-9]_[0-9]|0[xXoObB]_?[0-9a-fA-F]")
_PLAIN_NUMERAL = re.compile(rb"[0-9.]+([eE][-+]?[0-9]+)?")


def analyze_sql(text: bytes, context: SqlContext, kind: Kind) -> Analysis:
    """Say what the text would do. `text` is a whole simple query, or one statement of the extended protocol.

    Never raises for any input. Offsets are bytes into `text`. Costs about 0.1 ms for a short SELECT; texts for which
    `in_process` is false belong in a child process.
    """
    found = _read(text, context, kind)
    if not found.effects and hints(text):
        found = replace(found, concealed=((0, len(text)),))  # what has no tree has no columns
    return _uncertain(found, len(text)) if context.unpinned else found


def _read(text: bytes, context: SqlContext, kind: Kind) -> Analysis:
    if len(text) > LARGEST_BYTES:
        return _unreadable(Reason.TOO_LARGE, f"The text has {len(text)} bytes; {LARGEST_BYTES} can be reviewed.")
    decoded = readable(text)
    if isinstance(decoded, Unreadable):
        return Analysis(unreadable=decoded, stdin=Stdin.NONE, parser=PARSER, statements=0)
    if len(text) > AUTOMATIC_BYTES and not is_flat_insert(decoded):
        return _not_parsed("too-long-to-classify", len(text))
    if MEASURED_FROM < len(text) <= AUTOMATIC_BYTES and nesting(decoded) > NESTING:
        return _not_parsed("nested-too-deep", len(text))
    try:
        tree = parse(decoded)
    except PgQueryError as error:
        position = error.cursorpos - 1 if error.cursorpos > 0 else None
        return _unreadable(Reason.SYNTAX_ERROR, error.message, position)
    except (DecodeError, RecursionError):
        return _not_parsed("nested-too-deep", len(text))  # the decoder accepts 100 levels of messages
    if len(tree.stmts) > 1 and kind in (Kind.PARSE, Kind.BIND):
        return _unreadable(Reason.SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement")
    if not tree.stmts:
        return Analysis((Effect("nothing"),), sent=decoded, stdin=Stdin.NONE, statements=0, parser=PARSER)
    walk = Walk(context, text)
    secrets: list[tuple[int, int, Secrets]] = []
    secretive = hints(text)
    for statement in tree.stmts:
        start = statement.stmt_location
        end = start + statement.stmt_len if statement.stmt_len else len(text)
        try:
            walk.run(statement.stmt, text[start:end])
            walk.notes.update(dict.fromkeys(advice(statement.stmt)))
            if secretive:
                names = Names(walk.catalog, walk.path, walk.prepared, walk.tainted)
                secrets.append((start, end, secrets_of(text, statement.stmt, names)))
        except TooMany:
            return refused(Analysis(stdin=Stdin.NONE, statements=0, parser=PARSER))
    _numerals(walk, decoded, text)
    found = Analysis(
        effects=tuple(walk.effects),
        opaque=tuple(walk.opaque),
        sent=None if walk.opaque else decoded,
        stdin=Stdin.NONE,
        statements=len(tree.stmts),
        names=tuple(walk.names),
        assumed=tuple(walk.assumed),
        parser=PARSER,
        notes=tuple(walk.notes),
        secrets=tuple(sorted(set().union(*(found.parameters for _, _, found in secrets)))),
        concealed=concealed(text, decoded, secrets),
    )
    return bounded(found)


def in_process(text: bytes) -> bool:
    """Tell whether the text may be analysed on the event loop: it is small, and opens no code block.

    The parser of PL/pgSQL is C code that was made for text which a server has accepted.
    """
    return len(text) <= IN_PROCESS_BYTES and _BLOCK.search(text) is None


def context_key(context: SqlContext) -> Hashable:
    """Return what an analysis depends on beside its text, but for the names of statements and cursors.

    Key a cache with (text, kind is QUERY, context_key(context)) and keep an analysis only if not `depends_on_names`.
    """
    version = context.catalog.version if context.catalog is not None else None
    temporary = context.tainted and context.temporary
    return (version, context.search_path, context.tainted, temporary, context.unpinned, context.assume_tables)


def depends_on_names(analysis: Analysis) -> bool:
    """Tell whether the analysis looked into the session's prepared statements or cursors."""
    return USES_NAMES in analysis.notes


CHANGES_CATALOG = frozenset(("create", "alter", "drop", "grant", "revoke", "do", "call", "function", "execute"))


def may_change_catalog(analysis: Analysis) -> bool:
    """Tell whether a catalog snapshot may be stale once this has run."""
    return bool(analysis.opaque) or any(effect.verb in CHANGES_CATALOG for effect in analysis.effects)


def _unreadable(reason: Reason, message: str, position: int | None = None) -> Analysis:
    return Analysis(unreadable=Unreadable(reason, message, position), stdin=Stdin.NONE, parser=PARSER, statements=0)


def _not_parsed(reason: str, length: int) -> Analysis:
    return Analysis(opaque=(Opaque(reason, "", 0, length),), stdin=Stdin.NONE, parser=PARSER)


def _uncertain(found: Analysis, length: int) -> Analysis:
    """What was read is what the text does under settings that nobody vouches for: what it really does is not known.

    Effects and names stay: a rule that denies shall still see them, and a session its own prepared statements.
    """
    whole = Opaque("settings-not-pinned", "", 0, length)
    if found.unreadable is not None:
        return Analysis(opaque=(whole,), stdin=Stdin.NONE, parser=PARSER)
    return replace(found, opaque=(*found.opaque, whole), sent=None)


def _numerals(walk: Walk, decoded: str, text: bytes) -> None:
    """`1_000` and `0x1F` are numbers to our grammar and a number with an alias to servers before 16."""
    if walk.catalog is not None and walk.catalog.server_version >= GRAMMAR_NUMERALS_SINCE:
        return
    if _NEW_NUMERAL.search(decoded) is None:
        return
    for token in scan(decoded).tokens:
        if token.token in (Token.ICONST, Token.FCONST):
            literal = text[token.start : token.end]
            if _PLAIN_NUMERAL.fullmatch(literal) is None:
                walk.hide("numeral-of-newer-grammar", literal.decode(), token.start)
