"""What the analysis asks of other grammars, and what they answer. The asking itself is `commands.analyzer`'s.

The analysis is a generator: it yields a `Parse` and is sent a `Parsed`, or a `Query` and is sent an `Analysis`. So it has
no wait, no process and no clock inside.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from interlock.commands.model import Analysis


@dataclass(frozen=True, slots=True)
class Parse:
    """Read this text with shfmt, and with bash; read what bash printed with shfmt again."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """Read this text as SQL, where a crash of its parser hurts nobody."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    """The answers. `failure` names a crash or a limit of a child (then nothing else counts)."""

    tree: Mapping[str, Any] | None = None  # shfmt's, of the text; None: it does not parse
    error: str = ""  # shfmt's message, `line:column: …`
    printed: bytes | None = None  # the text as bash understood it; None: bash refuses it
    printed_tree: Mapping[str, Any] | None = None
    failure: str = ""
    detail: str = field(default="", compare=False)


T = TypeVar("T")
Asking = Generator[Parse | Query, Parsed | Analysis, T]


def parsed(text: bytes) -> Asking[Parsed]:
    """Ask both shell grammars."""
    answer = yield Parse(text)
    assert isinstance(answer, Parsed)
    return answer


def queried(text: bytes) -> Asking[Analysis]:
    """Ask PostgreSQL's grammar."""
    answer = yield Query(text)
    assert isinstance(answer, Analysis)
    return answer
