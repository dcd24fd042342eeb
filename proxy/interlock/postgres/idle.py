"""How long the server lets a transaction be idle before it ends the session, as far as this session knows.

A command that waits for a person inside a transaction is idle time to the server, which ends the session (25P03) and with it
the work of the transaction. So a wait is bounded by half of idle_in_transaction_session_timeout. It comes from the server's,
database's or role's settings (read with the catalog), from the start-up packet, or from a SET of the session.

Knows: the units of PostgreSQL's settings (guc.c). Must not know: sockets, who waits for whom. What it says decides no more
than how long is waited: a SET that is rolled back, or that the server did not take, makes a wait shorter or lets the server
end its session, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from interlock.commands.model import NameAction

SETTING = "idle_in_transaction_session_timeout"
QUERY = f"SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = '{SETTING}'"  # noqa: S608  a constant
"""Milliseconds, 0 for no limit. Asked with the role and database of the sessions that it is for, whose settings it has."""

_VALUE = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{0,6})?)\s*(us|ms|s|min|h|d)?\s*\Z")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, None: 1e-3}


def seconds(value: str) -> float | None:
    """Read a value of the setting; 0 is no limit, None is not a value that the server would take."""
    found = _VALUE.match(value)
    return float(found[1]) * _UNITS[found[2]] if found is not None else None


class IdleLimit:
    """The limit of one session. `asked` is that of its start-up packet, `default` gives the server's in seconds."""

    def __init__(self, asked: str = "", default: Callable[[], float | None] = lambda: None) -> None:
        self._at_start = seconds(asked)
        self._default = default
        self._set: tuple[float, ...] = ()

    @property
    def seconds(self) -> float | None:
        """The shortest that may be in force now, None for no limit."""
        values = self._set or (self._at_start if self._at_start is not None else self._default(),)
        limits = [value for value in values if value]
        return min(limits) if limits else None

    def follow(self, actions: Sequence[NameAction], *, lasting: bool) -> None:
        """Note what a released text sets. What is not `lasting` may be rolled back: what was before counts as well."""
        for action in actions:
            name = action.name.lower()
            match action.kind:
                case "set" if name == SETTING and (value := seconds(action.text)) is not None:
                    self._set = (value,) if lasting else (self.seconds or 0.0, value)
                case "reset" if name in ("", "all", SETTING) and lasting:
                    self._set = ()
                case "discard" if name in ("", "all") and lasting:
                    self._set = ()
