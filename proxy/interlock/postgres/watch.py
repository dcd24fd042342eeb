"""Settings that the server reports and that must not change while text is read and decided here.

Knows: postgres.md "Start-up": both lexer differentials (client_encoding, standard_conforming_strings) were proven, and
another session user is another principal at the server. Must not know: sockets.
"""

from __future__ import annotations

from interlock.errors import Reason

_REQUIRED = {"client_encoding": "UTF8", "standard_conforming_strings": "on"}
_CONSTANT = frozenset(("session_authorization", "is_superuser"))


class ParameterWatch:
    """Takes every ParameterStatus of a session. Where nothing is pinned every text is opaque anyway, and nothing poisons."""

    def __init__(self, *, pinned: bool = True) -> None:
        self._pinned = pinned
        self._first: dict[str, str] = {}

    def take(self, name: str, value: str) -> tuple[Reason, str] | None:
        """Return why the session must end, or None."""
        if not self._pinned:
            return None
        required = _REQUIRED.get(name)
        if required is not None and value != required:
            return Reason.SESSION_POISONED, f"{name} changed to {value[:40]!r}"
        if name in _CONSTANT and self._first.setdefault(name, value) != value:
            return Reason.SESSION_POISONED, f"{name} changed"
        return None
