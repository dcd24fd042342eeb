"""Read a text with both grammars, shfmt's and bash's own. Where they differ, even its structure is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.commands.model import Unreadable
from interlock.commands.shell import grammars, tree
from interlock.commands.shell.effective import Blind
from interlock.commands.shell.grammars import Asking
from interlock.commands.shell.syntax import Script
from interlock.errors import Reason

PARSER = "shfmt+bash"


def read(text: str) -> Asking[tuple[Script | Unreadable | None, list[Blind]]]:
    """Read a text with both grammars. No script means that even its structure is not known."""
    source = text.encode()
    parsed = yield from grammars.parsed(source)
    whole = (text[:200], 0, len(source))
    if parsed.failure:
        return None, [Blind(parsed.failure, *whole)]
    if parsed.tree is None:
        return Unreadable(Reason.SYNTAX_ERROR, f"shell syntax: {parsed.error[:200]}", _offset(text, parsed.error)), []
    try:
        script = tree.read(parsed.tree, source)
    except tree.GrammarError as error:
        return Unreadable(Reason.DECEPTIVE_TEXT, str(error), error.offset), []
    except (tree.NestingError, RecursionError):
        return None, [Blind("nesting", *whole)]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, [Blind("unknown-construct", *whole)]
    if not script.body:
        return Unreadable(Reason.EMPTY_COMMAND, "the command holds only comments"), []
    if not _same(script, parsed.printed_tree, parsed.printed):
        return script, [Blind("grammars-disagree", *whole)]
    return script, []


def _same(script: Script, printed_tree: Mapping[str, Any] | None, printed: bytes | None) -> bool:
    if printed_tree is None or printed is None:
        return False
    try:
        return tree.read(printed_tree, printed) == script
    except (tree.NestingError, tree.GrammarError, RecursionError, KeyError, TypeError, ValueError, AttributeError):
        return False


def _offset(text: str, error: str) -> int | None:
    line, _, rest = error.partition(":")
    column = rest.partition(":")[0]
    if not (line.isdigit() and column.isdigit()):
        return None
    lines = text.encode().split(b"\n")
    return sum(len(one) + 1 for one in lines[: int(line) - 1]) + int(column) - 1
