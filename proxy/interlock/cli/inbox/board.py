"""The inbox as a state and what a key does to it. Pure: knows neither the terminal nor the daemon.

Two rules keep a hand from answering what the eye did not read. The selection is a request and not a place in the list, so
whatever arrives moves nothing under it. And an approval is taken only once the whole text was on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from interlock.cli.deciding import Answer
from interlock.cli.description import describe

ENTER, ESCAPE, BACKSPACE, UP, DOWN, PAGE_UP, PAGE_DOWN, HOME, END = (
    "enter", "escape", "backspace", "up", "down", "page-up", "page-down", "home", "end",
)  # fmt: skip
INTERRUPT = "interrupt"

MAX_TYPED = 1_000
DEFAULT_PANE = 10


class Mode(StrEnum):
    LIST = "list"
    REASON = "reason"
    PASSPHRASE = "passphrase"
    HELP = "help"


@dataclass(frozen=True, slots=True)
class Send:
    """The person answered: send it. `passphrase` opens a decision session first, where none is open."""

    row: dict[str, Any]
    answer: Answer
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Quit:
    pass


@dataclass(frozen=True, slots=True)
class Load:
    """The whole of this request is needed."""

    request: str


Wish = Send | Quit | Load


@dataclass(slots=True)
class Board:
    """`rows` are what waits, by id, newest last; `whole` what is known entirely. `pane` and `width` are of the screen."""

    reviewer: str = ""
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    whole: dict[str, dict[str, Any]] = field(default_factory=dict)
    selected: str = ""
    mode: Mode = Mode.LIST
    verdict: str = ""
    typed: str = ""
    reason: str = ""
    message: str = ""
    connected: bool = False
    stepped_up: bool = False
    more: bool = False  # the daemon has more than these
    scroll: int = 0
    pane: int = DEFAULT_PANE
    width: int = 80
    seen: int = 0  # lines of the selected request that were on the screen, from its beginning

    # -- what the daemon says -----------------------------------------------------------------------------------------

    def reset(self, rows: list[dict[str, Any]], *, more: bool) -> None:
        """Everything anew: what waits, newest first as the daemon lists it."""
        self.rows = {row["id"]: row for row in reversed(rows)}
        self.whole = {ident: row for ident, row in self.whole.items() if ident in self.rows}
        self.more = more
        self._keep_selection()

    def change(self, row: dict[str, Any]) -> None:
        """A request changed, or is new. One that does not wait any more leaves the list, and what happened is said."""
        ident = row["id"]
        if row["state"] == "pending":
            self.rows[ident] = row
            self.whole[ident] = row
            if not self.selected:
                self._select(ident)
            return
        known = self.rows.pop(ident, None)
        self.whole.pop(ident, None)
        if known is None:
            return
        by = ", ".join(vote["reviewer"] for vote in row["votes"])
        self.message = f"{ident} is {row['state']}" + (f" (by {by})" if by else "")
        if ident == self.selected:
            self._stop_asking()
            self._keep_selection()

    def loaded(self, row: dict[str, Any]) -> None:
        if row["id"] in self.rows:
            self.whole[row["id"]] = row

    # -- what the screen asks -----------------------------------------------------------------------------------------

    def order(self) -> list[str]:
        """Return the ids, oldest first: what runs out first is on top."""
        return sorted(self.rows)

    def details(self) -> list[str]:
        """Return the lines of the selected request, wrapped to the screen; empty until it is known."""
        row = self.whole.get(self.selected)
        if row is None:
            return []
        width = max(20, self.width - 4)
        return [line[at : at + width] for line in describe(row) for at in range(0, max(1, len(line)), width)]

    def shown(self, pane: int, width: int) -> list[str]:
        """Return the lines that fit into a pane, and take them for read."""
        if (pane, width) != (self.pane, self.width):
            self.pane, self.width = max(1, pane), width
            self.seen = self.scroll = 0  # wrapped anew: other lines
        lines = self.details()
        self.scroll = max(0, min(self.scroll, len(lines) - self.pane))
        if self.scroll <= self.seen:
            self.seen = max(self.seen, self.scroll + self.pane)
        return lines[self.scroll : self.scroll + self.pane]

    @property
    def read(self) -> bool:
        """Whether all of the selected request was on the screen."""
        lines = self.details()
        return bool(lines) and self.seen >= len(lines)

    def wants(self) -> Load | None:
        """Return what has to be fetched for the screen."""
        return Load(self.selected) if self.selected in self.rows and self.selected not in self.whole else None

    # -- keys ---------------------------------------------------------------------------------------------------------

    def press(self, key: str) -> Wish | None:
        """Take one key: a name of the ones above, or a character."""
        if key == INTERRUPT:
            return Quit()
        if self.mode in (Mode.REASON, Mode.PASSPHRASE):
            return self._type(key)
        if self.mode is Mode.HELP:
            self.mode = Mode.LIST
            return None
        self.message = ""
        match key:
            case "q":
                return Quit()
            case "?":
                self.mode = Mode.HELP
            case "j" | "down":
                self._move(1)
            case "k" | "up":
                self._move(-1)
            case "enter" | " " | "page-down":
                self.scroll += max(1, self.pane - 1)
            case "page-up":
                self.scroll = max(0, self.scroll - max(1, self.pane - 1))
            case "home" | "g":
                self.scroll = 0
            case "a" | "d":
                self._ask("approve" if key == "a" else "deny")
        return None

    def _ask(self, verdict: str) -> None:
        row = self.whole.get(self.selected)
        if row is None:
            self.message = "nothing is selected"
        elif not self.reviewer:
            self.message = "start with --as HANDLE to answer from here"
        elif verdict == "approve" and row["critical"]:
            self.message = f"this one is signed: interlock approvals approve {row['id']} --sign --key FILE"
        elif verdict == "approve" and not self.read:
            self.message = "read to the end first: space shows more"
        else:
            self.mode, self.verdict, self.typed, self.reason = Mode.REASON, verdict, "", ""

    def _type(self, key: str) -> Wish | None:
        match key:
            case "escape":
                self._stop_asking()
            case "backspace":
                self.typed = self.typed[:-1]
            case "enter":
                return self._entered()
            case _ if len(key) == 1 and key.isprintable() and len(self.typed) < MAX_TYPED:
                self.typed += key
        return None

    def _entered(self) -> Wish | None:
        row = self.whole[self.selected]
        if self.mode is Mode.REASON:
            self.reason, self.typed = self.typed, ""
            if not self.stepped_up:
                self.mode = Mode.PASSPHRASE
                return None
            wish = Send(row, Answer(self.verdict, self.reason))
        else:
            wish = Send(row, Answer(self.verdict, self.reason), self.typed)
        self._stop_asking()
        return wish

    def _stop_asking(self) -> None:
        if self.mode in (Mode.REASON, Mode.PASSPHRASE):
            self.mode = Mode.LIST
        self.typed = self.reason = ""

    def _move(self, by: int) -> None:
        order = self.order()
        if order:
            at = order.index(self.selected) if self.selected in order else 0
            self._select(order[max(0, min(len(order) - 1, at + by))])

    def _select(self, ident: str) -> None:
        if ident != self.selected:
            self.selected, self.scroll, self.seen = ident, 0, 0

    def _keep_selection(self) -> None:
        """Stay where it is; where it is gone, take the next older one."""
        if self.selected in self.rows:
            return
        order = self.order()
        after = [ident for ident in order if ident > self.selected]
        self._stop_asking()
        self._select(after[0] if after else order[-1] if order else "")
