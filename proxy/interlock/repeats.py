"""A release that may be given again: what is kept of an allowed command, and what its answer rests on.

Knows: on what classification and policy depend. Must not know: sockets, rules, what a statement does.

A prepared statement runs a thousand times with other values. Classification and policy read its text and its context,
never its values and never the hour (`Decision.lasts`), so the answer to its second Bind is that to its first as long as the
same policy is in force and names mean the same. Both are compared by identity: a policy that was loaded and a context that
was made anew are other objects, whatever they hold. Whether the session may go on is asked each time, and each release is
a decision of its own in the record (gate.Session.again).

So it is with a text that is new but alike to others (commands/sql/alike.py): what differs are values that neither classification
nor, if it says so (`Decision.blind`), policy looked at.
"""

from __future__ import annotations

from interlock.commands.model import ShellContext, SqlContext
from interlock.ports import Policy
from interlock.record import Recurring, RecurringText


class Repeat:
    """One allowed command without its values. Made by `gate.Session` alone."""

    __slots__ = ("_context", "_policy", "recurring")

    def __init__(self, recurring: Recurring | RecurringText, context: SqlContext | ShellContext, policy: Policy) -> None:
        self.recurring = recurring
        self._context = context
        self._policy = policy

    def stands(self, context: SqlContext | ShellContext, policy: Policy) -> bool:
        """Whether nothing has changed that the answer rests on."""
        return self._context is context and self._policy is policy
