"""What the session's statements and portals are, and what follows from them for reading SQL.

Knows: the names of statements and portals (wire.names), the actions that an analysis reports (commands.model), which
settings and temporary objects make unqualified names ambiguous.
Must not know: sockets, verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from interlock.commands.model import Analysis, NameAction, ShellContext, SqlContext
from interlock.postgres.idle import IdleLimit
from interlock.postgres.wire.names import Lookup, Names
from interlock.postgres.wire.pipeline import Consequence
from interlock.repeats import Repeat

_MENTIONS_NAMES = re.compile(rb"(?i)\b(?:execute|fetch|move|close|deallocate)\b")
_TRANSACTION = frozenset(("begin", "commit", "rollback", "savepoint"))
_ENDS_FAILURE = ("commit", "rollback", "rollback to")
_DECIDES: dict[str, tuple[str, ...]] = {
    "client_encoding": ("utf8", "utf-8"),
    "standard_conforming_strings": ("on", "true", "yes", "1"),
    "session_authorization": (),
}
"""The settings that `watch` ends a session for, each with what they are anyway."""
_EVERYTHING = ("", "all")
_SEARCH_PATH = ("", "all", "search_path")
_MAY_HOLD = re.compile(rb"(?i)\b(?:hold|execute)\b")
"""EXECUTE of a prepared DECLARE does not say how it declares. A cursor that is thought to live on fails at the server."""
_UNNAMED = ""
"""DEALLOCATE ALL and DISCARD ALL spare the unnamed statement, as CLOSE ALL does the portal that it runs in."""

MAX_NAMES = 10_000
"""Statements and portals a session may have open, each."""


def mentions_names(text: bytes) -> bool:
    """Whether the text may refer to a statement or cursor by name. True too often is harmless: it costs a drain."""
    return _MENTIONS_NAMES.search(text) is not None


def ends_transaction(analysis: Analysis) -> bool:
    """Whether a text begins by ending the transaction or going back in it, and so ends its failure."""
    first = analysis.effects[0] if analysis.effects else None
    return first is not None and first.verb == "transaction" and first.detail in _ENDS_FAILURE


def unsettles(actions: Sequence[NameAction]) -> bool:
    """Whether these give a setting another value that decides how later text is read, or for whom it runs."""
    return any(a.kind == "set" and a.text.lower() not in _DECIDES.get(a.name.lower(), (a.text.lower(),)) for a in actions)


class Recurrence:
    """What a text was answered before in this session, once it came twice in the same context (repeats.py)."""

    __slots__ = ("_seen", "repeat")

    def __init__(self) -> None:
        self.repeat: Repeat | None = None
        self._seen: SqlContext | ShellContext | None = None

    def released(self, context: SqlContext | ShellContext, keep: Callable[[], Repeat | None]) -> None:
        """Note a release that was decided in full. What comes once costs nothing more."""
        if self._seen is context:
            self.repeat = keep()
        else:
            self._seen, self.repeat = context, None


class Statement:
    """A prepared statement as the server has it. `types` are those of Parse until a Describe tells all."""

    __slots__ = ("binds", "mentions_names", "oids", "shown", "text", "types")

    def __init__(self, text: bytes, oids: tuple[int, ...] = ()) -> None:
        self.text = text
        self.oids = self.types = oids
        self.shown = text.decode("utf-8", "replace")
        self.mentions_names = mentions_names(text)
        self.binds = Recurrence()

    def anew(self) -> Statement:
        """Return what the same Parse makes once more. What Describe told of the old one is not known of the new."""
        statement = Statement.__new__(Statement)
        statement.text, statement.oids, statement.types = self.text, self.oids, self.oids
        statement.shown, statement.mentions_names, statement.binds = self.shown, self.mentions_names, self.binds
        return statement


class Portal:
    """A portal of a released Bind, or a cursor of a released DECLARE. Running it is the same decision."""

    __slots__ = ("actions", "holdable", "release", "text")

    def __init__(self, text: str, release: int, actions: tuple[NameAction, ...] = (), *, holdable: bool = False) -> None:
        self.text = text
        self.release = release
        self.actions = actions
        self.holdable = holdable


@dataclass(slots=True)
class _Trusted:
    """A released RESET or DISCARD: once it succeeded, a taint is gone."""

    clear: Callable[[], None]

    def settle(self) -> None:
        self.clear()

    def undo(self) -> None:
        pass

    def confuse(self) -> None:
        pass


class SessionNames:
    """The two tables, and the context in which the next text is read."""

    def __init__(
        self, search_path: tuple[str, ...], catalog: Callable[[], Any], *, pinned: bool = True, idle: IdleLimit | None = None
    ) -> None:
        self.statements: Names[Statement] = Names()
        self.portals: Names[Portal] = Names()
        self.idle_limit = idle or IdleLimit()
        self._search_path = search_path
        self._pinned = pinned
        self._catalog = catalog
        self._taints: dict[str, int] = {}
        self._unread = False
        self._moment = 0
        self._key: tuple[object, ...] = ()
        self._context = SqlContext(unpinned=not pinned)

    @property
    def settled(self) -> bool:
        return self.statements.settled and self.portals.settled

    @property
    def full(self) -> bool:
        return len(self.statements.by_name) >= MAX_NAMES or len(self.portals.by_name) >= MAX_NAMES

    def context(self) -> SqlContext:
        """Return the context for the next text. The same object as long as nothing changed."""
        catalog = self._catalog()
        temporary = self._unread or "temp" in self._taints
        key = (self.statements.version, self.portals.version, bool(self._taints), temporary, id(catalog))
        if key != self._key:
            self._key = key
            self._context = SqlContext(
                catalog=catalog,
                search_path=self._search_path,
                prepared={name: s.shown for name, s in self.statements.snapshot().items() if name},
                cursors={name: p.text for name, p in self.portals.snapshot().items() if name},
                tainted=bool(self._taints),
                temporary=temporary,
                unpinned=not self._pinned,
            )
        return self._context

    def apply(
        self, actions: Sequence[NameAction], *, text: bytes, release: int, stretch: int, idle: bool, running: str | None = None
    ) -> tuple[Consequence, ...]:
        """Enter what a released text does to names. `running` is the portal it runs in, None for a Query.

        `idle`: nothing is in flight and no transaction is open. Only then does a RESET or DISCARD last: inside a
        transaction a ROLLBACK could take it back.
        """
        if not actions:
            return ()
        self._moment += 1
        changes: list[Consequence] = []
        trusted: set[str] = set()
        idle = idle and not any(action.kind in _TRANSACTION for action in actions)
        self.idle_limit.follow(actions, lasting=idle)
        for action in actions:
            name = action.name
            match action.kind:
                case "prepare":
                    changes.append(self.statements.enter(name, Statement(action.text.encode()), stretch))
                case "declare":
                    portal = Portal(action.text, release, holdable=_MAY_HOLD.search(text) is not None)
                    changes.append(self.portals.enter(name, portal, stretch))
                case "deallocate":
                    changes += self._remove(self.statements, name, stretch, _UNNAMED)
                case "close":
                    changes += self._remove(self.portals, name, stretch, running)
                case "discard":
                    if name.lower() in _EVERYTHING:
                        changes += self.statements.enter_all_absent(stretch, spared=_UNNAMED)
                        changes += self.portals.enter_all_absent(stretch, spared=running)
                        trusted |= {"search_path", "temp"}
                    elif name.lower() in ("temp", "temporary"):
                        trusted.add("temp")
                case "temp-ddl":
                    self._taint("temp", trusted)
                case "set" if name.lower() == "search_path":
                    self._taint("search_path", trusted)
                case "reset" if name.lower() in _SEARCH_PATH:
                    trusted.add("search_path")
        if trusted and idle:
            changes.append(_Trusted(partial(self._trust_again, frozenset(trusted), self._moment)))
        return tuple(changes)

    def ran_unread_text(self) -> None:
        """Text ran that could not be read whole: from now on there may be temporary objects that no action reported."""
        self._unread = True

    def transaction_ended(self) -> None:
        """The server is idle: portals are gone, but for cursors WITH HOLD."""
        if len(self.portals):
            self.portals.forget_settled(lambda portal: portal.holdable)

    def _taint(self, what: str, trusted: set[str]) -> None:
        self._taints[what] = self._moment
        trusted.discard(what)

    def _trust_again(self, taints: frozenset[str], moment: int) -> None:
        """Drop the taints that are not younger than the statement that undid them."""
        for what in taints:
            if self._taints.get(what, moment + 1) <= moment:
                del self._taints[what]

    @staticmethod
    def _remove(table: Names[Any], name: str, stretch: int, spared: str | None) -> list[Consequence]:
        return [table.enter(name, Lookup.ABSENT, stretch)] if name else list(table.enter_all_absent(stretch, spared=spared))
