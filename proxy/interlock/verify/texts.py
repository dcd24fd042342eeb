"""The disclosures: are all texts there that events commit to, and nothing else (RFC 9901 §4.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interlock.verify.finding import Report
from interlock.verify.strict import MalformedError, b64url, parse_object, to_b64url

FILE = "disclosures.jsonl"
SEAL = -1
"""`seq` of the disclosure that the seal itself commits to; it stands last."""


@dataclass(frozen=True, slots=True)
class _Text:
    seq: int
    digest: str
    name: str
    value: Any


class Texts:
    """Reads the disclosures side by side with the events, in one pass."""

    def __init__(self, bundle: Path, report: Report) -> None:
        self._report = report
        self._lines = self._read(bundle / FILE)
        self._waiting = next(self._lines, None)
        self.found = 0
        self.missing = 0

    def of(self, seq: int, committed: list[str]) -> dict[str, Any]:
        """Return the values that event `seq` committed to, by name; report what is missing, changed or extra."""
        values: dict[str, Any] = {}
        wanted = set(committed)
        while self._waiting is not None and self._waiting.seq <= seq and self._waiting.seq != SEAL:
            text, self._waiting = self._waiting, next(self._lines, None)
            if text.seq != seq or text.digest not in wanted:
                self._report.problem("texts", "a text is here that no event commits to: it was changed or added", text.seq)
                continue
            wanted.discard(text.digest)
            if text.name in values:
                self._report.problem("texts", f"the event has two texts called {text.name}", seq)
            values[text.name] = text.value
            self.found += 1
        if wanted:
            self.missing += len(wanted)
            message = f"{len(wanted)} text(s) of the event are missing, and no signed redaction explains it"
            self._report.problem("texts", message, seq, incomplete=True)
        return values

    def of_seal(self, committed: str | None) -> Any:
        """Return the value that the seal committed to, or None. To be called after the last event."""
        value = None
        found = False
        while self._waiting is not None:
            text, self._waiting = self._waiting, next(self._lines, None)
            if text.seq == SEAL and committed is not None and text.digest == committed and not found:
                found, value = True, text.value
                self.found += 1
            else:
                self._report.problem("texts", "a text is here that nothing commits to: it was changed or added")
        if committed is not None and not found:
            self.missing += 1
            self._report.problem("texts", "the hash of the recording is missing", incomplete=True)
        return value

    def _read(self, path: Path) -> Iterator[_Text]:
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _parse(line)
                except MalformedError as error:
                    self._report.problem("texts", f"{FILE} line {number}: {error}")


def _parse(line: bytes) -> _Text:
    if not line.endswith(b"\n"):
        raise MalformedError("the line has no end")
    record = parse_object(line[:-1])
    disclosure, seq = record.get("d"), record.get("seq")
    if set(record) != {"d", "seq"} or not isinstance(disclosure, str) or type(seq) is not int or seq < SEAL:
        raise MalformedError("not a disclosure")
    try:
        content = json.loads(b64url(disclosure))
    except (ValueError, RecursionError):
        raise MalformedError("not a disclosure") from None
    if not isinstance(content, list) or len(content) != 3 or not all(isinstance(part, str) for part in content[:2]):
        raise MalformedError("not a disclosure")
    if len(b64url(content[0])) < 16:
        raise MalformedError("the salt of a disclosure is shorter than 128 bits")
    digest = to_b64url(hashlib.sha256(disclosure.encode("ascii")).digest())
    return _Text(seq, digest, content[1], content[2])
