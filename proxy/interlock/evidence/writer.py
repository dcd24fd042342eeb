"""The recorder of sessions and the store that opens them. The asyncio side of evidence.

Theory of operation. `append` writes synchronously on the loop (microseconds); every sync runs in a thread and is shared
(durability.py). `open` returns when `session.open` and the directory entries are on stable storage. `close` seals in a
task of its own: what was written is read back (readers.py), signed with the session's ephemeral key, and the key is
dropped. Whatever was not sealed when the process died is recovered at the next start (recovery.py).

A recorder whose write or sync failed is broken for good: every later call raises, and its directory is recovered as
aborted when its session closes, or as soon as the disk lets us.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from interlock import __version__
from interlock.clock import Clock, Entropy, ulid
from interlock.errors import EvidenceError
from interlock.evidence.datadir import DataDirectory
from interlock.evidence.durability import GroupCommit, SyncRounds
from interlock.evidence.events import Draft, EventDraft, Json, Recorder
from interlock.evidence.journal import Journal
from interlock.evidence.linefile import LineFile, sync_directory
from interlock.evidence.policies import PolicyShelf
from interlock.evidence.readback import ReadBack
from interlock.evidence.readers import Readers
from interlock.evidence.recovery import recover
from interlock.evidence.redo import Batch, RedoLog, Shared
from interlock.evidence.seal import SealCa, SealKey, Status
from interlock.evidence.sealing import Sealer
from interlock.evidence.transcript import Transcript
from interlock.evidence.vault import PlainVault, Vault
from interlock.policy.model import SessionFacts

HEARTBEAT_US = 30_000_000
ROTATE_US = 3_600_000_000
TICK = 1.0
"""Seconds between two looks at what is due."""

SYNCING, SEALING = 4, 2
"""Threads. Sealing must not keep a reviewer's answer from being synced."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")

T = TypeVar("T")
log = structlog.get_logger()


class TranscriptRecorder:
    """Implements `Recorder` for one directory. Made by the store; not shared between loops."""

    def __init__(self, store: TranscriptStore, transcript: Transcript, key: SealKey, kind: str) -> None:
        self.session = transcript.session
        self.kind = kind
        self.last_heartbeat_us = 0
        self._store = store
        self._transcript = transcript
        self._key = key
        self._commit = GroupCommit(transcript.sync, store.rounds, self._sync_failed)
        transcript.share(store.redo.tally, self._sync_failed)
        self._ending: asyncio.Task[None] | None = None

    @property
    def next_seq(self) -> int:
        return self._transcript.seq

    @property
    def head(self) -> str:
        return self._transcript.head

    @property
    def sync_every(self) -> bool:
        return self._store.sync_mode == "every"

    @property
    def broken(self) -> str | None:
        return self._transcript.broken

    @property
    def directory(self) -> Path:
        return self._transcript.directory

    def append(self, *drafts: Draft) -> int:
        transcript, commit = self._transcript, self._commit
        try:
            seq = transcript.chain.append(*drafts)
        except OSError as error:
            raise transcript.torn(error) from None
        if seq is None:
            seq = transcript.append_other(drafts)
        commit.written += 1
        if not commit.queued:
            commit.queue()
        return seq

    async def sync(self) -> None:
        if (why := self._transcript.broken) is not None:
            raise EvidenceError(why)
        try:
            await self._commit.wait()
        except OSError as error:
            raise EvidenceError(f"the transcript can't be synced: {error.strerror or error}") from None

    async def close(self, fields: Mapping[str, Json]) -> None:
        """End and seal; later calls wait for the first. What can't be sealed now is logged and sealed as aborted later."""
        await asyncio.shield(self.end(EventDraft("session.close" if self.kind == "session" else "journal.close", fields)))

    def end(self, draft: EventDraft) -> asyncio.Task[None]:
        """Append the last event now; seal in a task that outlives its caller."""
        if self._ending is None:
            try:
                self.append(draft)
            except EvidenceError as error:
                self._transcript.break_off(str(error))
            self._transcript.finish()
            self._ending = self._store.keep(self._seal())
        return self._ending

    async def _seal(self) -> None:
        store, transcript = self._store, self._transcript
        try:
            try:
                await self._commit.wait()
            finally:
                self._commit.stop()
            if transcript.broken is not None:
                raise EvidenceError(transcript.broken)
            read = await store.readers.read(transcript.directory, self.session, with_recording=self.kind == "session")
            await store.unhurried(partial(self._seal_now, read))
        except (OSError, EvidenceError) as error:
            self._key.destroy()
            log.error("transcript not sealed", session=self.session, error=str(error))
            store.repair_later(self)
        finally:
            await store.threaded(transcript.close)
            store.forget(self)
        if transcript.broken is not None:
            await store.repair()

    def _seal_now(self, read: ReadBack) -> None:
        transcript = self._transcript
        transcript.sync()  # the group commit may have synced the log that all share instead
        disclose = transcript.disclose if self.kind == "session" else None
        self._store.sealer.seal(
            transcript.directory,
            self._key,
            read,
            kind=self.kind,
            status=Status.CLOSED,
            expected=(transcript.seq, transcript.head),
            sync=self._store.sync_mode,
            disclose=disclose,
        )

    def _sync_failed(self, error: Exception) -> None:
        self._transcript.break_off(f"the transcript can't be synced: {error}")
        log.error("transcript not synced", session=self.session, error=str(error))


