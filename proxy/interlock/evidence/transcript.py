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
from typing import TypeGuard

from interlock.clock import Clock, Entropy
from interlock.errors import EvidenceError
from interlock.evidence import disclosure, jcs
from interlock.evidence.chain import MOST_TAILS, chained
from interlock.evidence.events import TYPES, Draft, EventDraft, Json, reserved
from interlock.evidence.forms import VERSION, Form, FormedDraft
from interlock.evidence.linefile import LineFile, Log
from interlock.evidence.vault import Vault

EVENTS = "events.jsonl"
GENESIS = "0" * 64
"""`prev` of the first event."""

SALTS_AT_ONCE = 32
"""Salts are drawn so many at a time: a system call costs more than the bytes."""

MOST_GIVEN = 8
"""Disclosures that an event has beside those of its form, as many as take the short way."""
MAX_KNOWN = 64
"""Forms whose policies are known to have been mentioned."""

CLOCK_BOUND_US = 1_000_000
"""Wall and monotonic clock may part by this much between two events; more is a `clock.step`."""


class Transcript:
    """The open end of a chain. Not for several threads, but for `sync`."""

    __slots__ = (
        "_base", "_beginnings", "_broken", "_clock", "_entropy", "_events", "_known", "_mentioned", "_name", "_on_policy",
        "_prev", "_sealed", "_second", "_second_text", "_sink", "_wall_us", "directory", "mono_us", "seq", "session",
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
        self.seq = 0
        self._prev = GENESIS.encode()
        self._name = jcs.encode(session)[1:-1]
        self._second = -1
        self._second_text = b""
        self._beginnings: list[bytes] = []
        self.mono_us = 0
        self._clock = clock
        self._entropy = entropy
        self._on_policy = on_policy
        self._mentioned: set[str] = set()
        self._known: set[Form] = set()
        self._broken: str | None = None
        self._sealed = False
        self._base = clock.monotonic_us()
        self._wall_us = clock.wall_us()
        self._sink = vault.create(directory)
        self._events = LineFile(directory / EVENTS, create=True)

    @property
    def head(self) -> str:
        """Hash of the last line in hex: `prev` of the next event."""
        return self._prev.decode()

    @property
    def broken(self) -> str | None:
        """Why nothing can be written any more, or None."""
        return self._broken

    def break_off(self, why: str) -> None:
        """Refuse every later append: what is on the disk is not what it should be."""
        self._broken = self._broken or why

    def append(self, *drafts: Draft) -> int:
        """Write all drafts; return the `seq` of the first. Raise EvidenceError.

        When the clocks parted since the last event, a `clock.step` follows the drafts in the same write: never before
        them, because callers have counted on `next_seq`.
        """
        if self._broken is not None or self._sealed:
            raise EvidenceError(self._broken or "the transcript is sealed")
        wall_us, mono_us = self._clock.wall_us(), max(self.mono_us, self._clock.monotonic_us() - self._base)
        step = wall_us - self._wall_us - (mono_us - self.mono_us)
        if not -CLOCK_BOUND_US <= step <= CLOCK_BOUND_US:
            drafts = (*drafts, EventDraft("clock.step", {"step_us": step, "ref": self.seq}))
        ts, name = self._timestamp(wall_us), self._name
        seq, prev = self.seq, self._prev
        if self._all_formed(drafts):
            lines, secrets, prev = chained(drafts, seq, prev, mono_us, name, ts, self._beginnings)
            seq += len(drafts)
        else:
            made, committed = [], []
            for draft in drafts:
                if self._all_formed(one := (draft,)):
                    line, secret, prev = chained(one, seq, prev, mono_us, name, ts, self._beginnings)
                else:
                    line, secret = self._encode(draft.placed(seq), seq, mono_us, ts, prev)
                    prev = hexlify(sha256(b"\0" + line[:-1]).digest())
                made.append(line)
                committed.append(secret)
                seq += 1
            lines, secrets = b"".join(made), b"".join(committed)
        try:
            if secrets:
                self._sink.append(secrets)
            self._events.append(lines)
        except (OSError, EvidenceError) as error:
            self._broken = f"the transcript can't be written: {getattr(error, 'strerror', None) or error}"
            raise EvidenceError(self._broken) from None
        first = self.seq
        self.seq, self._prev, self.mono_us, self._wall_us = seq, prev, mono_us, wall_us
        return first

    def _all_formed(self, drafts: tuple[Draft, ...]) -> TypeGuard[tuple[FormedDraft, ...]]:
        """Whether all of these are formed and of ordinary size; then their policies are mentioned, and there are salts."""
        known, salts = self._known, 0
        for draft in drafts:
            if type(draft) is not FormedDraft:
                return False
            form, given = draft.form, len(draft.given)
            if given > MOST_GIVEN or (form not in known and not self._get_to_know(form)):
                return False
            salts += given + len(form.tails)
        if len(self._beginnings) < salts:
            self._draw(salts)
        return True

    def _get_to_know(self, form: Form) -> bool:
        """Mention the policy of a form; False for one that commits to too much."""
        if len(form.tails) > MOST_TAILS - MOST_GIVEN:
            return False
        if form.policy is not None and form.policy not in self._mentioned:
            self._mention(form.policy)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known.add(form)
        return True

    def _encode(self, draft: EventDraft, seq: int, mono_us: int, ts: bytes, prev: bytes) -> tuple[bytes, bytes]:
        """Return the line of one event and its disclosures, whatever it is made of."""
        fields = draft.fields
        if reserved(fields):
            raise EvidenceError(f"a field of {draft.type} has a name that every event has")
        if draft.type not in TYPES:
            raise EvidenceError(f"{draft.type} is not a type of event")
        event: dict[str, Json] = {
            **fields, "mono_us": mono_us, "prev": prev.decode(), "seq": seq, "session": self.session,
            "ts": ts.decode(), "type": draft.type, "v": VERSION,
        }  # fmt: skip
        secrets = b""
        if draft.secret:
            tails = [disclosure.tail(name, value) for name, value in draft.secret.items()]
            if len(self._beginnings) < len(tails):
                self._draw(len(tails))
            texts = [self._beginnings.pop() + tail for tail in tails]
            event["_sd"] = sorted(disclosure.digest_of(text).decode() for text in texts)
            secrets = b"".join(disclosure.line(text, seq) for text in texts)
        line = jcs.encode_with(fields, event)
        policy = fields.get("policy")
        if type(policy) is str and policy not in self._mentioned:
            self._mention(policy)
        return line + b"\n", secrets

    def _draw(self, wanted: int) -> None:
        self._beginnings += disclosure.beginnings(self._entropy(disclosure.DRAWN * max(SALTS_AT_ONCE, wanted)))

    def _mention(self, policy: str) -> None:
        self._on_policy(policy)
        self._mentioned.add(policy)

    def _timestamp(self, wall_us: int) -> bytes:
        """Render as `timestamp` does; moments of one second share its text."""
        second, micros = divmod(wall_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = timestamp(datetime.fromtimestamp(second, UTC))[:20].encode()
        return b"%b%06dZ" % (self._second_text, micros)

    def sync(self) -> None:
        """Bring everything appended before this call to stable storage. May run in another thread. Raise OSError."""
        self._sink.sync()
        self._events.sync()

    def share(self, log: Log, failed: Callable[[Exception], None]) -> None:
        """Tell `log` of what is appended from now on (linefile.LineFile.share)."""
        self._sink.share(log, failed)
        self._events.share(log, failed)

    def disclose(self, text: str) -> None:
        """Write and sync the disclosure of a commitment that the seal makes. Raise OSError or EvidenceError."""
        self._sink.append(disclosure.line(text, disclosure.OF_SEAL))
        self._sink.sync()

    def finish(self) -> None:
        """Refuse every later append. The disclosure of the seal still comes, in a thread, where the log must not be told."""
        self._sealed = True
        self._sink.alone()
        self._events.alone()

    def close(self) -> None:
        """Close the files. What could not be sealed is synced, as far as the disk lets us: the log will forget of it."""
        self._sealed = True
        with suppress(OSError):
            self.sync()
        self._sink.close()
        self._events.close()


def timestamp(moment: datetime) -> str:
    """Render as RFC 3339 with six digits and Z."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"
