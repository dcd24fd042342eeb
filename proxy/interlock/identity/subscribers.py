"""Whoever is told that something has ended or changed, at once and on the event loop.

Must not know what is told. A subscriber that fails is logged and passed over: the others end sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


class Subscribers(Generic[T]):
    """Those who listen to one part of the identity package, which `source` names in the log."""

    def __init__(self, source: str) -> None:
        self._failed = f"{source}.subscriber_failed"
        self._callbacks: list[Callable[[T], None]] = []

    def add(self, callback: Callable[[T], None]) -> Callable[[], None]:
        """Call back from now on. Return what ends it."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def tell(self, news: T) -> None:
        """Tell all of them; a failing one keeps nobody else from hearing it."""
        for callback in tuple(self._callbacks):
            try:
                callback(news)
            except Exception as error:
                log.error(self._failed, error=error.__class__.__name__)
