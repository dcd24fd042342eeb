"""A power cut takes what no file was synced of: what the shared log holds comes back, and nothing else ever changes.

The cut is made here: files lose their ends, or have NULs there, and the node starts on another boot of the machine.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import ManualClock
from harness.transcripts import allowed, make_store, open_session
from interlock.evidence import part, redo
from interlock.evidence.linefile import LineFile, Tally
from interlock.evidence.redo import FOLDER, RedoLog
from interlock.verify import verify_bundle

ID = "01JTESTSESSION0000000000AA"


class AtOnce(Executor):
    """Does what it is given before it returns, unless it is to `keep` it."""

    def __init__(self) -> None:
        self.keep = False
        self.kept: list[Callable[[], None]] = []

    def submit(self, work, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # Executor's own is overloaded
        done: Future[None] = Future()

        def run() -> None:
            work(*args, **kwargs)
            done.set_result(None)

        if self.keep:
            self.kept.append(run)
        else:
            run()
        return done


class Machine:
    """A data directory with one session's folder, a log over it, and the two files that share it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "sessions" / ID
        self.folder.mkdir(parents=True)
        self.clock = ManualClock()
        self.failed: list[OSError] = []
        self.aside = AtOnce()
        self.log = self.boot("one")
        self.files = [LineFile(self.folder / name, create=True) for name in ("events.jsonl", "disclosures.jsonl")]
        for file in self.files:
            file.share(self.log.tally, lambda _: None)

    def boot(self, name: str) -> RedoLog:
        return RedoLog(self.root, self.clock, lambda _file, error: self.failed.append(error), self.aside, boot=name)

    def path(self, index: int = 0) -> Path:
        return self.folder / self.files[index].name

    def round(self) -> None:
        self.log.write(self.log.take())

    def restart(self, boot: str = "two") -> int:
        return self.boot(boot).replay({self.folder})

    def parts(self) -> list[Path]:
        return sorted((self.root / FOLDER).iterdir()) if (self.root / FOLDER).is_dir() else []


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    for file in made.files:
        file.close()


def test_a_lost_end_comes_back(machine: Machine) -> None:
    for file, data in zip(machine.files, (b"event\n", b"text\n"), strict=True):
        file.append(data)
        file.append(data)
    machine.round()
    os.truncate(machine.path(0), 3)
    os.truncate(machine.path(1), 0)
    assert machine.restart() == 9 + 10
    assert machine.path(0).read_bytes() == b"event\nevent\n"
    assert machine.path(1).read_bytes() == b"text\ntext\n"
    assert not machine.parts()


def test_a_file_that_is_gone_comes_back_whole(machine: Machine) -> None:
    machine.files[0].append(b"event\n")
    machine.round()
    machine.path().unlink()
    machine.restart()
    assert machine.path().read_bytes() == b"event\n"


def test_nuls_that_a_file_system_left_are_filled(machine: Machine) -> None:
    machine.files[0].append(b"first\n")
    machine.files[0].append(b"second\n")
    machine.round()
    machine.path().write_bytes(b"first\nse\0\0\0\0\0")
    machine.restart()
    assert machine.path().read_bytes() == b"first\nsecond\n"


def test_a_process_that_died_lost_nothing_and_nothing_is_put_back(machine: Machine) -> None:
    """On the same boot a short file was made short by somebody: recovery says so (test_recovery.py)."""
    machine.files[0].append(b"event\n")
    machine.round()
    os.truncate(machine.path(), 3)
    assert machine.restart("one") == 0
    assert machine.path().read_bytes() == b"eve"
    assert not machine.parts()


def test_a_byte_that_is_there_is_never_changed(machine: Machine) -> None:
    machine.files[0].append(b"allowed\n")
    machine.round()
    machine.path().write_bytes(b"denied!")
    assert machine.restart() == 0
    assert machine.path().read_bytes() == b"denied!"


def test_what_is_sealed_is_left_alone(machine: Machine) -> None:
    machine.files[0].append(b"event\n")
    machine.round()
    os.truncate(machine.path(), 0)
    machine.boot("two").replay(set())
    assert machine.path().read_bytes() == b""


def test_nothing_is_put_behind_a_gap(machine: Machine) -> None:
    machine.files[0].append(b"one\n")
    machine.round()
    (part,) = machine.parts()
    part.unlink()  # the file's own sync was to hold this, and did not
    machine.log = machine.boot("one")
    machine.files[0].share(machine.log.tally, lambda _: None)
    machine.files[0].append(b"two\n")
    machine.round()
    os.truncate(machine.path(), 0)
    assert machine.restart() == 0
    assert machine.path().read_bytes() == b""


