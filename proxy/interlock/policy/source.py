"""The policy in force, and its replacement: built whole, then swapped; a bad file changes nothing and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from interlock.errors import PolicyError
from interlock.policy.engine import PolicySet
from interlock.policy.loader import load
from interlock.policy.model import ReviewTerms

_log = structlog.get_logger()


class LivePolicy:
    """Implements `ports.PolicySource`. A reader takes `current` once per decision and sees one policy throughout."""

    def __init__(self, paths: Sequence[Path], *, terms: ReviewTerms | None = None) -> None:
        """Load. Raise PolicyError: without a policy nothing starts."""
        self._paths = tuple(paths)
        self._terms = terms
        self._current = load(self._paths, terms=terms)
        self._files: dict[str, bytes] = dict(self._current.files)

    @property
    def current(self) -> PolicySet:
        return self._current

    def reload(self) -> PolicySet:
        """Load the files anew and swap. Raise PolicyError and keep the old policy when anything is wrong."""
        try:
            fresh = load(self._paths, terms=self._terms)
        except PolicyError:
            _log.error("policy.kept", digest=self._current.digest)
            raise
        if fresh.digest == self._current.digest:
            return self._current
        _log.info("policy.loaded", digest=fresh.digest, replaces=self._current.digest, rules=len(fresh.rules))
        self._files.update(fresh.files)
        self._current = fresh
        return fresh

    def files(self) -> Mapping[str, bytes]:
        """Return the bytes of every policy that was in force since start, by SHA-256: sessions outlive a reload."""
        return dict(self._files)
