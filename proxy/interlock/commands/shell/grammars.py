"""What the analysis asks of the two grammars, and what they answer. The asking itself is `commands.pool`'s.

The analysis is a generator: it yields a `Parse` and is sent a `Parsed`. So it has no wait, no process and no clock inside.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class Parse:
    """Read this text with shfmt, and with bash; read what bash printed with shfmt again."""

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
Asking = Generator[Parse, Parsed, T]