def test_a_torn_record_ends_its_part(machine: Machine) -> None:
    machine.files[0].append(b"one\n")
    machine.round()
    whole = machine.parts()[0].stat().st_size
    machine.files[0].append(b"two\n")
    machine.round()
    for cut in range(whole, machine.parts()[0].stat().st_size):
        data = machine.parts()[0].read_bytes()
        os.truncate(machine.path(), 0)
        machine.parts()[0].write_bytes(data[:cut])
        machine.restart()
        assert machine.path().read_bytes() == b"one\n"
        (machine.root / FOLDER / "1.log").write_bytes(data)


NO_FILES = [
    b"sessions/../x/events.jsonl 0\n", b"sessions//events.jsonl 0\n", b"trust/a/allowed_signers 0\n", b"sessions/a/../b 0\n",
    b"sessions/a/.hidden 0\n", b"sessions/a/events.jsonl -1\n", b"sessions/a/events.jsonl\n",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_FILES)
def test_a_record_names_a_file_of_a_transcript_or_nothing(name: bytes) -> None:
    assert part._NAME.match(name) is None


def test_a_link_in_place_of_a_file_is_not_followed(machine: Machine, tmp_path: Path) -> None:
    machine.files[0].append(b"event\n")
    machine.round()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    machine.path().unlink()
    machine.path().symlink_to(elsewhere)
    with pytest.raises(OSError):
        machine.restart()
    assert elsewhere.read_bytes() == b""
    assert machine.parts(), "what could not be put back is not deleted"


