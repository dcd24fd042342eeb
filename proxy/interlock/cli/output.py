"""How every verb prints: data on stdout, talk on stderr, one exit code a reason (interface.md)."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console

from interlock.cli.description import safe
from interlock.errors import InterlockError, Reason

P = ParamSpec("P")
T = TypeVar("T")

talk = Console(stderr=True, highlight=False, soft_wrap=True)
data = Console(highlight=False, soft_wrap=True)


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


EXIT: dict[Reason, int] = {
    Reason.NOT_AUTHENTICATED: 3,
    Reason.TOKEN_REJECTED: 3,
    Reason.TOKEN_EXPIRED: 3,
    Reason.TOKEN_REPLAYED: 3,
    Reason.CREDENTIAL_REVOKED: 3,
    Reason.STEP_UP_REQUIRED: 3,
    Reason.LOGIN_ENDED: 3,
    Reason.DENIED_BY_POLICY: 4,
    Reason.NO_ACCESS: 4,
    Reason.DENIED_BY_REVIEWER: 5,
    Reason.APPROVAL_EXPIRED: 6,
    Reason.TARGET_UNREACHABLE: 7,
    Reason.EVIDENCE_INVALID: 8,
    Reason.EVIDENCE_INCOMPLETE: 8,
    Reason.CONFIG_INVALID: 2,
    Reason.APPROVAL_PENDING: 75,
}


SAYS_THE_PLACE = frozenset({Reason.CONFIG_INVALID, Reason.POLICY_INVALID})
"""Errors whose own sentence has the place and what to write there; the reason's general advice would only repeat it."""


def emit_json(value: Any) -> None:
    """Print JSON in ASCII: whatever an agent wrote, no terminal acts on it, and whoever parses it gets the same text."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def say(text: str) -> None:
    """Talk to the person, on stderr. The text is data: no markup is read from it."""
    talk.print(text, markup=False)


def columns(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns, the first one being the header. Never cut to the width of a terminal: an id that is cut is
    of no use to whoever pipes it on. Cells must have been made visible by whoever knows where they come from.
    """
    table = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        data.print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), markup=False)


def fail(error: InterlockError) -> NoReturn:
    place = error.code in SAYS_THE_PLACE  # such a sentence goes on with the lines of the operator's own file
    lines = str(error).split("\n") if place else [str(error)]
    say("interlock: " + "\n".join(map(safe, lines)))
    if error.next_step != str(error) and not place:
        say(f"  {safe(error.next_step)}")
    raise typer.Exit(EXIT.get(error.code, 1))


def reporting(verb: Callable[P, T]) -> Callable[P, T]:
    """Turn an InterlockError of a verb into its sentence and exit code."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except InterlockError as error:
            fail(error)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            say(f"interlock: {what}")
            raise typer.Exit(1) from None

    return run
