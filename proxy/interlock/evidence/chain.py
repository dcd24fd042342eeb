"""The open end of a chain: formed events become lines and disclosures, and these are written. What every command of the hot
path is recorded with.

Knows: the shapes of lines (forms) and of disclosures, the files that take them. Must not know: what an event means, where salts
come from, events that are not formed (transcript.py).

Compiled (`_chain.c`) where a compiler and OpenSSL 3 were there when the package was built; `COMPILED` says so. Both forms give
the same for every input (tests/evidence/test_chain.py).
"""

from __future__ import annotations

from binascii import b2a_base64, hexlify
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from interlock.evidence.disclosure import URL_SAFE
from interlock.evidence.forms import BEFORE, Form, FormedDraft
from interlock.evidence.linefile import LineFile

__all__ = ["COMPILED", "MOST_TAILS", "Chain", "PlainChain"]

MOST_TAILS = 16
"""Disclosures of one event, as many as the compiled form takes."""

MOST_GIVEN = 8
"""Disclosures that an event has beside those of its form, as many as take the short way."""
GENESIS = "0" * 64
"""`prev` of the first event."""
CLOCK_BOUND_US = 1_000_000
"""Wall and monotonic clock may part by this much between two events; more is a `clock.step`, which is not formed."""


def _chained(
    drafts: tuple[FormedDraft, ...], seq: int, prev: bytes, mono_us: int, name: bytes, ts: bytes, beginnings: list[bytes]
) -> tuple[bytes, bytes, bytes]:
    """Return the lines of these events, which begin at `seq` behind the line whose hash is `prev`, their disclosures, and the
    hash of the last line in hex.

    `name` and `ts` are what stands in every line for the session and the time. Takes a salt from the end of `beginnings`
    (disclosure.beginnings) for each disclosure. Raise IndexError when there are too few.
    """
    lines: list[bytes] = []
    secrets: list[bytes] = []
    for draft in drafts:
        form = draft.form
        tails = form.tails + draft.given
        varying: list[bytes | int | None] = [mono_us, prev, seq, name, ts]
        if form.refers:
            varying.insert(2, seq - 1 if draft.ref == BEFORE else draft.ref)
        template = form.template
        if tails:
            template = form.committing_template
            varying.insert(0, _committed(tails, seq, beginnings, secrets))
        line = template % tuple(varying)
        prev = hexlify(sha256(b"\0" + line).digest())
        lines.append(line)
        seq += 1
    lines.append(b"")
    return b"\n".join(lines), b"".join(secrets), prev


def _committed(tails: tuple[bytes, ...], seq: int, beginnings: list[bytes], lines: list[bytes]) -> bytes:
    """Add the line of a disclosure for each tail; return their digests as they stand in the event, joined by `","`."""
    if len(tails) > MOST_TAILS:
        raise IndexError("more disclosures than an event of the hot path has")
    texts = [beginnings.pop() + tail for tail in tails]
    end = b'","seq":%d}\n' % seq
    lines.append(b'{"d":"' + (end + b'{"d":"').join(texts) + end)
    digests = [b2a_base64(sha256(text).digest(), newline=False).translate(URL_SAFE, b"=") for text in texts]
    digests.sort()  # the order of names would say something (RFC 9901 §4.2.4.1)
    return b'","'.join(digests)


class PlainChain:
    """The open end of one chain. `seq` is the next event's; `prev`, `mono_us` and `wall_us` come from the last. Whoever writes an
    event that is not ordinary sets them.

    `meet` is asked once about each form: False where it commits to too much. `draw` is to put as many salts into `beginnings` as
    it is called with. Where `disclosures` is not a plain file, nothing is ordinary.
    """

    __slots__ = (
        "_disclosures", "_draw", "_events", "_meet", "_monotonic_ns", "_name", "_second", "_second_text", "_wall_ns", "base_us",
        "beginnings", "known", "mono_us", "open", "prev", "seq", "wall_us",
    )  # fmt: skip

    def __init__(
        self,
        name: bytes,
        events: LineFile,
        disclosures: object,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        meet: Callable[[Form], bool],
        draw: Callable[[int], None],
    ) -> None:
        self._name = name
        self._events = events
        self._disclosures = disclosures if isinstance(disclosures, LineFile) else None
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._meet, self._draw = meet, draw
        self._second, self._second_text = -1, b""
        self.known: set[Form] = set()
        self.beginnings: list[bytes] = []
        self.seq = self.mono_us = 0
        self.prev = GENESIS.encode()
        self.open = True
        self.base_us = monotonic_ns() // 1000
        self.wall_us = wall_ns() // 1000

    def append(self, *drafts: object) -> int | None:
        """Write these events, disclosures first, and return the `seq` of the first. None: they are not ordinary, and nothing was
        written. Raise OSError or EvidenceError: then the end is torn, and must not be appended to.
        """
        disclosures = self._disclosures
        if not (self.open and drafts) or disclosures is None or (formed := self._ordinary(drafts)) is None:
            return None
        wall_us, mono_us = self._wall_ns() // 1000, max(self.mono_us, self._monotonic_ns() // 1000 - self.base_us)
        step = wall_us - self.wall_us - (mono_us - self.mono_us)
        if not -CLOCK_BOUND_US <= step <= CLOCK_BOUND_US:
            return None
        ts = self._timestamp(wall_us)
        lines, secrets, prev = _chained(formed, self.seq, self.prev, mono_us, self._name, ts, self.beginnings)
        self.open = False
        if secrets:
            disclosures.append(secrets)
        self._events.append(lines)
        self.open = True
        first = self.seq
        self.seq, self.prev, self.mono_us, self.wall_us = first + len(formed), prev, mono_us, wall_us
        return first

    def _ordinary(self, drafts: tuple[object, ...]) -> tuple[FormedDraft, ...] | None:
        """Return these when all are formed, known and of ordinary size; then there are salts for them."""
        formed: list[FormedDraft] = []
        salts = 0
        for draft in drafts:
            if not isinstance(draft, FormedDraft):
                return None
            form, given = draft.form, len(draft.given)
            if given > MOST_GIVEN or (form not in self.known and not self._meet(form)):
                return None
            salts += given + len(form.tails)
            formed.append(draft)
        if len(self.beginnings) < salts:
            self._draw(salts)
        return tuple(formed)

    def _timestamp(self, wall_us: int) -> bytes:
        """Render RFC 3339 with six digits and Z; moments of one second share its text."""
        second, micros = divmod(wall_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds")[:19].encode() + b"."
        return b"%b%06dZ" % (self._second_text, micros)


if TYPE_CHECKING:
    from interlock.evidence._chain import Chain

    COMPILED = True
else:
    try:
        from interlock.evidence._chain import Chain
    except ImportError:
        COMPILED = False
        Chain = PlainChain
    else:
        COMPILED = True
