"""The inbox at work: one thread follows the daemon, the other one the keyboard and the screen.

The board is touched by the keyboard's thread alone; what the daemon says comes through a queue and a pipe that wakes it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import Any

from rich.console import Console
from rich.live import Live

from interlock.cli.client import Client
from interlock.cli.deciding import Desk
from interlock.cli.inbox.board import Board, Load, Quit, Send
from interlock.cli.inbox.keys import Keyboard
from interlock.cli.inbox.picture import picture
from interlock.clock import SystemClock
from interlock.errors import InterlockError, Reason

PAGE = 200
AGAIN_S = 2.0
"""Seconds before the daemon is tried again."""
REDRAW_S = 1.0

REFUSED = frozenset(
    (Reason.NOT_AUTHENTICATED, Reason.TOKEN_REJECTED, Reason.TOKEN_EXPIRED, Reason.CREDENTIAL_REVOKED, Reason.MISSING_SCOPE)
)
"""Answers that trying again does not change."""


class Follower(threading.Thread):
    """Puts (what, value) into `said`: `rows`, `row`, `lost` or `refused`; and a byte into the pipe."""

    def __init__(self, client: Client, said: queue.SimpleQueue[tuple[str, Any]], wake: int) -> None:
        super().__init__(daemon=True, name="inbox-follower")
        self._client = client
        self._said = said
        self._wake = wake
        self._stop = threading.Event()

    def run(self) -> None:
        last = ""
        while not self._stop.is_set():
            try:
                for event in self._client.events("/v1/events", last):
                    if not last or event.kind == "resync":
                        # The stream is open, so nothing is missed between this list and the next event.
                        self._say("rows", self._client.get("/v1/approvals", state="pending", limit=str(PAGE)))
                    elif event.kind == "approval":
                        self._say("row", event.json())
                    else:
                        self._say("here", None)
                    last = event.ident or last
                self._say("lost", "the daemon ended the stream")
            except InterlockError as error:
                if error.code in REFUSED:
                    self._say("refused", error)
                    return
                self._say("lost", str(error))
            self._stop.wait(AGAIN_S)

    def stop(self) -> None:
        self._stop.set()

    def _say(self, what: str, value: Any) -> None:
        self._said.put((what, value))
        os.write(self._wake, b".")


def run(client: Client, reviewer: str) -> None:
    """Show the inbox until the person leaves. Raise InterlockError when the daemon does not let us in."""
    said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    woken, wake = os.pipe()
    board, desk = Board(reviewer), Desk(client, reviewer)
    keyboard, console, clock = Keyboard(sys.stdin.fileno()), Console(highlight=False), SystemClock()
    follower = Follower(client, said, wake)
    follower.start()
    try:
        with keyboard.raw(), Live(console=console, screen=True, auto_refresh=False) as live:

            def draw() -> None:
                live.update(picture(board, clock.now(), console.width, console.height), refresh=True)

            while True:
                while not said.empty():
                    _hear(board, *said.get())
                if (wish := board.wants()) is not None:
                    _load(board, client, wish)
                draw()
                keys = keyboard.read(woken, REDRAW_S)
                if keys is None:
                    return
                for key in keys:
                    match board.press(key):
                        case Quit():
                            return
                        case Send() as answer:
                            _send(board, desk, answer)
                        case _:
                            pass
                    board.stepped_up = desk.open
                    draw()  # after each key: what a held key scrolled past was on the screen
    finally:
        follower.stop()


def _hear(board: Board, what: str, value: Any) -> None:
    match what:
        case "rows":
            board.reset(value["approvals"], more=value["next"] is not None)
            board.connected = True
        case "row":
            board.change(value)
            board.connected = True
        case "here":
            board.connected = True
        case "lost":
            board.connected = False
            board.message = value
        case "refused":
            raise value


def _load(board: Board, client: Client, wish: Load) -> None:
    try:
        board.loaded(client.get(f"/v1/approvals/{wish.request}"))
    except InterlockError as error:
        board.rows.pop(wish.request, None)
        board.message = str(error)


def _send(board: Board, desk: Desk, wish: Send) -> None:
    """Send an answer; whatever the daemon says to it stands in the last line."""
    try:
        if wish.passphrase is not None:
            desk.step_up(wish.passphrase)
        row = desk.decide(wish.row, wish.answer)
    except InterlockError as error:
        board.message = str(error)
        return
    board.change(row)
    board.message = f"{row['id']} is {row['state']}"
