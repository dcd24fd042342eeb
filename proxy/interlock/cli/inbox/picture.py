"""The inbox as a picture: from a board to what rich draws. Pure; every text is data, no markup is read from it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from interlock.approvals.wording import duration
from interlock.cli.description import safe
from interlock.cli.inbox.board import Board, Mode

ROWS_SHARE = 3
"""The list takes at most one part in this many of the screen."""
AROUND = 5
"""Lines that are neither requests nor details: the header, the border of the details, the line of keys, and one below."""

KEYS = "j/k choose   space read on   a approve   d deny   ? keys   q quit"
HELP = (
    "j k ↓ ↑       choose a request",
    "space Enter   read on; PageUp and g go back",
    "a             approve: once, exactly as shown; asks for a reason, which may be empty",
    "d             deny: asks for a reason, which the agent is told",
    "Esc           take an answer back before it is sent",
    "q             quit",
    "",
    "The passphrase is asked for once in five minutes. Wider scopes, edits and signatures:",
    "interlock approvals approve --help",
)


def picture(board: Board, now: datetime, width: int, height: int) -> RenderableType:
    """Return the whole screen."""
    if board.mode is Mode.HELP:
        return Panel(Text("\n".join(HELP)), title="keys", width=width, height=height - 1)
    rows = max(1, min(len(board.rows) or 1, (height - AROUND) // ROWS_SHARE))
    pane = max(1, height - AROUND - rows)
    lines = board.shown(pane, width)
    return Group(_list(board, now, rows, width), _details(board, lines, pane, width), _line(board, width))


def _list(board: Board, now: datetime, height: int, width: int) -> Table:
    table = Table(expand=True, box=None, padding=(0, 1), width=width)
    for name, share in (("AGE", None), ("WHO", None), ("TARGET", None), ("RULE", None), ("COMMAND", 1)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=share)
    order = board.order()
    at = order.index(board.selected) if board.selected in order else 0
    start = max(0, min(at - height // 2, len(order) - height))
    for ident in order[start : start + height]:
        row = board.rows[ident]
        cells = (_age(row, now), row["principal"], row["target"], row["rule"], row["first"])
        style = "reverse" if ident == board.selected else "bold" if row["critical"] else ""
        table.add_row(*(Text(safe(cell)) for cell in cells), style=style)
    if not order:
        table.add_row(Text(""), Text(""), Text(""), Text(""), Text("nothing waits"))
    return table


def _details(board: Board, lines: list[str], height: int, width: int) -> Panel:
    total = len(board.details())
    last = board.scroll + len(lines)
    more = f"lines {board.scroll + 1}-{last} of {total}" + ("" if last >= total else ", space shows more") if total else ""
    text = Text("\n".join(lines), no_wrap=True, overflow="crop")
    return Panel(text, title=Text(board.selected or "interlock"), subtitle=Text(more), height=height + 2, width=width)


def _line(board: Board, width: int) -> Text:
    waiting = f"{len(board.rows)}{'+' if board.more else ''} waiting" + ("" if board.connected else ", connecting …")
    match board.mode:
        case Mode.REASON:
            told = "optional" if board.verdict == "approve" else "told to the agent"
            line = f"{board.verdict} {board.selected}: reason ({told}), Enter sends, Esc takes back: {board.typed}"
        case Mode.PASSPHRASE:
            line = f"passphrase of {board.reviewer}: {'*' * len(board.typed)}"
        case _:
            line = f"{waiting}   {board.message or KEYS}"
    shown = safe(line)
    asking = board.mode in (Mode.REASON, Mode.PASSPHRASE)
    return Text(shown[-(width - 1) :] if asking else shown[: width - 1], no_wrap=True, style="bold")


def _age(row: dict[str, Any], now: datetime) -> str:
    created = datetime.fromisoformat(row["created"]).astimezone(UTC)
    return duration(max(0, int((now - created).total_seconds())))