def test_an_old_part_is_deleted_once_its_files_are_synced(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.files[0].append(b"secret\n")
    machine.round()
    assert not machine.log.due
    machine.clock.advance(seconds=6)
    assert machine.log.due
    synced: list[str] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(
        redo.os, "fdatasync", lambda fd: (synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fdatasync(fd))[1]
    )
    machine.round()
    assert synced == [str(machine.path())]
    assert not machine.parts()


def test_rounds_go_on_while_a_part_is_retired(machine: Machine) -> None:
    """The files of many sessions take their time; what comes meanwhile is on the disk as soon as ever."""
    machine.aside.keep = True
    machine.files[0].append(b"old\n")
    machine.round()
    machine.clock.advance(seconds=6)
    machine.files[0].append(b"new\n")
    machine.round()
    assert len(machine.parts()) == 2
    os.truncate(machine.path(), 0)
    assert machine.restart() == 8
    assert machine.path().read_bytes() == b"old\nnew\n"


def test_a_round_is_written_whole_or_fails(tmp_path: Path) -> None:
    form = redo.write_synced
    with (tmp_path / "log").open("wb") as file:
        form(file.fileno(), b"one")
        form(file.fileno(), b"two")
    assert (tmp_path / "log").read_bytes() == b"onetwo"
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match=r"No space left|full"):
        form(full.fileno(), b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        form(-1, b"x")


def test_a_long_part_is_followed_by_another(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo, "PART", 100)
    names = set()
    for _ in range(5):
        machine.files[0].append(b"x" * 100 + b"\n")
        machine.round()
        names |= {part.name for part in machine.parts()}
        assert len(machine.parts()) == 1
    assert len(names) == 5


def test_what_a_file_of_could_not_be_synced_stays_in_the_log(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.files[0].append(b"event\n")
    machine.round()
    machine.clock.advance(seconds=6)

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(redo.os, "fdatasync", broken)
        machine.log.write(machine.log.take())
    assert [error.errno for error in machine.failed] == [5]
    assert machine.parts()
    os.truncate(machine.path(), 0)
    machine.restart()
    assert machine.path().read_bytes() == b"event\n"


def test_a_file_that_is_appended_much_is_synced_by_itself(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of output is neither kept in memory nor written twice, and a slow disk refuses nobody."""
    machine.log.tally = Tally(1000)
    machine.files[0].share(machine.log.tally, lambda _: None)
    synced: list[str] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(redo.os, "fdatasync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").name), fdatasync(fd))[1])
    written = b""
    for _ in range(50):
        machine.files[0].append(b"x" * 99 + b"\n")
        written += b"x" * 99 + b"\n"
        assert sum(map(len, machine.files[0].fresh)) <= 1000
    batch = machine.log.take()
    assert batch.appended == []
    assert batch.lengthy == [machine.files[0]]
    machine.log.write(batch)
    assert len(synced) == 1
    machine.files[0].append(b"short\n")
    machine.round()
    os.truncate(machine.path(), len(written))
    machine.restart()
    assert machine.path().read_bytes() == written + b"short\n"


STEPS = st.lists(
    st.one_of(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=9)), st.just("round"), st.just("age")), max_size=30
)


@given(steps=STEPS, cuts=st.tuples(st.integers(0, 300), st.integers(0, 300)), nuls=st.booleans())
def test_everything_that_a_round_covered_comes_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[object], cuts: tuple[int, int], nuls: bool
) -> None:
    machine = Machine(tmp_path_factory.mktemp("redo"))
    written, durable, on_disk = [b"", b""], [0, 0], [0, 0]
    for step in steps:
        if step == "age":
            machine.clock.advance(seconds=6)
        elif step == "round":
            retired = machine.log.due
            machine.round()
            durable = [len(data) for data in written]
            if retired:
                on_disk = list(durable)
        else:
            index, data = step  # type: ignore[misc]
            data = data.replace(b"\0", b"x")
            machine.files[index].append(data)
            written[index] += data
    for index, cut in enumerate(cuts):
        machine.files[index].close()
        keep = max(cut, on_disk[index])
        data = written[index][:keep]
        machine.path(index).write_bytes(data + bytes(len(written[index]) - len(data)) if nuls else data)
    machine.restart()
    for index in (0, 1):
        found = machine.path(index).read_bytes().rstrip(b"\0")
        assert written[index].startswith(found)
        assert len(found) >= durable[index]


async def test_a_session_that_a_power_cut_ended_verifies_with_all_that_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redo, "boot_id", lambda: "one")
    store = make_store(tmp_path / "data", ManualClock())
    await store.start()
    recorder = await open_session(store, ID)
    for number in range(20):
        allowed(recorder, f"command {number}")
    async with asyncio.timeout(30):
        while recorder._commit.behind:  # type: ignore[attr-defined]  # noqa: ASYNC110  # nobody is told of a background sync
            await asyncio.sleep(0.001)
    folder = tmp_path / "data/sessions" / ID
    before = {name: (folder / name).read_bytes() for name in ("events.jsonl", "disclosures.jsonl")}
    store._folder.unlock()  # the process is gone
    if store._ticking is not None:
        store._ticking.cancel()
    os.truncate(folder / "events.jsonl", before["events.jsonl"].index(b"\n") + 1)
    os.truncate(folder / "disclosures.jsonl", 0)
    monkeypatch.setattr(redo, "boot_id", lambda: "two")
    store = make_store(tmp_path / "data", ManualClock())
    await store.start()
    await store.close()
    for name, data in before.items():
        assert (folder / name).read_bytes().startswith(data)
    assert verify_bundle(folder, tmp_path / "data/trust").ok
    assert not list((tmp_path / "data" / FOLDER).iterdir())


def test_a_file_that_somebody_deleted_does_not_stop_the_node(machine: Machine) -> None:
    machine.files[0].append(b"event\n")
    machine.round()
    machine.path().unlink()
    assert machine.restart("one") == 0
    assert not machine.path().exists()


async def test_what_is_written_in_a_thread_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log belongs to the loop. The disclosure of the seal is appended where the transcript is sealed."""
    store = make_store(tmp_path / "data", ManualClock())
    await store.start()
    recorder = await open_session(store, ID)
    threads, noted = [], LineFile.noted

    def told(file: LineFile, data: bytes) -> None:
        if file.tally is not None:
            threads.append(threading.current_thread())
        noted(file, data)

    monkeypatch.setattr(LineFile, "noted", told)
    allowed(recorder, "command")
    await recorder.close({"reason": "client-left"})
    await store.close()
    assert threads
    assert set(threads) == {threading.current_thread()}


class Turn:
    """A lock that says when somebody finds it taken."""

    def __init__(self, taken: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._taken = taken

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._taken()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_sync_waits_for_one_that_another_has_begun(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is retired while somebody waits for the same file: both must find it on the disk."""
    file, begun, gate = machine.files[0], threading.Event(), threading.Event()
    file.append(b"event\n")

    def slow(_: int) -> None:
        begun.set()
        assert gate.wait(30)

    monkeypatch.setattr(redo.os, "fdatasync", slow)
    heard: SimpleQueue[str] = SimpleQueue()
    file._turn = Turn(lambda: heard.put("waits"))  # type: ignore[assignment]
    first = threading.Thread(target=file.sync)
    second = threading.Thread(target=lambda: (file.sync(), heard.put("has returned")))
    first.start()
    assert begun.wait(30)
    second.start()
    what_the_second_did = heard.get(timeout=30)
    gate.set()
    first.join(30)
    second.join(30)
    assert what_the_second_did == "waits"