class TranscriptStore:
    """Implements `ports.Transcripts` over a data directory. One a data directory, which it locks."""

    def __init__(
        self,
        data_dir: Path,
        node: str,
        *,
        clock: Clock,
        entropy: Entropy,
        ca: SealCa,
        sync: str,
        policy_files: Callable[[], Mapping[str, bytes]],
        vault: Vault | None = None,
    ) -> None:
        """`sync` is `review` or `every` (config.EvidenceConfig). `policy_files` returns the files of the policy in force."""
        self.data_dir = data_dir
        self.node = node
        self.sync_mode = sync
        self.pool = ThreadPoolExecutor(SYNCING, "evidence-sync")
        self._sealing = ThreadPoolExecutor(SEALING, "evidence-seal")
        self._clock = clock
        self._entropy = entropy
        self._ca = ca
        self._vault: Vault = vault if vault is not None else PlainVault()
        self._shelf = PolicyShelf(data_dir, policy_files)
        self.readers = Readers(self._vault, self._sealing)
        self.sealer = Sealer(node, ca, self._shelf, self._vault, clock, entropy)
        self.rounds: SyncRounds[Batch]
        self.redo = RedoLog(data_dir, clock, self._sync_failed, self._sealing)
        self._loop: asyncio.AbstractEventLoop
        self._live: dict[str, TranscriptRecorder] = {}
        self._unsealed: dict[Path, str] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._journal: Journal | None = None
        self._rotated_us = 0
        self._repairing = asyncio.Lock()
        self._closing = False
        self._folder = DataDirectory(data_dir)

    @property
    def journal(self) -> Recorder:
        """The node's journal: the same object over rotations."""
        if self._journal is None:
            raise EvidenceError("the transcript store is not started")
        return self._journal

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Lock and prepare the data directory, recover what died, begin the journal. Raise EvidenceError."""
        self._loop = asyncio.get_running_loop()
        self.rounds = SyncRounds(self.pool, self.redo)
        try:
            self._unsealed.update(await self.threaded(self._prepare))
            await self.repair()
            before = await self.threaded(self._folder.last_journal)
            part = await self._create("journal", ulid(self._clock, self._entropy))
            self._journal = Journal(part, self._about(), before)
            await self._journal.sync()
        except OSError as error:
            self._folder.unlock()
            raise EvidenceError(f"{error.filename or self.data_dir} can't be used: {error.strerror or error}") from None
        except EvidenceError:
            self._folder.unlock()
            raise
        self._rotated_us = self._clock.monotonic_us()
        self._ticking = asyncio.create_task(self._tick_forever())

    async def close(self) -> None:
        """Seal every open transcript and the journal, and release the directory. What takes long has a bound (readers.py)."""
        self._closing = True
        self.hurry()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait([self._ticking])
        for recorder in list(self._live.values()):
            if recorder.kind == "session":
                recorder.end(EventDraft("session.close", {"reason": "shutting-down"}))
        if self._journal is not None:
            await self._journal.close({"reason": "shutting-down"})
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        try:
            await asyncio.to_thread(self.redo.close)
        except (OSError, RuntimeError) as error:  # the pool is gone when the store is closed twice
            log.error("redo log not closed", error=str(error))
        self.redo.rest()
        self._folder.unlock()
        self.pool.shutdown()
        self._sealing.shutdown()
        self.readers.close()

    def hurry(self) -> None:
        """The node stops, soon: let nothing wait for a seal that takes long."""
        self.readers.stop()

    async def open(self, session: SessionFacts, opened: EventDraft) -> Recorder:
        """Begin a transcript. Its first event and its directory are durable when this returns. Raise EvidenceError."""
        if self._journal is None or self._closing:
            raise EvidenceError("no transcript can be begun: the node is starting or stopping")
        draft = EventDraft(opened.type, {**opened.fields, **self._about()}, opened.secret)
        beginning = self.keep(self._begin(session.id, draft))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_abandon)
            raise

    # -- what is due ----------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Append heartbeats that are due, rotate the journal, try again to seal what could not be sealed."""
        now = self._clock.monotonic_us()
        for recorder in list(self._live.values()):
            if now - recorder.last_heartbeat_us >= HEARTBEAT_US:
                recorder.last_heartbeat_us = now
                try:
                    recorder.append(EventDraft("heartbeat"))
                except EvidenceError as error:
                    log.error("heartbeat not recorded", session=recorder.session, error=str(error))
        if self.redo.due:
            self.rounds.begin()  # what is erased from a transcript must not live on in the log of a node where little happens
        journal = self._journal
        if journal is not None and (journal.broken is not None or now - self._rotated_us >= ROTATE_US):
            await self._rotate(journal)
        if self._unsealed:
            await self.repair()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.tick()
            except Exception:
                # A defect in one transcript's upkeep must not stop the heartbeats of all others.
                log.exception("evidence tick failed")

    async def _rotate(self, journal: Journal) -> None:
        try:
            fresh = await self._create("journal", ulid(self._clock, self._entropy))
            journal.rotate(fresh)
            await journal.sync()
            self._rotated_us = self._clock.monotonic_us()
        except (OSError, EvidenceError) as error:
            log.error("journal not rotated", error=str(error))

    # -- used by recorders ----------------------------------------------------------------------------------------

    def keep(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run in a task that `close` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def threaded(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    async def unhurried(self, work: Callable[[], T]) -> T:
        """Run long work where it delays no sync."""
        return await asyncio.get_running_loop().run_in_executor(self._sealing, work)

    def forget(self, recorder: TranscriptRecorder) -> None:
        self._live.pop(recorder.session, None)

    def repair_later(self, recorder: TranscriptRecorder) -> None:
        self._unsealed[recorder.directory] = recorder.kind

    async def repair(self) -> None:
        """Recover and seal every directory that has no seal and no writer."""
        async with self._repairing:
            for directory, kind in list(self._unsealed.items()):
                if directory.name in self._live:
                    continue
                try:
                    await self.unhurried(partial(recover, directory, kind, self.sealer, self.sync_mode))
                    del self._unsealed[directory]
                except (OSError, EvidenceError) as error:
                    log.error("transcript not recovered", session=directory.name, error=str(error))

    def _sync_failed(self, file: Shared, error: OSError) -> None:
        """Tell the transcript of a file. In a thread."""
        assert isinstance(file, LineFile)
        self._loop.call_soon_threadsafe(file.failed, error)

    def _prepare(self) -> dict[Path, str]:
        unsealed = self._folder.prepare()
        self.redo.replay(unsealed)
        self._shelf.prepare()
        self._folder.publish_trust(self._ca)
        return unsealed

    # -- making -----------------------------------------------------------------------------------------------------

    def _about(self) -> dict[str, Json]:
        return {"node": self.node, "version": __version__, "sync": self.sync_mode, "heartbeat_s": HEARTBEAT_US // 1_000_000}

    async def _begin(self, session: str, draft: EventDraft) -> TranscriptRecorder:
        try:
            return await self._create("session", session, draft)
        except OSError as error:
            raise EvidenceError(f"no transcript can be begun: {error.strerror or error}") from None

    async def _create(self, kind: str, session: str, draft: EventDraft | None = None) -> TranscriptRecorder:
        if _ID.match(session) is None:
            raise EvidenceError("the session has no id that can name a directory")
        parent = self.data_dir / ("sessions" if kind == "session" else "journal")
        now = self._clock.now()

        def make() -> tuple[Transcript, SealKey]:
            directory = parent / session
            directory.mkdir(mode=0o700)
            key = self._ca.issue(session, self.node, kind, now, self._entropy)
            transcript = Transcript(
                directory, session, clock=self._clock, entropy=self._entropy, vault=self._vault, on_policy=self._shelf.remember
            )
            try:
                if draft is not None:
                    transcript.append(draft)
                transcript.sync()
                sync_directory(directory)
                sync_directory(parent)
            except BaseException:
                transcript.close()
                self._unsealed[directory] = kind
                raise
            return transcript, key

        transcript, key = await self.threaded(make)
        recorder = TranscriptRecorder(self, transcript, key, kind)
        recorder.last_heartbeat_us = self._clock.monotonic_us()
        self._live[session] = recorder
        if self._closing:
            recorder.end(EventDraft("session.close", {"reason": "shutting-down"}))
        return recorder


def _abandon(beginning: asyncio.Task[TranscriptRecorder]) -> None:
    """Nobody waits for this transcript any more: its client left while it was being made."""
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().end(EventDraft("session.close", {"reason": "client-left"}))
