"""asciicast v2 derived from a transcript: what a person replays. Pure and deterministic.

The recording is derived from events and disclosed values alone, so whoever has them gets it again byte for byte; the
seal commits to its hash. Commands, decisions and answers are printed as text and set as markers (`m`), which players
show as ticks. What is printed for the transcript begins with a sign of its own on a line of its own, and nobody else's text
can print that sign: a target that writes "approved by bob" writes it as output.

Version 2 because its times are absolute and Debian's asciinema plays nothing newer.
"""

from __future__ import annotations

import codecs
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from interlock.evidence import jcs
from interlock.evidence.events import Json
from interlock.evidence.terminal import OutputFilter, visible

WIDTH, HEIGHT = 100, 30
HIDDEN = "[not disclosed]"

SIGN = "▌"
"""Begins each line of ours."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it was read back, and the values that its disclosures reveal."""

    event: Mapping[str, Any]
    disclosed: Mapping[str, Any] = field(default_factory=dict)


def render(events: Iterable[Recorded]) -> Iterator[bytes]:
    """Yield the lines of the recording, newline included. Raise NotCanonicalError for values that are not ours."""
    recording = _Recording()
    for recorded in events:
        yield from recording.lines(recorded)
    yield from recording.rest()


_utf8 = codecs.getincrementaldecoder("utf-8")


class _Recording:
    def __init__(self) -> None:
        self._begun = False
        self._prompt = "$ "
        self._pty: set[object] = set()
        self._streams: dict[tuple[object, object], tuple[codecs.IncrementalDecoder, OutputFilter]] = {}
        self._time = 0
        self._midline = False

    def lines(self, recorded: Recorded) -> Iterator[bytes]:
        event, secret = recorded.event, recorded.disclosed
        if not self._begun:
            self._begun = True
            yield self._header(event)
        self._time = max(self._time, int(event["mono_us"]))
        match event["type"]:
            case "session.open":
                self._prompt = f"{event.get('target')}=> " if event.get("protocol") == "postgres" else "$ "
                yield self._say(
                    f"{event.get('handle')} opened {event.get('target')}; lines with this sign are the transcript's own"
                )
            case "channel.open":
                if event.get("pty"):
                    self._pty.add(event.get("channel"))
            case "command" | "sftp" | "git.push" | "pg.query":
                yield self._mark(f"{event['type']} {event['seq']}")
                yield self._asked(secret)
            case "pg.parse":
                yield self._asked(secret, "  -- parse")
            case "pg.bind":
                yield self._mark(f"pg.bind {event['seq']}")
                yield self._asked(secret, _binds(secret))
            case "decision":
                yield self._mark(f"decision: {event.get('verdict')} ({event.get('rule')})")
                if event.get("verdict") != "allow":
                    yield self._say(f"{event.get('verdict')} by {event.get('rule')}: {secret.get('reason', HIDDEN)}")
            case "approval.request":
                yield self._mark(f"held: {event.get('request')}")
                yield self._say(f"held for approval {event.get('request')} by {', '.join(event.get('groups', []))}")
            case "approval.response":
                yield self._mark(f"approval: {event.get('verdict')}{_people(event)}")
                yield self._say(f"{event.get('state')}{_people(event)} ({event.get('request')}){_reasons(secret)}")
            case "block":
                yield self._mark(f"refused: {event.get('reason')}")
                yield self._say(f"refused ({event.get('reason')}): {secret.get('message', HIDDEN)}")
            case "forward":
                if event.get("sent") == "rendered":
                    yield self._mark(f"sent: {secret.get('sent_text', HIDDEN)}")
            case "term.output":
                yield from self._output(event, secret)
            case "term.input":
                if (data := _bytes(secret)) is not None:
                    yield self._event("i", data.decode("utf-8", "replace"))
            case "term.resize":
                if isinstance(event.get("cols"), int) and isinstance(event.get("rows"), int):
                    yield self._event("r", f"{event['cols']}x{event['rows']}")
            case "pg.result":
                yield from self._result(event, secret)
            case "channel.close":
                status = event.get("exit_status", event.get("signal"))
                if status is not None:
                    yield self._say(f"exit {status}")
            case "session.close":
                yield from self.rest()
                yield self._say(f"closed: {event.get('reason')}")
            case "channel.refuse" | "gap" | "clock.step" | "recovery" | "catalog":
                yield self._mark(str(event["type"]))
            case _:
                pass

    def rest(self) -> Iterator[bytes]:
        """Flush what incomplete characters and sequences were waited for."""
        for decoder, shown in self._streams.values():
            left = shown.feed(decoder.decode(b"", True)) + shown.finish()
            if left:
                yield self._others(left)
        self._streams.clear()

    def _header(self, event: Mapping[str, Any]) -> bytes:
        opened = datetime.fromisoformat(str(event["ts"]))
        header: dict[str, Json] = {
            "height": HEIGHT,
            "timestamp": int(opened.timestamp()),
            "title": visible(f"{event.get('handle', 'somebody')} at {event.get('target', 'nowhere')}"),
            "version": 2,
            "width": WIDTH,
        }
        return jcs.encode(header) + b"\n"

    def _event(self, code: str, data: str) -> bytes:
        # The time is written by hand: no float is formatted, so no two readers differ.
        seconds, micros = divmod(self._time, 1_000_000)
        return b"[%d.%06d, %b, %b]\n" % (seconds, micros, jcs.encode(code), jcs.encode(data))

    def _mark(self, text: str) -> bytes:
        return self._event("m", visible(text))

    def _text(self, text: str) -> bytes:
        """Print lines that somebody else wrote."""
        return self._others(visible(text).replace("\n", "\r\n") + "\r\n")

    def _others(self, text: str) -> bytes:
        self._midline = not text.endswith("\n")
        return self._event("o", _unsigned(text))

    def _asked(self, secret: Mapping[str, Any], more: str = "") -> bytes:
        """Print what was asked for, each line of it signed: a second line can't pass for an answer."""
        lines = _unsigned(visible(f"{secret.get('text', HIDDEN)}{more}")).split("\n")
        return self._own("".join(f"{SIGN}{'> ' if at else self._prompt}{line}\r\n" for at, line in enumerate(lines)))

    def _say(self, text: str) -> bytes:
        """Print a line of ours, told apart from everybody else's by its sign and its colour."""
        flat = _unsigned(visible(text).replace("\n", " "))
        return self._own(f"\x1b[36m{SIGN}-- {flat}\x1b[0m\r\n")

    def _own(self, text: str) -> bytes:
        # Colours are what a target may set; those that hide (SGR 8, black on black) must not hide what comes from us.
        fresh, self._midline = "\r\n" if self._midline else "", False
        return self._event("o", f"{fresh}\x1b[0m{text}")

    def _output(self, event: Mapping[str, Any], secret: Mapping[str, Any]) -> Iterator[bytes]:
        data = _bytes(secret)
        if data is None:
            yield self._say(f"output {HIDDEN}")
            return
        channel = event.get("channel")
        key = (channel, event.get("stream"))
        if key not in self._streams:
            self._streams[key] = (_utf8("replace"), OutputFilter(drawing=channel in self._pty))
        decoder, shown = self._streams[key]
        if text := shown.feed(decoder.decode(data)):
            yield self._others(text)

    def _result(self, event: Mapping[str, Any], secret: Mapping[str, Any]) -> Iterator[bytes]:
        for row in secret.get("rows", ()):
            cells = row if isinstance(row, list) else [row]
            yield self._text(" | ".join("NULL" if cell is None else str(cell) for cell in cells))
        for name in ("text", "message"):
            if name in secret:
                yield self._text(str(secret[name]))
        parts = [f"{name} {event[name]}" for name in ("sqlstate", "tag", "rows") if event.get(name) not in (None, "")]
        yield self._say("; ".join(parts) or "done")


