"""Names of things inside of sentences: never empty, never able to end the sentence or to pretend to be something else."""

from __future__ import annotations

from collections.abc import Callable

from interlock.commands.display import inline
from interlock.commands.model import Effect

Words = Callable[[Effect], str]
"""A function that puts one effect into words."""


def name(effect: Effect, otherwise: str = "something that is not named") -> str:
    return inline(effect.object) if effect.object else otherwise


def detailed(effect: Effect) -> str:
    return f" ({inline(effect.detail)})" if effect.detail else ""
