"""One transcript: a chain of events in a directory of its own, and its disclosures beside it.

Theory of operation. An append encodes all its events first (a value without a canonical form refuses the whole append
and writes nothing), then writes the disclosures in one write, then the events in one write. So a process that dies at
any moment leaves disclosures of events that were not written, never events whose texts are lost. `prev` is the RFC 6962
leaf hash of the line before, so the chain, the Merkle tree and a shell loop use the same hash.

Knows files and the chain. Does not know sessions, policy or asyncio.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from interlock.clock import Clock, Entropy
from interlock.errors import EvidenceError
from interlock.evidence import disclosure, jcs
from interlock.evidence.chain import CLOCK_BOUND_US, MOST_GIVEN, MOST_TAILS, Chain
from interlock.evidence.events import TYPES, Draft, EventDraft, Json, reserved
from interlock.evidence.forms import VERSION, Form
from interlock.evidence.linefile import LineFile, Tally
from interlock.evidence.vault import Vault

EVENTS = "events.jsonl"

SALTS_AT_ONCE = 32
"""Salts are drawn so many at a time: a system call costs more than the bytes."""

MAX_KNOWN = 64
"""Forms whose policies are known to have been mentioned."""


class Transcript:
    """A chain and its files. Not for several threads, but for `sync`. Ordinary events are `chain`'s alone (chain.py)."""

    __slots__ = (
        "_broken", "_clock", "_entropy", "_events", "_mentioned", "_on_policy", "_sealed", "_sink", "chain", "directory",
        "session",
    )  # fmt: skip

    def __init__(
        self,
        directory: Path,
        session: str,
        *,
        clock: Clock,
        entropy: Entropy,
        vault: Vault,
        on_policy: Callable[[str], None],
    ) -> None:
        """Create the files of a new transcript in an existing, empty directory. Raise OSError.

        `on_policy` is told each policy digest before the first event that mentions it is written.
        """
        self.directory = directory
        self.session = session
        self._clock = clock
        self._entropy = entropy
        self._on_policy = on_policy
        self._mentioned: set[str] = set()
        self._broken: str | None = None
        self._sealed = False
        self._sink = vault.create(directory)
        self._events = LineFile(directory / EVENTS, create=True)
        name = jcs.encode(session)[1:-1]
        self.chain = Chain(name, self._events, self._sink, clock.wall_ns, clock.monotonic_ns, self._get_to_know, self._draw)

    @property
    def seq(self) -> int:
        """`seq` of the next event."""
        return self.chain.seq

    @property
    def head(self) -> str:
        """Hash of the last line in hex: `prev` of the next event."""
        return self.chain.prev.decode()

    @property
    def broken(self) -> str | None:
        """Why nothing can be written any more, or None."""
        return self._broken

    def break_off(self, why: str) -> None:
        """Refuse every later append: what is on the disk is not what it should be."""
        self._broken = self._broken or why
        self.chain.open = False

    def append(self, *drafts: Draft) -> int:
        """Write all drafts; return the `seq` of the first. Raise EvidenceError.

        When the clocks parted since the last event, a `clock.step` follows the drafts in the same write: never before
        them, because callers have counted on `next_seq`.
        """
        try:
            seq = self.chain.append(*drafts)
        except OSError as error:
            raise self.torn(error) from None
        return self.append_other(drafts) if seq is None else seq

    def append_other(self, drafts: tuple[Draft, ...]) -> int:
        """The same of what is not ordinary, which `chain` leaves alone."""
        if self._broken is not None or self._sealed:
            raise EvidenceError(self._broken or "the transcript is sealed")
        chain = self.chain
        wall_us, mono_us = self._clock.wall_ns() // 1000, max(chain.mono_us, self._clock.monotonic_us() - chain.base_us)
        step = wall_us - chain.wall_us - (mono_us - chain.mono_us)
        if not -CLOCK_BOUND_US <= step <= CLOCK_BOUND_US:
            drafts = (*drafts, EventDraft("clock.step", {"step_us": step, "ref": chain.seq}))
        ts = timestamp(datetime.fromtimestamp(wall_us // 1_000_000, UTC).replace(microsecond=wall_us % 1_000_000))
        first, prev = chain.seq, chain.prev
        lines, secrets = [], []
        for seq, draft in enumerate(drafts, first):
            line, secret = self._encode(draft.placed(seq), seq, mono_us, ts, prev)
            prev = hexlify(sha256(b"\0" + line[:-1]).digest())
            lines.append(line)
            secrets.append(secret)
        try:
            if committed := b"".join(secrets):
                self._sink.append(committed)
            self._events.append(b"".join(lines))
        except (OSError, EvidenceError) as error:
            raise self.torn(error) from None
        chain.seq, chain.prev, chain.mono_us, chain.wall_us = first + len(drafts), prev, mono_us, wall_us
        return first

    def torn(self, error: Exception) -> EvidenceError:
        """A write failed: what is on the disk may end anywhere."""
        self.break_off(f"the transcript can't be written: {getattr(error, 'strerror', None) or error}")
        return EvidenceError(self._broken or "")

    def _get_to_know(self, form: Form) -> bool:
        """Mention the policy of a form; False for one that commits to too much."""
        if len(form.tails) > MOST_TAILS - MOST_GIVEN:
            return False
        if form.policy is not None and form.policy not in self._mentioned:
            self._mention(form.policy)
        known = self.chain.known
        if len(known) >= MAX_KNOWN:
            known.clear()
        known.add(form)
        return True

    def _encode(self, draft: EventDraft, seq: int, mono_us: int, ts: str, prev: bytes) -> tuple[bytes, bytes]:
        """Return the line of one event and its disclosures, whatever it is made of."""
        fields = draft.fields
        if reserved(fields):
            raise EvidenceError(f"a field of {draft.type} has a name that every event has")
        if draft.type not in TYPES:
            raise EvidenceError(f"{draft.type} is not a type of event")
        event: dict[str, Json] = {
            **fields, "mono_us": mono_us, "prev": prev.decode(), "seq": seq, "session": self.session,
            "ts": ts, "type": draft.type, "v": VERSION,
        }  # fmt: skip
        secrets = b""
        if draft.secret:
            tails = [disclosure.tail(name, value) for name, value in draft.secret.items()]
            beginnings = self.chain.beginnings
            if len(beginnings) < len(tails):
                self._draw(len(tails))
            texts = [beginnings.pop() + tail for tail in tails]
            event["_sd"] = sorted(disclosure.digest_of(text).decode() for text in texts)
            secrets = b"".join(disclosure.line(text, seq) for text in texts)
        line = jcs.encode_with(fields, event)
        policy = fields.get("policy")
        if type(policy) is str and policy not in self._mentioned:
            self._mention(policy)
        return line + b"\n", secrets

    def _draw(self, wanted: int) -> None:
        drawn = self._entropy(disclosure.DRAWN * max(SALTS_AT_ONCE, wanted))
        self.chain.beginnings.extend(disclosure.beginnings(drawn))

    def _mention(self, policy: str) -> None:
        self._on_policy(policy)
        self._mentioned.add(policy)

    def sync(self) -> None:
        """Bring everything appended before this call to stable storage. May run in another thread. Raise OSError."""
        self._sink.sync()
        self._events.sync()

    def share(self, tally: Tally, failed: Callable[[Exception], None]) -> None:
        """Tell the log of what is appended from now on (linefile.LineFile.share)."""
        self._sink.share(tally, failed)
        self._events.share(tally, failed)

    def disclose(self, text: str) -> None:
        """Write and sync the disclosure of a commitment that the seal makes. Raise OSError or EvidenceError."""
        self._sink.append(disclosure.line(text, disclosure.OF_SEAL))
        self._sink.sync()

    def finish(self) -> None:
        """Refuse every later append. The disclosure of the seal still comes, in a thread, where the log must not be told."""
        self._sealed = True
        self.chain.open = False
        self._sink.alone()
        self._events.alone()

    def close(self) -> None:
        """Close the files. What could not be sealed is synced, as far as the disk lets us: the log will forget of it."""
        self._sealed = True
        self.chain.open = False
        with suppress(OSError):
            self.sync()
        self._sink.close()
        self._events.close()


def timestamp(moment: datetime) -> str:
    """Render as RFC 3339 with six digits and Z."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"