def _unsigned(text: str) -> str:
    """Make our sign visible as what it is in the text of others."""
    return text.replace(SIGN, f"\\u{{{ord(SIGN):x}}}")


def _bytes(secret: Mapping[str, Any]) -> bytes | None:
    """Return the bytes of a terminal event: `data` is base64, `text` is text."""
    if isinstance(data := secret.get("data"), str):
        try:
            return b64decode(data, validate=True)
        except ValueError:
            return None
    return text.encode("utf-8", "replace") if isinstance(text := secret.get("text"), str) else None


def _binds(secret: Mapping[str, Any]) -> str:
    shown = [f"${at} = {_value(bind)}" for at, bind in enumerate(secret.get("binds", ()), 1)]
    return f"  -- {', '.join(shown)}" if shown else ""


def _value(bind: Mapping[str, Any]) -> str:
    if bind.get("raw") is None:
        return "NULL"
    return repr(bind["shown"]) if bind.get("shown") is not None else "(binary)"


def _people(event: Mapping[str, Any]) -> str:
    handles = [str(vote.get("handle")) for vote in event.get("votes", ())]
    return f" by {', '.join(handles)}" if handles else ""


def _reasons(secret: Mapping[str, Any]) -> str:
    reasons = [str(reason) for reason in secret.get("reasons", ()) if reason]
    return f": {'; '.join(reasons)}" if reasons else ""
